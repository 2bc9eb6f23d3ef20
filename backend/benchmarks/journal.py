"""The durable journal: records a second and how long an append takes until it is on the disk. `python backend/benchmarks/journal.py`"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from redis_core.resilience.journal import Journal

SECONDS = 3.0
PAYLOAD = bytes(400)


async def appends(folder: Path, tasks: int) -> tuple[float, float, float]:
    """Records a second, p50 and p99 in milliseconds, of this many tasks that append one after the other."""
    journal = Journal(folder, "benchmark", max_bytes=1 << 32)
    taken: list[float] = []
    until = time.perf_counter() + SECONDS

    async def produce(lane: int) -> None:
        while (began := time.perf_counter()) < until:
            await journal.append("job", f"lane-{lane}", PAYLOAD)
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(produce, range(tasks)))
    rate = len(taken) / (time.perf_counter() - began)
    await journal.aclose()
    cuts = statistics.quantiles(taken, n=100)
    return rate, cuts[49] * 1000, cuts[98] * 1000


async def drain(folder: Path) -> float:
    """Records a second that are adopted, read in batches of 100 and forgotten."""
    journal = Journal(folder, "benchmark", max_bytes=1 << 32)
    began = time.perf_counter()
    await journal.adopt()
    count = 0
    while count < 20_000 and (batch := await journal.pending()):
        count += await journal.done([record.id for record in batch])
    rate = count / (time.perf_counter() - began)
    await journal.aclose()
    return rate


async def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="rf-journal-", dir="/var/tmp"))
    try:
        print("| appends at once | records/s | p50 ms | p99 ms |\n| --- | --- | --- | --- |")
        for tasks in (1, 10, 100, 1000):
            rate, median, tail = await appends(folder / str(tasks), tasks)
            print(f"| {tasks} | {rate:,.0f} | {median:.2f} | {tail:.2f} |")
        print(f"\nAdopted, read and forgotten: {await drain(folder / '100'):,.0f} records/s")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main())
