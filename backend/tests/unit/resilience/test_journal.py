"""The journal on a real disk, in one process."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from redis_core.errors import JournalBroken, JournalFull
from redis_core.resilience import journal_disk
from redis_core.resilience.journal import Journal
from redis_core.resilience.journal_disk import Storage, storage_in
from redis_core.testing import FakeClock

TARGET = "redis://cache:6379/0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
async def journal(folder: Path) -> AsyncIterator[Journal]:
    opened = Journal(folder, TARGET)
    yield opened
    await opened.aclose()


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".journal")


async def left_behind(folder: Path, count: int = 3, *, target: str = TARGET, payload: bytes = b"x") -> None:
    """A file with this many records, as a process that was closed with work left leaves it."""
    one = Journal(folder, target)
    await asyncio.gather(
        *(one.append("job", "q", payload + b"%d" % n, id=f"{target}-{n}") for n in range(count))
    )
    await one.aclose()


async def test_it_costs_nothing_before_the_first_record(journal: Journal, folder: Path) -> None:
    await journal.start()
    assert not folder.exists()
    assert not journal._thread.running
    assert await journal.pending() == []
    assert len(journal) == 0


async def test_records_come_back_in_the_order_of_their_appends(journal: Journal) -> None:
    await asyncio.gather(*(journal.append("job", f"q{n % 3}", b"%d" % n) for n in range(250)))
    seen = []
    while batch := await journal.pending(40):
        assert len(batch) <= 40
        seen += [int(record.payload) for record in batch]
        await journal.done([record.id for record in batch])
    assert seen == list(range(250))
    assert journal.held_bytes == 0


async def test_order_keys_wait_from_the_append_on(journal: Journal) -> None:
    appending = asyncio.ensure_future(journal.append("job", "q", b"1"))
    await asyncio.sleep(0)
    assert journal.waiting("q")
    record = await appending
    assert journal.waiting("q")
    assert not journal.waiting("other")
    await journal.done([record.id])
    assert not journal.waiting("q")


async def test_the_same_id_is_the_same_record(journal: Journal) -> None:
    await journal.append("job", "q", b"first", id="a")
    await journal.append("job", "q", b"second", id="a")
    assert [record.payload for record in await journal.pending()] == [b"first"]
    assert len(journal) == 1
    await journal.quarantine(["a"], "no replayer")
    await journal.append("job", "q", b"third", id="a")
    assert len(journal) == 0


async def test_kinds_and_order_keys_can_be_asked_for_alone(journal: Journal) -> None:
    for n, kind in enumerate(["a", "b", "a", "c"]):
        await journal.append(kind, f"k{n}", b"%d" % n)
    assert [record.payload for record in await journal.pending(kinds={"a"})] == [b"0", b"2"]
    assert [record.payload for record in await journal.pending(order="k3")] == [b"3"]
    assert await journal.pending(kinds={"nobody"}) == []


async def test_a_batch_is_bounded_by_bytes_and_has_one_record_at_least(journal: Journal) -> None:
    for _ in range(3):
        await journal.append("job", "q", bytes(5 * 1024 * 1024))
    assert len(await journal.pending()) == 1


async def test_quarantine_lets_the_others_pass_and_gives_back(journal: Journal) -> None:
    for name in "abc":
        await journal.append("job", "q", name.encode(), id=name)
    assert await journal.quarantine(["b", "unknown"], "WRONGTYPE") == 1
    assert [record.id for record in await journal.pending()] == ["a", "c"]
    [kept] = await journal.quarantined()
    assert (kept.record.id, kept.reason) == ("b", "WRONGTYPE")
    assert journal.figures.quarantined == 1
    assert await journal.release(["b"]) == 1
    assert [record.id for record in await journal.pending()] == ["a", "b", "c"], "in its old place"
    await journal.quarantine(["b"], "again")
    assert await journal.discard(["b"]) == 1
    assert journal.figures.quarantined_bytes == 0


async def test_attempts_are_counted(journal: Journal) -> None:
    await journal.append("job", "q", b"", id="a")
    await journal.tried(["a"])
    await journal.tried(["a"])
    [record] = await journal.pending()
    assert record.attempts == 2


async def test_a_full_journal_says_which_limit_and_what_to_do(folder: Path) -> None:
    journal = Journal(folder, TARGET, max_bytes=2_000)
    with pytest.raises(JournalFull, match="JOURNAL_MAX_BYTES") as caught:
        for _ in range(100):
            await journal.append("job", "q", bytes(200))
    assert caught.value.limit == "JOURNAL_MAX_BYTES"
    kept = await journal.pending()
    assert 0 < len(kept) == len(journal) < 10
    assert journal.held_bytes <= 2_000
    await journal.done([record.id for record in kept])
    await journal.append("job", "q", bytes(200))
    await journal.aclose()


async def test_what_waited_too_long_stops_new_records_and_goes_to_quarantine(folder: Path) -> None:
    clock = FakeClock()
    journal = Journal(folder, TARGET, max_age=60, clock=clock)
    await journal.append("job", "q", b"old", id="old")
    clock.advance(40)
    await journal.append("job", "q", b"young", id="young")
    assert journal.oldest_age == pytest.approx(40)
    clock.advance(30)
    with pytest.raises(JournalFull, match="JOURNAL_MAX_AGE"):
        await journal.append("job", "q", b"refused")
    assert [record.id for record in await journal.pending()] == ["young"]
    [kept] = await journal.quarantined()
    assert "too old" in kept.reason
    await journal.append("job", "q", b"taken again")
    await journal.aclose()


async def test_time_that_goes_back_does_not_change_the_order(folder: Path) -> None:
    clock = FakeClock()
    journal = Journal(folder, TARGET, clock=clock)
    await journal.append("job", "q", b"1")
    clock.set_back(3600)
    await journal.append("job", "q", b"2")
    first, second = await journal.pending()
    assert (first.payload, second.payload) == (b"1", b"2")
    assert first.created < second.created
    await journal.aclose()


async def test_the_folder_is_private(journal: Journal, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    await journal.append("job", "q", b"")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(entry.stat().st_mode) & 0o077 for entry in folder.iterdir()} == {0}


async def test_what_is_left_is_adopted_and_drained_files_go_away(journal: Journal, folder: Path) -> None:
    await left_behind(folder)
    came: list[int] = []
    await journal.start(came.append)
    assert came == [3]
    assert journal.waiting("q")
    await journal.append("job", "q", b"own")
    batch = await journal.pending()
    assert [record.payload for record in batch] == [b"x0", b"x1", b"x2", b"own"]
    await journal.done([record.id for record in batch])
    assert len(files(folder)) == 1, "the drained file is gone"
    await journal.aclose()
    assert list(folder.iterdir()) == []


async def test_files_are_adopted_each_minute(folder: Path) -> None:
    clock = FakeClock()
    journal = Journal(folder, TARGET, clock=clock)
    await journal.start()
    await left_behind(folder)
    came = asyncio.Event()
    assert len(journal) == 0
    await clock.settle()
    clock.advance(60)
    for _ in range(500):
        if len(journal):
            came.set()
            break
        await asyncio.sleep(0.01)
    assert came.is_set()
    await journal.aclose()


async def test_a_file_whose_owner_lives_is_left_alone(journal: Journal, folder: Path) -> None:
    other = Journal(folder, TARGET)
    await other.append("job", "q", b"theirs")
    assert await journal.adopt() == 0
    assert await journal.pending() == []
    await other.aclose()
    assert await journal.adopt() == 1


async def test_records_for_another_store_are_never_given(journal: Journal, folder: Path) -> None:
    await left_behind(folder, target="redis://elsewhere:6379/0")
    assert await journal.adopt() == 0
    assert await journal.pending() == []
    elsewhere = Journal(folder, "redis://elsewhere:6379/0")
    assert await elsewhere.adopt() == 3, "its lock was given back"
    await elsewhere.aclose()


@pytest.mark.parametrize("rounds", range(3))
async def test_of_two_adopters_at_once_one_wins_each_file(folder: Path, rounds: int) -> None:
    for n in range(6):
        await left_behind(folder, 2, payload=b"%d-" % n)
    one, two = Journal(folder, TARGET), Journal(folder, TARGET)
    counts = await asyncio.gather(one.adopt(), two.adopt())
    assert sum(counts) == 12
    payloads = [record.payload for journal in (one, two) for record in await journal.pending()]
    assert len(payloads) == len(set(payloads)) == 12
    await one.aclose()
    await two.aclose()


# --- damage ---


async def test_a_flipped_payload_is_put_aside_not_carried_out(journal: Journal, folder: Path) -> None:
    await left_behind(folder)
    [name] = files(folder)
    with sqlite3.connect(folder / name) as raw:
        raw.execute("UPDATE waiting SET payload = x'00' WHERE id LIKE '%-1'")
    raw.close()
    assert await journal.adopt() == 3
    assert [record.payload for record in await journal.pending()] == [b"x0", b"x2"]
    [kept] = await journal.quarantined()
    assert "checksum" in kept.reason


@pytest.mark.parametrize("seed", range(25))
async def test_damage_anywhere_is_reported_and_never_makes_a_wrong_record(folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    await left_behind(folder, 200, payload=b"payload-" * 20)
    [name] = files(folder)
    raw = bytearray((folder / name).read_bytes())
    place = draw.randrange(len(raw))
    width = draw.choice([1, 16, 4096])
    raw[place : place + width] = draw.randbytes(len(raw[place : place + width]))
    (folder / name).write_bytes(raw)
    journal = Journal(folder, TARGET)
    await journal.adopt()
    good = {b"payload-" * 20 + b"%d" % n for n in range(200)}
    read = 0
    while batch := await journal.pending():
        assert {record.payload for record in batch} <= good
        read += len(batch)
        await journal.done([record.id for record in batch])
    missing = 200 - read
    told = journal.figures.damaged_total or journal.figures.quarantined
    assert not missing or told, "what is missing is told"
    if journal.figures.damaged_total:
        assert any(entry.suffix == ".damaged" for entry in folder.iterdir())
    await journal.append("job", "q", b"goes on")
    await journal.aclose()


async def test_a_file_that_is_removed_under_us_is_noticed_before_anything_is_acknowledged(
    journal: Journal, folder: Path
) -> None:
    await journal.append("job", "q", b"1", id="a")
    for entry in tuple(folder.iterdir()):
        entry.unlink()
    with pytest.raises(JournalBroken, match="removed"):
        await journal.append("job", "q", b"2", id="b")
    await journal.append("job", "q", b"2", id="b")
    assert {"a", "b"} == {record.id for record in await journal.pending()}, "what was acknowledged is kept"


async def test_something_that_is_no_journal_is_set_aside(journal: Journal, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "x.journal").write_bytes(b"not a database at all" * 400)
    assert await journal.adopt() == 0
    assert journal.figures.damaged_total == 1
    assert [entry.name for entry in folder.iterdir()] == ["x.journal.damaged"]


async def test_a_folder_that_cannot_be_used_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "journal", TARGET)
    with pytest.raises(JournalBroken, match="journal"):
        await journal.append("job", "q", b"")
    assert len(journal) == 0
    assert not journal.waiting("q")
    await journal.aclose()


# --- where it is ---

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /dev/shm rw,nosuid - tmpfs tmpfs rw
24 22 0:22 / /with\\040space rw - tmpfs tmpfs rw
25 22 0:23 / /data rw - tmpfs tmpfs rw
26 25 254:1 / /data rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder_", "storage"),
    [
        ("/var/journal", Storage.DISK),
        ("/dev/shm/journal", Storage.MEMORY),
        ("/dev/shmother", Storage.DISK),
        ("/with space/journal", Storage.MEMORY),
        ("/data/journal", Storage.DISK),
    ],
)
def test_the_file_system_tells_what_a_file_outlasts(folder_: str, storage: Storage) -> None:
    assert storage_in(MOUNTS, Path(folder_)) is storage


def test_a_containers_own_file_system_is_memory_where_the_platform_says_so() -> None:
    mounts = "1 0 0:1 / / rw - overlay overlay rw\n"
    assert storage_in(mounts, Path("/x")) is Storage.DISK
    assert storage_in(mounts, Path("/x"), overlay_is_memory=True) is Storage.MEMORY


async def test_a_journal_in_memory_says_so_at_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("1 0 0:1 / / rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(journal_disk, "_MOUNTS", mounts)
    journal = Journal(folder, TARGET)
    await journal.start()
    assert not journal.durable
    assert not journal.figures.durable
    assert "RAM file system" in caplog.text
    await journal.aclose()
