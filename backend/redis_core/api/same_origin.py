"""Against requests that another site's page makes a browser send (CSRF): by what browsers tell, without tokens in forms.

A session's cookie goes with such a request unless `SameSite` holds it back, which it does not between subdomains of one site. Browsers
say where a request comes from, in `Sec-Fetch-Site` and `Origin`, and no page can make them lie.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from redis_core.api.problems import problem_response
from redis_core.api.session_cookie import header

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["SameOriginMiddleware", "comes_from"]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""
_OWN: Final = frozenset({"same-origin", "none"})
"""From our own page, or from the user: an address typed, a bookmark."""
_POLICY_VIOLATION: Final = 1008


class SameOriginMiddleware:
    """Refuses with 403 what may change something and comes from another origin; WebSockets too. Budget: nothing.

    What sends neither `Sec-Fetch-Site` nor `Origin` is no browser and passes: it has no cookie but its own.

    Args:
        app: the application.
        origins: others that may, such as `https://app.example.com`.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        kind = scope["type"]
        asks = kind == "websocket" or (kind == "http" and scope["method"] not in _SAFE)
        if not asks or comes_from(scope, self._origins):
            await self._app(scope, receive, send)
        elif kind == "http":
            refusal = problem_response(403, "cross-origin", "Another site's page sent this request.")
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "cross-origin"})


def comes_from(scope: Scope, origins: Collection[str] = ()) -> bool:
    """Whether a request comes from our own page, from one of these origins, or from no browser."""
    origin = header(scope["headers"], b"origin")
    if origin in origins:
        return True
    site = header(scope["headers"], b"sec-fetch-site")
    if site is not None:
        return site in _OWN
    # Older browsers, and plain http to another host than this one.
    return origin is None or _place(origin) == (header(scope["headers"], b"host") or "").lower()


def _place(origin: str) -> str | None:
    """Host and port of an origin; None if it has none, as `null` has."""
    try:
        return urlsplit(origin.lower()).netloc or None
    except ValueError:
        return None
