"""The demo put together: the routers that `raptorflow up` adds to the service, and an app of its own.

As an app of its own: `uvicorn --factory demo.app:create_demo_app`, with `backend` on the Python path.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from demo import page, routes
from demo.members import create_members
from redis_core import Client, Settings, close_redis
from redis_core.api.problems import add_problem_details
from redis_core.api.router import create_router

ROUTERS = (page.router, routes.router)
"""What the demo serves, below `/demo`."""


def mount_members(app: FastAPI, client: Client, settings: Settings) -> None:
    """Put the members' application, with its sessions and limits, below `/demo/members`."""
    app.mount("/demo/members", create_members(client, settings))


def create_demo_app() -> FastAPI:
    """The demo as a customer's app would be: its own routes, and those of `redis_core` included."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        yield
        await close_redis()

    app = FastAPI(title="RaptorFlow demo", lifespan=lifespan)
    app.include_router(create_router())
    for router in ROUTERS:
        app.include_router(router)
    add_problem_details(app)
    return app
