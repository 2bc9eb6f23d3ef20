"""Jobs on their way into a store that is away: kept in the journal, taken in when it is back, in order and once.

A job has its id before it is sent, and each record a name of its own. So what is sent again is known again: by the id while the job
is unfinished or its result is kept, and by the record's name for longer than any journal keeps a record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgspec

from redis_core.errors import JournalError, Outcome, QueueError, StoreUnavailable
from redis_core.log import get_logger
from redis_core.queueing.job import new_ids
from redis_core.queueing.shard import Acknowledgement, EnqueueRow, Refusal, Shard
from redis_core.quotas import Quotas
from redis_core.resilience.outage import NO_OUTAGE

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.clock import Clock
    from redis_core.resilience.record import Record

__all__ = ["SPOOLED", "Spool"]

SPOOLED: Final = "spooled"
"""In place of a refusal: the job was taken in, by the journal."""
_JOB: Final = "job"
_END: Final = "job-end"
_SURE_FOR: Final = 60_000
"""Milliseconds that a job's result must be kept for a call of unknown outcome to be repeated: a store that keeps nothing of a job
cannot tell that it has had it."""
_NO_LIMIT: Final = 2**53
"""Room for jobs that were accepted already: a limit may not lose them."""
_LATER_THAN_ANY: Final = 2**31
"""A doubt that no worker reaches, so that what another process tells for it is not taken for late."""
_LOG: Final = get_logger("redis_core.queue")


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    """A job in the journal."""

    shard: str
    workspace: str
    at: int
    """When it was accepted, in milliseconds: what its delay counts from."""
    sure_until: int
    """0 if the store has not had it. Else a call's outcome is not known, and until then the store would still know the job."""
    row: EnqueueRow


class _Ended(msgspec.Struct, array_like=True, frozen=True):
    """How a run ended, in the journal."""

    shard: str
    worker: str
    words: tuple[Any, ...]
    """Its acknowledgement."""


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_KEPT: Final = msgspec.msgpack.Decoder(_Kept)
_ENDED: Final = msgspec.msgpack.Decoder(_Ended)


