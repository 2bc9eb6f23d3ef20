"""Counting, in the client: exact where it costs nothing, sampled where it would.

How many calls there were is exact. How long they took, whose they were and what they are billed is measured of each of the first 1,000 calls
between two flushes, of every 128th of the next 32,000, and of every 1,024th after that, which then counts as so many. So a quiet
process is measured whole, and a busy one pays for one subtraction and one comparison a call.

Services keep running totals of their own and are asked for them when the metrics are flushed.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from redis_core.errors import NoScript, StoreError
from redis_core.measuring.attribution import attribute, billed, size_of
from redis_core.measuring.batch import OTHER, Batch, Slow, Usage
from redis_core.measuring.catalogue import CATALOGUE, labelled, split_label
from redis_core.measuring.histogram import Histogram

if TYPE_CHECKING:
    from redis_core.transport.base import Command, Reply, Transport

__all__ = ["Meter"]

O = TypeVar("O")  # noqa: E741 - an owner

_STRIDES: Final = ((1_000, 1), (250, 128), (0, 1_024))
"""After a flush: how many calls are measured at each stride, and for how many each of them stands. The last one has no end."""
_MOST_NAMES: Final = 1_000
"""Tenants and offenders that are told apart between two flushes; what comes after is `other`."""
_MOST_SLOW: Final = 20
_WAITS: Final = frozenset({
    "BLPOP", "BRPOP", "BLMOVE", "BLMPOP", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "XREAD", "XREADGROUP", "WAIT", "WAITAOF",
})  # fmt: skip
"""Commands whose duration is not the store's but what they wait for."""

Reading = Callable[[O], Mapping[str, float]]
"""An owner's running totals and levels, by the catalogue's names."""


