"""How long the last calls took: a ring of durations and its percentiles."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from msgspec import Struct

__all__ = ["Latency", "LatencyRing"]

_SAMPLES: Final = 512


class Latency(Struct, frozen=True):
    """Percentiles of the last calls, in milliseconds, by the nearest-rank method; None before the first call."""

    samples: int
    min_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None


class LatencyRing:
    """The durations of the last calls.

    Args:
        size: how many it remembers.
    """

    def __init__(self, size: int = _SAMPLES) -> None:
        self._seconds: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Remember one call's duration."""
        self._seconds.append(seconds)

    def percentiles(self) -> Latency:
        """The percentiles of what is remembered."""
        ordered = sorted(self._seconds)
        if not ordered:
            return Latency(samples=0)

        def at(quantile: float) -> float:
            return milliseconds(ordered[max(math.ceil(quantile * len(ordered)) - 1, 0)])

        return Latency(
            samples=len(ordered),
            min_ms=at(0),
            p50_ms=at(0.50),
            p95_ms=at(0.95),
            p99_ms=at(0.99),
            max_ms=at(1),
        )


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, to the microsecond."""
    return round(seconds * 1_000, 3)
