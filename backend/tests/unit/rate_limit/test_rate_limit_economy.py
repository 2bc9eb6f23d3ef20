"""The economy plan: what a deck holds, that it forgets nothing and reads nothing stale, and what it costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.rate_limit import RateLimiter, Rule
from redis_core.rate_limiting.algorithms import ring_look
from redis_core.rate_limiting.economy import Deck, KnownDecks, make_decks
from redis_core.rate_limiting.policy import Policy
from redis_core.transport.memory import MockRedisClient
from tests.rate_world import START, USER, Clock, Limited, limits, one_rule, timed

__all__ = ["timed"]

PATH = "/api/v1/agents"


def policies(*rates: str) -> list[Policy]:
    return [Rule(f"r{n}", rate).policy() for n, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "decks"),
    [
        (["100/min"], 1),
        (["10/sec", "100/min"], 1),
        (["10/sec", "100/min", "1000/hour"], 1),
        (["100/min", "1000/day"], 1),
        (["10/sec", "100/min", "1000/day"], 2),
        (["10/7sec", "100/min"], 2),
        (["5/15min", "100/hour", "1000/day"], 1),
    ],
)
def test_windows_share_a_deck_where_one_fits_them(rates: list[str], decks: int) -> None:
    assert len(make_decks(policies(*rates))) == decks


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10**9), st.sampled_from(["sec", "7sec", "min", "15min", "hour", "day", "31day"])
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_no_two_counters_of_a_deck_overlap_and_each_is_wide_enough(rates: list[tuple[int, str]]) -> None:
    listed = policies(*(f"{limit}/{window}" for limit, window in rates))
    decks = make_decks(listed)
    assert sorted(place for deck in decks for place in deck.places) == list(range(len(listed)))
    for deck in decks:
        spans = sorted(
            (column.offset, column.offset + deck.period // column.slot * column.bits)
            for column in deck.columns
        )
        assert spans[0][0] >= 8
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
        assert spans[-1][1] < 8 * 256 * 1024
        for column in deck.columns:
            assert deck.period % column.policy.window_ms == 0
            assert column.slot * column.slots == column.policy.window_ms
            assert column.policy.limit * 2 < 1 << column.bits


def test_another_form_is_another_key_and_another_limit_is_not() -> None:
    (deck,), (wider,), (other,) = (make_decks(policies(rate)) for rate in ("100/min", "200/min", "100/hour"))
    assert deck.name("k", 0) == wider.name("k", 0)
    assert deck.name("k", 0) != other.name("k", 0)


def test_what_is_known_of_strings_is_bounded() -> None:
    known = KnownDecks(most=10)
    for n in range(100):
        known.learn(f"k{n}", None)  # type: ignore[arg-type]  # only counted here
    assert len(known) == 10
    assert known.get("k0") is None


def reference(admitted: list[tuple[int, int]], deck: Deck, now: int, cost: int) -> bool:
    """Whether all of a deck's windows let a cost pass, from a list of all that was ever admitted."""
    for column in deck.columns:
        ring = [0] * (column.slots + 1)
        for at, amount in admitted:
            back = now // column.slot - at // column.slot
            if back <= column.slots:
                ring[-1 - back] += amount
        if ring_look(ring, sum(ring[1:]), now % column.slot, column.slot, cost, column.policy.limit)[1]:
            return False
    return True


GAPS = st.sampled_from([0, 3, 250, 1000, 5000, 20_000, 60_000, 61_000, 300_000, 900_000, 960_000, 1_000_000])


@given(
    rates=st.sampled_from([("6/min",), ("3/sec", "9/min"), ("2/sec", "5/min", "30/hour")]),
    calls=st.lists(st.tuples(GAPS, st.integers(1, 2), st.integers(0, 1)), min_size=1, max_size=60),
)
@settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_two_processes_decide_as_a_list_of_all_admissions_says(
    rates: tuple[str, ...], calls: list[tuple[int, int, int]]
) -> None:
    clock = Clock()
    async with Client(MockRedisClient(clock=clock)) as client:
        chosen = limits(*rates)
        processes = [
            RateLimiter(client, chosen, plan="economy", remember_refusals=0, clock=clock, timeout=20)
            for _ in range(2)
        ]
        (group,) = chosen.route(PATH).groups
        (deck,) = make_decks(group.policies.policies)
        admitted: list[tuple[int, int]] = []
        for gap, cost, process in calls:
            clock.time += gap / 1000
            now = int(clock.time * 1000)
            expected = reference(admitted, deck, now, cost)
            decision = await processes[process].check(USER, PATH, weight=cost)
            assert decision.allowed == expected, (now, admitted)
            if expected:
                admitted.append((now, cost))


async def commands_each(
    client: Client, limiter: RateLimiter, clock: Clock, every: float, seconds: float
) -> float:
    before, count = client.stats.commands, 0
    while clock.time < START + seconds:
        assert await limiter.check(USER, PATH)
        clock.time += every
        count += 1
    return (client.stats.commands - before) / count


@pytest.mark.parametrize(("a_minute", "most"), [(5, 1.1), (30, 1.1), (1, 1.3)])
async def test_an_allowed_decision_costs_one_command_and_little_more(a_minute: int, most: float) -> None:
    clock = Clock()
    async with Client(MockRedisClient(clock=clock)) as client:
        limiter = RateLimiter(client, limits("100/min", "2000/hour"), plan="economy", clock=clock, timeout=20)
        assert await commands_each(client, limiter, clock, 60 / a_minute, 7200) <= most
        reply = await client.execute("KEYS", "*")
        assert isinstance(reply, list)
        assert all([await client.pttl(key) > 0 for key in reply if isinstance(key, bytes)])


async def test_a_refusal_costs_two_commands_once(timed: Limited) -> None:
    limiter = timed.process(limits("1/min"))
    await limiter.check(USER, PATH)
    commands, _ = await timed.cost(lambda: limiter.check(USER, PATH))
    assert commands == (2 if timed.plan == "economy" else 1)


async def test_a_window_reaches_back_over_the_end_of_a_string(timed: Limited) -> None:
    # The string of "4/min" covers 16 minutes; another process, which knows nothing, must look into the one before.
    assert timed.clock is not None
    timed.clock.time += 16 * 60 - 5
    for _ in range(4):
        assert await timed.process(limits("4/min")).check(USER, PATH)
    timed.clock.time += 10
    assert not await timed.process(limits("4/min")).check(USER, PATH)
    timed.clock.time += 61
    assert await timed.process(limits("4/min")).check(USER, PATH)


async def test_every_string_is_gone_when_it_means_nothing(timed: Limited) -> None:
    assert timed.clock is not None
    limiter = timed.process(limits("4/min", "100/hour"))
    await limiter.check(USER, PATH)
    assert await timed.keys()
    timed.clock.time += 18 * 3600
    assert await timed.keys() == set()


async def test_the_store_s_clock_is_asked_once_in_five_minutes(timed: Limited) -> None:
    limiter = timed.process(one_rule("1000/min"))
    await limiter.check(USER, PATH)
    seen: list[Any] = []
    execute = timed.client.transport.execute

    async def watched(batch: Any, *, timeout: float | None = None) -> Any:
        seen.extend(command[0] for command in batch)
        return await execute(batch, timeout=timeout)

    timed.client.transport.execute = watched  # type: ignore[method-assign]
    assert timed.clock is not None
    for _ in range(20):
        timed.clock.time += 20
        await limiter.check(USER, PATH)
    assert seen.count("TIME") == (1 if timed.plan == "economy" else 0)
