"""Journal files that a disk has damaged: what is read of them was written so, the rest is put aside, and nothing stops a start."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st

from redis_core.resilience.journal_file import JournalDamaged, is_damage, salvage
from redis_core.resilience.journal_files import JournalFiles
from redis_core.resilience.journal_folder import SUFFIX
from redis_core.resilience.record import Record
from tests.fuzz_world import fuzz

T = TypeVar("T")

TARGET = "redis://store:6379"
RECORDS = [
    Record(f"id-{number}", "kind", f"order-{number % 3}", TARGET, b"payload-%d-" % number + bytes(range(64)), 1_000.0 + number)
    for number in range(40)
]  # fmt: skip
FRESH = Record("fresh", "kind", "order", TARGET, b"x", 1_500.0)
WRITTEN = {record.id: record for record in (*RECORDS, FRESH)}


def write(folder: Path) -> Path:
    """A journal as a process leaves it that was killed: its records, with nobody who holds them."""
    files = JournalFiles(folder, TARGET)
    for record in RECORDS:
        files.append(record)
    files.commit()
    files.close()
    (path,) = folder.glob(f"*{SUFFIX}")
    return path


damages = st.lists(
    st.tuples(
        st.floats(0, 1, allow_nan=False),
        st.one_of(st.binary(min_size=1, max_size=200), st.sampled_from([b"\0" * 4096, b"\xff" * 512])),
    ),
    max_size=4,
)


@fuzz(
    "journal files", share=0.05, damage=damages, keep=st.one_of(st.none(), st.floats(0, 1, allow_nan=False))
)
def test_a_damaged_journal_gives_what_was_written_and_sets_the_rest_aside(
    damage: list[tuple[float, bytes]], keep: float | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write(folder)
        data = bytearray(path.read_bytes())
        for place, piece in damage:
            start = int(place * len(data))
            data[start : start + len(piece)] = piece[: len(data) - start]
        if keep is not None:
            del data[int(keep * len(data)) :]
        path.write_bytes(data)

        try:
            readable, _ = salvage(path)
        except sqlite3.Error:
            readable = []
        assert all(_as_written(record) for record in readable)

        files = JournalFiles(folder, TARGET)
        try:
            files.adopt()
            taken = _retried(files, lambda: files.take(1_000, None, None, 0.0, 2_000.0))
            assert all(_as_written(record) for record in taken.records)
            # Whatever the disk did to the old ones, a new record is kept.
            _retried(files, lambda: files.append(FRESH))
            assert FRESH in _retried(files, lambda: files.take(1_000, None, None, 0.0, 2_000.0)).records
        finally:
            files.close()


def _retried(files: JournalFiles, work: Callable[[], T]) -> T:
    """Do it and commit; damage that is found on the way is dealt with as the journal does, and then it is done again."""
    for _ in range(3):
        try:
            done = work()
            files.commit()
        except (JournalDamaged, sqlite3.Error) as error:
            if not is_damage(error):
                raise
            files.rollback()
            files.replace_damaged()
        else:
            return done
    raise AssertionError("damage that does not end")


def _as_written(record: Record) -> bool:
    known = WRITTEN.get(record.id)
    return known is not None and (known.kind, known.order, known.payload, known.created) == (
        record.kind,
        record.order,
        record.payload,
        record.created,
    )
