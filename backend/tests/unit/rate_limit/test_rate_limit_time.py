"""What depends on time, in a time that the test moves: windows, leases, waiting, remembering; and slots of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from redis_core.client import Client
from redis_core.errors import InvalidKey
from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from redis_core.rate_limiting.local import LocalCounters, Refusals, Strikes
from redis_core.rate_limiting.policy import Penalty
from redis_core.transport.base import Command, Reply
from redis_core.transport.cluster_slots import key_slot
from redis_core.transport.memory import MockRedisClient
from tests.rate_world import START, USER, Clock, Limited, limits, one_rule, timed

__all__ = ["timed"]

PATH = "/api/v1/agents"


class HandClock(Clock):
    """A clock whose sleepers wake when the test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + seconds, future))
        await future

    async def move(self, seconds: float) -> None:
        ends = self.time + seconds
        while True:
            await _settle()
            due = sorted((at for at, future in self._sleepers if not future.done() and at <= ends))
            if not due:
                break
            self.time = due[0]
            for at, future in self._sleepers:
                if at <= self.time and not future.done():
                    future.set_result(None)
        self.time = ends
        await _settle()


async def _settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("algorithm", ["sliding", "fixed", "gcra", "log"])
@pytest.mark.parametrize("rate", ["5/min", "3/sec", "40/7sec"])
async def test_who_comes_again_when_told_to_passes_and_not_before(
    timed: Limited, algorithm: str, rate: str
) -> None:
    clock = timed.clock
    assert clock is not None
    count = int(rate.split("/", maxsplit=1)[0])
    text = f"{rate} burst {count}" if algorithm == "gcra" else rate
    limiter = timed.process(one_rule(text, algorithm=algorithm), remember_refusals=0)
    clock.time += 0.37
    for _ in range(count):
        assert await limiter.check(USER, PATH)
        clock.time += 0.004
    refused = await limiter.check(USER, PATH)
    assert not refused
    clock.time += refused.retry_after - 0.002
    assert not await limiter.peek(USER, PATH)
    clock.time += 0.003
    assert await limiter.check(USER, PATH)


async def test_a_refusal_is_asked_about_again_after_a_while(timed: Limited) -> None:
    clock = timed.clock
    assert clock is not None
    rates = one_rule("100/hour", unit="tokens")
    here, elsewhere = timed.process(rates, remember_refusals=5), timed.process(rates)
    held = await elsewhere.reserve(USER, PATH, costs={"tokens": 100})
    assert (await here.check(USER, PATH, costs={"tokens": 10})).source == "store"
    assert (await here.check(USER, PATH, costs={"tokens": 10})).source == "cache"
    assert (await here.check(USER, PATH, costs={"tokens": 5})).source == "store"
    # Another process gives back; we learn of it within five seconds, not in an hour.
    await held.release(give_back=True)
    clock.time += 5.1
    assert await here.check(USER, PATH, costs={"tokens": 10})


async def test_waiting_ends_when_it_passes_or_when_the_time_is_over(timed: Limited) -> None:
    clock = timed.clock
    assert clock is not None
    limiter = timed.process(limits("1/10sec"))
    before = clock.time
    assert await limiter.wait(USER, PATH, within=0)
    assert not await limiter.wait(USER, PATH, within=2)
    assert clock.time - before < 2
    assert await limiter.wait(USER, PATH, within=30)
    assert 10 <= clock.time - before <= 14


async def test_a_lease_is_renewed_while_it_runs_and_free_when_its_holder_is_gone() -> None:
    clock = HandClock()
    async with Client(MockRedisClient(clock=clock)) as client:
        limiter = RateLimiter(client, one_rule("1 concurrent", lease=30), clock=clock, timeout=20)
        held = await limiter.reserve(USER, "/run")
        await clock.move(300)
        assert not (await limiter.reserve(USER, "/run")).allowed
        # The holder's process dies: nobody renews.
        assert held._background is not None
        held._background.cancel()
        await clock.move(31)
        after = await limiter.reserve(USER, "/run")
        assert after.allowed
        await after.release()
        await after.release()


async def test_what_is_held_too_long_is_given_back() -> None:
    clock = HandClock()
    async with Client(MockRedisClient(clock=clock)) as client:
        limiter = RateLimiter(client, limits("10/hour"), clock=clock, timeout=20)
        held = await limiter.reserve(USER, PATH, weight=4, hold=60)
        assert (await limiter.peek(USER, PATH)).remaining == 6
        await clock.move(61)
        assert (await limiter.peek(USER, PATH)).remaining == 10
        with pytest.raises(ValueError, match="over"):
            await held.settle(requests=2)


async def test_a_reservation_settles_in_the_window_it_was_made_in(timed: Limited) -> None:
    clock = timed.clock
    assert clock is not None
    limiter = timed.process(one_rule("100/min", unit="tokens"))
    held = await limiter.reserve(USER, PATH, costs={"tokens": 50})
    clock.time += 30
    await held.settle(tokens=80)
    assert (await limiter.peek(USER, PATH, costs={"tokens": 1})).remaining == 20
    # All of it leaves with the reservation, not half a minute later.
    clock.time += 36
    assert (await limiter.peek(USER, PATH, costs={"tokens": 1})).remaining == 100


@pytest.mark.parametrize("algorithm", ["sliding", "fixed", "gcra", "log"])
async def test_what_nothing_was_reserved_for_may_still_be_settled(timed: Limited, algorithm: str) -> None:
    rate = "100/min burst 100" if algorithm == "gcra" else "100/min"
    limiter = timed.process(one_rule(rate, unit="tokens", algorithm=algorithm))
    async with await limiter.reserve(USER, PATH, costs={"tokens": 0}) as held:
        await held.settle(tokens=30)
    assert (await limiter.peek(USER, PATH, costs={"tokens": 1})).remaining == 70
    assert await timed.without_expiry() == set()


