"""The durable journal: what was accepted while the store was away, kept on disk until it has been carried out.

One SQLite file a process, written by one connection in one thread. What many tasks append at once is one transaction (a group
commit), and each append returns when that is on the disk. The file of a process that is gone is adopted in place by another:
its lock is free then, and whoever takes the lock has it alone.

::

    journal = Journal(folder, target="redis://cache.internal:6379/0")
    await journal.start()
    await journal.append("job", order="queue:agents", payload=encoded, id=job_id)     # on the disk when this returns
    ...
    while batch := await journal.pending():
        await carry_out(batch)
        await journal.done([record.id for record in batch])
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from msgspec import Struct

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import JournalError, JournalFull
from redis_core.log import get_logger
from redis_core.resilience.journal_disk import Storage, storage_of
from redis_core.resilience.journal_file import Kept, Quarantined
from redis_core.resilience.journal_files import JournalFiles, Taken
from redis_core.resilience.journal_folder import orphans
from redis_core.resilience.journal_thread import JournalThread, State
from redis_core.resilience.record import Record

__all__ = ["Journal", "JournalFigures", "Quarantined"]

_ADOPT_EVERY: Final = 60.0
"""Seconds between looks for files whose owner is gone."""
_TICK: Final = 1e-6
"""Seconds by which a record is younger than the one before it at least; a float of today still tells them apart."""
_LOG: Final = get_logger("redis_core.journal")


class JournalFigures(Struct, frozen=True):
    """What a journal holds, for health and metrics."""

    waiting: int
    """Records that wait to be carried out."""
    waiting_bytes: int
    quarantined: int
    quarantined_bytes: int
    oldest_age: float
    """Seconds since the oldest waiting record was accepted; 0 when none waits."""
    adopted_total: int
    """Files taken over from processes that are gone."""
    damaged_total: int
    """Files that were found damaged and set aside."""
    durable: bool
    """Whether what is appended outlasts this machine's memory."""


