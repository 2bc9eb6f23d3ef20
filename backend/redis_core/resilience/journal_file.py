"""One journal file: an SQLite database that one connection of one thread owns. Blocking; changes hold from `commit` on.

Write-ahead log with `synchronous=FULL`: a commit returns when it has been flushed. `locking_mode=EXCLUSIVE` and the single
connection keep clear of the race between connections that can corrupt a log in SQLite 3.7.0 to 3.51.2.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from redis_core.resilience.journal_folder import Claim
from redis_core.resilience.journal_wal import last_commit
from redis_core.resilience.record import Record

__all__ = [
    "Group",
    "JournalDamaged",
    "JournalFile",
    "Kept",
    "Quarantined",
    "is_damage",
    "is_intact",
    "salvage",
]

_VERSION: Final = 1
_COLUMNS: Final = 'id, kind, "order", target, payload, created, attempts'
_SIZE: Final = (
    f'length(id) + length(kind) + length("order") + length(target) + length(payload) + {Record.OVERHEAD}'
)
_ROWS: Final = (
    'id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, "order" TEXT NOT NULL, target TEXT NOT NULL, '
    "payload BLOB NOT NULL, created REAL NOT NULL, attempts INTEGER NOT NULL, checksum INTEGER NOT NULL"
)
# Numbers are never used again, so what comes out of quarantine has its old place.
_SCHEMA: Final = f"""
CREATE TABLE waiting (seq INTEGER PRIMARY KEY AUTOINCREMENT, {_ROWS});
CREATE TABLE quarantine (seq INTEGER PRIMARY KEY, {_ROWS}, reason TEXT NOT NULL, since REAL NOT NULL);
PRAGMA user_version = {_VERSION};
"""
_DAMAGED: Final = "damaged: its checksum does not match"
_IN_THE_WAY: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""Results of SQLite that say nothing against the file."""
_AT_ONCE: Final = 500
"""Ids in one statement; SQLite takes 32,766 parameters, older ones 999."""


class JournalDamaged(Exception):
    """What the file says cannot be relied on."""


class Quarantined(Struct, frozen=True):
    """A record that could not be carried out, and why."""

    record: Record
    reason: str
    since: float
    """Seconds since the Unix epoch."""


class Kept(Struct, frozen=True):
    """What the journal counts of a record whose payload stays on disk."""

    kind: str
    order: str
    size: int


class Group(Struct, frozen=True):
    """How many records of one kind and order key a file holds."""

    kind: str
    order: str
    count: int
    size: int


def is_intact(record: Record, checksum: object) -> bool:
    """Whether a record is as it was written."""
    try:
        return record.checksum == checksum
    except (TypeError, UnicodeEncodeError):  # not even of the right types
        return False


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is not what was written, rather than that the disk is full or in our way."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return code == sqlite3.SQLITE_IOERR_SHORT_READ or (code & 0xFF) not in _IN_THE_WAY
    return isinstance(error, JournalDamaged)


