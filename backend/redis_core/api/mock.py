"""`GET` and `PUT /api/v1/admin/mock`: mock mode at run time, of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Response
from msgspec import Struct

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import ProblemError, problems
from redis_core.audit import Actor, AuditLog
from redis_core.client import Client
from redis_core.errors import ConfigError, StoreError
from redis_core.log import get_logger
from redis_core.resilience.outage import NO_OUTAGE, Change, OutageFigures, State

__all__ = ["MockMode", "create_mock_router"]

_LOG: Final = get_logger("redis_core.audit")
_LATE: Final[set[asyncio.Task[None]]] = set()
"""Entries on their way after an outage: the event loop alone would not keep them."""


class MockMode(Struct, frozen=True):
    """Whether an operator keeps the store away, and how the outage stands."""

    on: bool
    mode: str
    """The store's mode: `upstash`, `tcp`, `cluster`, `memory`, `degraded` or `recovering`."""
    outage: OutageFigures


def create_mock_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The switch of mock mode; see `access.py` for who may use it."""
    router = APIRouter(prefix="/admin", tags=["admin"])
    viewer, operator = Depends(access.require("viewer")), Depends(access.require("operator"))

    @router.get(
        "/mock",
        summary="Whether mock mode is on",
        response_class=Response,
        responses={200: described("How it stands", MockMode), **problems(401, 403, 500, 503)},
        dependencies=[viewer],
    )
    async def status() -> Response:
        return json_response(_mode_of((await probe_source()).client))

    @router.put(
        "/mock",
        summary="Switch mock mode: serve from memory as in an outage, and come back without loss",
        response_class=Response,
        responses={200: described("How it stands now", MockMode), **problems(401, 403, 409, 422, 500, 503)},
    )
    async def switch(
        *, actor: Actor = operator, on: Annotated[bool, Query(description="Whether memory shall serve")]
    ) -> Response:
        client = (await probe_source()).client
        if on != _is_on(client):
            # Before the store is away; where nothing can be switched, nothing is written.
            if on and client.outage is not NO_OUTAGE:
                await _write_down(client, actor, on=on)
            try:
                client.outage.force(on)
            except ConfigError as error:
                raise ProblemError(409, "mock-not-switchable", str(error)) from None
            if not on:
                await _write_down(client, actor, on=on)
        return json_response(_mode_of(client))

    return router


async def _write_down(client: Client, actor: Actor, *, on: bool) -> None:
    """Add to the audit log of the store, not of the memory that is forgotten."""
    action = "mock.on" if on else "mock.off"

    async def store() -> None:
        await AuditLog(client.primary).record(
            actor, action, client.transport.target, before={"on": not on}, after={"on": on}
        )

    try:
        await store()
    except StoreError as error:
        # The switch is for when the store is away, and coming back takes a moment. The process' log has the line already.
        _LOG.warning("audit entry waits for the store", action=action, reason=str(error))
        if not client.outage.available:
            _when_back(client, store)


def _when_back(client: Client, store: Callable[[], Awaitable[None]]) -> None:
    """Call `store` once the store serves again."""

    async def late() -> None:
        try:
            await store()
        except StoreError as error:
            _LOG.warning("audit entry not stored", reason=str(error))

    def told(change: Change) -> None:
        if change.after is State.HEALTHY:
            stop()
            task = asyncio.get_running_loop().create_task(late(), name="late-audit-entry")
            _LATE.add(task)
            task.add_done_callback(_LATE.discard)

    stop = client.outage.watch(told)


def _is_on(client: Client) -> bool:
    return client.outage.forced or client.mode == "memory"


def _mode_of(client: Client) -> MockMode:
    return MockMode(_is_on(client), client.mode, client.outage.figures)
