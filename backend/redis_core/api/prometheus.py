"""`GET /metrics`: this process' figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.problems import problems
from redis_core.exposition import MEDIA_TYPE, figures_of

__all__ = ["create_prometheus_router"]


def create_prometheus_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """`GET /metrics`; whoever may use admin routes may scrape it, with a viewer's token."""
    router = APIRouter(tags=["metrics"])

    @router.get(
        "/metrics",
        summary="This process' metrics for Prometheus",
        response_class=Response,
        dependencies=[Depends(access)],
        responses={
            200: {
                "description": "The metrics",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **problems(401, 403, 500, 503),
        },
    )
    async def prometheus() -> Response:
        text = figures_of((await probe_source()).client)
        return Response(text, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    return router
