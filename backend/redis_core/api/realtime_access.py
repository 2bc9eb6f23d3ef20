"""Who may use the realtime endpoints: the token of a request, the origin of a browser, the topics of an app's session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis_core import realtime_token
from redis_core.api.realtime_hub import Refused
from redis_core.api.same_origin import is_same_origin
from redis_core.api.session_cookie import header
from redis_core.api.session_middleware import SCOPE_KEY, RequestSession
from redis_core.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from starlette.types import Scope

    from redis_core.realtime_token import Claims
    from redis_core.session import Session
    from redis_core.sessions.pepper import PepperRing

__all__ = ["Access", "Allow", "Allowed", "nothing_allowed"]

Headers: TypeAlias = list[tuple[bytes, bytes]]

_BEARER: Final = "bearer "
_TOKEN_PARAMETERS: Final = (b"token=", b"access_token=", b"authorization=")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The topics that an app's session opens."""

    read: Collection[str] = ()
    """Patterns: a name, or the beginning of names and `*`."""
    write: Collection[str] = ()


Allow: TypeAlias = Callable[["Session[Any]"], "Allowed | Awaitable[Allowed]"]
"""What an app says of a session of a logged-in user."""


def nothing_allowed(_session: Session[Any]) -> Allowed:
    """The default: a session opens no topics beyond what the app says."""
    return Allowed()


class Access:
    """The rules of the endpoints. Checking a token costs no command.

    Args:
        keys: verify tokens and sign new ones.
        allow: what a session opens.
        seconds: life of a token made for a session.
        origins: other origins whose pages may use the endpoints, such as `https://app.example.com`.
        clock: judges whether a token is over.
    """

    def __init__(
        self,
        keys: PepperRing,
        *,
        allow: Allow = nothing_allowed,
        seconds: int = 600,
        origins: Collection[str] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._keys = keys
        self._allow = allow
        self._seconds = seconds
        self._origins = frozenset(origins)
        self._clock = clock

    def claims(self, scope: Scope) -> Claims:
        """What the request's token says.

        Raises:
            Refused: 401, there is none, or it is not ours or over.
        """
        text = header(scope["headers"], b"authorization") or ""
        if text[: len(_BEARER)].lower() != _BEARER:
            raise Refused(401, "token-missing", "Send a realtime token: Authorization: Bearer <token>.")
        return self.verified(text[len(_BEARER) :].strip())

    def verified(self, token: str) -> Claims:
        """What a token says.

        Raises:
            Refused: 401, it is not ours or over.
        """
        claims = realtime_token.read(self._keys, token)
        if claims is None:
            raise Refused(401, "token-invalid", "The realtime token is not one of ours.")
        if claims.expires <= self._clock.now():
            raise Refused(401, "token-expired", "The realtime token is over: get another one by /session.")
        return claims

    async def session_token(self, scope: Scope) -> tuple[str, Claims]:
        """A token for whoever asks: the one that was sent, or one for the app's session. Budget: as the session's read.

        A token that was sent is given back as it is: none can prolong itself.

        Raises:
            Refused: 401, nobody is logged in.
            StoreUnavailable: the store cannot tell.
        """
        text = header(scope["headers"], b"authorization") or ""
        if text:
            claims = self.claims(scope)
            return text[len(_BEARER) :].strip(), claims
        request: RequestSession[Any] | None = scope.get(SCOPE_KEY)
        session = None if request is None else await request.load()
        if session is None or session.user_id is None:
            raise Refused(401, "login-required", "Log in first, or send a token made by the application.")
        allowed = self._allow(session)
        if not isinstance(allowed, Allowed):
            allowed = await allowed
        token = realtime_token.issue(
            session.workspace,
            session.user_id,
            read=tuple(allowed.read),
            write=tuple(allowed.write),
            seconds=self._seconds,
            keys=self._keys,
            clock=self._clock,
        )
        return token, self.verified(token)

    def check_origin(self, scope: Scope) -> Headers:
        """The CORS headers for a browser's request.

        Raises:
            Refused: 403, another site's page sent it; 400, a token is in its URL, and so in logs.
        """
        query = scope.get("query_string", b"").lower()
        if any(name in query for name in _TOKEN_PARAMETERS):
            raise Refused(
                400, "token-in-url", "Never put a token into a URL: URLs are logged. Send it as a header."
            )
        if not is_same_origin(scope, self._origins):
            raise Refused(403, "cross-origin", "Another site's page sent this request.")
        origin = header(scope["headers"], b"origin")
        if origin is None or origin not in self._origins:
            return [(b"vary", b"Origin")] if self._origins else []
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
