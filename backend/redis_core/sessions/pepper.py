"""The keys of our tokens' MACs: a ring, so that a new one can be put in use while the old is still accepted."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from redis_core.errors import ConfigError
from redis_core.secret import Secret
from redis_core.secret_source import is_reference

if TYPE_CHECKING:
    from pathlib import Path

    from redis_core.client import Client
    from redis_core.config import Settings

__all__ = [
    "ANONYMOUS_TAG",
    "PepperRing",
    "SessionPeppers",
    "peppers_from_settings",
    "peppers_of",
    "ring_from_settings",
]

MIN_SECRET_CHARS: Final = 32
"""A pepper of 32 characters of base64 has 192 bits; ASVS 5.0 asks for 112 and more (6.5.2)."""

ANONYMOUS_TAG: Final = "-"
"""The tag of a session that belongs to no user."""

_KEY_ID: Final = re.compile(r"[a-z0-9]{1,16}", re.ASCII)
_TAG_BYTES: Final = 6
_VARIABLE: Final = "SESSION_PEPPERS"
_FILE: Final = "session-peppers"


class PepperRing:
    """Secret keys by id. The first makes new tokens; all are accepted.

    Args:
        text: `id:secret,id:secret`. An id is 1 to 16 of `a-z 0-9`, a secret at least 32 characters.
        variable: the setting that the text is from, for errors.

    Raises:
        ConfigError: the text is not of this form. The message never shows a secret.
    """

    __slots__ = ("_keys", "_variable", "current", "tag")

    def __init__(self, text: Secret, *, variable: str = _VARIABLE) -> None:
        self._variable = variable
        self._keys = _parse(text.reveal(), variable)
        self.current = next(iter(self._keys))
        """The id of the key that makes new tokens."""
        self.tag = lru_cache(maxsize=4096)(self._tag)
        """A user's tag under one key, from key id and user id; remembered, because every read of a session checks it."""

    def replace(self, text: Secret) -> None:
        """Use these keys from now on; tokens of a key that is not among them are dead.

        Raises:
            ConfigError: the text is not of this form; the present keys stay.
        """
        self._keys = _parse(text.reveal(), self._variable)
        self.current = next(iter(self._keys))
        self.tag.cache_clear()

    def follow(self, client: Client) -> Self:
        """This ring, which from now on takes each new text of its setting into use, as the client's watch finds it."""
        if client.secrets is not None:
            client.secrets.on_change(self._variable, self.replace)
        return self

    @classmethod
    def random(cls) -> PepperRing:
        """A ring of one key that nobody else has: its tokens die with this process."""
        return cls(Secret(_random_text()))

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys, the current one first."""
        return tuple(self._keys)

    def digest(self, key_id: str, text: str) -> bytes | None:
        """HMAC-SHA-256 of the text under that key, 32 bytes; None if the ring does not have it."""
        key = self._keys.get(key_id)
        return None if key is None else hmac.digest(key, text.encode(), "sha256")

    def _tag(self, key_id: str, user_id: str | None) -> str:
        if user_id is None:
            return ANONYMOUS_TAG
        digest = hmac.digest(self._keys[key_id], b"user:" + user_id.encode(), "sha256")
        return urlsafe_b64encode(digest[:_TAG_BYTES]).decode()

    def __repr__(self) -> str:
        return f"PepperRing({', '.join(self._keys)})"


class SessionPeppers:
    """The ring of a client's own settings, one for all who use sessions on it; follows `SESSION_PEPPERS` where that is a reference."""

    def __init__(self, client: Client) -> None:
        self.ring = peppers_from_settings(client.settings).follow(client)

    async def aclose(self) -> None:
        """Nothing: the watch is the client's."""


def peppers_of(client: Client, settings: Settings) -> PepperRing:
    """The ring that the settings name; the client's own where theirs are its settings, or tell only where the peppers are.

    Raises:
        ConfigError: it is malformed, or not set in production.
    """
    if settings is client.settings or is_reference(settings.session_peppers):
        return client.service(SessionPeppers).ring
    return peppers_from_settings(settings)


def peppers_from_settings(settings: Settings) -> PepperRing:
    """The ring that the settings name.

    Where nothing is set: in development one key is made and kept in the state folder, readable by its owner only, so that
    sessions outlive a restart and all processes of the host agree; in tests, and on memory, a key of this process alone.

    Raises:
        ConfigError: it is malformed, or not set in production.
    """
    return ring_from_settings(settings, settings.session_peppers, variable=_VARIABLE, file=_FILE)


def ring_from_settings(settings: Settings, text: Secret | None, *, variable: str, file: str) -> PepperRing:
    """A ring from one setting, or one made where nothing is set, as `peppers_from_settings` tells.

    Args:
        settings: where this runs.
        text: the setting's value.
        variable: its name.
        file: where a key made in development is kept, in the state folder.

    Raises:
        ConfigError: it is malformed, or not set in production.
    """
    if text is not None:
        return PepperRing(text, variable=variable)
    if settings.raptorflow_env == "production":
        raise ConfigError(
            variable,
            None,
            "in production set it to id:secret with a secret of at least 32 random characters, "
            "for example k1:$(openssl rand -base64 32 | tr '+/' '-_')",
        )
    if settings.raptorflow_env == "test" or settings.mock_redis:
        return PepperRing.random()
    return PepperRing(Secret(_kept(settings.raptorflow_state_dir, file)), variable=variable)


def _parse(text: str, variable: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for place, entry in enumerate(text.split(","), 1):
        key_id, colon, secret = entry.strip().partition(":")
        if not colon or _KEY_ID.fullmatch(key_id) is None:
            raise ConfigError(
                variable, "***", f"entry {place} must be id:secret, with an id of 1 to 16 of a-z 0-9"
            )
        if len(secret) < MIN_SECRET_CHARS:
            raise ConfigError(
                variable, "***", f"the secret of {key_id!r} must have at least {MIN_SECRET_CHARS} characters"
            )
        if key_id in keys:
            raise ConfigError(variable, "***", f"the id {key_id!r} is there twice")
        keys[key_id] = secret.encode()
    return keys


def _random_text() -> str:
    return f"dev:{secrets.token_urlsafe(32)}"


def _kept(folder: Path, file: str) -> str:
    """The development key of this host, made by whoever comes first."""
    path = folder / file
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Written whole under another name, then linked: a second process never reads half a key, nor replaces the first's.
        draft = folder / f".{file}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(_random_text())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first; its key is the host's
        finally:
            draft.unlink()
    return path.read_text("utf-8").strip()
