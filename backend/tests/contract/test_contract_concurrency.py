"""Many callers at once, one that gives up, and the order of each, on every store."""

from __future__ import annotations

import asyncio

from redis_core.client import Client


async def test_two_hundred_tasks_each_get_their_own_replies(client: Client) -> None:
    async def one(number: int) -> None:
        for turn in range(5):
            value = f"{number}:{turn}".encode()
            await client.set(f"k{number}", value)
            assert await client.get(f"k{number}") == value
            assert await client.incr("all") > 0

    await asyncio.gather(*(one(number) for number in range(200)))
    assert await client.get("all") == b"1000"


async def test_what_one_caller_issues_in_one_turn_is_done_in_that_order(client: Client) -> None:
    calls = [client.rpush("l", number) for number in range(100)]
    lengths = await asyncio.gather(*calls)
    assert list(lengths) == list(range(1, 101))
    assert await client.lrange("l", 0, -1) == [b"%d" % number for number in range(100)]


async def test_a_long_batch_is_not_overtaken_by_a_later_call(client: Client) -> None:
    batch = client.pipeline()
    for number in range(500):
        batch.rpush("l", number)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(batch.send())
        length = tasks.create_task(_awaited(client.rpush("l", "last")))
    assert length.result() == 501


async def _awaited(call: object) -> int:
    return await call  # type: ignore[misc, no-any-return]


async def test_callers_that_are_cancelled_disturb_no_other(client: Client) -> None:
    async def one(number: int) -> bytes | None:
        await client.set(f"k{number}", number)
        return await client.get(f"k{number}")

    for _ in range(5):
        tasks = [asyncio.create_task(one(number)) for number in range(40)]
        await asyncio.sleep(0)
        for number in range(0, 40, 3):
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError) or result == b"%d" % number
            assert number % 3 == 0 or not isinstance(result, asyncio.CancelledError)
    assert await client.echo("in step") == b"in step"


async def test_a_client_of_another_deadline_shares_the_store(client: Client) -> None:
    await client.set("a", 1)
    assert await client.within(10).get("a") == b"1"
