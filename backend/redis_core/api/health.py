"""`GET /api/v1/health/redis`: for load balancers, orchestrators and people."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from msgspec import UNSET

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import HEALTH_JSON, described, json_response
from redis_core.api.problems import problems
from redis_core.health import Check, Health

__all__ = ["create_health_router"]

Probe = Literal["live", "ready", "detail"]

_PROBES: Final = (
    "`live`: does this process answer? Never asks the store. "
    "`ready`: should it be sent requests? Asks the store at most once a second, for 0.25 s. "
    "`detail`: asks the store now, for 1 s."
)


def create_health_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The health route. It is open to everybody; who may not use the admin routes is not told versions and reasons."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/health/redis",
        summary="Health of the Redis layer",
        response_class=Response,
        responses={
            200: described(
                "It serves (`pass`), perhaps not at its best (`warn`)", Health, media_type=HEALTH_JSON
            ),
            503: described("It does not serve (`fail`)", Health, media_type=HEALTH_JSON),
            **problems(422),
        },
    )
    async def health(
        request: Request,
        probe: Annotated[Probe, Query(description=_PROBES)] = "detail",
    ) -> Response:
        source = await probe_source()
        if probe == "live":
            found = source.live()
        elif probe == "ready":
            found = await source.ready()
        else:
            found = await source.detail()
        if not await access.knows(request):
            found = _without_details(found)
        return json_response(found, status=503 if found.status == "fail" else 200, media_type=HEALTH_JSON)

    return router


def _without_details(health: Health) -> Health:
    """What anybody may know: how it is, not which server and what it said."""
    checks = {name: [_without_output(check) for check in checks] for name, checks in health.checks.items()}
    return msgspec.structs.replace(health, checks=checks, store=UNSET, output=UNSET)


def _without_output(check: Check) -> Check:
    return msgspec.structs.replace(check, output=UNSET)
