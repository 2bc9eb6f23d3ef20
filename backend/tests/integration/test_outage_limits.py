"""Rate limits without their store, on real sockets: a share here, a closed door where a rule is strict, and an honest count afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from redis_core.rate_limit import RateLimiter, RateLimits
from redis_core.rate_limiting.headers import problem_of
from tests.outage_world import OutageProcess, OutageWorld, outage_world, until
from tests.rate_world import USER, limits, one_rule

__all__ = ["outage_world"]

PATH = "/api/v1/agents"
PLANS = pytest.mark.parametrize("plan", ["exact", "economy"])


def limiter_of(
    process: OutageProcess, rates: RateLimits, plan: Any = "exact", instances: int = 1
) -> RateLimiter:
    return RateLimiter(process.client, rates, plan=plan, instances=instances, timeout=20.0)


async def remaining(limiter: RateLimiter) -> int:
    decision = await limiter.peek(USER, PATH)
    assert not decision.degraded
    return decision.remaining


async def admitted(limiter: RateLimiter, times: int) -> int:
    decisions = [await limiter.check(USER, PATH) for _ in range(times)]
    assert all(decision.degraded for decision in decisions)
    return sum(decision.allowed for decision in decisions)


@PLANS
async def test_each_process_lets_its_share_pass_and_owes_it_to_the_store(
    outage_world: OutageWorld, plan: Any
) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here, there = (limiter_of(process, limits("100/day"), plan, 2) for process in (one, other))
    assert await here.check(USER, PATH)
    await one.cut_off()
    await other.cut_off()
    assert await admitted(here, 60) == 50
    assert await admitted(there, 10) == 10
    await one.heal()
    await other.heal()
    # Both counts are added, whoever comes first; 1 was counted before.
    await until(lambda: not here._engine._owed and not here._engine._paying)
    await until(lambda: not there._engine._owed and not there._engine._paying)
    assert await remaining(here) == await remaining(there) == 100 - 1 - 50 - 10
    assert here.stats.corrections_lost == there.stats.corrections_lost == 0


async def test_a_strict_rule_is_closed_and_owes_nothing(outage_world: OutageWorld) -> None:
    one = await outage_world.process()
    here = limiter_of(one, one_rule("5/day", on_failure="closed"))
    assert await here.check(USER, PATH)
    await one.cut_off()
    decision = await here.check(USER, PATH)
    assert not decision.allowed
    problem = problem_of(decision)
    assert problem.status == 503
    assert problem.type.endswith("#temporary-reduced-capacity")
    assert not here._engine._owed
    await one.heal()
    assert await remaining(here) == 4


async def test_an_open_rule_lets_pass_and_counts_afterwards(outage_world: OutageWorld) -> None:
    one = await outage_world.process()
    here = limiter_of(one, one_rule("5/day", on_failure="open"))
    await one.cut_off()
    assert await admitted(here, 8) == 8
    await one.heal()
    await until(lambda: not here._engine._owed and not here._engine._paying)
    assert await remaining(here) == 0
    assert not await here.check(USER, PATH)


@PLANS
async def test_what_was_settled_in_the_outage_is_what_is_owed(outage_world: OutageWorld, plan: Any) -> None:
    one = await outage_world.process()
    here = limiter_of(one, one_rule("1000/day", unit="tokens"), plan)
    await one.cut_off()
    async with await here.reserve(USER, PATH, costs={"tokens": 100}) as held:
        await held.settle(tokens=250)
    late = await here.reserve(USER, PATH, costs={"tokens": 300})
    await one.heal()
    await until(lambda: not here._engine._owed and not here._engine._paying)
    assert await remaining_tokens(here) == 1000 - 250 - 300
    # Admitted here, settled when the store was back.
    await late.settle(tokens=50)
    await until(lambda: not here._engine._owed and not here._engine._paying)
    await late.release()
    assert await remaining_tokens(here) == 1000 - 250 - 50


async def remaining_tokens(limiter: RateLimiter) -> int:
    decision = await limiter.peek(USER, PATH, costs={"tokens": 1})
    assert not decision.degraded
    return decision.remaining
