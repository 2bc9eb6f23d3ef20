"""The whole service as one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

import redis_core
from redis_core.api.admin_token import AdminTokens
from redis_core.api.body_limit import MOST_BYTES, BodyLimitMiddleware
from redis_core.api.dashboard import PATH, create_dashboard
from redis_core.api.problems import add_problem_details
from redis_core.api.realtime import PREFIX, Realtime
from redis_core.api.realtime_access import Allow, nothing_allowed
from redis_core.api.router import create_router
from redis_core.api.security_headers import SecurityHeadersMiddleware
from redis_core.client import Client, connect, get_redis
from redis_core.config import Settings, load_settings
from redis_core.errors import StoreUnavailable
from redis_core.metrics import Metrics
from redis_core.usage import UsageEngine

__all__ = ["create_app"]


def create_app(
    settings: Settings | None = None,
    *,
    client: Client | None = None,
    routers: Sequence[APIRouter] = (),
    middleware: Sequence[Middleware] = (),
    allow: Allow = nothing_allowed,
    origins: Collection[str] = (),
    max_body: int = MOST_BYTES,
) -> FastAPI:
    """The service: health, admin, realtime, errors as problem details, OpenAPI at `/openapi.json`.

    Every answer has the security headers.

    Routes that take their client by `Depends(get_redis)` are given the service's.

    With uvicorn: `uvicorn --factory redis_core.api.app:create_app --no-proxy-headers`.

    Args:
        settings: all of them, instead of the environment's.
        client: the client to use, which stays the caller's to close; None connects at start-up and closes at shut-down.
        routers: what else it serves.
        middleware: what stands around all of it, the outermost first; the limits of bodies and the security headers stand around it.
        allow: the realtime topics that a session opens; none unless told. It needs `SessionMiddleware` among the middlewares.
        origins: other origins whose pages may use the realtime endpoints.
        max_body: bytes that the body of a request may have; our own routes take less.

    Raises:
        ConfigError: a setting is wrong.
    """
    resolved = load_settings() if settings is None else settings
    current = client

    async def the_client() -> Client:
        if current is None:
            raise StoreUnavailable(
                "the service is not running: there is no client before start-up and after shut-down"
            )
        return current

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        nonlocal current
        if client is not None:
            yield
            return
        async with await connect(resolved) as own:
            current = own
            own.service(Metrics).start()
            own.service(UsageEngine).start()
            try:
                yield
            finally:
                current = None

    app = FastAPI(
        title="RaptorFlow Redis",
        version=redis_core.__version__,
        summary="Health and administration of the Redis layer.",
        lifespan=lifespan,
        middleware=list(middleware),
        # The built-in pages load scripts from a CDN, and would run them beside the admin routes.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(create_router(the_client, tokens=AdminTokens.from_settings(resolved)))
    app.mount(PATH, create_dashboard())
    app.dependency_overrides[get_redis] = the_client
    for router in routers:
        app.include_router(router)
    app.mount(PREFIX, Realtime(the_client, settings=resolved, allow=allow, origins=origins))
    add_problem_details(app)
    app.add_middleware(BodyLimitMiddleware, most=max_body)
    app.add_middleware(SecurityHeadersMiddleware)
    return app
