"""A job as who enqueued it sees it: where it is, what it returned, what it tells."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import msgspec

from redis_core.errors import InvalidJob, JobUnknown
from redis_core.keys import check_part
from redis_core.queueing.job import MAX_PAYLOAD, Failure, result_of
from redis_core.queueing.shard import Look

if TYPE_CHECKING:
    from redis_core.queue import Queue

__all__ = ["DeadJob", "JobHandle", "JobStatus", "errors_of"]

R = TypeVar("R")

_CANCELLED_KEPT: Final = 3_600_000
"""Milliseconds that it is known of a job that it was cancelled."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job is just now."""

    state: str
    """`spooled` (in this process' journal, until the store is back), `waiting`, `delayed`, `blocked`, `running`, `done`, `failed`, `cancelled` or `unknown`."""
    progress: float | None = None
    """0 to 1, as the job told it last."""
    message: str = ""
    due: float | None = None
    """Unix time at which a delayed job is due, in seconds."""
    tokens: int = 0
    cost: float = 0.0
    errors: tuple[Failure, ...] = ()
    """Its failures so far, the first one first."""


@dataclass(frozen=True, slots=True)
class DeadJob:
    """A dead letter."""

    id: str
    task: str
    died: float
    """Unix time in seconds."""
    errors: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class JobHandle(Generic[R]):
    """A job, wherever it is; holds no connection."""

    queue: Queue
    id: str
    shard: str
    field: str
    """The job's name in its queue."""
    result_type: Any = dataclasses.field(default=Any, repr=False)
    is_new: bool = True
    """False if it was known already: its id, idempotency key or unique key was taken."""

    @property
    def spooled(self) -> bool:
        """Whether it is in this process' journal still, because the store was away when it was enqueued."""
        return self.queue.spooled(self)

    async def result(self, timeout: float | None = None) -> R:
        """What the job returned, waited for. Budget: 2 commands if it is over, 5 if it is not.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            JobFailed: it failed for good.
            JobCancelled: it was cancelled.
            JobUnknown: there is no such job, or its result is not kept any more.
            ResultTimeout: it was not over in time; it goes on.
        """
        return cast(
            "R",
            result_of(
                await self.queue.raw_result(self, timeout),
                self.result_type,
                self.id,
                self.field.partition(":")[0],
            ),
        )

    async def status(self) -> JobStatus:
        """Where it is. Budget: 1 trip, up to 7 commands and one for each worker."""
        if self.spooled:
            return JobStatus("spooled")
        return _status(await self.queue.shard_of(self).look(self.field))

    async def cancel(self, reason: str = "cancelled") -> bool:
        """Keep it from running, or end it if it runs; False if it is over. Budget: 1 trip, about 10 commands.

        On the event loop a running job is cancelled within milliseconds, a process of its own killed; a thread sees it when it asks.
        """
        return bool(await self.queue.shard_of(self).cancel(self.field, reason, _CANCELLED_KEPT))

    async def signal(self, name: str, value: object = None) -> bool:
        """Answer `ctx.wait_for(name)`; False if it was answered before, or has given up waiting. Budget: 4 commands, 9 more if it waits.

        Raises:
            InvalidJob: the value is too large.
            JobUnknown: there is no such job, or it is over.
        """
        data = msgspec.msgpack.encode(value)
        if len(data) > MAX_PAYLOAD:
            raise InvalidJob(f"the signal has {len(data)} bytes, more than {MAX_PAYLOAD}")
        given = await self.queue.shard_of(self).signal(self.field, check_part(name), data)
        if not given:
            raise JobUnknown(f"job {self.id} is not known, or is over")
        return given == 1

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """What the job tells from now on, until it is over: `kind` is `progress`, `token` or `log`. Close it with `aclosing`."""
        async for event in self.queue.events(self):
            yield event


def _status(look: Look) -> JobStatus:
    state = look.state
    if look.result is not None:
        state = {b"d": "done", b"f": "failed"}.get(look.result[:1], "cancelled")
    told = msgspec.json.decode(look.hash[b"progress"]) if b"progress" in look.hash else {}
    return JobStatus(
        state,
        told.get("value"),
        told.get("message", ""),
        None if look.due is None else look.due / 1000,
        int(float(look.hash.get(b"u:tokens", 0))),
        float(look.hash.get(b"u:cost", 0)),
        errors_of(look.hash),
    )


def errors_of(stored: dict[bytes, bytes]) -> tuple[Failure, ...]:
    """A job's failures, as its hash has them."""
    runs = sorted(
        (int(name[1:]), value) for name, value in stored.items() if name[:1] == b"e" and name[1:].isdigit()
    )
    return tuple(msgspec.json.decode(value, type=Failure) for _, value in runs)
