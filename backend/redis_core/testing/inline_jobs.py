"""Jobs that run where they are enqueued, for tests of what enqueues them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from redis_core.queueing.engine import QueueEngine
from redis_core.worker import Worker

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.queueing.task import Task

__all__ = ["inline"]


@asynccontextmanager
async def inline(client: Client, *tasks: Task[..., Any]) -> AsyncGenerator[None]:
    """While the block runs, `enqueue` and `enqueue_many` run what is ready before they return, jobs of jobs included.

    They take the whole way: through the store, a worker's turns, and back. What is delayed, waits for a signal or is to be tried
    again later is not ready; it runs with the first enqueue after its time.

    Args:
        client: whose jobs; with `MOCK_REDIS` nothing else is needed.
        tasks: whose jobs are enqueued by other means, such as those that wait already; what is enqueued in the block is known.
    """
    engine = client.service(QueueEngine)
    known = list(tasks)

    async def run(added: Sequence[Task[..., Any]]) -> None:
        known.extend(task for task in dict.fromkeys(added) if task not in known)
        # A worker of its own each time: a job that enqueues another is within such a call itself.
        await Worker(client, known).drain()

    before, engine.inline = engine.inline, run
    try:
        yield
    finally:
        engine.inline = before
