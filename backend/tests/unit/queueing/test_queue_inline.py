"""Jobs that run where they are enqueued, and jobs that wait at a rate limit."""

from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.errors import JobFailed
from redis_core.queue import JobContext, Queue, task
from redis_core.rate_gate import RateGate
from redis_core.rate_limit import Rule
from redis_core.testing import inline
from redis_core.worker import Worker

ran: list[str] = []


@pytest.fixture
def queue(memory: Client) -> Queue:
    ran.clear()
    return memory.workspace("acme").queue


@task(name="child", queue="others")
async def child(word: str) -> str:
    ran.append(word)
    return word.upper()


@task(name="sibling")
async def sibling(word: str) -> str:
    return word * 2


@task(name="parent")
async def parent(ctx: JobContext) -> list[str]:
    await ctx.queue.enqueue(child, "first")
    return await ctx.gather(await ctx.spawn(sibling.call("a")), await ctx.spawn(sibling.call("b")))


@task(name="broken", retries=0)
async def broken() -> None:
    raise ValueError("as it should")


async def test_enqueue_runs_the_job_and_its_jobs(memory: Client, queue: Queue) -> None:
    async with inline(memory):
        job = await queue.enqueue(parent)
        assert (await job.status()).state == "done"
        assert ran == ["first"]
        assert await job.result(1) == ["aa", "bb"]
        jobs = await queue.enqueue_many([child.call("x"), child.call("y")])
        assert [await each.result(1) for each in jobs] == ["X", "Y"]


async def test_what_fails_is_told_by_its_result(memory: Client, queue: Queue) -> None:
    async with inline(memory):
        job = await queue.enqueue(broken)
    with pytest.raises(JobFailed, match="as it should"):
        await job.result(1)


async def test_outside_of_the_block_jobs_wait(memory: Client, queue: Queue) -> None:
    async with inline(memory):
        later = await queue.enqueue(child, "later", delay=60)
    waiting = await queue.enqueue(child, "now")
    assert ((await later.status()).state, (await waiting.status()).state) == ("delayed", "waiting")
    assert ran == []


# --- gates ---


async def states(jobs: list[str], queue: Queue) -> list[str]:
    return sorted([(await queue.job("default", each).status()).state for each in jobs])


async def test_jobs_over_the_limit_wait_and_do_not_fail(memory: Client) -> None:
    @task(name="asks", gate=RateGate("model", "2/h"), retries=0)
    async def asks() -> int:
        return 1

    ids: dict[str, list[str]] = {}
    for name in ("acme", "other"):
        jobs = await memory.workspace(name).queue.enqueue_many([asks.call()] * 5)
        ids[name] = [job.id for job in jobs]
    await Worker(memory, [asks]).drain()
    for name, own in ids.items():
        queue = memory.workspace(name).queue
        assert await states(own, queue) == ["delayed"] * 3 + ["done"] * 2
        for each in own:
            assert (await queue.job("default", each).status()).errors == ()


async def test_tasks_share_a_gate_by_its_name_and_everyone_may_be_one(memory: Client) -> None:
    first = task(name="one", gate=RateGate("shared", "3/h", by="everyone"))(lambda: 1)
    second = task(name="two", gate=RateGate("shared", "3/h", by="everyone"))(lambda: 2)
    jobs = [
        await memory.workspace(name).queue.enqueue(each)
        for name in ("acme", "other")
        for each in (first, second)
    ]
    await Worker(memory, [first, second]).drain()
    assert sorted([(await job.status()).state for job in jobs]) == ["delayed", "done", "done", "done"]


async def test_a_gate_counts_what_a_job_costs(memory: Client, queue: Queue) -> None:
    rule = Rule("tokens", "1000/h", unit="tokens", by="workspace")
    gate = RateGate("budget", rule, costs=lambda _: {"tokens": 600})
    spends = task(name="spends", gate=gate)(lambda: 1)
    jobs = [(await queue.enqueue(spends)).id for _ in range(2)]
    await Worker(memory, [spends]).drain()
    assert await states(jobs, queue) == ["delayed", "done"]
