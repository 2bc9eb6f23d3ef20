"""What every answer tells browsers: run nothing, frame nothing, guess no type, pass no address on; and come back by TLS only.

A page that runs scripts says so in a `Content-Security-Policy` of its own, as the dashboard does; a header that an answer has is left as
it is. Sources: OWASP's Secure Headers Project and ASVS 5.0, chapter 3.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis_core.api.session_cookie import header

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SecurityHeadersMiddleware"]

_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # What older browsers know instead of `frame-ancestors`.
    (b"x-frame-options", b"DENY"),
)
_TLS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})


class SecurityHeadersMiddleware:
    """Adds them where they are missing; `Strict-Transport-Security` where the request came by TLS. Budget: nothing.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    # No coroutine of its own, here and below: an open stream would keep its frame for hours.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one scope."""
        if scope["type"] not in {"http", "websocket"}:
            return self._app(scope, receive, send)
        # A proxy that ends TLS says so. Who says so falsely gets the header alone, over a connection that browsers ignore it on.
        by_tls = (
            scope["scheme"] in {"https", "wss"} or header(scope["headers"], b"x-forwarded-proto") == "https"
        )
        wanted = (*_HEADERS, _TLS_ONLY) if by_tls else _HEADERS

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                headers = [*message.get("headers", ())]
                there = {name.lower() for name, _ in headers}
                headers.extend(one for one in wanted if one[0] not in there)
                message["headers"] = headers
            return send(message)

        return self._app(scope, receive, send_with_headers)
