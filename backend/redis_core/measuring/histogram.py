"""Durations in buckets that grow by 9 %: small, exact to add up over processes and time, and good for any percentile.

Bucket `i` holds what is above `2^((i-1)/8)` and at most `2^(i/8)` microseconds; the scale is OpenTelemetry's exponential histogram of
scale 3. A percentile is told as its bucket's geometric middle, so it is at most 4.5 % off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from redis_core.latency import milliseconds

__all__ = ["Histogram", "bucket_of", "upper_bound"]

_PER_DOUBLING: Final = 8
_LAST: Final = 320
"""2^40 microseconds are 12 days."""


def bucket_of(seconds: float) -> int:
    """The bucket of a duration: 0 for a microsecond and less."""
    microseconds = seconds * 1e6
    return 0 if microseconds <= 1 else min(math.ceil(math.log2(microseconds) * _PER_DOUBLING), _LAST)


def upper_bound(bucket: int) -> float:
    """The longest duration of a bucket, in seconds."""
    return 2 ** (bucket / _PER_DOUBLING) / 1e6


class Histogram(Struct, array_like=True):
    """How many durations fell into each bucket, and their sum in seconds."""

    buckets: dict[int, int] = {}
    sum: float = 0.0

    @property
    def count(self) -> int:
        """How many durations there are."""
        return sum(self.buckets.values())

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration.

        Args:
            seconds: the duration.
            times: how many calls it stands for.
        """
        bucket = bucket_of(seconds)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + times
        self.sum += seconds * times

    def merge(self, other: Histogram) -> None:
        """Add another's durations."""
        buckets = self.buckets
        for bucket, count in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        self.sum += other.sum

    def quantile(self, share: float) -> float | None:
        """The duration that this share of all did not exceed, in seconds; None without any.

        Args:
            share: 0.99 for the 99th percentile.
        """
        wanted = max(math.ceil(share * self.count), 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return upper_bound(bucket) if bucket == 0 else 2 ** ((bucket - 0.5) / _PER_DOUBLING) / 1e6
        return None

    def quantile_ms(self, share: float) -> float | None:
        """As `quantile`, in milliseconds."""
        seconds = self.quantile(share)
        return None if seconds is None else milliseconds(seconds)

    def cumulative(self, bounds: tuple[int, ...]) -> Mapping[int, int]:
        """How many durations were within each bound.

        Args:
            bounds: buckets, ascending.
        """
        return {bound: sum(n for bucket, n in self.buckets.items() if bucket <= bound) for bound in bounds}
