"""The cookie that carries a session's token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from redis_core.errors import ConfigError

if TYPE_CHECKING:
    from redis_core.config import Settings

__all__ = ["SessionCookie", "header"]

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SWITCH: Final = "SESSION_COOKIE_INSECURE_LOCALHOST"


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """How the cookie is set: always HttpOnly, SameSite=Lax, Path=/ and without Domain.

    The prefix `__Host-` makes browsers refuse it from a subdomain, from plain http or for another path. Make the one without
    it by `insecure_localhost()`.
    """

    name: str = "__Host-rf_session"
    secure: bool = True

    def __post_init__(self) -> None:
        if self.name.startswith("__") and not self.secure:
            raise ValueError(f"a cookie named {self.name} must be secure")

    @classmethod
    def insecure_localhost(cls) -> SessionCookie:
        """A cookie for development over plain http; it is set on loopback hosts only."""
        return cls("rf_session", secure=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> SessionCookie:
        """The cookie as the settings have it.

        Raises:
            ConfigError: production asks for the insecure one.
        """
        if not settings.session_cookie_insecure_localhost:
            return cls()
        if settings.raptorflow_env == "production":
            raise ConfigError(_SWITCH, "true", "in production the session cookie needs https; unset this")
        return cls.insecure_localhost()

    def read(self, headers: Headers) -> str | None:
        """The token of a request, not yet looked at; None if there is none, or several that differ."""
        name = self.name.encode()
        found: bytes | None = None
        for key, value in headers:
            if key == b"cookie" and name in value:
                for pair in value.split(b";"):
                    pair_name, _, content = pair.partition(b"=")
                    if pair_name.strip(b" \t") == name:
                        content = content.strip(b" \t")
                        if found is not None and found != content:
                            return None
                        found = content
        return None if found is None else found.decode("latin-1")

    def setting(self, token: str, max_age: float, request_headers: Headers) -> bytes:
        """The value of `Set-Cookie` that stores a token.

        Args:
            token: its text.
            max_age: seconds the browser keeps it; the session's end is ours to judge.
            request_headers: of the request that is answered.

        Raises:
            ConfigError: the insecure cookie would go to another host than this one.
        """
        if not self.secure:
            host = (header(request_headers, b"host") or "").lower()
            name = host if host.endswith("]") else host.rsplit(":", 1)[0]
            if name not in _LOOPBACK and not name.endswith(".localhost"):
                raise ConfigError(
                    _SWITCH, "true", f"only for localhost, not for {host!a}: serve https and unset it"
                )
        return f"{self.name}={token}; Path=/; Max-Age={int(max_age)}{self._flags}".encode()

    @property
    def clearing(self) -> bytes:
        """The value of `Set-Cookie` that removes the token."""
        return f"{self.name}=; Path=/; Max-Age=0{self._flags}".encode()

    @property
    def _flags(self) -> str:
        return f"{'; Secure' if self.secure else ''}; HttpOnly; SameSite=Lax"


def header(headers: Headers, name: bytes) -> str | None:
    """The first header of this name, which is in lower case as ASGI has them."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None
