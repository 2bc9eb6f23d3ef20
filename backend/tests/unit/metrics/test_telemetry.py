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
from redis_core.telemetry import DURATION, TracedTransport, trace_client
from tests.metrics_world import LosingTransport


async def test_calls_are_spans_and_durations_without_keys_and_values() -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    transport = LosingTransport()
    transport.target = "rediss://db.example:6380/3"
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
        assert {name: span.attributes[name] for name in ("server.address", "server.port", "db.namespace")} == {
            "server.address": "db.example", "server.port": 6380, "db.namespace": "3",
        }  # fmt: skip
    by_name = dict(zip(names, found, strict=True))
    assert dict(by_name["PIPELINE GET"].attributes or {})["db.operation.batch.size"] == 2
    assert dict(by_name["HGETALL"].attributes or {})["error.type"] == "WrongType"
    assert dict(by_name["HGETALL"].attributes or {})["db.response.status_code"] == "WRONGTYPE"
    assert "db.response.status_code" not in dict(by_name["GET"].attributes or {})
    assert dict(by_name["GET"].attributes or {})["error.type"] == "DeadlineExceeded"
    assert by_name["GET"].status.status_code is StatusCode.ERROR
    assert "db.stored_procedure.name" in dict(by_name["EVALSHA"].attributes or {})
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == (DURATION, "s")
    points = [point for point in metric.data.data_points if isinstance(point, HistogramDataPoint)]
    assert sum(point.count for point in points) == len(names)


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("memory", None),
        ("embedded valkey at unix:///run/v.sock", "/run/v.sock"),
        ("https://eu1.upstash.io", "eu1.upstash.io"),
        ("redis+cluster://a:1,b:2", None),
    ],
)
async def test_a_span_says_where_a_store_is_if_that_is_one_place(target: str, address: str | None) -> None:
    spans, tracing = InMemorySpanExporter(), TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    transport = LosingTransport()
    transport.target = target
    await TracedTransport(transport, tracing).execute([("PING",)])
    (span,) = spans.get_finished_spans()
    assert dict(span.attributes or {}).get("server.address") == address
    await transport.aclose()
