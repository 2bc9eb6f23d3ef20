"""The demo put together: the application that `raptorflow up` mounts at `/demo`, and a service of its own.

As a service of its own: `uvicorn --factory demo.app:create_demo_app`, with `backend` on the Python path.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from demo import page, plans, routes
from demo.live import add_live
from demo.members import middleware
from redis_core import Client, Settings, close_redis, get_redis, load_settings
from redis_core.api.body_limit import BodyLimitMiddleware
from redis_core.api.dashboard import PATH, create_dashboard
from redis_core.api.problems import add_problem_details
from redis_core.api.router import create_router
from redis_core.api.security_headers import SecurityHeadersMiddleware


def create_demo(client: Client, settings: Settings) -> FastAPI:
    """The demo, to be mounted: sessions, limits and cache around its page and its JSON interface.

    Args:
        client: the store, which stays the caller's to close.
        settings: all of them.
    """
    app = FastAPI(
        title="RaptorFlow demo", middleware=middleware(client, settings), docs_url=None, redoc_url=None
    )

    async def the_client() -> Client:
        return client

    app.dependency_overrides[get_redis] = the_client
    app.include_router(page.router)
    app.include_router(routes.router)
    app.include_router(plans.router)
    add_live(app, client, settings)
    add_problem_details(app)
    return app


def create_demo_app() -> FastAPI:
    """The demo as a customer's service would be: with the routes of `redis_core`, on the process' client."""
    settings = load_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.mount("/demo", create_demo(await get_redis(), settings))
        try:
            yield
        finally:
            await close_redis()

    app = FastAPI(title="RaptorFlow demo", lifespan=lifespan)
    app.include_router(create_router())
    app.mount(PATH, create_dashboard())
    add_problem_details(app)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(SecurityHeadersMiddleware)
    return app
