"""Decisions that share a script: each gets its own answer, one key may be asked about many times, and one failure is all of theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError, StoreUnavailable
from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from redis_core.rate_limiting import gather as gather_module
from tests.rate_world import USER, limits

PATH = "/api/v1/agents"


@pytest.fixture(params=["valkey", "memory"])
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.getfixturevalue(request.param)
    return found


async def test_many_at_once_cost_few_scripts(valkey: Client) -> None:
    client = valkey
    limiter = RateLimiter(client, limits("1000/hour"), plan="exact", timeout=20)
    await limiter.check(USER, PATH)
    before = client.stats.commands
    decisions = await asyncio.gather(*(limiter.check(Subject(user=f"v{n}"), PATH) for n in range(145)))
    assert [decision.remaining for decision in decisions] == [999] * 145
    # One alone, then 48, 48 and 48.
    assert client.stats.commands - before <= 5


async def test_requests_of_different_shapes_get_each_its_own_answer(client: Client) -> None:
    one, other = limits("10/hour"), limits("7/min", "70/day")
    many = RateLimits(rules=(Rule("user", "5/hour"), Rule("all", "20/hour", by="workspace", scope="all")))
    limiter = RateLimiter(client, one, plan="exact", timeout=20)
    chosen = [one, other, many] * 4
    decisions = await asyncio.gather(*(limiter.check(USER, PATH, limits=rates) for rates in chosen))
    assert [decision.allowed for decision in decisions] == [True] * 12
    assert [[state.remaining for state in decision.states] for decision in decisions[-3:]] == [
        [6],
        [3, 66],
        [1, 16],
    ]
    for rates, left in ((one, [6]), (other, [3, 66]), (many, [1, 16])):
        assert [state.remaining for state in (await limiter.peek(USER, PATH, limits=rates)).states] == left


async def test_who_is_refused_in_a_group_takes_nothing_from_the_others(client: Client) -> None:
    rates = RateLimits(rules=(Rule("user", "2/hour"), Rule("all", "5/hour", by="workspace", scope="all")))
    limiter = RateLimiter(client, rates, plan="exact", timeout=20, remember_refusals=0)
    users = [Subject(user=name, workspace="acme") for name in ("a", "a", "a", "a", "b", "b", "c", "c")]
    decisions = await asyncio.gather(*(limiter.check(user, PATH) for user in users))
    assert [decision.allowed for decision in decisions] == [True, True, False, False, True, True, True, False]
    assert decisions[-1].violated == ("all",)


async def test_a_value_that_is_not_ours_counts_as_nothing_and_stops_nobody(client: Client) -> None:
    limiter = RateLimiter(client, limits("10/hour"), plan="exact", timeout=20)
    for n, rubbish in enumerate(
        ["", "x", "1" * 500, "0000000000000a=", "0000000000000=00099x", "{json: true}"]
    ):
        await client.set(f"rate:u{n}:{PATH}", rubbish)
    await client.hset("rate:u9:" + PATH, {"a": "b"})
    decisions = await asyncio.gather(*(limiter.check(Subject(user=f"u{n}"), PATH) for n in range(12)))
    assert [decision.remaining for decision in decisions] == [9] * 12
    assert await client.pttl(f"rate:u0:{PATH}") > 0


async def test_a_cancelled_request_leaves_the_others_of_its_group(valkey: Client) -> None:
    limiter = RateLimiter(valkey, limits("10/hour"), plan="exact", timeout=20)
    tasks = [asyncio.create_task(limiter.check(Subject(user=f"u{n}"), PATH)) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert all(getattr(result, "allowed", False) for result in results[1::2])
    await limiter.aclose()


@pytest.mark.parametrize("error", [StoreUnavailable("away"), CommandError("ERR ours")])
async def test_a_failure_is_that_of_all_in_the_group(memory: Client, error: Exception) -> None:
    limiter = RateLimiter(memory, limits("10/hour"), plan="exact", timeout=20)

    async def fail(*_args: Any, **_kwargs: Any) -> Any:
        await asyncio.sleep(0)
        raise error  # the same each time, as of one script

    memory.transport.execute = fail  # type: ignore[method-assign]
    results = await asyncio.gather(*(limiter.check(USER, PATH) for _ in range(10)), return_exceptions=True)
    if isinstance(error, CommandError):
        assert all(result is error for result in results)
    else:
        assert all(getattr(result, "degraded", False) for result in results)
        # One failure, however many waited for it: the store is asked again.
        assert not limiter._engine._store_is_away()


async def test_the_order_of_arrival_is_the_order_of_counting(client: Client) -> None:
    limiter = RateLimiter(client, limits("100/hour"), plan="exact", timeout=20)
    # The server knows the script: one that it does not know is sent again, behind others.
    await limiter.check(Subject(user="other"), PATH)
    decisions = await asyncio.gather(*(limiter.check(USER, PATH) for _ in range(100)))
    assert [decision.remaining for decision in decisions] == list(range(99, -1, -1))
    assert gather_module._MOST_KEYS < 100
