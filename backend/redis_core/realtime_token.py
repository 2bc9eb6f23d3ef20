"""Tokens by which a browser reads and writes topics: short-lived, signed, of one workspace.

A token is `rt1.<key id>.<claims>.<mac>`: the claims are JSON in base64url, readable by anyone, and the MAC is HMAC-SHA-256 under a key of
`REALTIME_KEYS` over everything before it, 32 bytes. Checking one costs an HMAC and no command. A token cannot be taken back; it ends.

The application's backend makes one and hands it to its page, which needs no session of ours::

    token = issue("acme", "u1", read=["campaign:*"], write=["campaign:9"], seconds=300)
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import InvalidKey
from redis_core.keys import check_part, check_workspace_id
from redis_core.realtime.fleet import FLEET
from redis_core.secret import is_same
from redis_core.sessions.pepper import PepperRing, ring_from_settings

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.config import Settings

__all__ = [
    "MAX_SECONDS",
    "MAX_TOPIC_CHARS",
    "Claims",
    "allows",
    "check_pattern",
    "is_topic",
    "issue",
    "issue_fleet",
    "keys_from_settings",
    "read",
]

MAX_SECONDS: Final = 86_400
"""A token that cannot be taken back lives a day at most, and should live minutes."""
MAX_TOKEN_CHARS: Final = 8_192
"""Longer ones are not looked at; many proxies end headers there."""
MAX_TOPIC_CHARS: Final = 200
"""The longest name of a topic."""

_TOPIC: Final = re.compile(r"[!-)+-9;->@-Z^-z|~:]{1,200}", re.ASCII)
_TOKEN: Final = re.compile(r"(rt1\.([a-z0-9]{1,16})\.([A-Za-z0-9_-]+))\.([A-Za-z0-9_-]{43})", re.ASCII)


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a token says."""

    workspace: str
    user: str
    """Whom it was given to; also the member that presence shows."""
    expires: int
    """Unix seconds."""
    read: tuple[str, ...] = ()
    """Patterns of the topics it may read: a name, or the beginning of names and `*`."""
    write: tuple[str, ...] = ()
    """Patterns of the topics it may publish to."""

    def may_read(self, topic: str) -> bool:
        """Whether it covers reading a topic."""
        return allows(self.read, topic)

    def may_write(self, topic: str) -> bool:
        """Whether it covers publishing to a topic."""
        return allows(self.write, topic)


_DECODER: Final = msgspec.json.Decoder(Claims)


def issue(
    workspace: str,
    user: str,
    *,
    read: Sequence[str] = (),
    write: Sequence[str] = (),
    seconds: float = 300,
    keys: PepperRing | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """A token. Budget: nothing.

    Args:
        workspace: the only one whose topics it opens.
        user: whom it is for.
        read: patterns of topics it may read.
        write: patterns of topics it may publish to.
        seconds: until it ends, at most `MAX_SECONDS`.
        keys: the first signs; those of the environment's settings unless given.
        clock: where its end is counted from.

    Raises:
        InvalidKey: workspace, user or a pattern is not one.
        ValueError: it would live for too long, or be too large for a header.
        ConfigError: `REALTIME_KEYS` is malformed, or not set in production.
    """
    check_workspace_id(workspace)
    return _issue(workspace, user, read, write, seconds, keys, clock)


def issue_fleet(
    user: str,
    *,
    topic: str,
    seconds: float,
    keys: PepperRing | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """A token that opens a topic of the process itself for reading, and no tenant's. Budget: nothing.

    Args:
        user: whom it is for; must have been found to be an operator of the service.
        topic: the only one it opens.
        seconds: until it ends, at most `MAX_SECONDS`.
        keys: the first signs; those of the environment's settings unless given.
        clock: where its end is counted from.

    Raises:
        InvalidKey: user or topic is not one.
        ConfigError: `REALTIME_KEYS` is malformed, or not set in production.
    """
    return _issue(FLEET, user, [topic], (), seconds, keys, clock)


def _issue(
    workspace: str,
    user: str,
    read: Sequence[str],
    write: Sequence[str],
    seconds: float,
    keys: PepperRing | None,
    clock: Clock,
) -> str:
    check_part(user)
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(
            f"a realtime token lives more than 0 and at most {MAX_SECONDS} seconds, not {seconds:g}"
        )
    claims = Claims(
        workspace=workspace,
        user=user,
        expires=int(clock.now() + seconds),
        read=tuple(check_pattern(pattern) for pattern in read),
        write=tuple(check_pattern(pattern) for pattern in write),
    )
    ring = _environment_keys() if keys is None else keys
    body = f"rt1.{ring.current}.{_base64(msgspec.json.encode(claims))}"
    digest = ring.digest(ring.current, body)
    assert digest is not None  # noqa: S101 - the ring has its own current key
    token = f"{body}.{_base64(digest)}"
    if len(token) > MAX_TOKEN_CHARS:
        raise ValueError(f"a realtime token of {len(token)} characters is too large: give fewer patterns")
    return token


def read(keys: PepperRing, text: str) -> Claims | None:
    """What a token of ours says, be it over or not; None for anything else, whatever it is. Never raises. Budget: nothing."""
    if len(text) > MAX_TOKEN_CHARS or (match := _TOKEN.fullmatch(text)) is None:
        return None
    body, key_id, claims, mac = match.groups()
    digest = keys.digest(key_id, body)
    if digest is None or not is_same(_base64(digest), mac):
        return None
    try:
        return _DECODER.decode(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    except ValueError:
        # Signed by our key, but of another form: a later version's.
        return None


def allows(patterns: Sequence[str], topic: str) -> bool:
    """Whether one of the patterns covers a topic."""
    return any(
        topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern for pattern in patterns
    )


def is_topic(text: str) -> bool:
    """Whether a text may name a topic: 1 to 200 of visible ASCII that no pattern needs."""
    return _TOPIC.fullmatch(text) is not None


def check_pattern(pattern: str) -> str:
    """The pattern itself.

    Raises:
        InvalidKey: it is neither a topic nor the beginning of topics followed by `*`.
    """
    name = pattern.removesuffix("*")
    if pattern != "*" and not is_topic(name):
        raise InvalidKey(f"{pattern!a} is no pattern of topics: give a name, or its beginning followed by *")
    return pattern


def keys_from_settings(settings: Settings) -> PepperRing:
    """The ring of `REALTIME_KEYS`; where it is not set, as sessions' peppers are made.

    Raises:
        ConfigError: it is malformed, or not set in production.
    """
    if settings.realtime_keys is None and (settings.raptorflow_env == "test" or settings.mock_redis):
        return _process_keys()
    return ring_from_settings(
        settings, settings.realtime_keys, variable="REALTIME_KEYS", file="realtime-keys"
    )


class RealtimeKeys:
    """The ring of a client's settings; follows `REALTIME_KEYS` where that is a reference."""

    def __init__(self, client: Client) -> None:
        self.ring = keys_from_settings(client.settings).follow(client)

    async def aclose(self) -> None:
        """Nothing: the watch is the client's."""


@lru_cache(maxsize=1)
def _process_keys() -> PepperRing:
    """One ring for all of this process, so that `issue` and the service agree."""
    return PepperRing.random()


@lru_cache(maxsize=1)
def _environment_keys() -> PepperRing:
    from redis_core.config import load_settings  # noqa: PLC0415 - pydantic costs 0.2 s that few of us need

    return keys_from_settings(load_settings())


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