class Meter:
    """What one client has measured since it was last taken.

    Args:
        transport: whose running totals are told.
    """

    __slots__ = (
        "_batch", "_calls", "_fastest_slow", "_level", "_noted", "_owners", "_seen", "_stride", "_transport", "_until", "left", "lengths", "watching",
    )  # fmt: skip

    def __init__(self, transport: Transport) -> None:
        self.left = 0
        """Calls until the next one that is measured; the client counts it down."""
        self.lengths: dict[str, list[str]] = {}
        """Hashes whose length is a level, by the level's series: asked for once a minute."""
        self.watching = 0
        """Commands that only kept watch, by whoever sent them: counted like others, but no sign that anything happened."""
        self._transport = transport
        self._calls = 0
        self._level = 0
        self._until, self._stride = _STRIDES[0]
        self._fastest_slow = 0.0
        self._noted = 0
        self._batch = Batch()
        self._owners: WeakKeyDictionary[object, tuple[Reading[object], dict[str, float]]] = (
            WeakKeyDictionary()
        )
        self._seen: dict[str, float] = {}

    # --- calls ---

    def begin(self) -> int:
        """A call is measured: for how many it stands. To be called when `left` has run below zero."""
        weight = self._stride
        self._calls += weight
        self.left = weight - 1
        if self._until:
            self._until -= 1
            if not self._until:
                self._level += 1
                self._until, self._stride = _STRIDES[self._level]
        return weight

    def tick(self) -> int:
        """Count a call; for how many it stands if it is to be measured, else 0."""
        self.left -= 1
        return self.begin() if self.left < 0 else 0

    def end(self, batch: Sequence[Command], replies: Sequence[Reply], seconds: float, weight: int) -> None:
        """A measured call is over.

        Args:
            batch: its commands.
            replies: to them; empty if there were none.
            seconds: how long it took.
            weight: for how many calls it stands.
        """
        if not batch:
            return
        counts = self._batch.counters
        service = ""
        extra = 0
        for place, command in enumerate(batch):
            whose = attribute(command)
            service = service or whose.service
            price = billed(command)
            extra += price - 1
            if whose.workspace:
                usage = self._usage(whose.workspace)
                usage.commands += weight
                usage.billed += weight * price
                usage.bytes += weight * size_of(command, replies[place] if replies else None)
        _count(counts, labelled("service_operations_total", service), weight)
        if extra:
            # The commands themselves are counted by the transport.
            _count(counts, "billed_commands_total", extra * weight)
        name = str(batch[0][0])
        if name in _WAITS:
            return
        series = labelled("operation_duration_seconds", service)
        self._batch.durations.setdefault(series, Histogram()).add(seconds, weight)
        if seconds > self._fastest_slow or len(self._batch.slow) < _MOST_SLOW:
            self._note_slow(batch, name, service, seconds)

    def _usage(self, workspace: str) -> Usage:
        known = self._batch.workspaces
        usage = known.get(workspace)
        if usage is None:
            name = workspace if len(known) < _MOST_NAMES else OTHER
            usage = known.setdefault(name, Usage())
        return usage

    def _note_slow(self, batch: Sequence[Command], name: str, service: str, seconds: float) -> None:
        shown = name if len(batch) == 1 else f"{name} +{len(batch) - 1}"
        call = Slow(seconds, time.time(), shown, service, attribute(batch[0]).workspace)
        slow = self._batch.slow = heapq.nlargest(
            _MOST_SLOW, [*self._batch.slow, call], key=lambda one: one.seconds
        )
        self._fastest_slow = slow[-1].seconds if len(slow) == _MOST_SLOW else 0.0

    def failed(self, error: StoreError) -> None:
        """Count an error. A script that the store did not know is sent again, and is none."""
        if not isinstance(error, NoScript):
            self.count("errors_total", type(error).__name__)

    # --- what services tell ---

    def count(self, name: str, label: str = "", by: float = 1) -> None:
        """Add to a counter.

        Args:
            name: as the catalogue has it.
            label: its label's value.
            by: how much.
        """
        self._noted += 1
        _count(self._batch.counters, labelled(name, label), by)

    def job_ended(self, workspace: str, outcome: str) -> None:
        """Count the end of a run of a workspace's job."""
        self.count("jobs_total", outcome)
        self._usage(workspace).jobs += 1

    def observe(self, name: str, seconds: float, label: str = "") -> None:
        """Add a duration to a histogram; as `count`."""
        self._noted += 1
        self._batch.durations.setdefault(labelled(name, label), Histogram()).add(seconds)

    def refused(self, key: str) -> None:
        """Count a refusal of a rate limit by the limit's key."""
        self._noted += 1
        known = self._batch.refused
        name = key if key in known or len(known) < _MOST_NAMES else OTHER
        known[name] = known.get(name, 0) + 1

    def watch(self, owner: O, read: Callable[[O], Mapping[str, float]]) -> None:
        """Ask an owner for its running totals and levels at each flush, for as long as it lives.

        Args:
            owner: held weakly.
            read: the totals; must not hold the owner.
        """
        self._owners[owner] = cast("Reading[object]", read), dict(read(owner))

    # --- taking ---

    def activity(self) -> tuple[float, ...]:
        """Figures that change when anything happened; for telling a process at rest. Budget: nothing."""
        stats = self._transport.stats
        totals = [sum(read(owner).values()) for owner, (read, _) in list(self._owners.items())]
        return (stats.commands - self.watching, stats.errors, stats.connects, self._noted, *totals)

    def take(self) -> Batch:
        """What was measured since it was last taken. Begins anew."""
        batch, self._batch = self._batch, Batch()
        counts = batch.counters
        # What the last measured call stands for and has not happened yet is not counted.
        if calls := self._calls - max(self.left, 0):
            _count(counts, "operations_total", calls)
        self._calls, self._level, self._fastest_slow = 0, 0, 0.0
        self._until, self._stride = _STRIDES[0]
        self.left = 0
        for name, total in self._transport_totals().items():
            grown = total - self._seen.get(name, 0)
            self._seen[name] = total
            if grown > 0:
                _count(counts, name, grown)
        batch.levels["commands_in_flight"] = self._transport.stats.in_flight
        for read, owner, seen in [(read, owner, seen) for owner, (read, seen) in self._owners.items()]:
            for name, total in read(owner).items():
                if CATALOGUE[split_label(name)[0]].kind == "gauge":
                    batch.levels[name] = batch.levels.get(name, 0) + total
                elif total > seen.get(name, 0):
                    _count(counts, name, total - seen.get(name, 0))
                    seen[name] = total
        return batch

    def _transport_totals(self) -> dict[str, float]:
        stats = self._transport.stats
        return {
            "commands_total": stats.commands,
            "billed_commands_total": stats.commands,
            "trips_total": stats.trips,
            "connects_total": stats.connects,
            "sent_bytes_total": stats.sent_bytes,
            "received_bytes_total": stats.received_bytes,
        }


def _count(counters: dict[str, float], name: str, by: float) -> None:
    counters[name] = counters.get(name, 0) + by
