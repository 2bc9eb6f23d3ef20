"""The store, this process and the fleet at one moment: what `redis-metrics` and `raptorflow metrics` show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreError
from redis_core.health import HealthProbe, timestamp
from redis_core.measuring.batch import OTHER, Batch, Usage
from redis_core.measuring.catalogue import split_label
from redis_core.measuring.cost import cost_of, price_per_million
from redis_core.measuring.documents import (
    WORKSPACE_SUBJECT,
    Alarm,
    ConnectionFigures,
    ErrorFigures,
    HitRates,
    Offender,
    OperationLatency,
    QueueFigures,
    RedisMetrics,
    ServiceFigures,
    SlowOperation,
    Traffic,
    TransportFigures,
    WorkspaceFigures,
)
from redis_core.measuring.histogram import Histogram
from redis_core.measuring.recorder import FLUSH_EVERY
from redis_core.measuring.window import MINUTES, Window
from redis_core.metrics import Metrics
from redis_core.queueing.inspection import QueueInspection
from redis_core.store_info import identity_of, memory_of, server_figures_of
from redis_core.transport.base import TransportStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis_core.client import Client
    from redis_core.resilience.outage import OutageFigures

__all__ = ["MOST_WINDOW", "fleet_alarms", "store_alarms", "store_report"]

MOST_WINDOW: Final = 30 * 86_400
"""Seconds that a report may cover at most."""
_BUDGET: Final = 1.0
_FIRST: Final = 20
_ERROR_BURST: Final = 0.05
"""Part of all calls that failed, from which on a person is told."""
_ALARMS_OF: Final = 300
"""Seconds that the alarms look back, whatever the report is of."""
_BILL: Final = 100.0
"""US dollars a month, from which on the forecast is shown among the alarms."""


async def store_report(
    probe: HealthProbe, *, window: int = 3_600, clock: Clock = SYSTEM_CLOCK
) -> RedisMetrics:
    """Measure and report.

    Budget: PING, INFO, and HGETALL for each hour of the window and each of 30 days that is not remembered: 4 once it was asked
    before. 3 trips, at most 1 s each. For each queue that had jobs lately 1 trip and 6 commands a shard more.

    Args:
        probe: the service's health probe, which has the client and the latencies.
        window: seconds that the fleet's figures are of, at most 30 days; beyond a day the hours that it touches.
        clock: what dates the report.
    """
    client = probe.client
    metrics = client.service(Metrics)
    info: dict[str, str] | None = None
    recent: Window | None = None
    days: Window | None = None
    latest: Window | None = None
    stuck: list[QueueFigures] = []
    failure: str | None = None
    health = await probe.ask(_BUDGET)
    if isinstance(health.output, str):
        failure = str(health.output)
    else:
        try:
            recent, days = await metrics.recent(window), await metrics.days(30)
            since = clock.now() - _ALARMS_OF
            latest = recent.since(since) if recent.scale is MINUTES else await metrics.recent(_ALARMS_OF)
            stuck = await _stuck(client, latest.had("queue_depth") | days.had("queue_depth"))
            info = await client.primary.within(_BUDGET).info()
        except StoreError as error:
            failure = f"{type(error).__name__}: {error}"
    together = recent.together() if recent is not None else Batch()
    lately = latest.together() if latest is not None else Batch()
    price = price_per_million(client.settings, client.mode)
    cost = cost_of(days, clock.now(), price)
    traffic = traffic_of(together, window)
    return RedisMetrics(
        time=timestamp(clock),
        uptime_seconds=round(probe.uptime, 1),
        alarms=[
            *store_alarms(health.status, client.mode, failure, client.outage.figures),
            *fleet_alarms(
                traffic_of(lately, _ALARMS_OF), stuck, cost.forecast_month, metrics.recorder.failures
            ),
        ],
        connection=ConnectionFigures(
            mode=client.mode,
            target=client.transport.target,
            reachable=failure is None,
            error=failure,
            connects_total=client.stats.connects,
        ),
        transport=_transport_figures(client.stats),
        outage=client.outage.figures,
        latency=probe.latency.percentiles(),
        store=None if info is None else identity_of(info),
        server=None if info is None else server_figures_of(info),
        memory=None if info is None else memory_of(info),
        window_seconds=window,
        processes=0 if recent is None else len(recent.levels),
        traffic=traffic,
        operations=latency_of(_all_durations(together)),
        hit_rates=hit_rates_of(together),
        services=services_of(together, window),
        workspaces=workspaces_of(together, price),
        errors=errors_of(together),
        offenders=_offenders_of(together),
        slow_operations=[] if recent is None else _slow_operations_of(together),
        cost=cost,
        counters=dict(sorted(together.counters.items())),
    )


# --- pieces ---


def traffic_of(batch: Batch, seconds: float) -> Traffic:
    """What was sent within these seconds."""

    def total(name: str) -> int:
        return round(batch.counters.get(name, 0))

    operations, errors = total("operations_total"), sum(each.count for each in errors_of(batch))
    return Traffic(
        operations=operations,
        operations_per_second=round(operations / seconds, 3),
        commands=total("commands_total"),
        billed_commands=total("billed_commands_total"),
        trips=total("trips_total"),
        errors=errors,
        error_ratio=_ratio(errors, operations),
        sent_bytes=total("sent_bytes_total"),
        received_bytes=total("received_bytes_total"),
    )


def hit_rates_of(batch: Batch) -> HitRates:
    """Where cached values were found."""
    memory, store, stale, misses = (
        round(batch.counters.get(f"cache_lookups_total|{tier}", 0))
        for tier in ("memory", "store", "stale", "miss")
    )
    lookups = memory + store + stale + misses
    return HitRates(
        memory_hits=memory,
        store_hits=store,
        stale_hits=stale,
        misses=misses,
        memory_ratio=_ratio(memory, lookups),
        store_ratio=_ratio(store, store + misses),
        hit_ratio=_ratio(lookups - misses, lookups),
    )


def latency_of(histogram: Histogram) -> OperationLatency:
    """A histogram's percentiles."""
    count = histogram.count
    return OperationLatency(
        count=count,
        mean_ms=round(histogram.sum / count * 1_000, 3) if count else None,
        p50_ms=histogram.quantile_ms(0.5),
        p95_ms=histogram.quantile_ms(0.95),
        p99_ms=histogram.quantile_ms(0.99),
        max_ms=histogram.quantile_ms(1),
    )


