from __future__ import annotations

from redis_core.latency import Latency, LatencyRing


def test_no_call_has_no_percentiles() -> None:
    assert LatencyRing().percentiles() == Latency(samples=0)


def test_percentiles_are_of_calls_that_were_made() -> None:
    ring = LatencyRing(size=1_000)
    for number in range(100, 0, -1):
        ring.add(number / 1_000)
    assert ring.percentiles() == Latency(
        samples=100, min_ms=1.0, p50_ms=50.0, p95_ms=95.0, p99_ms=99.0, max_ms=100.0
    )


def test_one_call_is_every_percentile() -> None:
    ring = LatencyRing()
    ring.add(0.0042)
    found = ring.percentiles()
    assert {found.min_ms, found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms} == {4.2}


def test_the_ring_forgets_the_oldest() -> None:
    ring = LatencyRing(size=2)
    for seconds in (9, 1, 2):
        ring.add(seconds)
    assert (ring.percentiles().samples, ring.percentiles().max_ms) == (2, 2_000.0)
