"""A producer of the storm: enqueues until it is told to stop or killed, and writes down what was acknowledged.

Arguments: the store's URL, the journal's folder, the file to write to, a name, a seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from redis_core.client import connect
from redis_core.errors import JournalError, StoreError
from redis_core.queue import JobHandle
from tests.chaos.storm_task import settings_for, work


async def main(url: str, journal: str, log: str, name: str, seed: str) -> None:
    draw = random.Random(seed)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    acknowledged = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count = 0
    async with await connect(settings_for(url, Path(journal))) as client:
        queue = client.workspace("acme").queue

        async def enqueue(first: int, many: int) -> None:
            names = [f"{name}-{number}" for number in range(first, first + many)]
            seconds = draw.choice([0, 0, 0.01, 0.05, 0.3])
            if draw.random() < 0.02:
                seconds = 3.0  # longer than the lease
            handles: list[JobHandle[list[int]]]
            try:
                if many > 1:
                    handles = await queue.enqueue_many([work.call(each, seconds) for each in names])
                else:
                    delay = draw.choice([0, 0, 0, 0.2])
                    handles = [await queue.enqueue(work, names[0], seconds, delay=delay)]
            except (StoreError, JournalError) as error:
                os.write(acknowledged, f"refused {names[0]} {type(error).__name__}\n".encode())
                return
            for each, handle in zip(names, handles, strict=True):
                os.write(
                    acknowledged, f"{'kept' if handle.spooled else 'taken'} {each} {handle.id}\n".encode()
                )

        busy: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            many = draw.choice([1, 1, 1, 1, 1, 3, 6])
            busy.add(asyncio.ensure_future(enqueue(count, many)))
            count += many
            await asyncio.sleep(draw.uniform(0, 0.06))
            busy = {each for each in busy if not each.done()}
        await asyncio.gather(*busy)


asyncio.run(main(*sys.argv[1:]))