def services_of(batch: Batch, seconds: float) -> list[ServiceFigures]:
    """The services, the busiest first."""
    found = [
        ServiceFigures(
            service=label,
            operations=round(count),
            operations_per_second=round(count / seconds, 3),
            latency=latency_of(batch.durations.get(f"operation_duration_seconds|{label}", Histogram())),
        )
        for label, count in _labelled(batch, "service_operations_total")
    ]
    return sorted(found, key=lambda each: each.operations, reverse=True)


def workspaces_of(batch: Batch, price: float) -> list[WorkspaceFigures]:
    """The tenants that sent most, and `other` last."""
    first = batch.first(_FIRST).workspaces
    ordered = sorted(first, key=lambda name: (name == OTHER, -first[name].commands))
    return [_workspace(name, first[name], price) for name in ordered]


def _workspace(name: str, usage: Usage, price: float) -> WorkspaceFigures:
    return WorkspaceFigures(name, usage.commands, usage.bytes, round(usage.billed * price / 1e6, 6))


def errors_of(batch: Batch) -> list[ErrorFigures]:
    """Errors by kind, the most frequent first."""
    found = [ErrorFigures(label, round(count)) for label, count in _labelled(batch, "errors_total")]
    return sorted(found, key=lambda each: each.count, reverse=True)


def _offenders_of(batch: Batch) -> list[Offender]:
    found: list[Offender] = []
    for key, times in batch.refused.items():
        # `rate:<subject>:<endpoint>`, or a workspace's key with `rate` in the middle.
        before, _, rest = key.partition("rate:")
        subject, _, endpoint = rest.partition(":")
        if before:
            subject, endpoint = WORKSPACE_SUBJECT + before.partition("{")[2].rstrip("}:"), rest
        found.append(Offender(subject or OTHER, endpoint, times))
    return sorted(found, key=lambda each: each.refused, reverse=True)[:_FIRST]


