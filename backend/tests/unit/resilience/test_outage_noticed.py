"""How long the first failure takes to become an outage: at most 1.5 s where the store is silent, 50 ms where it refuses. By events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from typing import cast

import pytest

from redis_core.config import Settings
from redis_core.errors import DeadlineExceeded, Outcome, StoreUnavailable
from redis_core.resilience.journal import Journal
from redis_core.resilience.monitor import Monitor
from redis_core.resilience.outage import State
from redis_core.resilience.record import Record
from redis_core.resilience.watchman import Watchman
from redis_core.testing import FakeClock
from redis_core.transport.base import Command, Reply
from redis_core.transport.failover import FailoverTransport, PrimaryTransport
from redis_core.transport.memory import MockRedisClient

TIMEOUT: float = Settings.model_fields["redis_command_timeout"].default
"""What a command is given by a service that says nothing else."""


class LeavingStore(MockRedisClient):
    """A store whose silence lasts as long as its caller waits, by the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self._fake = clock
        self.fault = "up"
        self.asked = 0

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self.asked += 1
        if self.fault == "silent":
            await self._fake.sleep(TIMEOUT if timeout is None else timeout)
            raise DeadlineExceeded("silent", outcome=Outcome.UNKNOWN)
        if self.fault == "refused":
            raise StoreUnavailable("refused")
        return await super().execute(batch, timeout=timeout)


class EmptyJournal:
    """A journal that nothing is recorded in."""

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def pending(self, limit: int = 100, *, kinds: Collection[str]) -> list[Record]:
        return []


@pytest.mark.parametrize(("fault", "limit"), [("silent", 1.5), ("refused", 0.05)])
@pytest.mark.parametrize("seed", range(5))
async def test_the_very_first_call_is_answered_from_memory_in_time(
    fault: str, limit: float, seed: int
) -> None:
    clock = FakeClock()
    store = LeavingStore(clock)
    journal = cast("Journal", EmptyJournal())

    def watchman(primary: PrimaryTransport) -> Watchman:
        return Watchman(store, primary, journal, clock=clock, monitor=Monitor(random.Random(seed)))

    transport = FailoverTransport(store, journal, MockRedisClient, clock=clock, watchman=watchman)
    transport.watch()
    await clock.settle()
    await transport.execute([("SET", "k", "v")])
    await clock.elapse(3.0)
    assert transport.mode == "memory", "the store's own, not degraded"
    before = store.asked
    store.fault = fault
    began = clock.monotonic()
    call = asyncio.ensure_future(transport.execute([("GET", "k")]))
    while not call.done():
        await clock.elapse(limit / 50)
        assert clock.monotonic() - began <= limit
    assert call.result() == [None]
    assert transport.outage.state is State.DEGRADED
    assert store.asked > before + 1, "a probe asked too"
    await transport.aclose()
