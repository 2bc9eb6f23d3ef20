"""A bound for request bodies, around routes that have none of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis_core.api.problems import ProblemError, problem_response
from redis_core.api.session_cookie import header

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MOST_BYTES", "BodyLimitMiddleware"]

MOST_BYTES: Final = 1024 * 1024
"""What a body may have unless an application says otherwise."""
_CODE: Final = "too-large"
_LONGEST_SIZE: Final = 18


class BodyLimitMiddleware:
    """Answers 413 to a request whose body is larger, by what its head says or by what comes. Budget: nothing.

    To be put around an application with our problem details.

    Args:
        app: the application.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, *, most: int = MOST_BYTES) -> None:
        self._app = app
        self._most = most
        self._detail = f"The body may have {most} bytes at most."

    # No coroutine of its own: an open stream would keep its frame for hours.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one scope."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        said = header(scope["headers"], b"content-length") or ""
        if said.isdigit() and (len(said) > _LONGEST_SIZE or int(said) > self._most):
            return problem_response(413, _CODE, self._detail)(scope, receive, send)
        left = self._most

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                # The application's own handlers answer it, those of what is mounted in it too.
                raise ProblemError(413, _CODE, self._detail)
            return message

        return self._app(scope, bounded, send)