class Spool:
    """The way into the queues that outlasts an outage. One a client.

    Args:
        client: the store, and what is known of its outage.
        clock: the time.
        shard_of: the shard of a name.
    """

    def __init__(self, client: Client, clock: Clock, shard_of: Callable[[str], Shard]) -> None:
        self._client = client
        self._outage = client.outage
        self._clock = clock
        self._shard_of = shard_of
        self._remembered = (
            0 if self._outage is NO_OUTAGE else round(client.settings.journal_max_age * 1000) + 86_400_000
        )
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}
        self._holders: dict[tuple[str, str, str], str] = {}
        self._outage.replayer(_JOB, self._take_in_kept)
        self._outage.replayer(_END, self._tell_kept)

    # --- jobs on their way in ---

    async def take_in(
        self, shard: Shard, workspace: str, rows: Sequence[EnqueueRow], *, check_results: bool, keep: int
    ) -> dict[int, Refusal | JournalError]:
        """Have the store take jobs in, or the journal while it is away. Budget: 1 trip; 0 commands while it is away.

        Args:
            shard: where they belong.
            workspace: whose they are.
            rows: the jobs.
            check_results: whether a job that is over counts as known.
            keep: milliseconds that the results of all of them are kept at least.

        Returns:
            by place, why a job was not taken in, or `SPOOLED`.
        """
        sure_until = 0
        if self._outage.available and not self._outage.waiting(_order(shard.name, workspace)):
            began = int(self._clock.now() * 1000)
            for first in (True, False):
                try:
                    _, refused = await shard.enqueue(
                        workspace,
                        rows,
                        most=self._client.service(Quotas).queue_depth(workspace),
                        check_results=check_results or not first,
                    )
                except StoreUnavailable as error:
                    unknown = error.outcome is not Outcome.NOT_SENT
                    if self._outage is NO_OUTAGE or (unknown and keep < _SURE_FOR):
                        raise
                    sure_until = sure_until or (began + keep if unknown else 0)
                    if not (first and unknown and self._outage.available):
                        break
                else:
                    # What the first call took in is known to the second: that is no refusal.
                    if first or check_results:
                        return dict(refused)
                    return {place: why for place, why in refused.items() if why != "known"}
        return await self._keep(shard.name, workspace, rows, sure_until)

    async def _keep(
        self, shard: str, workspace: str, rows: Sequence[EnqueueRow], sure_until: int
    ) -> dict[int, Refusal | JournalError]:
        kept = await asyncio.gather(*(self._keep_one(shard, workspace, row, sure_until) for row in rows))
        return dict(enumerate(kept))

    async def _keep_one(
        self, shard: str, workspace: str, row: EnqueueRow, sure_until: int
    ) -> Refusal | JournalError:
        place, unique = (shard, f"{workspace}:{row.id}"), (shard, workspace, row.unique)
        if place in self._waiting:
            return "known"
        if row.unique and (holder := self._holders.get(unique)) is not None:
            return holder
        self._waiting[place] = asyncio.Event()
        if row.unique:
            self._holders[unique] = row.id
        kept = _Kept(shard, workspace, int(self._clock.now() * 1000), sure_until, row)
        try:
            await self._outage.record(_JOB, _order(shard, workspace), _ENCODE(kept), id=new_ids(1)[0])
        except JournalError as error:
            self._arrived(kept)
            return error
        return SPOOLED

    def waits(self, shard: str, field: str) -> bool:
        """Whether this process has the job in its journal, and the store does not have it yet."""
        return (shard, field) in self._waiting

    async def arrival(self, shard: str, field: str) -> None:
        """Wait until the store has the job, if this process keeps it."""
        waiting = self._waiting.get((shard, field))
        if waiting is not None:
            await waiting.wait()

    def _arrived(self, kept: _Kept) -> None:
        row = kept.row
        unique = kept.shard, kept.workspace, row.unique
        if self._holders.get(unique) == row.id:
            del self._holders[unique]
        waiting = self._waiting.pop((kept.shard, f"{kept.workspace}:{row.id}"), None)
        if waiting is not None:
            waiting.set()

    async def _take_in_kept(self, records: Sequence[Record]) -> None:
        """Have the store take in what was kept. Budget: 1 script for neighbours of one shard and workspace, 2 commands more for each job."""
        now = int(self._clock.now() * 1000)
        jobs = [(record.id, _KEPT.decode(record.payload)) for record in records]
        for _, kept in jobs:
            if 0 < kept.sure_until < now:
                raise QueueError(
                    f"job {kept.row.id} of {kept.workspace} in {kept.shard}: whether the store took it in was not known, and a "
                    "result of it would be kept no more: look whether it ran, and enqueue it anew if it did not"
                )
        for (name, workspace), group in groupby(jobs, key=lambda job: (job[1].shard, job[1].workspace)):
            together = list(group)
            rows = [kept.row._replace(delay=max(0, kept.row.delay - (now - kept.at))) for _, kept in together]
            await self._shard_of(name).enqueue(
                workspace,
                rows,
                most=_NO_LIMIT,
                names=[record for record, _ in together],
                remember=self._remembered,
            )
            for _, kept in together:
                self._arrived(kept)

    # --- ends of runs ---

    async def keep_end(self, shard: str, worker: str, acknowledgement: Acknowledgement) -> None:
        """Keep how a run ended, should its worker not live to tell. It counts only if nobody else has the job by then.

        A journal that takes nothing is no reason to stop: the worker still has it in memory.
        """
        ended = _Ended(shard, worker, tuple(acknowledgement))
        try:
            await self._outage.record(_END, f"end {shard} {worker}", _ENCODE(ended), id=new_ids(1)[0])
        except JournalError as error:
            _LOG.warning(
                "how a job ended is in memory alone", job=_text(acknowledgement.field), error=str(error)
            )

    async def _tell_kept(self, records: Sequence[Record]) -> None:
        """Tell the store how runs ended. Budget: as a worker's turn, for neighbours of one worker."""
        ends = [_ENDED.decode(record.payload) for record in records]
        for (shard, worker), group in groupby(ends, key=lambda end: (end.shard, end.worker)):
            turn = await self._shard_of(shard).turn(
                worker,
                lease=0,
                free=0,
                doubts=_LATER_THAN_ANY,
                acknowledgements=[Acknowledgement(*end.words) for end in group],
            )
            if turn.refused:
                _LOG.info(
                    "ends of runs that were kept are told already, or others have the jobs",
                    jobs=[_text(field) for field in turn.refused],
                )


def _order(shard: str, workspace: str) -> str:
    return f"job {shard} {workspace}"


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace")