class JournalFile:
    """Open a file that this process has claimed; a new one gets its tables.

    Args:
        claim: the file and its lock.
        target: the store whose records count; others are left alone.

    Raises:
        JournalDamaged: it is no journal, or parts of it cannot be read.
        sqlite3.Error: the disk does not let us.
    """

    def __init__(self, claim: Claim, target: str) -> None:
        self.claim = claim
        self._target = target
        committed = last_commit(claim.path)
        self._inode = claim.path.stat().st_ino
        self._database = sqlite3.connect(claim.path, isolation_level=None, timeout=0, check_same_thread=False)
        self._database.text_factory = _text
        try:
            self._prepare(committed)
        except BaseException:
            self._database.close()
            raise

    def _prepare(self, committed: int) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA fullfsync = ON")  # macOS: past the drive's own cache
        (version,) = run("PRAGMA user_version").fetchone()
        if version == 0:
            self._database.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
            return
        if version != _VERSION:
            raise JournalDamaged(f"it has version {version}, this library knows {_VERSION}")
        (_, readable, _) = run("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if readable < committed:
            raise JournalDamaged(f"its log has {committed} frames, of which {readable} can be read")
        self.check()
        self._claim_unreadable()

    def _claim_unreadable(self) -> None:
        """A record whose target is damaged is no other store's: beside ours it counts as ours, and its checksum shows."""
        if self._target not in self.targets():
            return
        select = f"SELECT seq, {_COLUMNS}, checksum FROM waiting WHERE target != ?"  # noqa: S608 - constants
        for seq, *fields, checksum in self._database.execute(select, (self._target,)).fetchall():
            if not is_intact(Record(*fields), checksum):
                self._change("UPDATE waiting SET target = ? WHERE seq = ?", (self._target, seq))
        self.commit()

    # --- transactions ---

    def commit(self) -> None:
        """Flush what was changed to the disk.

        Raises:
            JournalDamaged: the file has been removed or replaced under us, so nobody would find what we write.
            sqlite3.Error: the disk does not let us; nothing was changed.
        """
        if self._database.in_transaction:
            self._check_place()
            self._database.execute("COMMIT")

    def _check_place(self) -> None:
        try:
            found = self.claim.path.stat().st_ino
        except FileNotFoundError:
            found = 0
        if found != self._inode:
            raise JournalDamaged("it was removed while it was in use")

    def check(self) -> None:
        """Read through all of it.

        Raises:
            JournalDamaged: it is not what was written.
            sqlite3.Error: as well, or the disk does not let us.
        """
        self._check_place()
        (verdict,) = self._database.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise JournalDamaged(str(verdict))

    def salvage(self) -> tuple[list[Record], list[Quarantined]]:
        """What can still be read of it, waiting and in quarantine."""
        return _salvage(self._database)

    def rollback(self) -> None:
        """Forget what was changed."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Close the database, not the claim."""
        self._database.close()

    def _change(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")
        return self._database.execute(statement, values)

    # --- records ---

    def add(self, record: Record) -> bool:
        """Keep a record; False if one of this id is there already."""
        values = (*_values(record), record.checksum)
        known = self._database.execute("SELECT 1 FROM quarantine WHERE id = ?", (record.id,)).fetchone()
        if known is not None:
            return False
        places = "?, ?, ?, ?, ?, ?, ?, ?"
        insert = f"INSERT OR IGNORE INTO waiting ({_COLUMNS}, checksum) VALUES ({places})"  # noqa: S608 - constants
        return self._change(insert, values).rowcount > 0

    def oldest(
        self, limit: int, kinds: Collection[str] | None = None, order: str | None = None
    ) -> Iterator[tuple[int, Record, bool]]:
        """Waiting records, oldest first, each with its number and whether it is as it was written."""
        where, values = ["target = ?"], [self._target]
        if kinds is not None:
            where.append(f"kind IN ({_places(kinds)})")
            values.extend(kinds)
        if order is not None:
            where.append('"order" = ?')
            values.append(order)
        select = (
            f"SELECT seq, {_COLUMNS}, checksum FROM waiting WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?"  # noqa: S608
        )
        for seq, *fields, checksum in self._database.execute(select, (*values, limit)):
            record = Record(*fields)
            yield seq, record, is_intact(record, checksum)

    def first(self) -> float | None:
        """When the oldest waiting record was accepted."""
        select = "SELECT created FROM waiting WHERE target = ? ORDER BY seq LIMIT 1"
        row = self._database.execute(select, (self._target,)).fetchone()
        return None if row is None else float(row[0])

    def latest(self) -> float:
        """When the youngest record was accepted, one in quarantine included: it may yet be let out; 0 where there is none."""
        youngest = (
            self._database.execute(f"SELECT created FROM {table} ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608 - constants
            for table in ("waiting", "quarantine")
        )
        return max((float(row[0]) for row in youngest if row is not None), default=0.0)

    def groups(self) -> list[Group]:
        """What waits, counted by kind and order key."""
        select = f'SELECT kind, "order", count(*), sum({_SIZE}) FROM waiting WHERE target = ? GROUP BY 1, 2'  # noqa: S608
        return [Group(*row) for row in self._database.execute(select, (self._target,))]

    def in_quarantine(self) -> tuple[int, int]:
        """Records in quarantine, and their bytes."""
        select = f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM quarantine WHERE target = ?"  # noqa: S608
        count, size = self._database.execute(select, (self._target,)).fetchone()
        return int(count), int(size)

    def targets(self) -> set[str]:
        """The stores that the file has records for."""
        select = "SELECT target FROM waiting UNION SELECT target FROM quarantine"
        return {row[0] for row in self._database.execute(select)}

    def remove(self, ids: Collection[str], table: str = "waiting") -> list[Kept]:
        """Forget records."""
        gone: list[Kept] = []
        for some in _parts(ids):
            delete = f'DELETE FROM {table} WHERE id IN ({_places(some)}) RETURNING kind, "order", {_SIZE}'  # noqa: S608
            gone += [Kept(*row) for row in self._change(delete, some).fetchall()]
        return gone

    def count_attempt(self, ids: Collection[str]) -> None:
        """One more attempt for each."""
        for some in _parts(ids):
            self._change(f"UPDATE waiting SET attempts = attempts + 1 WHERE id IN ({_places(some)})", some)  # noqa: S608

    def put_aside(self, ids: Collection[str], reason: str, since: float) -> list[Kept]:
        """Move records to quarantine."""
        for some in _parts(ids):
            copy = (
                f"INSERT OR REPLACE INTO quarantine (seq, {_COLUMNS}, checksum, reason, since) "  # noqa: S608
                f"SELECT seq, {_COLUMNS}, checksum, ?, ? FROM waiting WHERE id IN ({_places(some)})"
            )
            self._change(copy, (reason, since, *some))
        return self.remove(ids)

    def put_damaged_aside(self, seq: int, since: float) -> list[Kept]:
        """Move a record to quarantine that is not what was written, under a name that can be asked for."""
        name = f"damaged-{seq}"
        self._change("UPDATE waiting SET id = ? WHERE seq = ?", (name, seq))
        return self.put_aside([name], _DAMAGED, since)

    def let_out(self, ids: Collection[str]) -> list[Kept]:
        """Move records back from quarantine, to their old place."""
        for some in _parts(ids):
            copy = (
                f"INSERT OR REPLACE INTO waiting (seq, {_COLUMNS}, checksum) "  # noqa: S608
                f"SELECT seq, {_COLUMNS}, checksum FROM quarantine WHERE id IN ({_places(some)})"
            )
            self._change(copy, some)
        return self.remove(ids, "quarantine")

    def quarantined(self, limit: int) -> list[Quarantined]:
        """What is in quarantine, oldest first."""
        select = f"SELECT {_COLUMNS}, reason, since FROM quarantine WHERE target = ? ORDER BY seq LIMIT ?"  # noqa: S608
        rows = self._database.execute(select, (self._target, limit))
        return [Quarantined(Record(*row[:7]), row[7], row[8]) for row in rows]

    def keep_quarantined(self, kept: Quarantined) -> None:
        """Keep what another file had in quarantine; its number there says nothing here."""
        if self.add(kept.record):
            self.put_aside([kept.record.id], kept.reason, kept.since)


def salvage(path: Path) -> tuple[list[Record], list[Quarantined]]:
    """What can still be read of a file that cannot be opened as a journal, waiting and in quarantine."""
    database = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    database.text_factory = _text
    try:
        return _salvage(database)
    finally:
        database.close()


def _salvage(database: sqlite3.Connection) -> tuple[list[Record], list[Quarantined]]:
    """From the front up to the damage, and from the back."""
    waiting: dict[str, Record] = {}
    aside: dict[str, Quarantined] = {}
    for direction in ("ASC", "DESC"):
        for *fields, checksum in _readable(database, f"{_COLUMNS}, checksum", "waiting", direction):
            record = Record(*fields)
            if is_intact(record, checksum):
                waiting.setdefault(record.id, record)
        columns = f"{_COLUMNS}, checksum, reason, since"
        for *fields, checksum, reason, since in _readable(database, columns, "quarantine", direction):
            record = Record(*fields)
            if is_intact(record, checksum):
                aside.setdefault(record.id, Quarantined(record, str(reason), float(since)))
    return sorted(waiting.values(), key=lambda record: record.created), list(aside.values())


def _readable(
    database: sqlite3.Connection, columns: str, table: str, direction: str
) -> Iterator[Sequence[Any]]:
    """Rows up to the first that cannot be read."""
    try:
        yield from database.execute(f"SELECT {columns} FROM {table} ORDER BY seq {direction}")  # noqa: S608 - constants
    except sqlite3.Error:
        return


def _text(raw: bytes) -> str:
    """Damaged text can be read, to be found damaged by its checksum."""
    return raw.decode("utf-8", "replace")


def _values(record: Record) -> tuple[object, ...]:
    return msgspec.structs.astuple(record)


def _places(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _parts(ids: Collection[str]) -> Iterator[Sequence[str]]:
    some = list(ids)
    return (some[start : start + _AT_ONCE] for start in range(0, len(some), _AT_ONCE))
