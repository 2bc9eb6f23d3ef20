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
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import JournalError, JournalFull
from redis_core.log import get_logger
from redis_core.resilience.journal_disk import Storage, storage_of
from redis_core.resilience.journal_files import JournalFiles, Tally
from redis_core.resilience.journal_thread import JournalThread
from redis_core.resilience.record import Record

__all__ = ["Journal", "JournalFigures", "Quarantined"]

T = TypeVar("T")

_ADOPT_EVERY: Final = 60.0
"""Seconds between looks for files whose owner is gone."""
_TICK: Final = 1e-6
"""Seconds by which a record is younger than the one before it at least; a float of today still tells them apart."""
_LOG: Final = get_logger("redis_core.journal")


class Quarantined(Struct, frozen=True):
    """A record that could not be carried out, and why."""

    record: Record
    reason: str
    since: float
    """Seconds since the Unix epoch."""


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
        self._files = JournalFiles(folder, target)
        self._thread = JournalThread(self._files)
        self._storage: Storage | None = None
        self._orders: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._waiting_bytes = 0
        self._quarantined = 0
        self._quarantined_bytes = 0
        self._oldest: float | None = None
        self._latest = 0.0
        self._adopter: asyncio.Task[None] | None = None

    # --- life ---

    async def start(self) -> None:
        """Adopt what processes that are gone have left, now and each minute; say so if this disk is none.

        Raises:
            JournalBroken: the folder cannot be read.
        """
        ...

    async def aclose(self) -> None:
        """Give the files back: what waits is adopted by the next process. Idempotent."""
        ...

    # --- keeping ---

    async def append(self, kind: str, order: str, payload: bytes, *, id: str | None = None) -> Record:
        """Keep an intent; returns when it is on the disk. Budget: no commands; one share of a disk flush.

        Args:
            kind: which replayer carries it out.
            order: records of one order key are carried out in the order of their appends.
            payload: what the replayer needs.
            id: its name, by which a second append of it is the same record; a random one unless given.

        Raises:
            JournalFull: a limit is reached; nothing was kept.
            JournalBroken: the disk is full or damaged; it counts as not kept.
        """
        ...

    # --- carrying out ---

    async def pending(self, limit: int = 100, *, kinds: Collection[str] | None = None, order: str | None = None) -> list[Record]:
        """The oldest waiting records, oldest first; those of one order key are in the order of their appends.

        The same are given again until they are `done` or in quarantine. What is too old goes to quarantine by itself.

        Args:
            limit: most records; fewer when they are large (4 MiB of payload).
            kinds: only these kinds.
            order: only this order key.

        Raises:
            JournalBroken: the disk cannot be read.
        """
        ...

    async def done(self, ids: Collection[str]) -> int:
        """Forget records that were carried out; how many there were."""
        ...

    async def tried(self, ids: Collection[str]) -> None:
        """Count an attempt for records whose replay is begun or has failed."""
        ...

    async def quarantine(self, ids: Collection[str], reason: str) -> int:
        """Put aside records that cannot be carried out, so that others can; how many there were."""
        ...

    async def quarantined(self, limit: int = 100) -> list[Quarantined]:
        """What is in quarantine, oldest first."""
        ...

    async def release(self, ids: Collection[str]) -> int:
        """Let records out of quarantine: they wait again, in their old place. How many there were."""
        ...

    async def discard(self, ids: Collection[str]) -> int:
        """Forget records in quarantine for good; how many there were."""
        ...

    async def adopt(self) -> int:
        """Take over the files of processes that are gone; how many records came with them."""
        ...

    # --- what there is: from memory, at no cost ---

    def waiting(self, order: str) -> bool:
        """Whether records of this order key wait or are being appended: a new write to it belongs behind them."""
        ...

    def __len__(self) -> int:
        """Records that wait."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes of what is kept, in quarantine included."""
        ...

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest waiting record was accepted; 0 when none waits."""
        ...

    @property
    def durable(self) -> bool:
        """Whether what is appended outlasts this machine's memory; False on a RAM file system, where a restart loses it."""
        ...

    @property
    def figures(self) -> JournalFigures:
        """All of these, for health and metrics."""
        ...
