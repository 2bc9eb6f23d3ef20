"""OpenTelemetry: a span and a duration for each call, by the stable semantic conventions of database clients.

::

    from redis_core.telemetry import trace_client   # pip install 'raptorflow-redis[otel]'

    client = await connect()
    trace_client(client)

Only names of commands are told, never keys and values: `db.query.text` is left out. Every call costs a span, about 10 us where it is
recorded, so this is for who wants traces; the metrics of `redis_core.metrics` cost far less.

The conventions: https://opentelemetry.io/docs/specs/semconv/database/database-metrics/ and .../database-spans/ (stable since 1.33).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from redis_core.errors import CommandError, StoreError
from redis_core.transport.base import Command, Reply, Subscription, Transport, TransportStats

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from redis_core.client import Client

__all__ = ["DURATION", "TracedTransport", "trace_client"]

DURATION: Final = "db.client.operation.duration"
_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Seconds; those that the convention advises."""
_SCRIPTS: Final = frozenset({"EVALSHA", "EVALSHA_RO"})
_LIBRARY: Final = "redis_core"

Send = Callable[[Sequence[Command]], Awaitable[list[Reply]]]


def trace_client(
    client: Client,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Let all calls of a client be traced from now on. Call it before the client's first use. Idempotent.

    Args:
        client: whose calls.
        tracer_provider: where spans go; the global one unless given.
        meter_provider: where durations go; the global one unless given.
    """
    if not isinstance(client.transport, TracedTransport):
        client.transport = TracedTransport(client.transport, tracer_provider, meter_provider)


class TracedTransport:
    """A transport whose batches are spans.

    Args:
        inner: what speaks to the store.
        tracer_provider: as in `trace_client`.
        meter_provider: as in `trace_client`.
    """

    def __init__(
        self,
        inner: Transport,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._inner = inner
        self._place = _place(inner.target)
        self._tracer = trace.get_tracer(_LIBRARY, tracer_provider=tracer_provider)
        self._duration = metrics.get_meter(_LIBRARY, meter_provider=meter_provider).create_histogram(
            DURATION,
            unit="s",
            description="Duration of database client operations",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )

    @property
    def mode(self) -> str:
        """The inner one's."""
        return self._inner.mode

    @property
    def target(self) -> str:
        """The inner one's."""
        return self._inner.target

    @property
    def script_header(self) -> str:
        """The inner one's."""
        return self._inner.script_header

    @property
    def stats(self) -> TransportStats:
        """The inner one's."""
        return self._inner.stats

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands; see `Transport`."""
        return await self._traced(
            batch, "PIPELINE", lambda commands: self._inner.execute(commands, timeout=timeout)
        )

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands that are done together or not at all; see `Transport`."""
        return await self._traced(
            batch, "MULTI", lambda commands: self._inner.transaction(commands, timeout=timeout)
        )

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen; see `Transport`. Not traced: it lasts."""
        return await self._inner.subscribe(*channels, patterns=patterns)

    async def aclose(self) -> None:
        """Close the inner one."""
        await self._inner.aclose()

    async def _traced(self, batch: Sequence[Command], together: str, send: Send) -> list[Reply]:
        if not batch:
            return await send(batch)
        operation, attributes = _described(batch, together)
        attributes |= self._place
        failed: StoreError | None = None
        started = time.perf_counter()
        with self._tracer.start_as_current_span(
            operation,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                replies = await send(batch)
                failed = next((reply for reply in replies if isinstance(reply, StoreError)), None)
            except StoreError as error:
                failed = error
                raise
            finally:
                # A cancelled call is told as one that did not fail: nobody waits for it any more.
                if failed is not None:
                    told = {"error.type": type(failed).__name__}
                    if isinstance(failed, CommandError):
                        told["db.response.status_code"] = failed.code
                    attributes |= told
                    span.set_attributes(told)
                    span.set_status(StatusCode.ERROR)
                self._duration.record(time.perf_counter() - started, attributes)
        return replies


def _place(target: str) -> dict[str, str | int]:
    """Where a store is, as far as its address tells one place."""
    scheme, _, rest = target.rpartition(" ")[2].partition("://")
    if scheme == "unix":
        return {"server.address": rest}
    if not rest or "," in rest:
        return {}
    parts = urlsplit(f"//{rest}")
    place: dict[str, str | int] = {"server.address": parts.hostname or rest}
    if parts.port is not None:
        place["server.port"] = parts.port
    if parts.path.strip("/").isdigit():
        place["db.namespace"] = parts.path.strip("/")
    return place


def _described(batch: Sequence[Command], together: str) -> tuple[str, dict[str, str | int]]:
    """The operation's name and its attributes."""
    names = {str(command[0]) for command in batch}
    attributes: dict[str, str | int] = {"db.system.name": "redis"}
    if len(batch) == 1 and together != "MULTI":
        (operation,) = names
        command = batch[0]
        if operation in _SCRIPTS and len(command) > 1:
            attributes["db.stored_procedure.name"] = str(command[1])
    else:
        # One name for all of a batch where they share one, as the convention says.
        operation = f"{together} {names.pop()}" if len(names) == 1 else together
        attributes["db.operation.batch.size"] = len(batch)
    attributes["db.operation.name"] = operation
    return operation, attributes
