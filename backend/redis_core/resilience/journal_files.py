"""All journal files of one process: its own, made at the first record, and those it adopted. Used by the journal's thread only."""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from redis_core.errors import JournalBroken
from redis_core.log import get_logger
from redis_core.resilience.journal_file import (
    Group,
    JournalFile,
    Kept,
    Quarantined,
    is_damage,
    salvage,
)
from redis_core.resilience.journal_folder import Claim, claim, claim_new, orphans, prepare
from redis_core.resilience.record import Record

__all__ = ["Adopted", "Holding", "JournalFiles", "Taken"]

_MOST_ADOPTED: Final = 64
"""Files adopted at once, each an open database; the others' turn comes when these are drained."""
_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Payload bytes after which a batch is full; it has one record at least."""
_TOO_OLD: Final = "too old: it waited longer than JOURNAL_MAX_AGE"
_LOG: Final = get_logger("redis_core.journal")


class Holding(Struct, frozen=True):
    """What is kept, counted."""

    waiting: tuple[Group, ...] = ()
    quarantined: int = 0
    quarantined_bytes: int = 0
    latest: float = 0.0
    """When the youngest waiting record was accepted: new ones are younger, whatever the clock says."""


class Adopted(Struct, frozen=True):
    """How many files of processes that are gone were taken over, and how many of them had to be set aside."""

    files: int = 0
    damaged: int = 0
    records: int = 0
    """Waiting records that came with them."""


class Taken(Struct, frozen=True):
    """A batch to carry out, and what was found unfit for it and put into quarantine."""

    records: list[Record]
    aside: list[Kept]


class JournalFiles:
    """What the thread owns.

    Args:
        folder: where the files are.
        target: the store whose records count.
    """

    def __init__(self, folder: Path, target: str) -> None:
        self._folder = folder
        self._target = target
        self._own: JournalFile | None = None
        self._adopted: list[JournalFile] = []

    # --- transactions, over all files that were changed ---

    def commit(self) -> None:
        """Flush what was changed.

        Raises:
            JournalDamaged: a file is not what was written.
            sqlite3.Error: the disk does not let us.
        """
        for file in self._all():
            file.commit()
        for file in tuple(self._adopted):
            self._let_go_if_drained(file)

    def rollback(self) -> None:
        """Forget what was changed since the last commit, as far as the disk lets us."""
        for file in self._all():
            try:
                file.rollback()
            except sqlite3.Error as error:
                _LOG.warning("journal rollback failed", file=str(file.claim.path), error=str(error))

    def replace_damaged(self) -> int:
        """After damage was found in use: keep what can be read of the damaged files in a new one; how many were set aside."""
        files = list(self._all())
        self._own, self._adopted = None, []
        damaged = 0
        for file in files:
            try:
                file.check()
            except Exception as error:  # noqa: BLE001 - whatever it is, it cannot be written to any more
                try:
                    self._rescue(file.claim, error, file.salvage())
                finally:
                    file.close()
                damaged += 1
            else:
                self._adopted.append(file)
        return damaged

    def holding(self) -> Holding:
        """Everything that is held, counted anew."""
        counts = [file.in_quarantine() for file in self._all()]
        return Holding(
            tuple(group for file in self._all() for group in file.groups()),
            sum(count for count, _ in counts),
            sum(size for _, size in counts),
            max((file.latest() for file in self._all()), default=0.0),
        )

    def close(self) -> None:
        """Give all files back: empty ones are removed, the others left to be adopted."""
        for file in self._all():
            self._give_back(file)
        self._own, self._adopted = None, []

    # --- what the journal does ---

    def append(self, record: Record) -> bool:
        """Keep a record in this process' own file; False if it is there already."""
        return self._writable().add(record)

    def take(
        self, limit: int, kinds: Collection[str] | None, order: str | None, not_before: float, now: float
    ) -> Taken:
        """The oldest records of all files; what is damaged or too old goes to quarantine on the way."""
        aside: list[Kept] = []
        damaged: list[tuple[JournalFile, int]] = []
        old: list[tuple[JournalFile, str]] = []
        records: list[Record] = []
        payload = 0
        streams = [_with(file, file.oldest(limit, kinds, order)) for file in self._all()]
        for file, seq, record, intact in heapq.merge(*streams, key=_by_age):
            if not intact:
                damaged.append((file, seq))
            elif record.created < not_before:
                old.append((file, record.id))
            else:
                payload += len(record.payload)
                if records and (payload > _BATCH_BYTES or len(records) >= limit):
                    break
                records.append(record)
        for file, seq in damaged:
            aside += file.put_damaged_aside(seq, now)
        for file, name in old:
            aside += file.put_aside([name], _TOO_OLD, now)
        return Taken(records, aside)

    def remove(self, ids: Collection[str]) -> list[Kept]:
        """Forget waiting records."""
        return self._each(lambda file: file.remove(ids))

    def count_attempt(self, ids: Collection[str]) -> None:
        """One more attempt for each."""
        for file in self._all():
            file.count_attempt(ids)

    def put_aside(self, ids: Collection[str], reason: str, now: float) -> list[Kept]:
        """Move waiting records to quarantine."""
        return self._each(lambda file: file.put_aside(ids, reason, now))

    def let_out(self, ids: Collection[str]) -> list[Kept]:
        """Move records back from quarantine."""
        return self._each(lambda file: file.let_out(ids))

    def discard(self, ids: Collection[str]) -> list[Kept]:
        """Forget records in quarantine."""
        return self._each(lambda file: file.remove(ids, "quarantine"))

    def quarantined(self, limit: int) -> list[Quarantined]:
        """What is in quarantine, oldest first."""
        found = itertools.chain.from_iterable(file.quarantined(limit) for file in self._all())
        return sorted(found, key=lambda kept: kept.record.created)[:limit]

    def first(self) -> float | None:
        """When the oldest waiting record of all files was accepted."""
        return min((first for file in self._all() if (first := file.first()) is not None), default=None)

    def adopt(self) -> Adopted:
        """Take over files whose owner is gone. One that cannot be opened is reported and does not keep us from the others."""
        files = damaged = 0
        before = self._count()
        for path in orphans(self._folder):
            if len(self._adopted) >= _MOST_ADOPTED:
                break
            held = claim(path)
            if held is None:
                continue
            try:
                found = self._open_again(held)
            except (sqlite3.Error, OSError, JournalBroken) as error:
                held.release()
                _LOG.error("journal file cannot be adopted", file=str(path), error=str(error))
                continue
            files += 1
            damaged += found
        return Adopted(files, damaged, self._count() - before)

    # --- files ---

    def _count(self) -> int:
        return sum(group.count for file in self._all() for group in file.groups())

    def _all(self) -> Iterator[JournalFile]:
        if self._own is not None:
            yield self._own
        yield from self._adopted

    def _each(self, change: Callable[[JournalFile], list[Kept]]) -> list[Kept]:
        return [kept for file in self._all() for kept in change(file)]

    def _writable(self) -> JournalFile:
        if self._own is None:
            prepare(self._folder)
            held = claim_new(self._folder)
            try:
                self._own = JournalFile(held, self._target)
            except BaseException:
                held.remove()
                raise
        return self._own

    def _open_again(self, held: Claim) -> int:
        """Open a claimed file for what waits in it; how many damaged ones were set aside, 0 or 1."""
        try:
            file = JournalFile(held, self._target)
            targets = file.targets()
        except Exception as error:
            if not is_damage(error):
                raise
            self._rescue(held, error, salvage(held.path))
            return 1
        if self._target in targets:
            self._adopted.append(file)
        else:
            self._give_back(file)
        return 0

    def _rescue(
        self, held: Claim, damage: Exception, readable: tuple[list[Record], list[Quarantined]]
    ) -> None:
        """Keep what can be read of a damaged file in our own, then set it aside: twice is better than never."""
        waiting = [record for record in readable[0] if record.target == self._target]
        aside = [kept for kept in readable[1] if kept.record.target == self._target]
        if waiting or aside:
            own = self._writable()
            for record in waiting:
                own.add(record)
            for kept in aside:
                own.keep_quarantined(kept)
            own.commit()
        path = held.set_aside()
        _LOG.error(
            "journal file damaged and set aside: what can be read of it was kept, records may be missing",
            file=str(path),
            damage=str(damage),
            kept=len(waiting),
            quarantined=len(aside),
        )

    def _let_go_if_drained(self, file: JournalFile) -> None:
        if self._target not in file.targets():
            self._adopted.remove(file)
            self._give_back(file)

    def _give_back(self, file: JournalFile) -> None:
        empty = not file.targets()
        file.close()
        if empty:
            file.claim.remove()
        else:
            file.claim.release()


def _with(
    file: JournalFile, records: Iterator[tuple[int, Record, bool]]
) -> Iterator[tuple[JournalFile, int, Record, bool]]:
    return ((file, *found) for found in records)


def _by_age(found: tuple[JournalFile, int, Record, bool]) -> float:
    created: object = found[2].created
    return created if isinstance(created, float) else 0.0  # a damaged one may be of any type
