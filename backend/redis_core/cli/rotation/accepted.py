"""`raptorflow rotate admin|pepper|gateway`: lists of what this service accepts itself, all of it at once.

Who has such a secret is not ours to see (operators, browsers, other services), so there are two walks: one puts a new entry in front, and
later `--finish` takes the others away.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from redis_core.api.admin_token import AdminTokens, admin_entry
from redis_core.cli.rotation.place import Place
from redis_core.cli.rotation.walk import Walk
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.config import Settings
from redis_core.errors import ConfigError
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing

__all__ = ["finish_gateway", "finish_peppers", "rotate_admin", "rotate_gateway", "rotate_pepper"]

_TIMEOUT: Final = 5.0
_IN_A_ROW: Final = 5
"""How many answers must agree: behind one address there may be several processes."""
_DATED: Final = re.compile(r"p([0-9]{8})[a-z0-9]*")
_DAY: Final = 86_400


# --- admin tokens ---


async def rotate_admin(
    settings: Settings, walk: Walk, name: str, url: str, *, role: str = "", finish: bool = False
) -> None:
    """A second token for who has one, or with `finish` the end of those of that name but for the newest.

    Args:
        settings: name the place.
        walk: tells, asks and waits.
        name: the entry's.
        url: the running service, which is asked whether it takes the token.
        role: of a new entry; the present one's unless given.
        finish: take the older ones away.

    Raises:
        ConfigError: the place is none, or has no entry of this name.
    """
    place = Place(settings, "ADMIN_TOKENS")
    entries = _entries(await place.read())
    mine = [entry for entry in entries if entry.partition(":")[0] == name]
    if finish:
        if len(mine) < 2:  # noqa: PLR2004 - one to keep
            walk.stop("find what is to be taken away", f"{name} has one token: nothing was begun")
        walk.ask(f"Take away {len(mine) - 1} older tokens of {name}?")
        await walk.put(place, Secret(",".join(entry for entry in entries if entry not in mine[1:])))
        walk.by_hand(
            "see that they are gone",
            "each process looks every 30 to 90 seconds; show one to /api/v1/admin/whoami",
        )
        walk.finish()
        return
    if not mine and not role:
        raise ConfigError("ADMIN_TOKENS", f"{name}:?", "give --role to make the first token of this name")
    made = Secret(secrets.token_urlsafe(32))
    entry = admin_entry(name, role or mine[0].split(":")[1], made.reveal())
    text = Secret(",".join([entry, *entries]))
    AdminTokens().replace(text)
    walk.ask(f"Add a token for {name}, beside {len(mine)} that are valid?")
    walk.done("make a new token", "of which only the hash is kept")
    await walk.put(place, text)
    if place.is_file:
        walk.show_made(made)
    await _until_accepted(walk, f"{url}/api/v1/admin/whoami", made)
    walk.by_hand("change who uses the old one", f"then: raptorflow rotate admin {name} --finish")
    walk.finish()


# --- the gateway's tokens ---


async def rotate_gateway(
    settings: Settings, walk: Walk, url: str, *, variable: str = "GATEWAY_TOKEN"
) -> None:
    """A second token in front of the list.

    Raises:
        ConfigError: the tokens are not kept elsewhere.
    """
    place = Place(settings, variable)
    entries = _entries(await place.read())
    made = Secret(secrets.token_urlsafe(32))
    walk.ask(f"Add a gateway token, beside {len(entries)} that are valid?")
    walk.done("make a new token", f"the first of {len(entries) + 1}")
    await walk.put(place, Secret(",".join([made.reveal(), *entries])))
    if place.is_file:
        walk.show_made(made)
    await _until_accepted(walk, f"{url}/ping", made)
    walk.by_hand("change the clients", "then: raptorflow rotate gateway --finish")
    walk.finish()


async def finish_gateway(
    settings: Settings, walk: Walk, url: str, *, variable: str = "GATEWAY_TOKEN"
) -> None:
    """Take away all tokens but the first, and see that the gateway refuses them.

    Raises:
        ConfigError: the tokens are not kept elsewhere.
    """
    place = Place(settings, variable)
    first, *old = _entries(await place.read())
    if not old:
        walk.stop("find what is to be taken away", "there is one token: nothing was begun")
    walk.ask(f"Take away {len(old)} older gateway tokens? Their event streams end.")
    await walk.put(place, Secret(first))
    for token in old:
        if not await walk.until(_row_of(f"{url}/ping", Secret(token), HTTPStatus.UNAUTHORIZED)):
            walk.stop("see that they are gone", f"{url} still takes one of them, or does not answer")
    walk.done("see that they are gone", f"{url} refuses them, and takes the first")
    walk.finish()


# --- peppers ---


async def rotate_pepper(
    settings: Settings, walk: Walk, *, variable: str = "SESSION_PEPPERS", clock: Clock = SYSTEM_CLOCK
) -> None:
    """A new key in front: it makes tokens from now on, and those of the others stay valid.

    Raises:
        ConfigError: the keys are not kept elsewhere.
    """
    place = Place(settings, variable)
    entries = _entries(await place.read())
    # The id tells its day, by which `--finish` knows what is still in use.
    day = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%d")
    made = Secret(f"p{day}{secrets.token_hex(2)}:{secrets.token_urlsafe(32)}")
    text = Secret(",".join([made.reveal(), *entries]))
    PepperRing(text, variable=variable)
    walk.ask(f"Put a new key in front of {variable}?")
    walk.done("make a new key", made.reveal().partition(":")[0])
    await walk.put(place, text)
    walk.by_hand(
        "wait for the processes", "each looks every 30 to 90 seconds; tokens of either key are valid"
    )
    walk.by_hand(
        "take the old ones away",
        "when their tokens are over: the same command with --finish refuses before that",
    )
    walk.finish()


async def finish_peppers(
    settings: Settings, walk: Walk, *, variable: str = "SESSION_PEPPERS", clock: Clock = SYSTEM_CLOCK
) -> None:
    """Take away the keys whose tokens are all over: those after the last that is old enough itself.

    Raises:
        ConfigError: the keys are not kept elsewhere.
    """
    place = Place(settings, variable)
    entries = _entries(await place.read())
    lifetime = (
        settings.session_absolute_ttl if variable == "SESSION_PEPPERS" else settings.realtime_token_seconds
    )
    step = "find what is over"
    kept = next(
        (count for count, entry in enumerate(entries, 1) if _age(entry, clock.now()) > lifetime + _DAY),
        len(entries),
    )
    over = [entry.partition(":")[0] for entry in entries[kept:]]
    if not over:
        walk.stop(
            step, f"no key: what the older ones made may be valid for {lifetime} s after a newer one came"
        )
    walk.done(step, ", ".join(over))
    walk.ask(f"Take away {', '.join(over)}?")
    await walk.put(place, Secret(",".join(entries[:kept])))
    walk.finish()


def _age(entry: str, now: float) -> float:
    """Seconds since the beginning of the day that a key's id tells; none if it tells none."""
    match = _DATED.fullmatch(entry.partition(":")[0])
    if match is None:
        return 0.0
    try:
        day = datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return now - day.timestamp()


# --- what they share ---


def _entries(text: Secret) -> list[str]:
    return [entry.strip() for entry in text.reveal().split(",")]


async def _until_accepted(walk: Walk, url: str, token: Secret) -> None:
    step = "see that it is accepted"
    if not await walk.until(_row_of(url, token, HTTPStatus.OK)):
        walk.stop(step, f"{url} does not take it, or does not answer; what was valid before still is")
    walk.done(step, f"{url} takes it, {_IN_A_ROW} times in a row")


def _row_of(url: str, token: Secret, status: HTTPStatus) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        for _ in range(_IN_A_ROW):
            if await asyncio.to_thread(_status_of, url, token) != status:
                return False
        return True

    return condition


def _status_of(url: str, token: Secret) -> int | None:
    """The status of a GET with this token; None where nothing answers."""
    request = urllib.request.Request(  # noqa: S310 - the command has looked at the scheme
        url, headers={"Authorization": f"Bearer {token.reveal()}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - as above
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None
