from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from redis_core.client import Client
from redis_core.errors import StoreUnavailable, WrongType
from redis_core.script import Script
from redis_core.telemetry import DURATION, trace_client
from tests.metrics_world import LosingTransport


async def test_calls_are_spans_and_durations_without_keys_and_values() -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    transport = LosingTransport()
    async with Client(transport) as client:
        trace_client(client, tracer_provider=tracing, meter_provider=MeterProvider([reader]))
        traced = client.transport
        trace_client(client)
        assert client.transport is traced
        await client.set("secret-key", "secret-value")
        async with client.pipeline() as batch:
            batch.get("a")
            batch.get("b")
        async with client.transaction() as both:
            both.incr("n")
            both.get("a")
        await client.run(Script("one", "return 1"))
        with pytest.raises(WrongType):
            await client.hgetall("secret-key")
        transport.away = True
        with pytest.raises(StoreUnavailable):
            await client.within(0.1).get("a")
    found = spans.get_finished_spans()
    names = [span.name for span in found]
    assert names == ["SET", "PIPELINE GET", "MULTI", "EVALSHA", "EVAL", "HGETALL", "GET"]
    for span in found:
        assert span.kind is SpanKind.CLIENT
        assert span.attributes is not None
        assert span.attributes["db.system.name"] == "redis"
        assert span.attributes["db.operation.name"] == span.name
        assert "secret" not in span.to_json()
    by_name = dict(zip(names, found, strict=True))
    assert dict(by_name["PIPELINE GET"].attributes or {})["db.operation.batch.size"] == 2
    assert dict(by_name["HGETALL"].attributes or {})["error.type"] == "WrongType"
    assert dict(by_name["GET"].attributes or {})["error.type"] == "DeadlineExceeded"
    assert by_name["GET"].status.status_code is StatusCode.ERROR
    assert "db.stored_procedure.name" in dict(by_name["EVALSHA"].attributes or {})
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == (DURATION, "s")
    points = [point for point in metric.data.data_points if isinstance(point, HistogramDataPoint)]
    assert sum(point.count for point in points) == len(names)
