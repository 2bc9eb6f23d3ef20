"""A metric over time, as a chart needs it."""

from __future__ import annotations

import math
from typing import Final

from redis_core.measuring.batch import Batch
from redis_core.measuring.catalogue import Metric, labelled, split_label
from redis_core.measuring.documents import Series, SeriesLine
from redis_core.measuring.histogram import Histogram
from redis_core.measuring.window import HOURS, MINUTES, Scale, Window

__all__ = ["MOST_POINTS", "plan_of", "series_of"]

MOST_POINTS: Final = 1_500
"""Most times of one series."""
_MOST_LINES: Final = 20
_PERCENTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def plan_of(begin: float, end: float, step: int, now: float) -> tuple[Scale, int]:
    """Which buckets serve a range, and the step they allow.

    Args:
        begin: of the range, in Unix seconds.
        end: of the range.
        step: seconds that are wanted from one time to the next.
        now: the time.

    Returns:
        The buckets, and the step: a multiple of theirs, such that there are at most 1,500 times.
    """
    recent = now - begin <= MINUTES.kept
    scale = MINUTES if recent and step < HOURS.bucket else HOURS
    least = max(step, math.ceil((end - begin) / MOST_POINTS), scale.bucket)
    return scale, math.ceil(least / scale.bucket) * scale.bucket


def series_of(metric: Metric, window: Window, begin: float, end: float, step: int) -> Series:
    """A metric's lines.

    Args:
        metric: which.
        window: what was measured in the range.
        begin: of the range.
        end: of the range.
        step: seconds from one time to the next, a multiple of the window's buckets.
    """
    times = list(range(int(begin) // step * step, int(end) + 1, step))
    steps: list[list[Batch]] = [[] for _ in times]
    for at in sorted(window.buckets):
        place = (at - times[0]) // step
        if 0 <= place < len(times):
            steps[place].append(window.buckets[at])
    if metric.kind == "histogram":
        lines = _percentiles(metric, steps)
        unit = metric.unit
    elif metric.kind == "gauge":
        lines = _levels(metric, steps)
        unit = metric.unit
    else:
        # A step that is not over, or of which no process has told yet, has had less time.
        lines = _rates(metric, steps, [min(step, max(end - at, window.scale.bucket)) for at in times])
        unit = f"{metric.unit}/s"
    return Series(metric.name, metric.kind, unit, step, times, lines)


def _labels(metric: Metric, steps: list[list[Batch]], field: str) -> list[str]:
    """The values of the metric's label that there are; without any, the empty one."""
    found: dict[str, None] = {}
    for batches in steps:
        for batch in batches:
            for series in getattr(batch, field):
                name, label = split_label(series)
                if name == metric.name:
                    found[label] = None
    return sorted(found)[:_MOST_LINES] or [""]


def _rates(metric: Metric, steps: list[list[Batch]], lengths: list[float]) -> list[SeriesLine]:
    lines: list[SeriesLine] = []
    for label in _labels(metric, steps, "counters"):
        name = labelled(metric.name, label)
        values = [
            round(sum(batch.counters.get(name, 0) for batch in batches) / length, 4) if batches else None
            for batches, length in zip(steps, lengths, strict=True)
        ]
        lines.append(SeriesLine(label, values))
    return lines


def _levels(metric: Metric, steps: list[list[Batch]]) -> list[SeriesLine]:
    lines: list[SeriesLine] = []
    for label in _labels(metric, steps, "levels"):
        name = labelled(metric.name, label)
        values = [
            max((batch.levels[name] for batch in batches if name in batch.levels), default=None)
            for batches in steps
        ]
        lines.append(SeriesLine(label, values))
    return lines


def _percentiles(metric: Metric, steps: list[list[Batch]]) -> list[SeriesLine]:
    together: list[Histogram] = []
    for batches in steps:
        whole = Histogram()
        for batch in batches:
            for series, histogram in batch.durations.items():
                if split_label(series)[0] == metric.name:
                    whole.merge(histogram)
        together.append(whole)
    return [
        SeriesLine(label, [histogram.quantile(share) for histogram in together])
        for label, share in _PERCENTILES
    ]
