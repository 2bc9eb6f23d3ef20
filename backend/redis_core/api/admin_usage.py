"""What workspaces use and may spend, over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from msgspec import Meta, Struct

from redis_core.accounting.figures import UsagePage
from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import problems
from redis_core.api.request_body import body, body_document
from redis_core.audit import Actor
from redis_core.measuring.documents import Done
from redis_core.operations import Operations
from redis_core.usage import Budget, UsageEngine

__all__ = ["create_usage_router"]

Dollars = Annotated[float, Meta(gt=0, lt=1e9)]
WorkspaceId = Annotated[str, Query(min_length=1, max_length=64, description="The workspace's id")]


class SetBudget(Struct, frozen=True, forbid_unknown_fields=True):
    """Say what a workspace may spend, in US dollars; without a limit of a day or month it may spend what it likes."""

    workspace: Annotated[str, Meta(min_length=1, max_length=64)]
    day: Dollars | None = None
    month: Dollars | None = None
    warn: Annotated[float, Meta(gt=0, le=1)] = 0.8
    dry_run: bool = False


def create_usage_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The routes of usage and budgets."""
    router = APIRouter(prefix="/admin", tags=["operations"])
    admin, viewer = Depends(access.require("admin")), Depends(access.require("viewer"))
    errors = problems(401, 403, 422, 500, 503)

    @router.get(
        "/usage",
        summary="What a workspace used, day by day",
        response_class=Response,
        responses={200: described("The days, and what was spent", UsagePage), **errors},
    )
    async def usage(
        *,
        actor: Actor = viewer,
        workspace: WorkspaceId,
        days: Annotated[int, Query(ge=1, le=366, description="How many, today the last")] = 30,
    ) -> Response:
        client = (await probe_source()).client
        last = client.service(UsageEngine).today()
        found = await Operations(client, actor).usage(workspace, last - timedelta(days=days - 1), last)
        return json_response(found)

    @router.post(
        "/usage/budget",
        summary="Say what a workspace may spend",
        response_class=Response,
        responses={200: described("What was done, or would be", Done), **errors, **problems(413, 415)},
        openapi_extra=body_document(SetBudget),
    )
    async def set_budget(*, actor: Actor = admin, asked: SetBudget = Depends(body(SetBudget))) -> Response:
        limited = asked.day is not None or asked.month is not None
        budget = Budget(asked.day, asked.month, asked.warn) if limited else None
        act = Operations((await probe_source()).client, actor)
        return json_response(await act.set_budget(asked.workspace, budget, dry_run=asked.dry_run))

    return router
