"""What an operator sets for a whole queue, over all workspaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis_core.errors import InvalidJob
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.task import Task, check_queue

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["QueueControl"]


class QueueControl:
    """Limits and pauses that concern all workspaces. Budget of each call: 1 trip and about 8 commands a shard.

    Limits are of a shard: a queue of four shards with a limit of ten runs forty at most.

    Args:
        client: the store.
    """

    def __init__(self, client: Client) -> None:
        self._engine = client.service(QueueEngine)

    async def pause(self, queue: str) -> None:
        """Let no further job of a queue begin; those that run go on."""
        await self._set(queue, "queue", "", "pause")

    async def resume(self, queue: str) -> None:
        """End a pause."""
        await self._set(queue, "queue", "", "resume")

    async def limit(self, queue: str, *, running: int | None = None) -> None:
        """How many jobs of a queue may run at once, over all workers; None for no limit."""
        await self._set(queue, "queue", "", "limit", running)

    async def limit_each(self, queue: str, *, running: int | None = None) -> None:
        """How many jobs of each workspace may run at once, where it has no limit of its own."""
        await self._set(queue, "default", "", "limit", running)

    async def pause_task(self, task: Task[..., Any]) -> None:
        """Let no further job of a task begin."""
        await self._set(task.queue, "task", task.name, "pause")

    async def resume_task(self, task: Task[..., Any]) -> None:
        """End a task's pause."""
        await self._set(task.queue, "task", task.name, "resume")

    async def limit_task(self, task: Task[..., Any], *, running: int | None = None) -> None:
        """How many jobs of a task may run at once; the others wait without holding up what comes after them."""
        await self._set(task.queue, "task", task.name, "limit", running)

    async def _set(self, queue: str, what: str, name: str, how: str, running: int | None = None) -> None:
        if running is not None and running < 1:
            raise InvalidJob("a limit must be at least 1; pause what is not to run")
        for shard in self._engine.shards(check_queue(queue)):
            await shard.limit(what, name, how, running)
