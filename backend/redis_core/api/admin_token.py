"""Admin tokens: only their hashes are set, several are valid at once, each with a name and a role."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final, get_args

from msgspec import Struct

from redis_core.audit import Actor
from redis_core.errors import ConfigError
from redis_core.measuring.documents import Role

if TYPE_CHECKING:
    from redis_core.config import Settings

__all__ = ["ROLES", "AdminToken", "actor_of_token", "admin_tokens", "hash_of"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""The roles; each may what those before it may."""
_ENTRY: Final = re.compile(r"([a-z0-9_-]{1,32}):(viewer|operator|admin):([0-9a-f]{64})", re.ASCII)
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
    if settings.admin_tokens is None:
        return ()
    found: list[AdminToken] = []
    for place, entry in enumerate(settings.admin_tokens.reveal().split(","), 1):
        match = _ENTRY.fullmatch(entry.strip())
        if match is None:
            raise ConfigError("ADMIN_TOKENS", f"entry {place}", _REMEDY)
        name, role, digest = match.groups()
        found.append(AdminToken(name, role, bytes.fromhex(digest)))  # type: ignore[arg-type]
    return tuple(found)


def hash_of(token: str) -> str:
    """What stands in the environment for a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def actor_of_token(tokens: tuple[AdminToken, ...], presented: str) -> Actor | None:
    """Who presents a token; None if it is none of these. Takes the same time whichever it is, or none."""
    digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
    found: Actor | None = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = Actor(token.name, token.role)
    return found
