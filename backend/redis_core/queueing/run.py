"""One run of a job: its function is called, and what comes of it becomes an acknowledgement."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from redis_core.errors import CodecError, InvalidJob, JobCancelled, LeaseLost, RateLimited, StoreUnavailable
from redis_core.log import get_logger
from redis_core.queueing.context import JobContext, Suspend
from redis_core.queueing.depends import Resources
from redis_core.queueing.isolated import run_isolated
from redis_core.queueing.job import MAX_RESULT, Envelope, Failure, Header, pack_result, unpack
from redis_core.queueing.retry import Retry
from redis_core.queueing.shard import Acknowledgement, Claim, Shard
from redis_core.queueing.task import Task
from redis_core.queueing.telling import LastWords
from redis_core.queueing.thread_context import ThreadContext
from redis_core.queueing.trace import continued
from redis_core.resilience.outage import State

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.clock import Clock

__all__ = ["Job", "Middleware", "Runner"]

Middleware = Callable[[JobContext, Callable[[], Awaitable[object]]], Awaitable[object]]
"""Wraps each run: awaits its second argument, or does not."""

_UNKNOWN_TASK_AGAIN: Final = 5_000
"""Milliseconds until another worker may know a task that this one does not."""
_UNKNOWN_TASK_TIMES: Final = 50
"""Times that one worker gives back a job whose task it does not know, before it is taken for nobody's."""
_MOST_STRANGE: Final = 10_000
_SUSPECT_AGAIN: Final = 2_000
"""Milliseconds after which a job that has its last chance is looked at again, while another such job runs."""
_OUTCOMES: Final = {"d": "done", "x": "failed", "r": "retried", "c": "cancelled"}
"""What the metrics call the ends of runs."""
_AFTER_OUTAGE: Final = 1_000
"""Milliseconds after the store is back that a job is begun anew which needed it."""
_STACK: Final = 4_000
"""Characters of a traceback that are kept, its last ones."""
_LOG: Final = get_logger("redis_core.queue")


class PastDeadline(Exception):
    """A job's deadline had passed before it began: it will not run."""


class Job:
    """A claim that a worker runs."""

    __slots__ = ("began", "cancelled", "claim", "context", "handed_back", "lost", "task")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.task: asyncio.Task[None] | None = None
        self.context: JobContext | None = None
        self.began = False
        self.cancelled = False
        """Somebody has asked to end it."""
        self.handed_back = False
        """The worker stops: another one is to run it."""
        self.lost = False
        """Another worker has it."""

    def cancel(self) -> None:
        """End it because somebody asked for that."""
        self.cancelled = True
        if self.context is not None:
            self.context.cancelled = True
        self._end()

    def hand_back(self) -> None:
        """End it so that another worker runs it."""
        self.handed_back = True
        self._end()

    def lose(self) -> None:
        """End it because another worker has it."""
        self.lost = True
        self._end()

    def _end(self) -> None:
        # A task that is cancelled before its first step would never run, not even to tell so.
        if self.task is not None and self.began:
            self.task.cancel()

    @property
    def ended(self) -> bool:
        """Whether it is to end, whoever wants that."""
        return self.cancelled or self.handed_back or self.lost