class Journal:
    """The journal of one store in this process. It belongs to one event loop, and costs nothing until something is appended.

    Args:
        folder: where journal files are; made with mode 0700. All processes of a host share it.
        target: the store, as its transport names it. Records for another store are left alone.
        max_bytes: most bytes of records, waiting and in quarantine, adopted ones included.
        max_age: seconds after which a waiting record is too old to be carried out; while there is one, nothing is accepted.
        overlay_is_memory: whether an overlay file system is in memory here, as on Cloud Run.
        clock: the time.
    """

    def __init__(
        self,
        folder: Path,
        target: str,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        max_age: float = 7 * 86_400.0,
        overlay_is_memory: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.folder = folder
        self.target = target
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._overlay_is_memory = overlay_is_memory
        self._clock = clock
        self._thread = JournalThread(JournalFiles(folder, target), self._told)
        self._storage: Storage | None = None
        # What is being appended, and what is on the disk. All of it is changed in the event loop only.
        self._arriving: Counter[str] = Counter()
        self._arriving_bytes = 0
        self._orders: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._waiting_bytes = 0
        self._quarantined = 0
        self._quarantined_bytes = 0
        self._first: float | None = None
        self._latest = 0.0
        self._adopted_total = 0
        self._damaged_total = 0
        self._adopter: asyncio.Task[None] | None = None

    # --- life ---

    async def start(self, on_adopted: Callable[[int], None] | None = None) -> None:
        """Adopt what processes that are gone have left, now and each minute; say so if this disk is none.

        Args:
            on_adopted: told how many records came, each time there are any.

        Raises:
            JournalBroken: the folder cannot be read.
        """
        if not self.durable:
            _LOG.warning(
                "the journal is on a RAM file system: what it keeps outlasts this process, but not this machine or container",
                folder=str(self.folder),
                remedy="set JOURNAL_PATH to a folder of a disk",
            )
        await self._adopt_for(on_adopted)
        if self._adopter is None:
            self._adopter = asyncio.create_task(self._adopt_each_minute(on_adopted), name="journal adoption")

    async def aclose(self) -> None:
        """Give the files back: what waits is adopted by the next process. Idempotent."""
        adopter, self._adopter = self._adopter, None
        if adopter is not None:
            adopter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await adopter
        await self._thread.stop()

    async def _adopt_each_minute(self, on_adopted: Callable[[int], None] | None) -> None:
        while True:
            await self._clock.sleep(_ADOPT_EVERY)
            try:
                await self._adopt_for(on_adopted)
            except (JournalError, OSError) as error:
                _LOG.error("journal files of other processes cannot be adopted", error=str(error))

    async def _adopt_for(self, on_adopted: Callable[[int], None] | None) -> None:
        came = await self.adopt()
        if came and on_adopted is not None:
            on_adopted(came)

    # --- keeping ---

    async def append(self, kind: str, order: str, payload: bytes, *, id: str | None = None) -> Record:
        """Keep an intent; returns when it is on the disk. Budget: no commands; one share of a disk flush.

        A call that is cancelled may have kept it all the same.

        Args:
            kind: which replayer carries it out.
            order: records of one order key are carried out in the order of their appends.
            payload: what the replayer needs.
            id: its name, by which a second append of it is the same record; a random one unless given.

        Raises:
            JournalFull: a limit is reached; nothing was kept.
            JournalBroken: the disk is full or damaged; it counts as not kept.
        """
        created = max(self._clock.now(), self._latest + _TICK)
        record = Record(id or secrets.token_hex(16), kind, order, self.target, payload, created)
        record.checksum  # noqa: B018 - text that cannot be written fails here, alone, not in a transaction with others
        self._check_room(record.size)
        self._latest = created
        self._arriving[order] += 1
        self._arriving_bytes += record.size

        def arrived(new: bool | None) -> None:
            _take(self._arriving, order)
            self._arriving_bytes -= record.size
            if new:
                self._came(record.kind, order, record.size)

        await asyncio.shield(self._thread.submit(lambda files: files.append(record), arrived))
        return record

    def _check_room(self, size: int) -> None:
        if self.held_bytes + size > self._max_bytes:
            raise JournalFull(
                f"the journal holds {self.held_bytes} bytes in {len(self)} waiting and {self._quarantined} quarantined records, "
                f"{self._max_bytes} are allowed: get the store back, clear the quarantine or raise JOURNAL_MAX_BYTES",
                limit="JOURNAL_MAX_BYTES",
            )
        if self.oldest_age > self._max_age:
            raise JournalFull(
                f"the journal's oldest record has waited for {self.oldest_age:.0f} s, {self._max_age:.0f} are allowed: "
                "get the store back or raise JOURNAL_MAX_AGE",
                limit="JOURNAL_MAX_AGE",
            )

    # --- carrying out ---

    async def pending(
        self, limit: int = 100, *, kinds: Collection[str] | None = None, order: str | None = None
    ) -> list[Record]:
        """The oldest waiting records, oldest first; those of one order key are in the order of their appends.

        The same are given again until they are `done` or in quarantine. What is too old goes to quarantine by itself.

        Args:
            limit: most records; fewer when they are large (4 MiB of payload).
            kinds: only these kinds.
            order: only this order key.

        Raises:
            JournalBroken: the disk cannot be read.
        """
        if self._none_of(kinds, order):
            return []
        now = self._clock.now()

        def taken(batch: Taken | None) -> None:
            if batch is not None:
                self._put_aside(batch.aside)

        while True:
            batch = await asyncio.shield(
                self._thread.submit(
                    lambda files: files.take(limit, kinds, order, now - self._max_age, now), taken
                )
            )
            # A whole batch may have been unfit; what is behind it is not.
            if batch.records or not batch.aside:
                return batch.records

    def _none_of(self, kinds: Collection[str] | None, order: str | None) -> bool:
        if self._arriving:
            return False
        if order is not None and not self._orders[order]:
            return True
        return not any(self._kinds[kind] for kind in kinds) if kinds is not None else not self._kinds

    async def done(self, ids: Collection[str]) -> int:
        """Forget records that were carried out; how many there were.

        Raises:
            JournalBroken: the disk cannot be written; they will be given again.
        """

        def gone(records: list[Kept] | None) -> None:
            for one in records or ():
                self._left(one)

        kept = await asyncio.shield(self._thread.submit(lambda files: files.remove(ids), gone))
        return len(kept)

    async def tried(self, ids: Collection[str]) -> None:
        """Count an attempt for records whose replay is begun or has failed."""
        await asyncio.shield(self._thread.submit(lambda files: files.count_attempt(ids)))

    async def quarantine(self, ids: Collection[str], reason: str) -> int:
        """Put aside records that cannot be carried out, so that others can; how many there were.

        Args:
            ids: the records.
            reason: why, for who looks at them.
        """
        now = self._clock.now()

        def aside(records: list[Kept] | None) -> None:
            self._put_aside(records or ())

        kept = await asyncio.shield(
            self._thread.submit(lambda files: files.put_aside(ids, reason, now), aside)
        )
        return len(kept)

    async def quarantined(self, limit: int = 100) -> list[Quarantined]:
        """What is in quarantine, oldest first."""
        if not self._quarantined:
            return []
        return await asyncio.shield(self._thread.submit(lambda files: files.quarantined(limit)))

    async def release(self, ids: Collection[str]) -> int:
        """Let records out of quarantine: they wait again, in their old place. How many there were."""

        def out(records: list[Kept] | None) -> None:
            for one in records or ():
                self._quarantined -= 1
                self._quarantined_bytes -= one.size
                self._came(one.kind, one.order, one.size)

        kept = await asyncio.shield(self._thread.submit(lambda files: files.let_out(ids), out))
        return len(kept)

    async def discard(self, ids: Collection[str]) -> int:
        """Forget records in quarantine for good; how many there were."""

        def gone(records: list[Kept] | None) -> None:
            for one in records or ():
                self._quarantined -= 1
                self._quarantined_bytes -= one.size

        kept = await asyncio.shield(self._thread.submit(lambda files: files.discard(ids), gone))
        return len(kept)

    async def adopt(self) -> int:
        """Take over the files of processes that are gone; how many records came with them.

        Two processes may do so at once: the kernel's lock gives each file to one of them.
        """
        if next(orphans(self.folder), None) is None:
            return 0
        adopted = await asyncio.shield(self._thread.submit(lambda files: files.adopt(), recount=True))
        self._adopted_total += adopted.files
        self._damaged_total += adopted.damaged
        if adopted.files:
            _LOG.info(
                "journal files adopted", files=adopted.files, records=adopted.records, damaged=adopted.damaged
            )
        return adopted.records

    # --- what there is: from memory, at no cost ---

    def waiting(self, order: str) -> bool:
        """Whether records of this order key wait or are being appended: a new write to it belongs behind them."""
        return order in self._orders or order in self._arriving

    @property
    def kinds(self) -> Collection[str]:
        """The kinds of the records that wait."""
        return self._kinds.keys()

    def __len__(self) -> int:
        """Records that wait."""
        return self._kinds.total()

    def __bool__(self) -> bool:
        return True

    @property
    def held_bytes(self) -> int:
        """Bytes of what is kept, in quarantine included."""
        return self._waiting_bytes + self._arriving_bytes + self._quarantined_bytes

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest waiting record was accepted; 0 when none waits."""
        return 0.0 if self._first is None else max(0.0, self._clock.now() - self._first)

    @property
    def durable(self) -> bool:
        """Whether what is appended outlasts this machine's memory; False on a RAM file system, where a restart loses it."""
        if self._storage is None:
            self._storage = storage_of(self.folder, overlay_is_memory=self._overlay_is_memory)
        return self._storage is Storage.DISK

    @property
    def figures(self) -> JournalFigures:
        """All of these, for health and metrics."""
        return JournalFigures(
            waiting=len(self),
            waiting_bytes=self._waiting_bytes,
            quarantined=self._quarantined,
            quarantined_bytes=self._quarantined_bytes,
            oldest_age=self.oldest_age,
            adopted_total=self._adopted_total,
            damaged_total=self._damaged_total,
            durable=self.durable,
        )

    # --- the running totals ---

    def _came(self, kind: str, order: str, size: int) -> None:
        self._kinds[kind] += 1
        self._orders[order] += 1
        self._waiting_bytes += size

    def _left(self, kept: Kept) -> None:
        _take(self._kinds, kept.kind)
        _take(self._orders, kept.order)
        self._waiting_bytes -= kept.size

    def _put_aside(self, records: Collection[Kept]) -> None:
        for kept in records:
            self._left(kept)
            self._quarantined += 1
            self._quarantined_bytes += kept.size

    def _told(self, state: State) -> None:
        self._first = state.first
        self._damaged_total += state.damaged
        if (holding := state.holding) is not None:
            self._kinds.clear()
            self._orders.clear()
            for group in holding.waiting:
                self._kinds[group.kind] += group.count
                self._orders[group.order] += group.count
            self._waiting_bytes = sum(group.size for group in holding.waiting)
            self._quarantined = holding.quarantined
            self._quarantined_bytes = holding.quarantined_bytes
            self._latest = max(self._latest, holding.latest)


def _take(counter: Counter[str], name: str) -> None:
    """One less, and none is nothing."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
