"""A process that appends to a journal and prints each id once it is acknowledged: `python journal_writer.py FOLDER NAME [BYTES]`."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from pathlib import Path

from redis_core.errors import JournalBroken
from redis_core.resilience.journal import Journal


async def main(folder: Path, name: str, most_bytes: int) -> None:
    if most_bytes:
        # A file that may not grow is what a full disk looks like to SQLite.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    journal = Journal(folder, "store")

    async def produce(lane: int) -> None:
        for n in range(1_000_000):
            record = f"{name}-{lane}-{n}"
            try:
                await journal.append("job", f"{name}-{lane}", record.encode() + bytes(300), id=record)
            except JournalBroken as error:
                sys.stdout.write(f"BROKEN {error}\n")
                sys.stdout.flush()
                return
            sys.stdout.write(record + "\n")
            sys.stdout.flush()

    await asyncio.gather(*(produce(lane) for lane in range(8)))
    await journal.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
