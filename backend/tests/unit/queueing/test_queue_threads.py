"""Jobs in threads, and what a process of its own may not be given."""

from __future__ import annotations

import threading

import pytest

from redis_core.client import Client
from redis_core.errors import InvalidJob
from redis_core.queue import JobContext, task
from redis_core.worker import Worker

MANY = 40
"""More than the event loop's own pool has."""
barrier = threading.Barrier(MANY)


@task(name="threads.meets")
def meets() -> int:
    return barrier.wait(20)


async def test_each_place_has_a_thread(memory: Client) -> None:
    jobs = await memory.workspace("acme").queue.enqueue_many([meets.call()] * MANY)
    await Worker(memory, [meets], concurrency=MANY).drain()
    assert sorted([await job.result(20) for job in jobs]) == list(range(MANY))


async def test_a_process_of_its_own_is_not_promised_what_only_its_worker_has(memory: Client) -> None:
    @task(name="threads.apart", executor="process")
    def apart(ctx: JobContext) -> None: ...

    with pytest.raises(InvalidJob, match=r"threads\.apart: a process of its own has no"):
        await memory.workspace("acme").queue.enqueue(apart)
