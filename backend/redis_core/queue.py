"""The job queue of one workspace: enqueue, wait for results, cancel, answer, look after the dead.

What holds whatever happens (docs/queue.md tells more):

- a job that was taken in runs until it is over, at least once; a worker that dies costs it the lease and 2 s, not the job;
- a run whose worker was taken for dead changes nothing any more: neither its result nor its steps are stored;
- workspaces that have jobs are served in proportion to their weights, whatever the others have waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import msgspec

from redis_core.errors import InvalidJob, JobCancelled, JournalError, QueueFull, ResultTimeout
from redis_core.keys import check_part, queue_key
from redis_core.queueing.context import JobContext
from redis_core.queueing.control import QueueControl
from redis_core.queueing.depends import Depends
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.handle import DeadJob, JobHandle, JobStatus, errors_of
from redis_core.queueing.job import Failure, derived_id, level_of, new_ids, pack, unpack
from redis_core.queueing.retry import Backoff, Retry
from redis_core.queueing.schedule import Schedule
from redis_core.queueing.shard import EnqueueRow, Refusal
from redis_core.queueing.spool import SPOOLED
from redis_core.queueing.task import Call, Task, check_queue, task
from redis_core.queueing.thread_context import ThreadContext
from redis_core.queueing.trace import carried
from redis_core.quotas import Quotas

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.keys import WorkspaceKeys
    from redis_core.queueing.shard import Shard

__all__ = [
    "Backoff",
    "Call",
    "DeadJob",
    "Depends",
    "Failure",
    "JobContext",
    "JobHandle",
    "JobStatus",
    "Queue",
    "QueueControl",
    "Retry",
    "Schedule",
    "Task",
    "ThreadContext",
    "task",
]

R = TypeVar("R")

_LONGEST_DELAY = 3650 * 86_400
_LEAST_WEIGHT, _MOST_WEIGHT = 0.01, 100
_IDEMPOTENT = 86_400_000
_PAGE = 200
"""Milliseconds an idempotency key is remembered at least, after its job is over."""


class Queue:
    """The queue of one workspace, reached as `ws.queue`.

    Args:
        client: the store.
        keys: the workspace's key names.
        engine: what this process has of all queues; the client's own unless given.
    """

    def __init__(self, client: Client, keys: WorkspaceKeys, *, engine: QueueEngine | None = None) -> None:
        self._client = client
        self._engine = engine or client.service(QueueEngine)
        self._workspace = keys.workspace
        self._redis = client.primary.confined(keys, "queue-depth:{")

    @property
    def client(self) -> Client:
        """The store."""
        return self._client

    # --- enqueue ---

    async def enqueue(
        self,
        task: Task[..., R] | Call[R],
        /,
        *args: object,
        priority: int = 0,
        delay: float = 0.0,
        unique_key: str | None = None,
        idempotency_key: str | None = None,
        depends_on: Sequence[JobHandle[Any]] = (),
        job_id: str | None = None,
        deadline: float | None = None,
        queue: str | None = None,
        **kwargs: object,
    ) -> JobHandle[R]:
        """Take a job in; while the store is away, into the journal, from which it follows by itself. Budget: 1 trip shared by all calls of one turn of the loop, 5 commands for all of them, 12 into an empty queue.

        A task whose own parameters have one of the names below takes them through `task.call(...)`.

        Args:
            task: what to do, or a call with its arguments.
            args: for the task, by place.
            priority: -2 to 2 within the workspace; 2 is served first.
            delay: seconds until it may run.
            unique_key: as long as a job with this key is unfinished, that one is returned.
            idempotency_key: as `unique_key`, also when the job is over, for a day at least.
            depends_on: jobs of the same queue that must succeed first; if one does not, this one is cancelled.
            job_id: its id; the same again is the same job as long as that is unfinished or its result is kept.
            deadline: seconds from now after which it is of no use any more: it is not begun then, or is cut off.
            queue: instead of the task's.
            kwargs: for the task, by name.

        Raises:
            InvalidJob: an argument or option is wrong; nothing was sent.
            QueueFull: the workspace has as many unfinished jobs as it may.
            JobCancelled: a job it depends on did not succeed.
            StoreReadOnly: the store is full; nothing was taken in.
            JournalFull, JournalBroken: the store is away, and the job could not be kept for it.
            StoreUnavailable: the reply was lost, and the task's results are kept too briefly to ask again without doubling it.
        """
        call = task if isinstance(task, Call) else Call(task, task.encode(args, kwargs))
        if isinstance(task, Call) and (args or kwargs):
            raise InvalidJob(f"{task.task.name}: a call has its arguments already")
        name = call.task.queue if queue is None else check_queue(queue)
        shard = self._engine.shard(name, self._workspace)
        if idempotency_key is not None:
            job_id = derived_id("idempotent", self._workspace, name, idempotency_key)
        chosen = new_ids(1)[0] if job_id is None else check_part(job_id)
        meta: dict[str, str | int] | None = None
        if idempotency_key is not None or deadline is not None:
            meta = self._meta(idempotent=idempotency_key is not None, deadline=deadline)
        row = self._row(
            call, chosen, priority, delay, unique_key or "", self._parents(shard, depends_on), meta
        )
        keep = _IDEMPOTENT if idempotency_key is not None else _kept(call)
        refused = await self._engine.enqueue(
            shard, self._workspace, row, check_results=job_id is not None, keep=keep
        )
        handle = self._handle(call.task, shard, chosen, refused)
        if self._engine.inline is not None and not handle.spooled:
            await self._engine.inline([call.task])
        return handle

    async def enqueue_many(
        self, calls: Sequence[Call[R]], *, priority: int = 0, delay: float = 0.0
    ) -> list[JobHandle[R]]:
        """Take many jobs in. Budget: for 500 of one queue 1 trip and 5 commands.

        Raises:
            QueueFull: some were refused; `accepted` tells how many were taken, the first ones.
            JournalFull, JournalBroken: the store is away and some could not be kept; others may have been.
        """
        ids = new_ids(len(calls))
        by_shard: dict[Shard, list[EnqueueRow]] = {}
        handles = []
        for call, chosen in zip(calls, ids, strict=True):
            shard = self._engine.shard(call.task.queue, self._workspace)
            by_shard.setdefault(shard, []).append(self._row(call, chosen, priority, delay, "", "", None))
            handles.append(self._handle(call.task, shard, chosen, None))
        refused: list[Refusal | JournalError] = []
        keep = min((_kept(call) for call in calls), default=0)
        for shard, rows in by_shard.items():
            why = await self._engine.enqueue_rows(
                shard, self._workspace, rows, check_results=False, keep=keep
            )
            refused += [each for each in why.values() if each != SPOOLED]
        for each in refused:
            if isinstance(each, JournalError):
                raise each
        if refused:
            raise self._full(len(calls) - len(refused))
        if self._engine.inline is not None and not any(handle.spooled for handle in handles):
            await self._engine.inline([call.task for call in calls])
        return handles

    @overload
    def job(self, queue: str, id: str) -> JobHandle[Any]: ...
    @overload
    def job(self, queue: str, id: str, result_type: type[R]) -> JobHandle[R]: ...
    def job(self, queue: str, id: str, result_type: Any = Any) -> JobHandle[Any]:
        """The handle of a job that was enqueued elsewhere; nothing is asked."""
        shard = self._engine.shard(check_queue(queue), self._workspace)
        return JobHandle(
            self, id, shard.name, f"{self._workspace}:{check_part(id)}", result_type, is_new=False
        )

    # --- the dead ---

    async def dead(self, queue: str, *, task: str | None = None, most: int = 100) -> list[DeadJob]:
        """The workspace's dead letters, the latest first. Budget: 1 command and one for each that is looked at, in trips of 200 with `task`.

        Args:
            queue: whose.
            task: only of this task.
            most: how many at most.
        """
        shard = self._engine.shard(check_queue(queue), self._workspace)
        found: list[DeadJob] = []
        page = most if task is None else max(most, _PAGE)
        for begin in count(0, page):
            ids = await self._redis.execute(
                "ZREVRANGE", queue_key("job-dead", shard.name, self._workspace), begin, begin + page - 1
            )
            batch = self._redis.pipeline()
            names = [name.decode() for name in cast("list[bytes]", ids)]
            hashes = [batch.hgetall(queue_key("job", shard.name, self._workspace, name)) for name in names]
            await batch.send()
            for name, pending in zip(names, hashes, strict=True):
                stored = await pending
                if b"p" in stored:
                    header, _ = unpack(stored[b"p"])
                    if task is None or header.task == task:
                        found.append(DeadJob(name, header.task, int(stored[b"d"]) / 1000, errors_of(stored)))
            if len(found) >= most or len(names) < page:
                break
        return found[:most]

    async def redrive(
        self, queue: str, *, ids: Sequence[str] | None = None, task: str | None = None, most: int = 100
    ) -> int:
        """Send dead letters to the queue again, their failures forgiven; how many. Budget: as `dead`, and 10 commands for each.

        One whose unique key another job has by now stays where it is.

        Args:
            queue: whose.
            ids: these; all that `task` and `most` leave, unless given.
            task: only of this task.
            most: how many at most.
        """
        chosen = (
            [job.id for job in await self.dead(queue, task=task, most=most)]
            if ids is None
            else [check_part(each) for each in ids]
        )
        return await self._engine.shard(queue, self._workspace).redrive(self._workspace, chosen)

    async def delete_dead(self, queue: str, ids: Sequence[str]) -> int:
        """Delete dead letters for good; how many there were. Budget: 1 trip, 1 command (on Upstash 2 more for each)."""
        shard = self._engine.shard(check_queue(queue), self._workspace)
        return await shard.delete(self._workspace, [check_part(each) for each in ids])

    # --- limits ---

    async def pause(self, queue: str) -> None:
        """Let no further job of this workspace begin; those that run go on. Budget: about 8 commands."""
        await self._engine.shard(check_queue(queue), self._workspace).limit(
            "workspace", self._workspace, "pause"
        )

    async def resume(self, queue: str) -> None:
        """End a pause."""
        await self._engine.shard(check_queue(queue), self._workspace).limit(
            "workspace", self._workspace, "resume"
        )

    async def limit(self, queue: str, *, running: int | None = None, weight: float = 1.0) -> None:
        """Set how many of this workspace's jobs may run at once, and its share beside others. Budget: about 8 commands."""
        # Not `<`: a weight that is no number would pass, and stop the queue.
        if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT or (running is not None and running < 1):
            raise InvalidJob(
                f"a weight must be {_LEAST_WEIGHT} to {_MOST_WEIGHT} and a limit at least 1; `pause` stops a workspace"
            )
        shard = self._engine.shard(check_queue(queue), self._workspace)
        await shard.limit("workspace", self._workspace, "limit", running, weight)

    async def depth(self, queue: str) -> int:
        """How many unfinished jobs the workspace has; one that was cancelled counts until its turn comes. Budget: 1 command."""
        shard = self._engine.shard(check_queue(queue), self._workspace)
        return int(await self._redis.hget(queue_key("queue-depth", shard.name), self._workspace) or 0)

    # --- what handles need ---

    async def arrival(self, job: JobHandle[Any]) -> None:
        """Wait until the store has the job, if this process keeps it."""
        await self._engine.spool.arrival(job.shard, job.field)

    def spooled(self, job: JobHandle[Any]) -> bool:
        """Whether this process keeps the job until the store is back."""
        return self._engine.spool.waits(job.shard, job.field)

    def shard_of(self, job: JobHandle[Any]) -> Shard:
        """The shard that has a job.

        Raises:
            InvalidJob: the job is another workspace's.
        """
        if job.field != f"{self._workspace}:{job.id}":
            raise InvalidJob(f"job {job.id} is not of workspace {self._workspace}")
        return self._engine.shard(job.shard.partition("#")[0], self._workspace)

    async def raw_result(self, job: JobHandle[Any], timeout: float | None) -> bytes:
        """How a job ended, as it is stored."""
        try:
            async with asyncio.timeout(timeout):
                return await self._engine.result(self.shard_of(job), job.field)
        except TimeoutError:
            raise ResultTimeout(f"job {job.id} was not over within {timeout} s; it goes on") from None

    async def events(self, job: JobHandle[Any]) -> AsyncGenerator[dict[str, Any]]:
        """What a job tells, until it is over."""
        shard = self.shard_of(job)
        async with await self._client.primary.subscribe(shard.events(job.field), shard.done) as messages:
            if (await shard.watch(job.field)).result is not None:
                return
            async for message in messages:
                if message.channel == shard.done.encode():
                    if message.payload == job.field.encode():
                        return
                elif not message.gap:
                    for event in msgspec.msgpack.decode(message.payload):
                        yield event

    # --- pieces of enqueue ---

    def _row(
        self,
        call: Call[Any],
        id: str,
        priority: int,
        delay: float,
        unique: str,
        parents: str,
        meta: dict[str, str | int] | None,
    ) -> EnqueueRow:
        if not 0 <= delay <= _LONGEST_DELAY:
            raise InvalidJob(f"delay {delay} must be 0 to {_LONGEST_DELAY} seconds, which is ten years")
        level = level_of(priority)
        if unique:
            check_part(unique)
        traceparent = carried()
        if traceparent is not None:
            meta = {**(meta or {}), "traceparent": traceparent}
        payload = pack(
            level, call.task.name, unique, call.arguments, int(self._engine.clock.now() * 1000), meta
        )
        return EnqueueRow(id, level, round(delay * 1000), unique, parents, payload)

    def _meta(self, *, idempotent: bool, deadline: float | None) -> dict[str, str | int]:
        meta: dict[str, str | int] = {}
        if idempotent:
            meta["keep"] = _IDEMPOTENT
        if deadline is not None:
            meta["deadline"] = int((self._engine.clock.now() + deadline) * 1000)
        return meta

    def _parents(self, shard: Shard, parents: Sequence[JobHandle[Any]]) -> str:
        for parent in parents:
            if parent.shard != shard.name or parent.field != f"{self._workspace}:{parent.id}":
                raise InvalidJob(
                    f"job {parent.id} of {parent.shard} cannot be waited for in {shard.name}: same queue and workspace only"
                )
        return "".join(f"{name}\n" for name in dict.fromkeys(parent.id for parent in parents))

    def _handle(self, task: Task[..., R], shard: Shard, id: str, refused: Refusal | None) -> JobHandle[R]:
        if refused == "full":
            raise self._full(0)
        if refused == "dependency":
            raise JobCancelled(f"{task.name}: a job it depends on did not succeed")
        chosen = id if refused in {None, "known", SPOOLED} else str(refused)
        return JobHandle(
            self,
            chosen,
            shard.name,
            f"{self._workspace}:{chosen}",
            task.parameters.result,
            is_new=refused in {None, SPOOLED},
        )

    def _full(self, accepted: int) -> QueueFull:
        most = self._client.service(Quotas).queue_depth(self._workspace)
        limit = "QUEUE_MAX_DEPTH" if most == self._client.settings.queue_max_depth else "its quota"
        return QueueFull(
            f"workspace {self._workspace} has {most} unfinished jobs, which is {limit}",
            accepted=accepted,
        )


def _kept(call: Call[Any]) -> int:
    """Milliseconds that a job's result is kept at least."""
    return int(call.task.result_ttl * 1000)
