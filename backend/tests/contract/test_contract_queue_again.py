"""What a job's later runs find: children, answers and unique keys are decided once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import JobCancelled
from redis_core.queue import JobContext, JobHandle, Queue, Task, task
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.shard import EnqueueRow
from redis_core.worker import Worker

WITHIN = 20.0

ran: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


@pytest.fixture
def queue(client: Client) -> Queue:
    return client.workspace("acme").queue


@task(name="again.child", result_ttl=0)
async def child() -> None:
    ran.append("child")


@task(name="again.parent")
async def parent(ctx: JobContext) -> int:
    await ctx.spawn(child.call())
    await ctx.wait_for("going_on")
    return ctx.run


@task(name="again.impatient", retries=0)
async def impatient(ctx: JobContext) -> str:
    try:
        return await ctx.wait_for("approval", 0.01, type=str)
    except TimeoutError:
        ran.append("nobody")
    await ctx.wait_for("going_on")
    return "gave up"


@task(name="again.stubborn", retries=0)
async def stubborn() -> str:
    ran.append("began")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        ran.append("went on")
    return "done all the same"


@task(name="again.broken", retries=0)
async def broken(n: int = 0) -> None:
    raise ValueError(n)


@task(name="again.late")
async def late() -> None:
    ran.append("late")


TASKS: list[Task[..., Any]] = [parent, child, impatient, stubborn, broken, late]


async def drained(client: Client) -> None:
    await Worker(client, TASKS).drain()


async def state_of(job: JobHandle[Any], wanted: str) -> None:
    async with asyncio.timeout(WITHIN):
        while (await job.status()).state != wanted:
            await asyncio.sleep(0.01)


async def test_a_child_that_is_over_and_forgotten_is_not_made_again(client: Client, queue: Queue) -> None:
    job = await queue.enqueue(parent)
    await drained(client)
    assert ran == ["child"]
    assert await job.signal("going_on")
    await drained(client)
    assert await job.result(WITHIN) == 2
    assert ran == ["child"]


async def test_an_answer_that_comes_too_late_changes_nothing(client: Client, queue: Queue) -> None:
    job = await queue.enqueue(impatient)
    async with asyncio.timeout(WITHIN):
        while not ran:
            await drained(client)
    assert await job.signal("approval", "yes") is False
    assert await job.signal("going_on")
    await drained(client)
    assert await job.result(WITHIN) == "gave up"
    assert ran == ["nobody", "nobody"]


async def test_a_job_that_swallows_its_cancellation_is_cancelled_all_the_same(
    client: Client, queue: Queue
) -> None:
    worker = Worker(client, TASKS)
    running = asyncio.create_task(worker.run())
    job = await queue.enqueue(stubborn)
    await state_of(job, "running")
    async with asyncio.timeout(WITHIN):
        while not ran:
            await asyncio.sleep(0.01)
    assert await job.cancel()
    with pytest.raises(JobCancelled):
        await job.result(WITHIN)
    assert ran == ["began", "went on"]
    worker.stop()
    await running


async def test_a_job_that_waits_for_others_and_for_its_time_waits_for_both(
    client: Client, queue: Queue
) -> None:
    first = await queue.enqueue(child)
    second = await queue.enqueue(late, depends_on=[first], delay=3_600)
    assert (await second.status()).state == "blocked"
    await drained(client)
    status = await second.status()
    assert status.state == "delayed"
    assert status.due is not None
    third = await queue.enqueue(child)
    soon = await queue.enqueue(late, depends_on=[third], delay=0.001)
    await asyncio.sleep(0.002)
    await drained(client)
    await state_of(soon, "done")
    assert ran == ["child", "child", "late"]


async def test_a_dead_letter_takes_its_unique_key_again_or_stays(client: Client, queue: Queue) -> None:
    first = await queue.enqueue(broken, unique_key="k")
    await drained(client)
    assert await queue.redrive("default") == 1
    holder = await queue.enqueue(broken, unique_key="k")
    assert (holder.id, holder.is_new) == (first.id, False)
    await drained(client)
    other = await queue.enqueue(broken, unique_key="k")
    assert other.is_new
    assert await queue.redrive("default", ids=[first.id]) == 0
    assert [dead.id for dead in await queue.dead("default")] == [first.id]


async def test_a_full_workspace_still_tells_who_has_the_unique_key(client: Client, queue: Queue) -> None:
    shard = client.service(QueueEngine).shard("default", "acme")
    row = EnqueueRow("first", 2, 0, "k", "", b"2again.late\tk\nbody")
    assert await shard.enqueue("acme", [row], most=1) == (1, {})
    again = EnqueueRow("second", 2, 0, "k", "", b"2again.late\tk\nbody")
    assert await shard.enqueue("acme", [again], most=1) == (0, {0: "first"})
    unlike = EnqueueRow("third", 2, 0, "", "", b"2again.late\t\nbody")
    assert await shard.enqueue("acme", [unlike], most=1) == (0, {0: "full"})


async def test_dead_letters_of_a_task_are_found_behind_many_others(client: Client, queue: Queue) -> None:
    old = await queue.enqueue(late.call())
    await old.cancel()
    await queue.enqueue(broken, 0)
    await drained(client)

    @task(name="again.other", retries=0)
    async def other() -> None:
        raise ValueError

    await queue.enqueue_many([other.call()] * 210)
    await Worker(client, [other]).drain()
    assert [dead.task for dead in await queue.dead("default", task="again.broken", most=5)] == [
        "again.broken"
    ]
    assert await queue.redrive("default", task="again.broken") == 1
