"""While the store is busy workspaces take turns; one that is past its rate waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from redis_core import fair_share
from redis_core.errors import DeadlineExceeded, Outcome, QuotaExceeded, StoreOverloaded
from redis_core.fair_share import BUSY, FairShare
from redis_core.testing import FakeClock
from redis_core.transport.base import Command, TransportStats
from tests.hand_clock import HandClock
from tests.stores import clean_client


def get(workspace: str, name: str = "x") -> list[Command]:
    return [("GET", f"ws:{{{workspace}}}:app:{name}")]


@pytest.fixture
def stats() -> TransportStats:
    return TransportStats()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def gate(stats: TransportStats, clock: HandClock) -> FairShare:
    return FairShare(stats, clock)


class Callers:
    """Tasks that wait for their turn, and in which order it came."""

    def __init__(self, gate: FairShare, stats: TransportStats) -> None:
        self.gate, self.stats = gate, stats
        self.passed: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def come(self, workspace: str, name: str) -> None:
        async def call() -> None:
            await self.gate.enter(get(workspace, name), None)
            self.stats.in_flight += 1
            self.passed.append(f"{workspace} {name}")

        self.tasks.append(asyncio.create_task(call()))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.passed) < count:
                await asyncio.sleep(0.001)


async def test_a_quiet_tenant_is_delayed_by_one_call_of_a_noisy_one(
    gate: FairShare, stats: TransportStats
) -> None:
    stats.in_flight = BUSY + 1
    callers = Callers(gate, stats)
    for number in range(500):
        callers.come("noisy", str(number))
    await asyncio.sleep(0)
    callers.come("quiet", "0")
    callers.come("quiet", "1")
    await asyncio.sleep(0)
    assert callers.passed == []
    stats.in_flight = BUSY - 4
    await callers.until(4)
    assert callers.passed == ["noisy 0", "quiet 0", "noisy 1", "quiet 1"]
    stats.in_flight = 0
    await callers.until(502)
    # Each workspace's own calls keep their order.
    assert callers.passed[4:] == [f"noisy {number}" for number in range(2, 500)]
    await asyncio.gather(*callers.tasks)


async def test_nothing_waits_where_nothing_is_busy_and_what_is_nobodys_never_does(
    gate: FairShare, stats: TransportStats
) -> None:
    await asyncio.wait_for(gate.enter(get("acme"), None), 20)
    stats.in_flight = BUSY + 1
    await asyncio.wait_for(gate.enter([("PING",)], None), 20)
    await asyncio.wait_for(gate.enter([("GET", "sys:epoch")], None), 20)


async def test_a_turn_that_does_not_come_is_a_deadline_and_nothing_was_sent(
    gate: FairShare, stats: TransportStats
) -> None:
    stats.in_flight = BUSY + 1
    with pytest.raises(DeadlineExceeded, match="its turn did not come") as late:
        await gate.enter(get("acme"), 0.01)
    assert late.value.outcome is Outcome.NOT_SENT
    stats.in_flight = 0
    # Its place is no hole in the line.
    await asyncio.wait_for(gate.enter(get("acme"), None), 20)


async def test_a_caller_that_was_cancelled_holds_nobody_up(gate: FairShare, stats: TransportStats) -> None:
    stats.in_flight = BUSY + 1
    callers = Callers(gate, stats)
    callers.come("acme", "0")
    callers.come("acme", "1")
    await asyncio.sleep(0)
    callers.tasks[0].cancel()
    stats.in_flight = BUSY - 1
    await callers.until(1)
    assert callers.passed == ["acme 1"]
    await asyncio.gather(*callers.tasks, return_exceptions=True)


async def test_the_line_is_bounded(
    gate: FairShare, stats: TransportStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_share, "_MOST_WAITING", 2)
    stats.in_flight = BUSY + 1
    callers = Callers(gate, stats)
    callers.come("a", "0")
    callers.come("b", "0")
    await asyncio.sleep(0)
    with pytest.raises(StoreOverloaded, match="2 calls wait"):
        await gate.enter(get("c"), None)
    stats.in_flight = 0
    await callers.until(2)


async def test_who_is_past_its_rate_waits_and_is_refused_where_that_takes_too_long(
    gate: FairShare, clock: HandClock
) -> None:
    gate.hold_to({"acme": 100.0}.get)
    began = clock.time
    await gate.enter(get("globex") * 10_000, None)
    await gate.enter(get("acme") * 100, None)
    assert clock.time == began
    # Half a second's worth too much, so half a second.
    await gate.enter(get("acme") * 50, None)
    assert clock.time - began == pytest.approx(0.5)
    with pytest.raises(QuotaExceeded, match=r"acme has used its 100 commands a second up") as refused:
        await gate.enter(get("acme") * 1_000, 2.0)
    assert refused.value.retry_after == pytest.approx(10.0)
    assert refused.value.outcome is Outcome.NOT_SENT
    # What was refused was not counted.
    await gate.enter(get("acme"), None)
    assert clock.time - began == pytest.approx(0.51)


@pytest.mark.parametrize(
    "batch",
    [get("acme"), get("acme") * 50, [("PING",), *(get("acme") * 49)]],
    ids=["single", "pipeline", "after another command"],
)
async def test_callers_that_come_at_once_are_within_the_rate_together(
    gate: FairShare, batch: list[Command]
) -> None:
    clock = FakeClock()
    gate._clock = clock
    gate.hold_to({"acme": 100.0}.get)
    passed = 0

    async def call() -> None:
        nonlocal passed
        while True:
            await gate.enter(batch, 60)
            passed += len(batch)

    callers = [asyncio.create_task(call()) for _ in range(40)]
    for _ in range(1_600):
        await asyncio.sleep(0)
        clock.advance(0.0025)
    # A second's worth at once, then four seconds'.
    assert passed <= 500
    assert passed > 400
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)


async def test_the_rates_of_many_workspaces_are_bounded(
    gate: FairShare, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_share, "_MOST_KNOWN", 2)
    gate.hold_to(lambda _workspace: 10.0)
    await gate.enter(get("a") * 20, None)
    await gate.enter(get("b"), None)
    clock.time += 5
    await gate.enter(get("c"), None)
    assert len(gate._left) <= 2


async def test_a_flood_of_one_tenant_does_not_bury_anothers_call(valkey_socket: str) -> None:
    async with await clean_client(valkey_socket) as client:
        noisy = client.workspace("noisy").keys.key("app", "x")
        quiet = client.workspace("quiet").keys.key("app", "x")
        answered = 0

        async def ask(call: Callable[[], Awaitable[object]]) -> None:
            nonlocal answered
            await call()
            answered += 1

        flood = [asyncio.create_task(ask(lambda: client.get(noisy))) for _ in range(20_000)]
        await asyncio.sleep(0)
        assert await client.get(quiet) is None
        assert answered < 10_000
        await asyncio.gather(*flood)
        assert client.stats.in_flight == 0


async def test_a_tenants_rate_is_held_by_the_client(valkey_socket: str) -> None:
    async with await clean_client(valkey_socket) as client:
        clock = HandClock()
        client._fair_share._clock = clock
        client.hold_to({"acme": 50.0}.get)
        name = client.workspace("acme").keys.key("app", "x")
        began = clock.time
        for _ in range(250):
            await client.get(name)
        # The first 50 at once.
        assert clock.time - began == pytest.approx(4.0, abs=0.1)
        for _ in range(250):
            await client.get(client.workspace("globex").keys.key("app", "x"))
        assert clock.time - began == pytest.approx(4.0, abs=0.1)
        client.hold_to(None)
        await client.get(name)
        assert clock.time - began == pytest.approx(4.0, abs=0.1)
