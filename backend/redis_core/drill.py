"""The blackout drill inside of the service: rounds of reads, writes and jobs, and afterwards the proof that nothing was lost.

`raptorflow drill blackout` leads it: a round, mock mode on, more rounds, mock mode off, the verdict. All of it is of one workspace and one
queue of its own, which no other worker serves.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from redis_core.errors import RedisCoreError
from redis_core.queue import JobContext, task
from redis_core.worker import Worker

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["MOST_JOBS", "Drill", "Round", "Verdict"]

MOST_JOBS: Final = 1_000
"""Jobs of one drill."""
_WORKSPACE: Final = "raptorflow-drill"
_QUEUE: Final = "raptorflow-drill"
_KEPT: Final = 3_600
"""Seconds that what a drill writes is kept."""


class Round(Struct, frozen=True):
    """What a service did while it was asked."""

    mode: str
    """The store's mode: `degraded` in a blackout."""
    read_back: bool
    """Whether what was written was read."""
    jobs: list[str]
    """Ids of the jobs that were taken in."""
    spooled: int
    """How many of them wait in the journal."""
    milliseconds: float
    errors: list[str]


class Verdict(Struct, frozen=True):
    """What is left of a drill when it is over."""

    value_kept: bool
    """Whether what was written before the blackout is in the store."""
    memory_forgotten: bool
    """Whether what memory was told meanwhile is not."""
    ran: int
    """Jobs of the drill that have run."""
    lost: list[str]
    doubled: list[str]
    in_order: bool
    """Whether the jobs ran in the order in which they were accepted."""


@task(name="raptorflow.drill", queue=_QUEUE, result_ttl=_KEPT)
async def mark(number: int) -> int:
    """A job that does nothing, once."""
    return number


class Drill:
    """One drill on this process' client.

    Args:
        client: the service's.
        run: the drill's name.
    """

    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._workspace = client.workspace(_WORKSPACE)
        self._run = run

    async def round(self, name: str, jobs: int) -> Round:
        """Write, read and enqueue. Budget: 2 commands and a script of 5, a command more for each job in a blackout.

        Args:
            name: tells rounds apart: `before` is looked for in the store at the end.
            jobs: how many are enqueued.
        """
        began = time.perf_counter()
        key = self._key(name)
        read_back, errors, ids, spooled = False, [], [], 0
        try:
            await self._client.set(key, name, ex=_KEPT)
            read_back = await self._client.get(key) == name.encode()
        except RedisCoreError as error:
            errors.append(f"{type(error).__name__}: {error}")
        try:
            for handle in await self._workspace.queue.enqueue_many([mark.call(n) for n in range(jobs)]):
                ids.append(handle.id)
                spooled += handle.spooled
        except RedisCoreError as error:
            errors.append(f"{type(error).__name__}: {error}")
        milliseconds = round((time.perf_counter() - began) * 1000, 2)
        return Round(self._client.mode, read_back, ids, spooled, milliseconds, errors)

    async def verdict(self, jobs: Sequence[str], during: Sequence[str]) -> Verdict:
        """Run the jobs and look what there is. Budget: as a worker's turns, and 2 commands.

        Args:
            jobs: ids of all rounds, in the order in which they were accepted.
            during: names of the rounds in the blackout.
        """
        began: list[str] = []

        async def note(context: JobContext, call: Callable[[], Awaitable[object]]) -> object:
            began.append(context.id)
            return await call()

        await Worker(self._client, [mark], concurrency=1, middleware=[note]).drain()
        times = Counter(began)
        queue = self._workspace.queue
        lost = [
            job
            for job in jobs
            if not times[job] and (await queue.job(_QUEUE, job, int).status()).state != "done"
        ]
        asked = set(jobs)
        stored = await self._client.primary.get(self._key("before"))
        leaked = await self._client.primary.exists(*map(self._key, during)) if during else 0
        return Verdict(
            value_kept=stored == b"before",
            memory_forgotten=not leaked,
            ran=len(jobs) - len(lost),
            lost=lost,
            doubled=sorted(job for job, count in times.items() if count > 1),
            in_order=[job for job in began if job in asked] == [job for job in jobs if times[job]],
        )

    def _key(self, name: str) -> str:
        return self._workspace.keys.key("app", self._run, name)
