"""What the person on call sees: `redis-metrics`, `redis-stats`, `redis-series`, the audit log."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Response

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import ProblemError, problems
from redis_core.audit import Actor, AuditLog
from redis_core.clock import SYSTEM_CLOCK
from redis_core.measuring.catalogue import CATALOGUE
from redis_core.measuring.documents import AuditPage, MetricInfo, MetricList, RedisMetrics, Series, WhoAmI
from redis_core.measuring.recorder import HOURS_KEPT
from redis_core.metrics import Metrics
from redis_core.report import MOST_WINDOW, store_report
from redis_core.stats import MOST_KEYS, KeyStats, key_stats

__all__ = ["create_admin_router"]

_LATEST: Final = 4_102_444_800
"""The year 2100."""


def create_admin_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The routes that only read; see `access.py` for who may use them."""
    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(access)])

    @router.get(
        "/whoami",
        summary="Who asks, and the role that has",
        response_class=Response,
        responses={200: described("The caller", WhoAmI), **problems(401, 403, 500, 503)},
    )
    async def whoami(actor: Actor = Depends(access)) -> Response:
        return json_response(WhoAmI(actor.who, actor.role))

    @router.get(
        "/redis-metrics",
        summary="The full report: connection, traffic, latency, hit rates, services, workspaces, memory, cost",
        response_class=Response,
        responses={
            200: described(
                "The figures now; this process' own ones also while the store is away", RedisMetrics
            ),
            **problems(401, 403, 422, 500, 503),
        },
    )
    async def redis_metrics(
        window: Annotated[
            int, Query(ge=60, le=MOST_WINDOW, description="Seconds that the fleet's figures are of")
        ] = 3_600,
    ) -> Response:
        return json_response(await store_report(await probe_source(), window=window))

    @router.get(
        "/redis-stats",
        summary="Keys by family, and how many of them expire",
        response_class=Response,
        responses={
            200: described("The statistics now", KeyStats),
            **problems(401, 403, 422, 500, 503),
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

    @router.get(
        "/redis-series",
        summary="A metric over time, from 15 minutes to 30 days",
        response_class=Response,
        responses={
            200: described("The metric's lines", Series),
            **problems(401, 403, 404, 422, 500, 503),
        },
    )
    async def redis_series(
        metric: Annotated[str, Query(description="One of `GET .../admin/metrics`")],
        begin: Annotated[
            int,
            Query(
                alias="from",
                ge=-HOURS_KEPT,
                le=_LATEST,
                description="Unix seconds; zero or less counts back from now: -900 is 15 minutes ago",
            ),
        ] = -900,
        end: Annotated[int, Query(alias="to", ge=-HOURS_KEPT, le=_LATEST, description="As `from`")] = 0,
        step: Annotated[
            int, Query(ge=1, le=86_400, description="Seconds from one time to the next; may be raised")
        ] = 60,
    ) -> Response:
        known = CATALOGUE.get(metric)
        if known is None:
            raise ProblemError(404, "no-such-metric", "There is no metric of this name.")
        now = SYSTEM_CLOCK.now()
        first = begin if begin > 0 else now + begin
        last = min(end if end > 0 else now + end, now)
        if not now - HOURS_KEPT <= first < last:
            raise ProblemError(
                422, "invalid-range", "`from` must be before `to` and within the last 31 days."
            )
        client = (await probe_source()).client
        return json_response(await client.service(Metrics).series(known, first, last, step))

    @router.get(
        "/metrics",
        summary="The metrics that a series can be asked of",
        response_class=Response,
        responses={200: described("All metrics", MetricList), **problems(401, 403, 500, 503)},
    )
    async def metric_list() -> Response:
        return json_response(
            MetricList([
                MetricInfo(metric.name, metric.kind, metric.unit, metric.label, metric.help)
                for metric in CATALOGUE.values()
            ])
        )  # fmt: skip

    @router.get(
        "/audit",
        summary="What operators changed, the latest first",
        response_class=Response,
        responses={200: described("A page of the log", AuditPage), **problems(401, 403, 422, 500, 503)},
    )
    async def audit(
        before: Annotated[
            str | None,
            Query(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$", description="`next` of the page before"),
        ] = None,
        count: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        client = (await probe_source()).client
        return json_response(await AuditLog(client).page(before=before, count=count))

    return router
