"""Jobs of synchronous functions do all that others do, from their thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import InvalidJob, JobCancelled
from redis_core.queue import Queue, ThreadContext, task
from redis_core.testing import inline
from redis_core.worker import Worker

WITHIN = 20.0
done: Counter[str] = Counter()
begun = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    done.clear()
    begun.clear()


@pytest.fixture
async def queue(client: Client) -> AsyncIterator[Queue]:
    """A queue with a worker."""
    worker = Worker(client, [research, child, stubborn, impatient])
    working = asyncio.create_task(worker.run())
    yield client.workspace("acme").queue
    worker.stop()
    await working


@task(name="threads.child")
def child(number: int) -> int:
    return number * 2


def read(doc: int) -> str:
    done["read"] += 1
    assert threading.current_thread() is not threading.main_thread()
    return f"text of {doc}"


@task(name="threads.research", result_ttl=600)
def research(doc: int, ctx: ThreadContext) -> dict[str, object]:
    done["runs"] += 1
    text = ctx.step("read", read, doc)
    ctx.progress(0.5, "half")
    ctx.stream("to")
    ctx.stream("ken")
    ctx.log("a line", doc=doc)
    children = [ctx.spawn(child.call(number)) for number in range(3)]
    doubled = ctx.gather(*children)
    ctx.sleep(0.01)
    ctx.sleep(1.2, "longer")
    approved = ctx.wait_for("approval", type=str)
    ctx.usage(tokens=7, cost=0.25)
    return {"text": text, "doubled": doubled, "approved": approved, "run": ctx.run, "of": ctx.workspace}


@task(name="threads.stubborn", retries=0)
def stubborn(ctx: ThreadContext) -> None:
    begun.set()
    until = time.monotonic() + WITHIN
    while not ctx.cancelled and time.monotonic() < until:
        time.sleep(0.01)
    done["before"] += 1
    ctx.progress(1.0)
    done["after"] += 1


@task(name="threads.impatient", retries=0)
def impatient(ctx: ThreadContext) -> str:
    try:
        ctx.wait_for("approval", 0.01)
    except TimeoutError:
        return "nobody answered"
    return "answered"


@task(name="threads.small")
def small(doc: int, ctx: ThreadContext) -> str:
    ctx.progress(0.5)
    return ctx.step("read", read, doc)


async def test_steps_children_answers_and_what_is_told(client: Client, queue: Queue) -> None:
    job = await queue.enqueue(research, 7)
    told: list[dict[str, Any]] = []

    async def follow() -> None:
        async for event in job.events():
            told.append(event)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(WITHIN):
        while not told:
            await asyncio.sleep(0.01)
    await job.signal("approval", "yes")
    found = await job.result(WITHIN)
    await asyncio.wait_for(following, WITHIN)
    assert found.pop("run") == done["runs"] > 1
    assert found == {"text": "text of 7", "doubled": [0, 2, 4], "approved": "yes", "of": "acme"}
    assert done["read"] == 1
    status = await job.status()
    assert (status.tokens, status.cost) == (7, 0.25)
    assert (await client.workspace("acme").usage.spent()).month == pytest.approx(0.25)
    assert {"progress", "log", "token"} <= {event["kind"] for event in told}


async def test_nobody_answers(queue: Queue) -> None:
    assert await (await queue.enqueue(impatient)).result(WITHIN) == "nobody answered"


async def test_a_job_that_was_cancelled_ends_with_its_next_word(queue: Queue) -> None:
    job = await queue.enqueue(stubborn)
    await asyncio.to_thread(begun.wait, WITHIN)
    assert await job.cancel()
    with pytest.raises(JobCancelled):
        await job.result(WITHIN)
    async with asyncio.timeout(WITHIN):
        while not done["before"]:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert done == {"before": 1}


async def test_inline(client: Client) -> None:
    async with inline(client):
        job = await client.workspace("acme").queue.enqueue(small, 3)
        assert await job.result(WITHIN) == "text of 3"


@pytest.mark.parametrize("executor", ["loop", "process"])
def test_it_is_for_threads_only(executor: str) -> None:
    def elsewhere(ctx: ThreadContext) -> None: ...

    elsewhere.__annotations__["ctx"] = ThreadContext
    with pytest.raises(InvalidJob, match="ThreadContext"):
        task(name="threads.elsewhere", executor=executor)(elsewhere).call()  # type: ignore[call-overload]  # as given
