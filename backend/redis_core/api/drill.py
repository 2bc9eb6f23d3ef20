"""`POST /api/v1/admin/drill/rounds` and `/verdicts`: the blackout drill's work inside of this process."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from msgspec import Meta, Struct

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import problems
from redis_core.api.request_body import body, body_document
from redis_core.drill import MOST_JOBS, Drill, Round, Verdict

__all__ = ["AskRound", "AskVerdict", "create_drill_router"]

Name = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,40}\Z")]
JobId = Annotated[str, Meta(pattern=r"^[a-z2-7]{16}\Z")]


class AskRound(Struct, frozen=True, forbid_unknown_fields=True):
    """A round of a drill."""

    run: Name
    name: Name
    jobs: Annotated[int, Meta(ge=0, le=MOST_JOBS)] = 10


class AskVerdict(Struct, frozen=True, forbid_unknown_fields=True):
    """The end of a drill."""

    run: Name
    jobs: Annotated[list[JobId], Meta(max_length=MOST_JOBS)] = []
    during: Annotated[list[Name], Meta(max_length=MOST_JOBS)] = []


def create_drill_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """What `raptorflow drill blackout` has the service do, in a workspace of its own; for operators."""
    router = APIRouter(
        prefix="/admin/drill", tags=["admin"], dependencies=[Depends(access.require("operator"))]
    )
    errors = problems(401, 403, 413, 415, 422, 500, 503)

    @router.post(
        "/rounds",
        summary="A round of a drill: write, read, enqueue",
        response_class=Response,
        responses={200: described("What was done", Round), **errors},
        openapi_extra=body_document(AskRound),
    )
    async def rounds(asked: AskRound = Depends(body(AskRound))) -> Response:
        client = (await probe_source()).client
        return json_response(await Drill(client, asked.run).round(asked.name, asked.jobs))

    @router.post(
        "/verdicts",
        summary="The end of a drill: run its jobs, and tell what was lost or doubled",
        response_class=Response,
        responses={200: described("What is left of it", Verdict), **errors},
        openapi_extra=body_document(AskVerdict),
    )
    async def verdicts(asked: AskVerdict = Depends(body(AskVerdict))) -> Response:
        client = (await probe_source()).client
        return json_response(await Drill(client, asked.run).verdict(asked.jobs, asked.during))

    return router
