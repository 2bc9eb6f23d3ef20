"""Admin tokens: only their hashes are set, several are valid at once, each with a name and a role."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, get_args
from weakref import ref

from msgspec import Struct

from redis_core.audit import Actor
from redis_core.errors import ConfigError
from redis_core.measuring.documents import Role
from redis_core.secret import Secret, is_same
from redis_core.secret_source import is_reference

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.config import Settings

__all__ = [
    "NAME",
    "ROLES",
    "AdminToken",
    "AdminTokens",
    "actor_of_token",
    "admin_entry",
    "admin_tokens",
    "hash_of",
]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""The roles; each may what those before it may."""
NAME: Final = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)
"""What a token may be called."""
_ENTRY: Final = re.compile(rf"({NAME.pattern}):(viewer|operator|admin):([0-9a-f]{{64}})", re.ASCII)
_REMEDY: Final = "write name:role:hash, separated by commas; `raptorflow token` makes one"


class AdminToken(Struct, frozen=True):
    """One token that is accepted."""

    name: str
    role: Role
    digest: bytes
    """SHA-256 of the token. A token is random and long, so a slow hash would protect nothing more."""


def admin_tokens(settings: Settings) -> tuple[AdminToken, ...]:
    """The tokens of `ADMIN_TOKENS`.

    Raises:
        ConfigError: an entry is malformed, or a name stands there for two roles.
    """
    return () if settings.admin_tokens is None else _parse(settings.admin_tokens)


def _parse(text: Secret) -> tuple[AdminToken, ...]:
    found: list[AdminToken] = []
    for place, entry in enumerate(text.reveal().split(","), 1):
        match = _ENTRY.fullmatch(entry.strip())
        if match is None:
            raise ConfigError("ADMIN_TOKENS", f"entry {place}", _REMEDY)
        name, role, digest = match.groups()
        found.append(AdminToken(name, role, bytes.fromhex(digest)))  # type: ignore[arg-type]
    return tuple(found)


class AdminTokens:
    """The tokens that are accepted now.

    Where `ADMIN_TOKENS` is a reference, nobody is let in until `follow` has handed over what it stands for.

    Args:
        tokens: those that are accepted.
        elsewhere: whether they are kept elsewhere and still have to come.
    """

    def __init__(self, tokens: Sequence[AdminToken] = (), *, elsewhere: bool = False) -> None:
        self._tokens = tuple(tokens)
        self._elsewhere = elsewhere
        self._followed: ref[Client] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> AdminTokens:
        """Those that the settings name.

        Raises:
            ConfigError: an entry is malformed.
        """
        if is_reference(settings.admin_tokens):
            return cls(elsewhere=True)
        return cls(admin_tokens(settings))

    def __bool__(self) -> bool:
        """Whether a token has to be shown."""
        return self._elsewhere or bool(self._tokens)

    def actor(self, presented: str) -> Actor | None:
        """Who presents a token; None if it is none of these."""
        return actor_of_token(self._tokens, presented)

    def replace(self, text: Secret) -> None:
        """Accept these tokens, and no others, from now on.

        Raises:
            ConfigError: an entry is malformed; the present ones stay.
        """
        self._tokens = _parse(text)

    async def follow(self, source: Callable[[], Awaitable[Client]]) -> None:
        """Take what the reference stands for, and each later text of it, from the client's watch. Nothing where it is no reference.

        Args:
            source: where the routes get their client.

        Raises:
            ConfigError: an entry is malformed.
        """
        if not self._elsewhere:
            return
        client = await source()
        if self._followed is None or self._followed() is not client:
            self._tokens = admin_tokens(client.settings)
            self._followed = ref(client)
            if client.secrets is not None:
                client.secrets.on_change("ADMIN_TOKENS", self.replace)


def hash_of(token: str) -> str:
    """What stands in the environment for a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def admin_entry(name: str, role: str, token: str) -> str:
    """What stands in `ADMIN_TOKENS` for a token."""
    return f"{name}:{role}:{hash_of(token)}"


def actor_of_token(tokens: tuple[AdminToken, ...], presented: str) -> Actor | None:
    """Who presents a token; None if it is none of these. Takes the same time whichever it is, or none."""
    digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
    found: Actor | None = None
    for token in tokens:
        if is_same(token.digest, digest):
            found = Actor(token.name, token.role)
    return found
