"""Carrying out what was kept: oldest first, each order key in order, no faster than a store that has just come back can bear."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from itertools import groupby
from typing import Final

from redis_core.clock import Clock
from redis_core.errors import StoreError
from redis_core.log import get_logger
from redis_core.resilience.journal import Journal
from redis_core.resilience.outage import Replay
from redis_core.resilience.record import Record

__all__ = ["REPLAYING", "Replays"]

_LOG: Final = get_logger("redis_core.outage")
_BATCH: Final = 100
_RATE: Final = 2_000.0
"""Records a second at most."""

REPLAYING: ContextVar[bool] = ContextVar("redis_core_replaying", default=False)
"""True in a replayer, which may speak to the store before others may."""


class Replays:
    """Who carries out which records, and the loop that has them do it.

    Args:
        journal: what was kept.
        clock: the time.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._replays: dict[str, Replay] = {}
        self._first: set[str] = set()
        self.replayed = 0
        self.quarantined = 0

    def add(self, kind: str, replay: Replay, *, first: bool) -> None:
        """Name who carries out a kind."""
        self._replays[kind] = replay
        (self._first.add if first else self._first.discard)(kind)

    @property
    def first(self) -> Collection[str]:
        """Kinds that go before everything else."""
        return self._first

    @property
    def all(self) -> Collection[str]:
        """Kinds that somebody carries out."""
        return self._replays.keys()

    async def drain(self, kinds: Collection[str]) -> bool:
        """Carry out what waits of these kinds; whether nothing is left, False if the store would not have it now.

        Raises:
            JournalError: the journal cannot be read or written.
        """
        while records := await self._journal.pending(_BATCH, kinds=kinds):
            for kind, run in _runs(records):
                if not await self._carry_out(self._replays[kind], run):
                    return False
            await self._clock.sleep(len(records) / _RATE)
        return True

    async def _carry_out(self, replay: Replay, records: Sequence[Record]) -> bool:
        try:
            await self._call(replay, records)
        except StoreError as error:
            if _is_the_stores(error):
                await self._journal.tried([record.id for record in records])
                return False
            return await self._one_by_one(replay, records, error)
        except Exception as error:  # noqa: BLE001 - whatever a replayer cannot do must not hold up what others can (Sidekiq #2307)
            return await self._one_by_one(replay, records, error)
        self.replayed += await self._journal.done([record.id for record in records])
        return True

    async def _one_by_one(self, replay: Replay, records: Sequence[Record], error: Exception) -> bool:
        if len(records) > 1:
            for record in records:
                if not await self._carry_out(replay, [record]):
                    return False
            return True
        record = records[0]
        reason = f"{type(error).__name__}: {error}"
        _LOG.error("a kept record cannot be carried out", kind=record.kind, id=record.id, error=reason)
        self.quarantined += await self._journal.quarantine([record.id], reason)
        return True

    async def _call(self, replay: Replay, records: Sequence[Record]) -> None:
        token = REPLAYING.set(True)
        try:
            await replay(records)
        finally:
            REPLAYING.reset(token)


def _is_the_stores(error: StoreError) -> bool:
    """Whether it is the store's state that stands in the way, not the record."""
    return error.retryable or error.kind.value in {"read-only", "credentials"}


def _runs(records: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Neighbours of one kind, so that order across kinds is kept."""
    for kind, run in groupby(records, key=lambda record: record.kind):
        yield kind, list(run)