async def test_settling_after_the_window_changes_nothing(timed: Limited) -> None:
    clock = timed.clock
    assert clock is not None
    limiter = timed.process(one_rule("100/min", unit="tokens"))
    held = await limiter.reserve(USER, PATH, costs={"tokens": 50})
    clock.time += 300
    assert await limiter.check(USER, PATH, costs={"tokens": 10})
    await held.settle(tokens=1)
    assert (await limiter.peek(USER, PATH, costs={"tokens": 1})).remaining == 90
    with pytest.raises(ValueError, match="at least 0"):
        await held.settle(tokens=-1)


async def test_a_window_s_last_request_is_waited_for_to_the_millisecond(timed: Limited) -> None:
    # At each moment of the tail's leaving, what floating-point numbers lose must not add a whole window to the wait.
    clock = timed.clock
    assert clock is not None
    limiter = timed.process(limits("1/10sec"))
    await limiter.check(USER, PATH)
    ends = 10.2 if timed.plan == "exact" else 11.0
    for n in range(1, 1000):
        clock.time = START + n / 100
        assert (await limiter.peek(USER, PATH)).retry_after == pytest.approx(ends - n / 100, abs=0.003)


async def test_a_request_that_was_counted_may_reserve_tokens_alone() -> None:
    clock = HandClock()
    timed = Limited(Client(MockRedisClient(clock=clock)), "exact", clock)
    rates = RateLimits(
        rules=(
            Rule("calls", "10/min"),
            Rule("tokens", "1000/min", unit="tokens"),
            Rule("runs", "1 concurrent"),
        )
    )
    limiter = timed.process(rates)
    outer = await limiter.reserve(USER, "/chat")
    async with await limiter.reserve(USER, "/chat", weight=0, costs={"tokens": 100}) as held:
        assert held.allowed
    left = {
        s.policy.name: s.remaining for s in (await limiter.peek(USER, "/chat", costs={"tokens": 1})).states
    }
    assert (left["calls"], left["tokens"]) == (9, 900)
    await outer.release()


async def test_negative_costs_and_wrong_names_are_refused(timed: Limited) -> None:
    limiter = timed.process(limits("10/min"))
    with pytest.raises(ValueError, match="at least 0"):
        await limiter.check(USER, PATH, weight=-1)
    with pytest.raises(InvalidKey):
        await limiter.check(Subject(user="a:b"), PATH)
    with pytest.raises(ValueError, match="instances"):
        RateLimiter(timed.client, limits("1/min"), instances=0)


async def test_who_is_on_the_deny_list_costs_nothing(timed: Limited) -> None:
    limiter = timed.process(RateLimits(rules=(Rule("r", "5/min"),), deny=("u1",)))

    async def ask() -> None:
        assert not await limiter.check(USER, PATH)
        assert not await limiter.peek(USER, PATH)
        assert not (await limiter.reserve(USER, PATH)).allowed

    assert await timed.cost(ask) == (0, 0)


async def test_without_rules_everything_passes(timed: Limited) -> None:
    limiter = timed.process(RateLimits())
    decision = await limiter.check(USER, PATH)
    assert decision.allowed
    assert decision.states == ()
    assert (await limiter.peek(USER, PATH)).allowed
    async with await limiter.reserve(USER, PATH):
        pass
    assert await limiter.reset(USER, PATH) == 0


class Slots(MockRedisClient):
    """A memory store that refuses a script over several slots, as a cluster does."""

    mode = "cluster"

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        for command in batch:
            if command[0] in {"EVAL", "EVALSHA"}:
                keys = command[3 : 3 + int(command[2])]
                assert len({key_slot(key) for key in keys}) <= 1, keys
        return await super().execute(batch, timeout=timeout)


async def test_on_a_cluster_what_one_slot_refuses_is_given_back_by_the_others() -> None:
    clock = Clock()
    rates = RateLimits(
        rules=(
            Rule("user", "10/min"),
            Rule("log", "8/min", by="ip", algorithm="log"),
            Rule("gcra", "9/min burst 9", by="everyone", algorithm="gcra"),
            Rule("workspace", "3/min", by="workspace"),
        )
    )
    async with Client(Slots(clock=clock)) as client:
        limiter = RateLimiter(client, rates, plan="exact", clock=clock, timeout=20, remember_refusals=0)
        decisions = [await limiter.check(USER, PATH) for _ in range(6)]
        assert [decision.allowed for decision in decisions] == [True] * 3 + [False] * 3
        assert decisions[-1].violated == ("workspace",)
        expected = {"user": 7, "log": 5, "gcra": 6, "workspace": 0}
        for decision in (decisions[-1], await limiter.peek(USER, PATH)):
            assert {state.policy.name: state.remaining for state in decision.states} == expected


def test_what_a_process_remembers_is_bounded() -> None:
    refusals, strikes, local = Refusals(5, most=10), Strikes(most=10), LocalCounters(1, most=10)
    policy = one_rule("1/min").route("/a").groups[0].policies.policies[0]
    from redis_core.rate_limiting.decision import PolicyState

    for n in range(50):
        refusals.learn(f"k{n}", PolicyState(policy, 0, 9), 1, (), 0)
        assert not strikes.add(f"k{n}", "p", Penalty(after=2), n)
        local.decide([(f"k{n}", policy)], [1], n)
    assert len(refusals) == len(strikes._seen) == len(local._counters) == 10


def test_strikes_are_forgotten_after_a_while() -> None:
    strikes = Strikes()
    penalty = Penalty(after=3, within=10)
    assert [strikes.add("k", "p", penalty, now) for now in (0, 6, 11, 12)] == [False, False, False, True]
