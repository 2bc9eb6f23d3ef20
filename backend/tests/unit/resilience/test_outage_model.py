"""Any history of calls, faults, crashes and losses: what an outage promises holds after each step.

The real transport, watchman, probe and replays run on a fake clock over a store that is a dict and a journal that is a list.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Sequence
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from redis_core.errors import (
    CredentialsRejected,
    DeadlineExceeded,
    Outcome,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
)
from redis_core.resilience.journal import Journal, JournalFigures
from redis_core.resilience.monitor import Monitor
from redis_core.resilience.outage import Change, State
from redis_core.resilience.record import Record
from redis_core.resilience.watchman import FELL_BACK, Watchman
from redis_core.testing import FakeClock
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.failover import FailoverTransport, PrimaryTransport

LOGGER = logging.getLogger("redis_core.outage")

FAULTS = {
    "up": None,
    "refused": lambda: StoreUnavailable("refused"),
    "lost": lambda: StoreUnavailable("lost", outcome=Outcome.UNKNOWN),
    "silent": lambda: DeadlineExceeded("silent", outcome=Outcome.UNKNOWN),
    "password": lambda: CredentialsRejected("no"),
    "overloaded": lambda: StoreOverloaded("full"),
}


class DictStore:
    """GET, SET [NX], RPUSH; what a fault does to a call is `FAULTS`, and `loading` answers with values."""

    mode = "tcp"
    target = "dict"
    script_header = ""

    def __init__(self) -> None:
        self.stats = TransportStats()
        self.data: dict[str, Any] = {}
        self.fault = "up"
        self.seen: list[Command] = []

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self.seen.extend(batch)
        make = FAULTS.get(self.fault)
        if self.fault == "loading":
            return [StoreUnavailable("LOADING") for _ in batch]
        if make is not None:
            if self.fault == "lost":
                self._run(batch)
            raise make()
        return self._run(batch)

    def _run(self, batch: Sequence[Command]) -> list[Reply]:
        return [self._one([str(word) for word in command]) for command in batch]

    def _one(self, words: list[str]) -> Reply:
        name, key = words[:2]
        if name == "GET":
            return cast("Reply", self.data.get(key))
        if self.fault == "readonly":
            return StoreReadOnly("READONLY")
        if name == "RPUSH":
            self.data.setdefault(key, []).append(words[2])
            return 1
        if "NX" in words and key in self.data:
            return None
        self.data[key] = words[2].encode()
        return b"OK"

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        return await self.execute(batch, timeout=timeout)

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


class ListJournal:
    """What a journal promises, in a list that outlives its process."""

    def __init__(self, records: list[Record], aside: list[Record]) -> None:
        self.records = records
        self.aside = aside

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def append(self, kind: str, order: str, payload: bytes, *, id: str | None = None) -> None:
        self.records.append(Record(id or payload.decode(), kind, order, "dict", payload, len(self.records)))

    async def pending(self, limit: int = 100, *, kinds: Collection[str]) -> list[Record]:
        return [record for record in self.records if record.kind in kinds][:limit]

    async def done(self, ids: Collection[str]) -> int:
        before = len(self.records)
        self.records[:] = [record for record in self.records if record.id not in ids]
        return before - len(self.records)

    async def tried(self, ids: Collection[str]) -> None:
        pass

    async def quarantine(self, ids: Collection[str], reason: str) -> int:
        self.aside += [record for record in self.records if record.id in ids]
        return await self.done(ids)

    @property
    def kinds(self) -> Collection[str]:
        return {record.kind for record in self.records}

    def waiting(self, order: str) -> bool:
        return any(record.order == order for record in self.records)

    @property
    def figures(self) -> JournalFigures:
        return JournalFigures(len(self.records), 0, len(self.aside), 0, 0.0, 0, 0, True)


class OutageModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        LOGGER.addFilter(self._count)
        self.store = DictStore()
        self.records: list[Record] = []
        self.aside: list[Record] = []
        self.accepted: list[Record] = []
        self.numbers = 0
        self.lines = 0
        self.applied: dict[str, str] = {}
        self.order: dict[str, list[int]] = {}

    @initialize()
    def begin(self) -> None:
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        self.clock = FakeClock()
        self.changes: list[Change] = []
        journal = cast("Journal", ListJournal(self.records, self.aside))
        self.lines = 0

        def watchman(primary: PrimaryTransport) -> Watchman:
            monitor = Monitor(random.Random(self.numbers))
            return Watchman(self.store, primary, journal, clock=self.clock, monitor=monitor)

        self.transport = FailoverTransport(
            self.store, journal, DictStore, clock=self.clock, watchman=watchman
        )
        self.outage = self.transport.outage
        self.outage.watch(self.changes.append)
        self.outage.replayer("first", self._replay, first=True)
        self.outage.replayer("then", self._replay)
        self.known = False
        self.lost = False
        self.transport.watch()
        await self.clock.settle()

    async def _replay(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.payload.startswith(b"bad"):
                raise ValueError("not to be carried out")
            await self.transport.primary.execute([("RPUSH", "done", record.id)])
            if record.id not in self.applied:
                self.applied[record.id] = record.order
                self.order.setdefault(record.order, []).append(int(record.id))
        if any(one.kind == "first" for one in self.records):
            assert records[0].kind == "first" or self.outage.available

    def _do(self, what: Any) -> Any:
        try:
            return self.loop.run_until_complete(what)
        finally:
            self.loop.run_until_complete(self.clock.settle())
            self.known = self.known or self.outage._probe.knows_store

    def _count(self, record: logging.LogRecord) -> bool:
        self.lines += record.getMessage() == FELL_BACK
        return False

    # --- what happens ---

    @rule(strict=st.booleans(), name=st.sampled_from(["GET", "SET"]), own=st.sampled_from([None, 0.05]))
    def call(self, strict: bool, name: str, own: float | None) -> None:
        away = not self.outage.available
        seen = len(self.store.seen)
        face = self.transport.primary if strict else self.transport
        command: Command = (name, "k", "v") if name == "SET" else (name, "k")
        task = self.loop.create_task(face.execute([command], timeout=own))

        async def with_time() -> Any:
            while not task.done():
                await self.clock.elapse(0.01)
            return await task

        try:
            self._do(with_time())
        except StoreError as error:
            if away and not (strict and error.outcome is Outcome.NOT_SENT):
                raise AssertionError("away, only the strict face raises, and nothing was sent") from error
            if not strict and self.store.fault == "refused" and own is None:
                raise AssertionError("memory should have answered") from error
        if away and strict:
            assert command not in self.store.seen[seen:]

    @rule(fault=st.sampled_from([*FAULTS, "loading", "readonly"]))
    def fail(self, fault: str) -> None:
        self.store.fault = fault

    @rule()
    def recover(self) -> None:
        self.store.fault = "up"

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 3.0, 15.0]))
    def elapse(self, seconds: float) -> None:
        self._do(self.clock.elapse(seconds))

    @rule(kind=st.sampled_from(["first", "then"]), order=st.sampled_from("ab"), bad=st.booleans())
    def accept(self, kind: str, order: str, bad: bool) -> None:
        self.numbers += 1
        payload = b"bad" if bad and self.numbers % 5 == 0 else b"good"
        self._do(self.outage.record(kind, kind + order, payload, id=str(self.numbers)))
        self.accepted.append(Record(str(self.numbers), kind, order, "dict", payload, 0.0))

    @rule(on=st.booleans())
    def operator(self, on: bool) -> None:
        async def force() -> None:
            self.outage.force(on)

        if on and self.outage.state in {State.HEALTHY, State.SUSPECT} and not self.outage.forced:
            self.lines += 1  # an outage without the line
        self._do(force())

    @rule()
    def crash(self) -> None:
        """The process dies; another one adopts its journal."""
        self._do(self.transport.aclose())
        self.begin()

    @precondition(lambda self: self.store.data)
    @rule()
    def restart_empty(self) -> None:
        self.store.data.clear()
        self.store.stats.reconnects += 1
        self.lost = self.lost or self.known

    @rule()
    def all_is_well_in_the_end(self) -> None:
        self.store.fault = "up"
        self.operator(False)
        self._do(self.clock.elapse(30))
        assert self.outage.state is State.HEALTHY
        assert self.outage.available
        assert self.records == []
        assert self.outage.figures.waiting == 0
        if self.lost:
            assert any(change.came_back_empty for change in self.changes)

    # --- what holds ---

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        waiting = {record.id for record in self.records} | {record.id for record in self.aside}
        assert all(record.id in waiting or record.id in self.applied for record in self.accepted)

    @invariant()
    def each_order_key_is_in_order(self) -> None:
        assert all(numbers == sorted(numbers) for numbers in self.order.values())

    @invariant()
    def one_line_an_outage(self) -> None:
        assert self.lines == self.outage.figures.outages_total

    @invariant()
    def available_means_the_state_allows_it(self) -> None:
        state = self.outage.state
        assert self.outage.available or state in {State.DEGRADED, State.RECOVERING}
        assert not (self.outage.available and state is State.DEGRADED)
        assert self.outage.state is not State.HEALTHY or self.transport.mode == "tcp"

    @invariant()
    def a_loss_is_told_only_if_there_was_one(self) -> None:
        assert self.lost or not any(change.came_back_empty for change in self.changes)

    def teardown(self) -> None:
        if hasattr(self, "transport"):
            self._do(self.transport.aclose())
        self.loop.close()
        LOGGER.removeFilter(self._count)


OutageModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestOutageModel = OutageModel.TestCase
