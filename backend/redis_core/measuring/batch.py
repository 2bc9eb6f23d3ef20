"""What was measured within some time: by one process, or by all of them together. Batches are added up, never subtracted."""

from __future__ import annotations

import heapq
from typing import Final

import msgspec
from msgspec import Struct

from redis_core.errors import CodecError
from redis_core.measuring.catalogue import CATALOGUE, split_label
from redis_core.measuring.histogram import Histogram

__all__ = ["OTHER", "Batch", "Slow", "Usage", "decode_batch", "encode_batch"]

OTHER: Final = "other"
"""Stands for all that are not among the first."""
_MOST_SLOW: Final = 20
_MOST_NAMES: Final = 20


class Usage(Struct, array_like=True):
    """One tenant's share."""

    commands: int = 0
    bytes: int = 0
    billed: int = 0
    jobs: int = 0
    """Runs that ended."""

    def merge(self, other: Usage) -> None:
        """Add another's."""
        self.commands += other.commands
        self.bytes += other.bytes
        self.billed += other.billed
        self.jobs += other.jobs


class Slow(Struct, array_like=True, frozen=True):
    """A slow call."""

    seconds: float
    at: float
    """Unix seconds."""
    operation: str
    service: str
    workspace: str


class Batch(Struct, array_like=True):
    """Counts, levels, durations, and who and what was first."""

    counters: dict[str, float] = {}
    levels: dict[str, float] = {}
    """The last value of each gauge; of several processes together as the catalogue says."""
    durations: dict[str, Histogram] = {}
    workspaces: dict[str, Usage] = {}
    refused: dict[str, int] = {}
    """Refusals of rate limits by the limit's key."""
    slow: list[Slow] = []

    def add(self, later: Batch) -> None:
        """Add what was measured elsewhere, or later by the same process; its levels are added too."""
        for name, level in later.levels.items():
            before = self.levels.get(name, 0)
            self.levels[name] = max(before, level) if _is_shared(name) else before + level
        self.add_counts(later)

    def add_counts(self, later: Batch) -> None:
        """As `add`, without the levels."""
        for name, count in later.counters.items():
            self.counters[name] = self.counters.get(name, 0) + count
        for name, histogram in later.durations.items():
            self.durations.setdefault(name, Histogram()).merge(histogram)
        for workspace, usage in later.workspaces.items():
            self.workspaces.setdefault(workspace, Usage()).merge(usage)
        for key, times in later.refused.items():
            self.refused[key] = self.refused.get(key, 0) + times
        if later.slow:
            self.slow = heapq.nlargest(_MOST_SLOW, [*self.slow, *later.slow], key=lambda call: call.seconds)

    def first(self, most: int = _MOST_NAMES) -> Batch:
        """This batch with only the first tenants and offenders; the other tenants are together under `other`."""
        busiest = heapq.nlargest(
            most, self.workspaces.keys() - {OTHER}, key=lambda name: self.workspaces[name].commands
        )
        kept: dict[str, Usage] = {}
        for workspace, usage in self.workspaces.items():
            kept.setdefault(workspace if workspace in busiest else OTHER, Usage()).merge(usage)
        worst = heapq.nlargest(most, self.refused, key=lambda key: self.refused[key])
        return msgspec.structs.replace(
            self, workspaces=kept, refused={key: self.refused[key] for key in worst}
        )


def _is_shared(series: str) -> bool:
    metric = CATALOGUE.get(split_label(series)[0])
    return metric is not None and metric.together == "max"


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Batch)


def encode_batch(batch: Batch) -> bytes:
    """A batch as it is stored: JSON, about 1 KB, so that it is the same over REST."""
    return _ENCODER.encode(batch)


def decode_batch(stored: bytes) -> Batch:
    """A stored batch.

    Raises:
        CodecError: it is none.
    """
    try:
        return _DECODER.decode(stored)
    except msgspec.MsgspecError as error:
        raise CodecError(f"{len(stored)} stored bytes are no metrics: {error}") from error
