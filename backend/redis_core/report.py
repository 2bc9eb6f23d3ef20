"""The store's and this process' figures as they stand: what `redis-metrics` shows."""

from __future__ import annotations

from msgspec import Struct

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreError
from redis_core.health import HealthProbe, timestamp
from redis_core.latency import Latency
from redis_core.store_info import (
    Memory,
    ServerFigures,
    StoreIdentity,
    identity_of,
    memory_of,
    server_figures_of,
)
from redis_core.transport.base import TransportStats

__all__ = ["ConnectionFigures", "StoreReport", "TransportFigures", "store_report"]

_BUDGET = 1.0


class ConnectionFigures(Struct, frozen=True):
    """The way to the store."""

    mode: str
    target: str
    """Where the store is, without user or secret."""
    reachable: bool
    error: str | None
    """Why it is not reachable."""
    connects_total: int
    """Connections opened by this process, the first included."""


class TransportFigures(Struct, frozen=True):
    """What this process has sent, since it started."""

    commands_total: int
    trips_total: int
    commands_per_trip: float | None
    errors_total: int
    sent_bytes_total: int
    received_bytes_total: int
    commands_in_flight: int
    extra: dict[str, float]
    """What only this kind of transport can tell."""


class StoreReport(Struct, frozen=True):
    """Connection, traffic, latency, server and memory at one moment.

    While the store is unreachable this process' own figures are still told; `store`, `server` and `memory` are None.
    """

    time: str
    uptime_seconds: float
    """Of this process' service."""
    connection: ConnectionFigures
    transport: TransportFigures
    latency: Latency
    """Of the PINGs that health and metrics sent."""
    store: StoreIdentity | None
    server: ServerFigures | None
    memory: Memory | None


async def store_report(probe: HealthProbe, *, clock: Clock = SYSTEM_CLOCK) -> StoreReport:
    """Measure and report. Budget: 2 commands (PING, INFO), 2 trips, at most 1 s each.

    Args:
        probe: the service's health probe, which has the client and the latencies.
        clock: what dates the report.
    """
    client = probe.client
    info: dict[str, str] | None = None
    failure: str | None = None
    health = await probe.ask(_BUDGET)
    if isinstance(health.output, str):
        failure = str(health.output)
    else:
        try:
            info = await client.primary.within(_BUDGET).info()
        except StoreError as error:
            failure = f"{type(error).__name__}: {error}"
    return StoreReport(
        time=timestamp(clock),
        uptime_seconds=round(probe.uptime, 1),
        connection=ConnectionFigures(
            mode=client.mode,
            target=client.transport.target,
            reachable=failure is None,
            error=failure,
            connects_total=client.stats.connects,
        ),
        transport=_transport_figures(client.stats),
        latency=probe.latency.percentiles(),
        store=None if info is None else identity_of(info),
        server=None if info is None else server_figures_of(info),
        memory=None if info is None else memory_of(info),
    )


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
