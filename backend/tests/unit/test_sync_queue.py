"""The queue's blocking face: enqueue, result, status, cancel, signal, events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from redis_core import sync
from redis_core.errors import JobCancelled, JobFailed, ResultTimeout
from redis_core.queue import JobContext, task
from redis_core.worker import Worker
from tests.stores import clean_client

if TYPE_CHECKING:
    from redis_core.sync import Queue


@task(name="sync-add")
async def add(a: int, b: int = 2) -> int:
    return a + b


@task(name="sync-asks", retries=0)
async def asks(ctx: JobContext) -> str:
    await ctx.progress(0.5, "asking")
    return str(await ctx.wait_for("approval"))


@task(name="sync-broken", retries=0)
async def broken() -> None:
    raise ValueError("broken")


@pytest.fixture
def queue(valkey_socket: str) -> Iterator[Queue]:
    began, stop = threading.Event(), threading.Event()

    async def work() -> None:
        async with await clean_client(valkey_socket) as client:
            worker = Worker(client, [add, asks, broken])
            running = asyncio.create_task(worker.run())
            began.set()
            await asyncio.to_thread(stop.wait)
            worker.stop()
            await running

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert began.wait(20)
    try:
        with sync.connect(redis_url=f"unix://{valkey_socket}", mock_redis=False) as redis:
            yield redis.workspace("acme").queue
    finally:
        stop.set()
        thread.join(30)


def test_a_job_is_enqueued_and_its_result_waited_for(queue: Queue) -> None:
    job = queue.enqueue(add, 1, b=5)
    assert job.is_new
    assert job.result(20) == 6
    assert job.status().state == "done"
    assert queue.job("default", job.id).result(20) == 6
    jobs = queue.enqueue_many([add.call(n) for n in range(3)])
    assert [each.result(20) for each in jobs] == [2, 3, 4]


def test_a_job_depends_on_others(queue: Queue) -> None:
    first = queue.enqueue(add, 1, delay=0.2)
    after = queue.enqueue(add, 2, depends_on=[first])
    assert after.result(20) == 4
    assert first.status().state == "done"


def test_a_job_is_answered_cancelled_and_followed(queue: Queue) -> None:
    job = queue.enqueue(asks)
    with pytest.raises(ResultTimeout):
        job.result(0.05)
    assert job.signal("approval", "yes")
    assert job.result(20) == "yes"
    other = queue.enqueue(asks)
    assert other.cancel()
    with pytest.raises(JobCancelled):
        other.result(20)
    assert list(other.events()) == []


def test_errors_are_those_of_the_async_api(queue: Queue) -> None:
    with pytest.raises(JobFailed, match="broken"):
        queue.enqueue(broken).result(20)
    assert queue.dead("default")[0].task == "sync-broken"
