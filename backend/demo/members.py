"""Who asks: sessions of the demo's users, what a token tells of its holder, and the middlewares around the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.middleware import Middleware

from demo.limits import LIMITS, plan_of
from redis_core import Client, Settings
from redis_core.api.cache_middleware import CacheMiddleware, HttpRule
from redis_core.api.rate_limit_middleware import RateLimitMiddleware, subject_of_scope
from redis_core.api.same_origin import SameOriginMiddleware
from redis_core.api.session_cookie import SessionCookie
from redis_core.api.session_middleware import SessionMiddleware, request_session
from redis_core.rate_limit import RateLimiter, Subject
from redis_core.session import SessionPolicy, Sessions
from redis_core.sessions.pepper import ANONYMOUS_TAG, peppers_of
from redis_core.sessions.token import read_token

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

REPORTS: Final = HttpRule(path=r".*/api/report", ttl=5, stale_while_revalidate=30, shared=True)
"""The report's whole response, for all users of the workspace: five seconds fresh, renewed behind for thirty more."""
_WORKSPACE: Final = "demo.workspace"
"""Where a scope holds the workspace of its session, once the store has confirmed it."""


class _Confirmed:
    """Reads the session of every request that has one, so that what comes after may go by its workspace.

    The read began with the rate decision and has come back with it: this waits for nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            session = await request_session(scope).load()
            scope[_WORKSPACE] = None if session is None or session.user_id is None else session.workspace
        await self._app(scope, receive, send)


def middleware(client: Client, settings: Settings) -> list[Middleware]:
    """What stands around the demo, the outermost first.

    1. Same origin: another site's page gets no further, and costs nothing.
    2. Sessions: outside the limits, so that a refusal can still tell the browser about its session.
    3. Limits: the decision and the session's read leave together.
    4. The session as the store has it: a token may have been revoked.
    5. The HTTP cache, which goes by the workspace that step 4 found.

    Args:
        client: the store.
        settings: where the tokens' peppers and the sessions' times come from. Outside of production the demo asks by name for the
            cookie that browsers keep without https, on localhost only.
    """
    peppers = peppers_of(client, settings)
    sessions = Sessions(client, peppers, policy=SessionPolicy.from_settings(settings))
    plain = settings.raptorflow_env != "production"
    cookie = SessionCookie.insecure_localhost() if plain else SessionCookie()

    def identify(scope: Scope) -> Subject:
        """Whose request it is, as its token tells without asking the store: a tag that stands for the user, and the workspace.

        Nobody can make such a token, so nobody can use up another one's limits.
        """
        address = subject_of_scope(scope, LIMITS).ip
        token = read_token(peppers, cookie.read(scope["headers"]) or "")
        if token is None:
            return Subject(ip=address)
        user = None if token.tag == ANONYMOUS_TAG else token.tag
        return Subject(user=user, workspace=token.workspace, ip=address, plan=plan_of(token.workspace))

    return [
        Middleware(SameOriginMiddleware),
        Middleware(
            SessionMiddleware,
            sessions=sessions,  # type: ignore[arg-type]  # mypy solves no generic class behind a ParamSpec
            cookie=cookie,
        ),
        Middleware(
            RateLimitMiddleware,
            # The client closes it with itself.
            limiter=client.service(_limiter),
            identify=identify,
            alongside=lambda scope: request_session(scope).prefetch(),
        ),
        Middleware(_Confirmed),
        Middleware(
            CacheMiddleware, client=client, workspace=lambda scope: scope[_WORKSPACE], rules=(REPORTS,)
        ),
    ]


def _limiter(client: Client) -> RateLimiter:
    return RateLimiter(client, LIMITS)
