"""`GET /api/v1/admin/redis-metrics` and `GET /api/v1/admin/redis-stats`: for the person on call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import problems
from redis_core.report import StoreReport, store_report
from redis_core.stats import MOST_KEYS, KeyStats, key_stats

__all__ = ["create_admin_router"]


def create_admin_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The admin routes; see `access.py` for who may use them."""
    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(access)])

    @router.get(
        "/redis-metrics",
        summary="Connection, traffic, latency, server and memory",
        response_class=Response,
        responses={
            200: described(
                "The figures now; this process' own ones also while the store is away", StoreReport
            ),
            **problems(403, 500),
        },
    )
    async def redis_metrics() -> Response:
        return json_response(await store_report(await probe_source()))

    @router.get(
        "/redis-stats",
        summary="Keys by family, and how many of them expire",
        response_class=Response,
        responses={
            200: described("The statistics now", KeyStats),
            **problems(403, 422, 500, 503),
        },
    )
    async def redis_stats(
        limit: Annotated[
            int, Query(ge=1, le=MOST_KEYS, description="Most keys to look at: one SCAN for each 500")
        ] = 10_000,
        ttl_sample: Annotated[
            int, Query(ge=0, le=10_000, description="Most keys to ask for their expiry: one PTTL each")
        ] = 1_000,
    ) -> Response:
        probe = await probe_source()
        return json_response(await key_stats(probe.client.primary, limit=limit, ttl_sample=ttl_sample))

    return router
