"""What an operator sees of the queues."""

from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.queue import Retry, task
from redis_core.queueing.inspection import QueueInspection
from redis_core.worker import Worker


@task(name="inspected.broken", queue="inspected", retries=Retry(0))
async def broken() -> None:
    raise ValueError


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_queue_with_dead_letters_alone_is_shown_with_whose_they_are(
    memory: Client, shards: int
) -> None:
    memory.settings.queue_shards["inspected"] = shards
    for workspace in ("acme", "globex"):
        await memory.workspace(workspace).queue.enqueue_many([broken.call()] * 2)
    await Worker(memory, [broken]).drain()
    (found,) = (await QueueInspection(memory).queues()).queues
    assert (found.queue, found.unfinished, found.dead) == ("inspected", 0, 4)
    assert found.workspaces == {"acme": 0, "globex": 0}
    assert (await QueueInspection(memory).queue("inspected", "acme")).dead == 2
