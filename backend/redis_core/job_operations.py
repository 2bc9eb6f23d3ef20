"""What an operator does to jobs: retry, cancel, delete, one by one or by filter, counted before it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from redis_core.errors import InvalidJob
from redis_core.keys import check_part, check_workspace_id
from redis_core.measuring.documents import Done
from redis_core.queueing.inspection import QueueInspection
from redis_core.queueing.task import check_queue

if TYPE_CHECKING:
    from redis_core.operations import Operations

__all__ = ["MOST_JOBS", "JobOperations", "Progress"]

MOST_JOBS: Final = 1_000
"""Jobs that one call changes at most."""
_AT_ONCE: Final = 100

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


class JobOperations:
    """Changes of jobs in one queue and workspace. A dry run only counts.

    Args:
        operations: by whom, and on which store.
        queue: whose.
        workspace: whose.

    Raises:
        InvalidJob: there can be no such queue.
        InvalidKey: there can be no such workspace.
    """

    def __init__(self, operations: Operations, queue: str, workspace: str) -> None:
        self._operations = operations
        self._name = check_queue(queue)
        self._workspace = check_workspace_id(workspace)
        self._queue = operations.client.workspace(workspace).queue
        self._inspection = QueueInspection(operations.client)

    async def retry(
        self, ids: Sequence[str] | None = None, *, task: str | None = None, dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Done:  # fmt: skip
        """Send dead letters to the queue again. Budget: as `Queue.redrive`, and the audit's.

        Args:
            ids: these; otherwise all, or all of the task, at most 1,000.
            task: only of this task.
            dry_run: only count.
            progress: told how far it is.
        """
        chosen = await self._dead(ids, task)

        async def send(part: Sequence[str]) -> int:
            return await self._queue.redrive(self._name, ids=part)

        return await self._change("queue.retry", chosen, send, dry_run=dry_run, progress=progress)

    async def delete(
        self, ids: Sequence[str] | None = None, *, task: str | None = None, dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Done:  # fmt: skip
        """Delete dead letters for good; arguments as `retry`. Budget: as `Queue.delete_dead`, and the audit's."""
        chosen = await self._dead(ids, task)

        async def delete(part: Sequence[str]) -> int:
            return await self._queue.delete_dead(self._name, part)

        return await self._change("queue.delete", chosen, delete, dry_run=dry_run, progress=progress)

    async def cancel(
        self, ids: Sequence[str] | None = None, *, task: str | None = None, state: str | None = None,
        dry_run: bool = False, progress: Progress | None = None,
    ) -> Done:  # fmt: skip
        """Keep unfinished jobs from running, and end those that run. Budget: about 10 commands each, and the audit's.

        Args:
            ids: these; otherwise all that the others leave, at most 1,000.
            task: only of this task.
            state: only these, see `QueueInspection.jobs`.
            dry_run: only count.
            progress: told how far it is.
        """
        if ids is None:
            if state == "dead":
                raise InvalidJob("a dead letter is not cancelled but deleted")
            chosen = await self._unfinished(task, state)
        else:
            chosen = []
            for each in ids:
                handle = self._queue.job(self._name, check_part(each))
                if (await handle.status()).state in {"waiting", "delayed", "blocked", "running"}:
                    chosen.append(each)

        async def cancel(part: Sequence[str]) -> int:
            handles = [self._queue.job(self._name, each) for each in part]
            return sum([await handle.cancel("cancelled by an operator") for handle in handles])

        return await self._change("queue.cancel", chosen, cancel, dry_run=dry_run, progress=progress)

    async def _unfinished(self, task: str | None, state: str | None) -> list[str]:
        found: dict[str, None] = {}
        cursor: str | None = "0"
        while cursor is not None and len(found) < MOST_JOBS:
            page = await self._inspection.jobs(
                self._name, self._workspace, state=state, task=task, cursor=cursor
            )
            found |= dict.fromkeys(job.id for job in page.jobs)
            cursor = page.next
        return list(found)[:MOST_JOBS]

    async def _dead(self, ids: Sequence[str] | None, task: str | None) -> list[str]:
        dead = [job.id for job in await self._queue.dead(self._name, task=task, most=MOST_JOBS)]
        if ids is None:
            return dead
        wanted = {check_part(each) for each in ids}
        return [each for each in dead if each in wanted]

    async def _change(
        self, action: str, chosen: Sequence[str], change: Callable[[Sequence[str]], Awaitable[int]], *,
        dry_run: bool, progress: Progress | None,
    ) -> Done:  # fmt: skip
        target = f"{self._name}:{self._workspace}"
        if len(chosen) == 1:
            target += f":{chosen[0]}"
        if dry_run or not chosen:
            return Done(action, target, dry_run, len(chosen), 0)

        async def all_of_them() -> int:
            changed = 0
            for begin in range(0, len(chosen), _AT_ONCE):
                changed += await change(chosen[begin : begin + _AT_ONCE])
                if progress is not None:
                    progress(min(begin + _AT_ONCE, len(chosen)), len(chosen))
            return changed

        changed = await self._operations.audited(action, target, {"jobs": len(chosen)}, all_of_them)
        return Done(action, target, dry_run, len(chosen), changed)