def _slow_operations_of(batch: Batch) -> list[SlowOperation]:
    return [
        SlowOperation(
            time=datetime.fromtimestamp(call.at, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            operation=call.operation,
            service=call.service,
            workspace=call.workspace or None,
            duration_ms=round(call.seconds * 1_000, 3),
        )
        for call in sorted(batch.slow, key=lambda call: call.seconds, reverse=True)
    ]


def _all_durations(batch: Batch) -> Histogram:
    whole = Histogram()
    for series, histogram in batch.durations.items():
        if split_label(series)[0] == "operation_duration_seconds":
            whole.merge(histogram)
    return whole


def _labelled(batch: Batch, name: str) -> list[tuple[str, float]]:
    return [
        (label, count)
        for series, count in batch.counters.items()
        for found, label in [split_label(series)]
        if found == name
    ]


def store_alarms(status: str, mode: str, failure: str | None, outage: OutageFigures) -> list[Alarm]:
    """What is wrong with the store, as this process sees it.

    Args:
        status: of its health.
        mode: the store's.
        failure: why it did not answer, if so.
        outage: how an outage stands, and what waits for its end.
    """
    found: list[Alarm] = []
    away = outage.forced or mode in {"degraded", "recovering"}
    if status == "fail" or (failure is not None and not away):
        found.append(Alarm("critical", "store-down", f"The store does not answer: {failure}"))
    if outage.credentials_rejected:
        found.append(
            Alarm("critical", "credentials-rejected", "The store rejects this process' password or token")
        )
    if outage.read_only:
        found.append(Alarm("critical", "read-only", "The store takes no writes"))
    if outage.forced:
        found.append(Alarm("warning", "mock-mode", "An operator lets memory serve instead of the store"))
    elif mode in {"degraded", "recovering"}:
        found.append(
            Alarm(
                "critical",
                "degraded",
                f"Memory serves instead of the store ({mode}); {outage.degraded_seconds:.0f} s in all outages",
            )
        )
    if outage.waiting:
        text = f"{outage.waiting:,} records wait in the journal, the oldest for {outage.waiting_oldest_seconds:.0f} s"
        found.append(Alarm("warning", "journal-waiting", text))
    if outage.quarantined:
        text = f"{outage.quarantined:,} records of the journal could not be carried out and wait for a person"
        found.append(Alarm("critical", "journal-quarantine", text))
    return found


async def _stuck(client: Client, queues: set[str]) -> list[QueueFigures]:
    """Those of these queues whose jobs wait and that no worker has anything of."""
    inspection = QueueInspection(client)
    found = [await inspection.queue(queue) for queue in sorted(queues)]
    return [each for each in found if each.waiting > each.delayed and not each.workers]


def fleet_alarms(
    traffic: Traffic, stuck: Sequence[QueueFigures], forecast: float, failed_flushes: int
) -> list[Alarm]:
    """What is wrong with the fleet.

    Args:
        traffic: of all processes, lately: over an hour a burst would not be seen.
        stuck: queues whose jobs nobody takes.
        forecast: US dollars that 30 days cost at this rate.
        failed_flushes: how often in a row this process could not write its figures.
    """
    found: list[Alarm] = []
    if traffic.error_ratio is not None and traffic.error_ratio >= _ERROR_BURST:
        text = f"{traffic.error_ratio:.1%} of the calls failed ({traffic.errors} of {traffic.operations})"
        found.append(Alarm("critical", "error-burst", text))
    for each in stuck:
        why = "is paused" if each.paused else "no worker takes any"
        text = f"Queue {each.queue}: {each.waiting - each.delayed:,} jobs wait, and {why}"
        found.append(Alarm("warning" if each.paused else "critical", "queue-stuck", text))
    if forecast >= _BILL:
        found.append(Alarm("warning", "bill-forecast", f"At this rate 30 days cost ${forecast:,.2f}"))
    if failed_flushes > 1:
        late = failed_flushes * FLUSH_EVERY
        found.append(
            Alarm("warning", "metrics-not-flushed", f"This process could not flush for {late:.0f} s")
        )
    return found


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _transport_figures(stats: TransportStats) -> TransportFigures:
    return TransportFigures(
        commands_total=stats.commands,
        trips_total=stats.trips,
        commands_per_trip=round(stats.commands / stats.trips, 2) if stats.trips else None,
        errors_total=stats.errors,
        sent_bytes_total=stats.sent_bytes,
        received_bytes_total=stats.received_bytes,
        commands_in_flight=stats.in_flight,
        extra=dict(stats.extra),
    )
