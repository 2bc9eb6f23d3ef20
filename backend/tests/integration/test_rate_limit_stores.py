"""What a limiter promises, on every store and both plans."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core.errors import CostExceedsLimit, RateLimited
from redis_core.rate_limit import Penalty, RateLimits, Rule, Subject
from tests.rate_world import USER, Limited, limited, limits, one_rule, rate_gateway

__all__ = ["limited", "rate_gateway"]

PATH = "/api/v1/agents"


async def allowed(calls: Any) -> int:
    return sum(decision.allowed for decision in await asyncio.gather(*calls))


async def test_exactly_the_limit_passes_of_many_at_once(limited: Limited) -> None:
    limiter = limited.process(limits("50/hour"))
    assert await allowed(limiter.check(USER, PATH) for _ in range(200)) == 50
    # What was refused was given back: nothing but the 50 is counted.
    assert (await limited.process(limits("60/hour")).peek(USER, PATH)).remaining in {10, 60}


async def test_exactly_the_limit_passes_over_several_processes(limited: Limited) -> None:
    processes = [limited.process(limits("50/hour")) for _ in range(4)]
    assert await allowed(processes[n % 4].check(USER, PATH) for n in range(200)) == 50


async def test_a_denied_request_consumes_nothing_anywhere(limited: Limited) -> None:
    rates = RateLimits(
        rules=(
            Rule("day", "100/day"),
            Rule("minute", "2/hour"),
            Rule("workspace", "50/day", by="workspace", scope="all"),
        )
    )
    limiter = limited.process(rates, remember_refusals=0)
    decisions = [await limiter.check(USER, PATH) for _ in range(6)]
    assert [decision.allowed for decision in decisions] == [True, True, False, False, False, False]
    assert decisions[-1].violated == ("minute",)
    left = {state.policy.name: state.remaining for state in (await limiter.peek(USER, PATH)).states}
    assert left == {"day": 98, "minute": 0, "workspace": 48}


async def test_a_denied_expensive_call_leaves_the_rest_to_a_cheap_one(limited: Limited) -> None:
    # upstash-ratelimit: 10 a window, 5 passes, 9 is refused, and then 1 is refused as well.
    limiter = limited.process(limits("10/hour"))
    assert await limiter.check(USER, PATH, weight=5)
    assert not await limiter.check(USER, PATH, weight=9)
    decision = await limiter.check(USER, PATH, weight=1)
    assert decision.allowed
    assert decision.remaining == 4


async def test_a_limit_of_one_lets_one_pass(limited: Limited) -> None:
    limiter = limited.process(limits("1/hour"))
    assert await limiter.check(USER, PATH)
    assert not await limiter.check(USER, PATH)


async def test_a_cost_that_can_never_pass_is_an_error_and_counts_nothing(limited: Limited) -> None:
    limiter = limited.process(limits("10/hour"))
    with pytest.raises(CostExceedsLimit, match="11 requests"):
        await limiter.check(USER, PATH, weight=11)
    assert (await limiter.peek(USER, PATH)).remaining == 10


async def test_users_workspaces_and_endpoints_have_budgets_of_their_own(limited: Limited) -> None:
    # pyrate-limiter counts all names in one bucket by default: two calls of alice refused bob.
    limiter = limited.process(limits("1/hour"))
    assert await limiter.check(Subject(user="alice"), PATH)
    assert await limiter.check(Subject(user="bob"), PATH)
    assert await limiter.check(Subject(user="alice"), "/other")
    assert not await limiter.check(Subject(user="alice"), PATH)


async def test_a_peek_counts_nothing(limited: Limited) -> None:
    limiter = limited.process(limits("2/hour"))
    for _ in range(5):
        assert (await limiter.peek(USER, PATH)).remaining == 2
    await limiter.check(USER, PATH)
    assert (await limiter.peek(USER, PATH)).remaining == 1
    assert await limited.without_expiry() == set()


async def test_no_key_is_left_without_expiry_after_300_cancelled_calls(limited: Limited) -> None:
    # limits.aio + coredis left 70 of 300: INCRBY and EXPIRE were two calls.
    limiter = limited.process(limits("1000/hour", "100000/day"))
    await limiter.check(Subject(user="first"), PATH)
    for n in range(300):
        call = asyncio.create_task(limiter.check(Subject(user=f"u{n}"), PATH))
        for _ in range(n % 7):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await limited.client.ping()
    assert await limited.without_expiry() == set()


async def test_repeated_refusals_cost_nothing(limited: Limited) -> None:
    limiter = limited.process(limits("1/hour"))
    await limiter.check(USER, PATH)
    await limiter.check(USER, PATH)

    async def again() -> None:
        for _ in range(20):
            decision = await limiter.check(USER, PATH)
            assert not decision.allowed
            assert decision.source == "cache"
            assert decision.retry_after > 1000

    assert await limited.cost(again) == (0, 0)
    assert limiter.stats.refused_from_memory == 20


async def test_a_decision_is_one_trip_whatever_it_covers(limited: Limited) -> None:
    rates = RateLimits(
        rules=(
            Rule("second", "50/sec"),
            Rule("minute", "500/min"),
            Rule("tokens", "100000/hour", unit="tokens"),
            Rule("workspace", "1000/min", by="workspace", scope="all"),
            Rule("address", "1000/min", by="ip", scope="all"),
        )
    )
    limiter = limited.process(rates)
    await limiter.check(USER, PATH, costs={"tokens": 10})

    async def again() -> None:
        decision = await limiter.check(USER, PATH, costs={"tokens": 10})
        assert decision.allowed
        assert len(decision.states) == 5

    commands, trips = await limited.cost(again)
    # By script one command for all; on the economy plan one for each of the three keys, and never a second trip.
    assert trips == 1
    assert commands == (1 if limiter._engine.economy is False else 3)


async def test_a_reset_clears_a_subject_at_once(limited: Limited) -> None:
    limiter = limited.process(limits("1/hour"))
    await limiter.check(USER, PATH)
    assert not await limiter.check(USER, PATH)
    assert await limiter.reset(USER, PATH) == 1
    assert await limiter.check(USER, PATH)


async def test_a_key_removed_by_hand_gets_its_expiry_again(limited: Limited) -> None:
    limiter = limited.process(limits("5/hour"))
    await limiter.check(USER, PATH)
    await limited.client.unlink(*await limited.keys())
    assert (await limiter.check(USER, PATH)).remaining == 4
    assert await limited.without_expiry() == set()


async def test_a_reservation_is_settled_to_what_it_was(limited: Limited) -> None:
    limiter = limited.process(one_rule("1000/hour", unit="tokens"))
    async with await limiter.reserve(USER, "/chat", costs={"tokens": 800}) as held:
        assert held.decision.remaining == 200
        await held.settle(tokens=300)
    assert (await limiter.peek(USER, "/chat", costs={"tokens": 1})).remaining == 700


async def test_more_than_the_estimate_is_counted_even_beyond_the_limit(limited: Limited) -> None:
    # LiteLLM let 663 tokens through a limit of 100: what was spent must count.
    limiter = limited.process(one_rule("1000/hour", unit="tokens"))
    async with await limiter.reserve(USER, "/chat", costs={"tokens": 10}) as held:
        await held.settle(tokens=1500)
    assert not await limiter.check(USER, "/chat", costs={"tokens": 1})


async def test_an_unsettled_reservation_keeps_its_estimate(limited: Limited) -> None:
    limiter = limited.process(one_rule("1000/hour", unit="tokens"))
    async with await limiter.reserve(USER, "/chat", costs={"tokens": 400}):
        pass
    assert (await limiter.peek(USER, "/chat", costs={"tokens": 1})).remaining == 600


async def test_an_exception_gives_the_reservation_back(limited: Limited) -> None:
    limiter = limited.process(limits("5/hour"))
    with pytest.raises(RuntimeError, match="model"):
        async with await limiter.reserve(USER, "/chat"):
            raise RuntimeError("the model failed")
    assert (await limiter.peek(USER, "/chat")).remaining == 5


async def test_a_cancellation_gives_the_reservation_back(limited: Limited) -> None:
    limiter = limited.process(limits("5/hour"))
    inside = asyncio.Event()

    async def work() -> None:
        async with await limiter.reserve(USER, "/chat"):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await limiter.aclose()
    assert (await limiter.peek(USER, "/chat")).remaining == 5


async def test_a_reservation_cancelled_before_it_was_answered_is_given_back(limited: Limited) -> None:
    limiter = limited.process(limits("5/hour"))
    for spins in range(8):
        task = asyncio.create_task(limiter.reserve(USER, "/chat"))
        for _ in range(spins):
            await asyncio.sleep(0)
        if task.done():
            await (await task).release(give_back=True)
            break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await limiter.aclose()
    assert (await limiter.peek(USER, "/chat")).remaining == 5


async def test_a_refused_reservation_raises_where_it_is_entered(limited: Limited) -> None:
    limiter = limited.process(limits("1/hour"))
    await limiter.check(USER, "/chat")
    held = await limiter.reserve(USER, "/chat")
    assert not held.allowed
    with pytest.raises(RateLimited) as caught:
        async with held:
            pytest.fail("it was refused")
    assert caught.value.retry_after > 0
    assert caught.value.decision is held.decision


async def test_no_more_than_the_allowed_run_at_a_time(limited: Limited) -> None:
    limiter = limited.process(one_rule("2 concurrent"))
    first, second, third = [await limiter.reserve(USER, "/run") for _ in range(3)]
    assert [held.allowed for held in (first, second, third)] == [True, True, False]
    await first.release()
    fourth = await limiter.reserve(USER, "/run")
    assert fourth.allowed
    await second.release()
    await fourth.release()
    assert (await limiter.peek(USER, "/run")).states == ()


async def test_a_limit_of_concurrent_uses_is_not_checked_but_reserved(limited: Limited) -> None:
    limiter = limited.process(RateLimits(rules=(Rule("runs", "2 concurrent"), Rule("all", "5/min"))))
    with pytest.raises(ValueError, match="reserve"):
        await limiter.check(USER, "/run")


@pytest.mark.parametrize("algorithm", ["sliding", "fixed", "gcra", "log"])
async def test_each_algorithm_stops_at_its_limit(limited: Limited, algorithm: str) -> None:
    rate = "5/hour burst 5" if algorithm == "gcra" else "5/hour"
    limiter = limited.process(one_rule(rate, algorithm=algorithm))
    decisions = [await limiter.check(USER, PATH) for _ in range(7)]
    assert [decision.allowed for decision in decisions] == [True] * 5 + [False] * 2
    assert [decision.remaining for decision in decisions[:5]] == [4, 3, 2, 1, 0]
    assert await limited.without_expiry() == set()


async def test_rules_of_both_plans_on_one_key_are_decided_together(limited: Limited) -> None:
    rates = RateLimits(rules=(Rule("log", "3/hour", algorithm="log"), Rule("ring", "2/hour")))
    limiter = limited.process(rates, remember_refusals=0)
    assert [bool(await limiter.check(USER, PATH)) for _ in range(5)] == [True, True, False, False, False]
    left = {state.policy.name: state.remaining for state in (await limiter.peek(USER, PATH)).states}
    assert left == {"log": 1, "ring": 0}


async def test_limits_written_in_two_places_count_under_one_key_beside_each_other(limited: Limited) -> None:
    limiter = limited.process(limits("10/hour"))
    own = limits("5/hour", "100/day")
    for _ in range(3):
        assert await limiter.check(USER, PATH)
        assert await limiter.check(USER, PATH, limits=own)
    assert (await limiter.peek(USER, PATH)).remaining == 7
    assert (await limiter.peek(USER, PATH, limits=own)).states[0].remaining == 2
    assert await limiter.reset(USER, PATH) >= 1
    assert (await limiter.peek(USER, PATH, limits=own)).states[0].remaining == 5


async def test_a_rule_that_is_only_watched_refuses_nothing_and_says_what_it_would_have(
    limited: Limited,
) -> None:
    limiter = limited.process(one_rule("1/hour", shadow=True))
    decisions = [await limiter.check(USER, PATH) for _ in range(3)]
    assert all(decisions)
    assert [decision.shadowed for decision in decisions] == [(), ("only",), ("only",)]
    # It counted what it would have admitted, no more.
    assert limiter.stats.shadowed == 2
    assert (await limiter.peek(USER, PATH)).states[0].remaining == 0


async def test_a_penalty_follows_many_refusals(limited: Limited) -> None:
    rates = one_rule("1/sec", penalty=Penalty(after=3, within=60, seconds=600))
    limiter = limited.process(rates)
    await limiter.check(USER, PATH)
    for _ in range(3):
        await limiter.check(USER, PATH)
    punished = await limiter.check(USER, PATH)
    assert punished.policy == "penalty"
    assert punished.retry_after > 500
    assert limiter.stats.penalties == 1
    if not limiter._engine.economy:
        elsewhere = await limited.process(rates).check(USER, PATH)
        assert elsewhere.policy == "penalty"
        assert elsewhere.retry_after > 500


async def test_changing_a_limit_keeps_what_was_counted(limited: Limited) -> None:
    before = limited.process(one_rule("10/hour"))
    for _ in range(4):
        await before.check(USER, PATH)
    after = limited.process(one_rule("20/hour"))
    assert (await after.peek(USER, PATH)).remaining == 16