class Runner:
    """What a worker needs to run jobs.

    Args:
        client: the store.
        tasks: those it knows.
        worker: its name.
        clock: the time.
        middleware: around each run, the first outermost.
        threads: most that run at once, one for each of the worker's places: a job that waited for one would time out unbegun.
    """

    def __init__(
        self,
        client: Client,
        tasks: Sequence[Task[..., Any]],
        worker: str,
        clock: Clock,
        middleware: Sequence[Middleware] = (),
        *,
        threads: int = 100,
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, "job")
        self.tasks = {task.name: task for task in tasks}
        self.resources = Resources()
        self.last_words = LastWords()
        self._strange: Counter[bytes] = Counter()
        """How often a job came here whose task is not known."""
        self._client = client
        self._worker = worker
        self._clock = clock
        self._middleware = tuple(middleware)

    async def aclose(self) -> None:
        """Tell what is to be told, and let go of resources."""
        await self.last_words.aclose()
        await self.resources.aclose()
        # What still runs cannot be interrupted; its job was handed back.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, shard: Shard, job: Job) -> Acknowledgement | None:
        """Run a job; None if nobody is to be told, because another worker has it."""
        claim = job.claim
        try:
            header, envelope = unpack(claim.payload)
        except CodecError as error:
            return self._bury(claim, b"", error, 3_600_000, has_hash=1)
        task = self.tasks.get(header.task)
        if task is None:
            return self._unknown(claim, header)
        queue = shard.name.partition("#")[0]
        if claim.run == 1:
            waited = self._clock.now() - envelope.at / 1000
            self._client.meter.observe("queue_wait_seconds", waited, queue)
        started = self._clock.monotonic()
        acknowledgement = await self._outcome(shard, job, task, header, envelope)
        if (context := job.context) is not None:
            context.fall_silent()
        if context is not None and (topic := context.topic) is not None:
            if acknowledgement is None or job.lost:
                topic.abandon()
            else:
                self.last_words.expect(claim.field, claim.run, topic)
        if acknowledgement is not None and (ended := _OUTCOMES.get(acknowledgement.kind)) is not None:
            workspace = claim.field.partition(b":")[0].decode()
            self._client.meter.job_ended(workspace, ended)
            if self._client.tallies.counting:
                self._client.tallies.of(workspace).jobs += 1
            self._client.meter.observe("job_duration_seconds", self._clock.monotonic() - started, queue)
        return acknowledgement

    def put_off(self, claim: Claim) -> Acknowledgement:
        """Give back a job for later that has its last chance, while another such job runs here."""
        try:
            header, _ = unpack(claim.payload)
        except CodecError as error:
            return self._bury(claim, b"", error, 3_600_000, has_hash=1)
        return Acknowledgement(claim.field, claim.run, "l", 1, header.unique, _SUSPECT_AGAIN, b"")

    async def _outcome(
        self, shard: Shard, job: Job, task: Task[..., Any], header: Header, envelope: Envelope
    ) -> Acknowledgement | None:
        try:
            if job.ended:
                return self._cancelled(job, task, header, asyncio.CancelledError())
            result = await self._call(shard, job, task, header, envelope)
        except Suspend as pause:
            claim = job.claim
            return Acknowledgement(
                claim.field, claim.run, pause.kind, 1, header.unique, pause.milliseconds, pause.text
            )
        except asyncio.CancelledError as error:
            return self._cancelled(job, task, header, error)
        except LeaseLost:
            return None
        except Exception as error:  # noqa: BLE001 - whatever a job raises is its outcome
            return self._failed(job, task, header, error)
        if job.cancelled:
            # It has swallowed its cancellation: what it made of that is nobody's any more.
            return self._cancelled(job, task, header, asyncio.CancelledError())
        return self._done(job, task, header, envelope, result)

    # --- the call ---

    async def _call(
        self, shard: Shard, job: Job, task: Task[..., Any], header: Header, envelope: Envelope
    ) -> Any:
        parameters = task.parameters
        arguments = parameters.decode(envelope.arguments)
        meta = envelope.meta
        plain = meta is None and not self._middleware and task.gate is None and not parameters.depends
        if plain and parameters.context is None and task.executor == "loop":
            # Nothing around it: most jobs of most queues.
            if task.timeout is None:
                return await task.function(**arguments)
            async with asyncio.timeout(task.timeout):
                return await task.function(**arguments)
        context = job.context = self._context(shard, job.claim, task, envelope)
        context.cancelled = job.cancelled
        timeout = self._timeout(task, envelope)
        if task.gate is not None and (wait := await task.gate(context)) > 0:
            raise Suspend("l", max(1, round(wait * 1000)))
        async with AsyncExitStack() as resources:
            arguments.update(await self.resources.provide(parameters.depends, resources))
            if parameters.context is not None:
                in_thread = parameters.context_type is ThreadContext
                arguments[parameters.context] = (
                    ThreadContext(context, asyncio.get_running_loop()) if in_thread else context
                )
            call: Callable[[], Awaitable[object]] = lambda: self._execute(task, arguments)  # noqa: E731
            for middleware in reversed(self._middleware):
                call = _wrapped(middleware, context, call)
            with continued(meta, header.task):
                async with asyncio.timeout(timeout):
                    result = await call()
        await context.flush()
        return result

    def _context(self, shard: Shard, claim: Claim, task: Task[..., Any], envelope: Envelope) -> JobContext:
        workspace = claim.field.partition(b":")[0].decode()
        queue = self._client.workspace(workspace).queue
        return JobContext(queue, shard, self._worker, claim, task, envelope, self._clock)

    def _timeout(self, task: Task[..., Any], envelope: Envelope) -> float | None:
        deadline = (envelope.meta or {}).get("deadline")
        if deadline is None:
            return task.timeout
        left = int(deadline) / 1000 - self._clock.now()
        if left <= 0:
            raise PastDeadline("the job's deadline had passed before it began")
        return left if task.timeout is None else min(left, task.timeout)

    async def _execute(self, task: Task[..., Any], arguments: dict[str, Any]) -> Any:
        if task.executor == "process":
            return await run_isolated(task, arguments, memory=task.memory)
        if task.is_async:
            return await task.function(**arguments)
        if task.executor == "thread":
            call = partial(copy_context().run, task.function, **arguments)
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        return task.function(**arguments)

    # --- what came of it ---

    def _done(
        self, job: Job, task: Task[..., Any], header: Header, envelope: Envelope, result: Any
    ) -> Acknowledgement:
        claim = job.claim
        keep = int(task.result_ttl * 1000)
        if envelope.meta is not None:
            keep = max(keep, int(envelope.meta.get("keep", 0)))
        stored = b""
        if keep:
            try:
                stored = pack_result(claim.field.partition(b":")[0].decode(), result)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                return self._bury(
                    claim, header.unique, CodecError(f"the result cannot be stored: {error}"), keep
                )
            if len(stored) > MAX_RESULT:
                large = InvalidJob(
                    f"the result has {len(stored)} bytes, more than {MAX_RESULT}: store it elsewhere and return its address"
                )
                return self._bury(claim, header.unique, large, keep)
        return Acknowledgement(claim.field, claim.run, "d", self._has_hash(job), header.unique, keep, stored)

    def _cancelled(
        self, job: Job, task: Task[..., Any], header: Header, error: BaseException
    ) -> Acknowledgement | None:
        claim = job.claim
        if job.lost:
            return None
        if job.cancelled:
            keep = max(int(task.result_ttl * 1000), 60_000)
            return Acknowledgement(
                claim.field,
                claim.run,
                "c",
                self._has_hash(job),
                header.unique,
                keep,
                b"ccancelled while it ran",
            )
        if job.handed_back:
            return Acknowledgement(claim.field, claim.run, "h", self._has_hash(job), header.unique, 0, b"")
        return self._failed(job, task, header, RuntimeError(f"the job cancelled itself: {error!r}"))

    def _failed(
        self, job: Job, task: Task[..., Any], header: Header, error: Exception
    ) -> Acknowledgement | None:
        claim = job.claim
        if job.cancelled and isinstance(error, JobCancelled):
            return self._cancelled(job, task, header, error)
        if isinstance(error, RateLimited):
            # It waits for its turn; that is no failure.
            return Acknowledgement(
                claim.field, claim.run, "l", 1, header.unique, max(1, round(error.retry_after * 1000)), b""
            )
        if isinstance(error, StoreUnavailable) and self._client.outage.state is not State.HEALTHY:
            # What it needed was away: it is begun anew when it is back, and has not failed.
            return Acknowledgement(claim.field, claim.run, "l", 1, header.unique, _AFTER_OUTAGE, b"")
        failures = claim.failures + 1
        asked = error if isinstance(error, Retry) else None
        hopeless = isinstance(error, InvalidJob | PastDeadline)
        _LOG.warning(
            "job failed",
            job=claim.field.decode(),
            task=task.name,
            run=claim.run,
            failures=failures,
            error=repr(error),
        )
        if hopeless or failures > task.retries.times:
            return self._bury(claim, header.unique, error, max(int(task.result_ttl * 1000), 60_000))
        delay = (
            asked.after
            if asked is not None and asked.after is not None
            else task.retries.backoff.delay(failures)
        )
        return Acknowledgement(
            claim.field, claim.run, "r", 1, header.unique, max(0, round(delay * 1000)), self._failure(error)
        )

    def _unknown(self, claim: Claim, header: Header) -> Acknowledgement:
        _LOG.error("no such task in this worker", job=claim.field.decode(), task=header.task)
        self._strange[claim.field] += 1
        if self._strange[claim.field] >= _UNKNOWN_TASK_TIMES:
            del self._strange[claim.field]
            return self._bury(
                claim, header.unique, InvalidJob(f"no worker knows task {header.task}"), 3_600_000
            )
        if len(self._strange) > _MOST_STRANGE:
            self._strange.clear()
        return Acknowledgement(claim.field, claim.run, "l", 0, header.unique, _UNKNOWN_TASK_AGAIN, b"")

    def _bury(
        self, claim: Claim, unique: bytes, error: Exception, keep: int, *, has_hash: int = 1
    ) -> Acknowledgement:
        failure = self._failure(error)
        return Acknowledgement(claim.field, claim.run, "x", has_hash, unique, keep, failure, b"f" + failure)

    def _failure(self, error: Exception) -> bytes:
        stack = "".join(traceback.format_exception(error))[-_STACK:]
        return msgspec.json.encode(
            Failure(type(error).__name__, str(error)[:2_000], round(self._clock.now(), 3), stack)
        )

    @staticmethod
    def _has_hash(job: Job) -> int:
        return int(job.claim.run > 1 or (job.context is not None and job.context.has_hash))


def _wrapped(
    middleware: Middleware, context: JobContext, call: Callable[[], Awaitable[object]]
) -> Callable[[], Awaitable[object]]:
    return lambda: middleware(context, call)
