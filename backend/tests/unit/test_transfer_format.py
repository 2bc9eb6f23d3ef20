"""The file of an export: whole, or refused with a reason."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_core.errors import FileDamaged, FileTooNew, TransferError
from redis_core.transfer.format import FileReader, FileWriter
from redis_core.transfer.records import Group, Head, Job, JobLimits, Piece, Record, Tail

HEAD = Head("workspace", "acme", 1.5, "memory", ("app",))
WORDS = st.binary(max_size=40)
TIMES = st.integers(0, 2**53)
NAMES = st.text(max_size=10)
ROWS = {"string": 1, "list": 1, "set": 1, "hash": 2, "zset": 2, "stream": 3}


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    kind = draw(st.sampled_from(sorted(ROWS)))
    row = st.lists(WORDS, min_size=ROWS[kind], max_size=ROWS[kind])
    rows = st.lists(row, min_size=1, max_size=1 if kind == "string" else 5)
    return Piece(draw(WORDS), kind, draw(TIMES), draw(TIMES), draw(rows), draw(st.booleans()))


RECORDS: st.SearchStrategy[Record] = st.one_of(
    pieces(),
    st.builds(Tail, WORDS, TIMES, WORDS),
    st.builds(Group, WORDS, TIMES, WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS, TIMES, TIMES), max_size=3)),
    st.builds(Job, NAMES, NAMES, NAMES, WORDS, TIMES, WORDS, st.lists(NAMES, max_size=3).map(tuple)),
    st.builds(JobLimits, NAMES, NAMES, WORDS),
)


def written(path: Path, records: list[Record], head: Head = HEAD) -> bytes:
    with FileWriter(path) as file:
        file.add(head)
        for record in records:
            file.add(record, "app")
        file.finish()
    return path.read_bytes()


def large(count: int = 40) -> list[Record]:
    """Records of several frames, of bytes that do not compress."""
    return [Piece(b"k%d" % i, "string", 0, 0, [[os.urandom(20_000)]], last=True) for i in range(count)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(records=st.lists(RECORDS, max_size=8))
def test_what_is_written_is_what_is_read(tmp_path: Path, records: list[Record]) -> None:
    written(tmp_path / "f", records)
    reader = FileReader(tmp_path / "f")
    head, manifest = reader.check()
    assert head == HEAD
    assert [record for _, frame in reader.frames() for record in frame] == [HEAD, *records]
    assert manifest.jobs == sum(isinstance(record, Job) for record in records)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_bit_that_is_wrong_is_found(tmp_path: Path, place: float, bit: int) -> None:
    path = tmp_path / "f"
    data = bytearray(written(path, [Piece(b"k", "string", 0, 0, [[b"v" * 100]], last=True)]))
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises((FileDamaged, FileTooNew)):
        FileReader(path).check()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_short_is_found(tmp_path: Path, place: float) -> None:
    path = tmp_path / "f"
    data = written(path, large(15))
    path.write_bytes(data[: int(place * len(data))])
    with pytest.raises(FileDamaged):
        FileReader(path).check()


def test_frames_that_are_missing_or_in_another_order_are_found(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = written(path, large())
    starts, at = [], data.index(b"\n") + 1
    while length := int.from_bytes(data[at : at + 4], "big"):
        starts.append((at, at + 8 + length))
        at += 8 + length
    first, second = starts[:2]
    assert len(starts) >= 3
    swapped = data[: first[0]] + data[second[0] : second[1]] + data[first[0] : first[1]] + data[second[1] :]
    for damaged in (data[: second[0]] + data[second[1] :], swapped, data + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(FileDamaged):
            FileReader(path).check()


def test_what_is_no_export_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for data in (b"", b"hello\n", b"raptorflow-transfer x\n", b"\0" * 100):
        path.write_bytes(data)
        with pytest.raises(FileDamaged, match="no export or backup"):
            FileReader(path).check()
    with pytest.raises(TransferError, match="No such file"):
        FileReader(tmp_path / "none").check()


def test_a_file_of_a_newer_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = written(path, [])
    path.write_bytes(data.replace(b"raptorflow-transfer 1\n", b"raptorflow-transfer 2\n"))
    with pytest.raises(FileTooNew, match="its format is 2, this version reads up to 1"):
        FileReader(path).check()


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    before = written(path, [])
    with pytest.raises(KeyboardInterrupt), FileWriter(path) as file:
        file.add(HEAD)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    written(tmp_path / "f", [])
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file may have so many bytes: the system refuses the write, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(TransferError, match="there is no space left"), FileWriter(tmp_path / "f") as file:
            file.add(HEAD)
            for record in large():
                file.add(record, "app")
            file.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
