"""The journal under `kill -9`, full disks and processes that adopt at once: real processes, a real disk."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redis_core.errors import JournalBroken
from redis_core.resilience.journal import Journal
from redis_core.resilience.record import Record

WRITER = Path(__file__).with_name("journal_writer.py")
BACKEND = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(BACKEND)}


def writer(folder: Path, name: str, most_bytes: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(folder), name, str(most_bytes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


async def drained(journal: Journal) -> list[Record]:
    found: list[Record] = []
    while batch := await journal.pending(500):
        found += batch
        await journal.done([record.id for record in batch])
    return found


def in_order(records: list[Record]) -> bool:
    last: dict[str, int] = {}
    for record in records:
        number = int(record.id.rpartition("-")[2])
        if last.get(record.order, -1) >= number:
            return False
        last[record.order] = number
    return True


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_acknowledged_record_outlives_kill_9(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "journal"
    producers = [writer(folder, f"p{n}") for n in range(2)]
    acknowledged: list[str] = []
    for producer in producers:
        assert producer.stdout is not None
        # Some are read while it runs, so that it is killed in full flight and not before it began.
        acknowledged += [producer.stdout.readline().strip() for _ in range(draw.randrange(20, 200))]
    for producer in producers:
        producer.kill()
        output, _ = producer.communicate()
        lines = output.splitlines(keepends=True)
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
        assert "BROKEN" not in output
    journal = Journal(folder, "store")
    await journal.start()
    records = await drained(journal)
    kept = {record.id for record in records}
    assert len(kept) == len(records), "none is there twice"
    assert set(acknowledged) <= kept
    assert in_order(records)
    await journal.aclose()
    assert list(folder.iterdir()) == []


async def test_a_full_disk_is_a_clear_error_and_what_was_acknowledged_stays(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    producer = writer(folder, "p", most_bytes=600_000)
    output, _ = await asyncio.to_thread(producer.communicate, timeout=40)
    lines = output.splitlines()
    broken = [line for line in lines if line.startswith("BROKEN")]
    acknowledged = {line for line in lines if line.startswith("p-")}
    assert len(broken) == 8, "each producer was told"
    assert all("journal" in line for line in broken)
    assert acknowledged
    journal = Journal(folder, "store")
    await journal.start()
    assert acknowledged <= {record.id for record in await drained(journal)}
    await journal.aclose()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root")
async def test_a_full_file_system_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    try:
        journal = Journal(small / "journal", "store")
        assert not journal.durable, "a tmpfs is no disk"
        (small / "ballast").write_bytes(bytes(500_000))
        acknowledged = []
        with pytest.raises(JournalBroken, match="full"):
            for n in range(5_000):
                acknowledged.append((await journal.append("job", "q", bytes(2_000), id=str(n))).id)
        (small / "ballast").unlink()
        acknowledged.append((await journal.append("job", "q", b"", id="after")).id)
        assert {record.id for record in await drained(journal)} >= set(acknowledged)
        assert len(acknowledged) > 20
        await journal.aclose()
    finally:
        subprocess.run(["umount", str(small)], check=True)


ADOPTER = """
import asyncio, sys
from pathlib import Path
from redis_core.resilience.journal import Journal

async def main():
    journal = Journal(Path(sys.argv[1]), "store")
    sys.stdin.readline()
    await journal.start()
    while batch := await journal.pending():
        for record in batch:
            print(record.id)
        await journal.done([record.id for record in batch])
    await journal.aclose()

asyncio.run(main())
"""


async def test_processes_that_adopt_at_once_replay_nothing_twice(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    expected = set()
    for n in range(8):
        left = Journal(folder, "store")
        names = [f"{n}-{m}" for m in range(50)]
        await asyncio.gather(*(left.append("job", str(n), b"", id=name) for name in names))
        await left.aclose()
        expected.update(names)
    adopters = [
        subprocess.Popen(
            [sys.executable, "-c", ADOPTER, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )
        for _ in range(3)
    ]  # fmt: skip
    time.sleep(0.5)
    for adopter in adopters:
        assert adopter.stdin is not None
        adopter.stdin.write("\n")
        adopter.stdin.flush()
    replayed = [line for adopter in adopters for line in adopter.communicate(timeout=40)[0].splitlines()]
    assert sorted(replayed) == sorted(expected)
    assert list(folder.iterdir()) == []


async def test_a_child_that_was_forked_does_not_keep_its_parents_file(tmp_path: Path) -> None:
    program = """
import asyncio, os, sys, time
from pathlib import Path
from redis_core.resilience.journal import Journal

async def main():
    journal = Journal(Path(sys.argv[1]), "store")
    await journal.append("job", "q", b"", id="parents")
    if os.fork() == 0:
        os.close(1)
        time.sleep(30)
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    folder = tmp_path / "journal"
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip
    try:
        parent.communicate(timeout=20)
        journal = Journal(folder, "store")
        for _ in range(100):  # the child's own turn comes when it comes
            if await journal.adopt():
                break
            await asyncio.sleep(0.05)
        assert len(journal) == 1
        await journal.aclose()
    finally:
        os.killpg(parent.pid, 9)
