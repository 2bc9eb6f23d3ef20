"""Sessions as FastAPI dependencies; they need `SessionMiddleware` around the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from redis_core.api.problems import ProblemError
from redis_core.api.session_middleware import RequestSession, request_session
from redis_core.errors import StaleAuthentication
from redis_core.session import Session, SessionData

__all__ = ["current_session", "fresh_session", "optional_session", "session_of_request"]

_POLICY_VIOLATION = 1008


def session_of_request(connection: HTTPConnection) -> RequestSession[SessionData]:
    """The request's session before it is read: to log in or out. Budget: nothing."""
    return cast("RequestSession[SessionData]", request_session(connection.scope))


async def optional_session(connection: HTTPConnection) -> Session[SessionData] | None:
    """The session, or None. Budget: 1 command."""
    return await session_of_request(connection).load()


async def current_session(connection: HTTPConnection) -> Session[SessionData]:
    """The session of a user who is logged in; otherwise 401, or on a WebSocket the close code 1008. Budget: 1 command."""
    session = await optional_session(connection)
    if session is None or session.user_id is None:
        raise _refused(connection, "login-required", "log in first")
    return session


def fresh_session(max_age: float) -> Callable[[HTTPConnection], Awaitable[Session[SessionData]]]:
    """A dependency as `current_session`, whose user authenticated at most this many seconds ago; otherwise 401.

    ::

        @app.post("/password")
        async def change(session: Annotated[Session, Depends(fresh_session(300))]): ...
    """

    async def dependency(connection: HTTPConnection) -> Session[SessionData]:
        session = await current_session(connection)
        try:
            session.require_fresh(max_age)
        except StaleAuthentication as error:
            raise _refused(connection, "authentication-stale", f"authenticate again: {error}") from error
        return session

    return dependency


def _refused(connection: HTTPConnection, code: str, detail: str) -> Exception:
    if connection.scope["type"] == "websocket":
        return WebSocketException(_POLICY_VIOLATION, detail)
    return ProblemError(401, code, detail, headers={"cache-control": "no-store"})
