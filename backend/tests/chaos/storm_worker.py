"""A worker of the storm. Arguments: the store's URL, the journal's folder, the file that runs are written down to."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from redis_core.client import connect
from redis_core.worker import Worker
from tests.chaos import storm_task


async def main(url: str, journal: str, log: str) -> None:
    storm_task.LOG.append(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    async with await connect(storm_task.settings_for(url, Path(journal))) as client:
        worker = Worker(
            client, [storm_task.work], concurrency=50, lease=2.0, grace=1.0, most_deaths=1_000_000
        )
        await worker.run(signals=True)


asyncio.run(main(*sys.argv[1:]))
