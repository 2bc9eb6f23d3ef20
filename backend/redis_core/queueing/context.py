"""What a running job may do besides its work: tell its progress, keep what it has done, and wait without holding a worker."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_type_hints, overload

import msgspec

from redis_core.errors import CodecError, InvalidJob, JobCancelled, JobUnknown, LeaseLost, Outcome, StoreError
from redis_core.keys import check_part
from redis_core.log import get_logger
from redis_core.queueing.job import MAX_RESULT, Envelope, derived_id, result_of
from redis_core.queueing.shard import Claim, Shard
from redis_core.queueing.task import Call, Task
from redis_core.queueing.telling import JobTopic

if TYPE_CHECKING:
    from redis_core.clock import Clock
    from redis_core.queue import JobHandle, Queue

__all__ = ["LONGEST_WAIT", "JobContext", "Suspend", "decode_step", "encode_step"]

R = TypeVar("R")

_EVERY: Final = 0.1
"""Seconds between two writes of what a job tells: a token a millisecond is ten writes a second."""
_IN_PLACE: Final = 1.0
"""Seconds that a job sleeps without giving its place to another."""
LONGEST_WAIT: Final = 30 * 86_400.0
"""Seconds that a job waits for an answer unless it says otherwise."""
_PACK: Final = msgspec.msgpack.Encoder().encode
_NOBODY: Final = b""
"""Stored in place of an answer that did not come in time; no answer is packed to nothing."""
_LOG: Final = get_logger("redis_core.queue.job")


Pause = Literal["l", "w", "b"]
"""Later, waiting for a signal, waiting for jobs: as `queue_turn.lua` has them."""


class Suspend(BaseException):
    """Ends a run that is to go on later; an `except Exception` in a job does not catch it."""

    def __init__(self, kind: Pause, milliseconds: int = 0, text: str = "") -> None:
        super().__init__(kind)
        self.kind: Pause = kind
        self.milliseconds = milliseconds
        self.text = text


class JobContext:
    """Given to a task that has a parameter annotated with it.

    What it writes is fenced: once another worker has the job, it raises `LeaseLost`.
    """

    def __init__(
        self,
        queue: Queue,
        shard: Shard,
        worker: str,
        claim: Claim,
        task: Task[..., Any],
        envelope: Envelope,
        clock: Clock,
    ) -> None:
        self.queue = queue
        """The job's workspace's queue, for more jobs."""
        self.task = task
        self.field = claim.field.decode()
        self.workspace, _, self.id = self.field.partition(":")
        self.run = claim.run
        """Which run this is, from 1."""
        self.failures = claim.failures
        """How many of the runs before failed."""
        self.arguments = envelope.arguments
        self.cancelled = False
        """Whether somebody has asked to end the job; on the event loop it is cancelled as well."""
        self.has_hash = claim.run > 1
        self.topic: JobTopic | None = None
        """Where browsers hear of the job; there is none before it tells something."""
        self._shard = shard
        self._worker = worker
        self._claim = claim
        self._clock = clock
        self._hash: dict[bytes, bytes] | None = None
        self._names: Counter[str] = Counter()
        self._fields: dict[str, bytes] = {}
        self._add: defaultdict[str, float] = defaultdict(float)
        self._events: list[dict[str, object]] = []
        self._written = 0.0
        self._word: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._log = _LOG.bind(job=self.id, workspace=self.workspace, task=task.name, run=claim.run)

    # --- telling ---

    async def progress(self, value: float, message: str = "") -> None:
        """Tell how far it is: `value` of 0 to 1, for `status()` and followers. Budget: 3 commands and a script of 7, at most 10 times a second."""
        self._fields["progress"] = msgspec.json.encode({"value": value, "message": message})
        await self._tell({"kind": "progress", "value": value, "message": message})

    async def stream(self, token: str) -> None:
        """Tell a piece of what it makes to followers. Budget: 2 commands each 0.1 s, and a script of 6 each 40 ms."""
        await self._heard().write(token)
        if self._events and self._events[-1].get("kind") == "token":
            self._events[-1]["text"] = f"{self._events[-1]['text']}{token}"
            await self._flush_if_due()
        else:
            await self._tell({"kind": "token", "text": token})

    async def log(self, message: str, **fields: str | float | bool | None) -> None:
        """A line in the worker's log, with the job's ids, and for followers."""
        self._log.info(message, **fields)
        await self._tell({"kind": "log", "message": message, "fields": fields})

    async def usage(
        self,
        *,
        tokens: int = 0,
        cost: float | None = None,
        model: str = "",
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
    ) -> None:
        """Add to what the job and its workspace have used.

        `status()` tells the job's sum, with the next write or the job's end; `ws.usage` the workspace's, at once. A run that is repeated
        uses again, and is counted again.

        Args:
            tokens: of whatever kind, where they are not told apart.
            cost: US dollars; by the model's price unless given.
            model: which model was asked.
            input_tokens: as `Usage.add`.
            output_tokens: as `Usage.add`.
            cached_tokens: as `Usage.add`.

        Budget: as `Usage.add`, and 2 commands for the job at most 10 times a second.

        Raises:
            BudgetExceeded: this spent the workspace's budget; what was used is counted.
        """
        ledger = self.queue.client.workspace(self.workspace).usage
        named = model or ("unnamed" if tokens or input_tokens or output_tokens else "")
        spent = await ledger.add(
            model=named, input_tokens=input_tokens, output_tokens=output_tokens + tokens,
            cached_tokens=cached_tokens, cost=cost if model else cost or 0.0,
        )  # fmt: skip
        self._add["u:tokens"] += tokens + input_tokens + output_tokens
        self._add["u:cost"] += spent.cost
        await self._flush_if_due()
        await ledger.check()

    async def _tell(self, event: dict[str, object]) -> None:
        self._events.append(event)
        await self._flush_if_due()

    async def _flush_if_due(self) -> None:
        left = self._written + _EVERY - time.monotonic()
        if left <= 0:
            await self.flush()
        elif self._word is None:
            # The last word before a silence must not wait for the next one.
            self._word = asyncio.get_running_loop().call_later(left, self._flush_now)

    def _flush_now(self) -> None:
        self._word = None
        self._flushing = asyncio.get_running_loop().create_task(self._flush_unasked())

    async def _flush_unasked(self) -> None:
        try:
            await self.flush()
        except LeaseLost as error:
            # The run itself hears so with its next word, or when its worker renews.
            self._log.debug("what the job told is not kept", error=str(error))

    def fall_silent(self) -> None:
        """Nothing is told any more unless asked: the run is over."""
        if self._word is not None:
            self._word.cancel()
            self._word = None

    async def flush(self) -> None:
        """Write what was told and not written yet; while the store is away, what can wait for the next write does.

        Raises:
            LeaseLost: another worker has the job.
        """
        if not self._fields and not self._add and not self._events:
            return
        fields, add, events = self._fields, self._add, self._events
        self._fields, self._add, self._events = {}, defaultdict(float), []
        try:
            await self._note(list(fields.items()), [(name, by) for name, by in add.items() if by], events)
        except StoreError as error:
            # What is only told must not cost the work. Sums that may have been added are not added again.
            self._log.debug("the store does not answer: what the job tells waits", error=str(error))
            self._fields = fields | self._fields
            if error.outcome is Outcome.NOT_SENT:
                for name, by in add.items():
                    self._add[name] += by
        if told := [event for event in events if event["kind"] != "token"]:
            await self._heard().tell(told)

    def _heard(self) -> JobTopic:
        if self.topic is None:
            self.topic = JobTopic(self.queue.client, self.workspace, self.id, self.run)
        return self.topic

    async def _note(
        self,
        fields: list[tuple[str, bytes]],
        add: list[tuple[str, float]] | None = None,
        events: list[dict[str, object]] | None = None,
    ) -> None:
        self._written = time.monotonic()
        self.has_hash = self.has_hash or bool(fields or add)
        done = await self._shard.note(
            self._worker,
            self._claim.field,
            self.run,
            fields=fields,
            add=add or [],
            event=_PACK(events) if events else b"",
        )
        if not done:
            raise LeaseLost(f"job {self.id}: another worker has it, or it is over")
        if self._hash is not None:
            self._hash.update((name.encode(), value) for name, value in fields)

    # --- durable steps ---

    @overload
    async def step(
        self, name: str, function: Callable[..., Awaitable[R]], *args: object, **kwargs: object
    ) -> R: ...
    @overload
    async def step(self, name: str, function: Callable[..., R], *args: object, **kwargs: object) -> R: ...
    async def step(self, name: str, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        """Do something once: when the job runs again, the stored result is returned instead. Budget: 2 commands, 3 more once a run.

        A step that was cut off between its work and its storing is done again, so its work must bear that. The same name
        again is another step, told apart by order. A synchronous function runs on the event loop, as it stands.

        Raises:
            CodecError: the result cannot be stored.
            InvalidJob: it is too large; the job is buried.
            LeaseLost: another worker has the job; the result was not stored.
        """
        field, stored = await self.recall(name)
        if stored is not None:
            return decode_step(stored, function)
        made: Any = function(*args, **kwargs)
        result = await made if inspect.isawaitable(made) else made
        await self.keep(field, encode_step(name, result))
        return result

    async def recall(self, name: str) -> tuple[str, bytes | None]:
        """Where a step of this name keeps its result, and what it has kept. Budget: 3 commands once a run."""
        field = self._named("s", name)
        return field, (await self._stored()).get(field.encode())

    async def keep(self, field: str, encoded: bytes) -> None:
        """Keep what a step has made. Budget: 2 commands.

        Raises:
            LeaseLost: another worker has the job; it was not kept.
        """
        await self._note([(field, encoded)])

    async def sleep(self, seconds: float, name: str = "sleep") -> None:
        """Wait; for more than a second without holding a worker: the job begins anew then, its steps done. Budget: 2 commands."""
        due = await self._due(self._named("d", name), seconds)
        left = due - self._clock.now()
        if left <= 0:
            return
        if left <= _IN_PLACE:
            await self._clock.sleep(left)
            return
        await self.flush()
        raise Suspend("l", int(left * 1000) + 1)

    @overload
    async def wait_for(self, name: str, timeout: float = ...) -> Any: ...
    @overload
    async def wait_for(self, name: str, timeout: float = ..., *, type: type[R]) -> R: ...
    async def wait_for(self, name: str, timeout: float = LONGEST_WAIT, *, type: Any = Any) -> Any:
        """Wait for `JobHandle.signal(name, value)` without holding a worker; the value. Budget: 3 commands, and the job's next run; 6 more if nobody answers.

        Raises:
            TimeoutError: nobody answered within `timeout` seconds; that is remembered, as an answer is.
        """
        check_part(name)
        field = f"g:{name}".encode()
        answer = (await self._stored()).get(field)
        if answer is None:
            due = await self._due(f"d:g:{name}", timeout)
            left = due - self._clock.now()
            if left > 0:
                await self.flush()
                raise Suspend("w", int(left * 1000) + 1, name)
            # That nobody answered is an answer too: the first one counts, and later runs find the same.
            await self._shard.signal(self.field, name, _NOBODY)
            self._hash = None
            answer = (await self._stored()).get(field, _NOBODY)
        if answer == _NOBODY:
            raise TimeoutError(f"job {self.id} waited {timeout:g} s for {name}")
        return msgspec.msgpack.decode(answer, type=type)

    async def spawn(self, call: Call[R], name: str | None = None) -> JobHandle[R]:
        """Enqueue a child job, once however often this job runs. Budget: as `enqueue`, and 2 commands; 3 more once a run.

        Args:
            call: the task with its arguments; for `gather` it must be of this queue.
            name: tells two children of one task apart; their order does, unless given.
        """
        field = self._named("c", name or call.task.name)
        known = (await self._stored()).get(field.encode())
        if known is not None:
            # The child may be over and forgotten: by its id alone it would be taken in again.
            return self.queue.job(call.task.queue, known.decode(), call.task.parameters.result)
        # Derived, as a run that ends before the next line makes the same one again; kept, as the workspace may get another id.
        child = derived_id("child", self.workspace, self.id, field)
        handle = await self.queue.enqueue(call, job_id=child)
        await self._note([(field, child.encode())])
        return handle

    async def gather(self, *children: JobHandle[R]) -> list[R]:
        """The results of children, waited for without holding a worker. Budget: 1 command for each, and the job's next run.

        Raises:
            InvalidJob: one is of another workspace or queue.
            JobFailed: one failed for good.
            JobCancelled: one was cancelled.
            JobUnknown: one is over and kept no result.
        """
        stored = await self._stored()
        missing, found = [], {}
        for child in children:
            self.queue.shard_of(child)
            if child.shard != self._shard.name:
                raise InvalidJob(
                    f"job {child.id} is of queue {child.shard}: only children of {self._shard.name} can be gathered"
                )
            kept = stored.get(f"r:{child.id}".encode())
            if kept is None:
                await self.queue.arrival(child)
                watched = await self._shard.watch(child.field)
                kept = watched.result
                if kept is None and not watched.known:
                    raise JobUnknown(f"job {child.id} is not known, or kept no result")
                if kept is None:
                    missing.append(child.id)
                    continue
                await self._note([(f"r:{child.id}", kept)])
            found[child.id] = kept
        if missing:
            await self.flush()
            raise Suspend("b", 0, "".join(f"{child}\n" for child in missing))
        return [result_of(found[child.id], child.result_type, child.id, self.workspace) for child in children]

    def check_cancelled(self) -> None:
        """For a job in a thread, which cannot be interrupted: end here if that was asked for.

        Raises:
            JobCancelled: it was.
        """
        if self.cancelled:
            raise JobCancelled(f"job {self.id} was cancelled")

    async def _stored(self) -> dict[bytes, bytes]:
        if self._hash is None:
            self._hash = (await self._shard.look(self.field)).hash
            self.has_hash = self.has_hash or bool(self._hash)
        return self._hash

    def _named(self, kind: str, name: str) -> str:
        field = f"{kind}:{name}"
        self._names[field] += 1
        return field if self._names[field] == 1 else f"{field}#{self._names[field]}"

    async def _due(self, field: str, seconds: float) -> float:
        stored = (await self._stored()).get(field.encode())
        if stored is not None:
            return float(stored)
        due = self._clock.now() + seconds
        await self._note([(field, repr(due).encode())])
        return due


def encode_step(name: str, result: object) -> bytes:
    """What a step has made, as it is kept.

    Raises:
        CodecError: it cannot be stored.
        InvalidJob: it is too large.
    """
    try:
        encoded = _PACK(result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(f"the result of step {name} cannot be stored: {error}") from error
    if len(encoded) > MAX_RESULT:
        raise InvalidJob(
            f"the result of step {name} has {len(encoded)} bytes, more than {MAX_RESULT}: store it elsewhere and return its address"
        )
    return encoded


def decode_step(stored: bytes, function: Callable[..., Any]) -> Any:
    """What a step has kept, of the type that its function says it returns."""
    return msgspec.msgpack.decode(stored, type=_result_type(function))


def _result_type(function: Callable[..., Any]) -> Any:
    try:
        return get_type_hints(inspect.unwrap(function)).get("return", Any)
    except (NameError, TypeError):
        # A lambda, a partial, or annotations that only a type checker sees.
        return Any
