"""A process that publishes and shows a member until it is killed: `python realtime_publisher.py`; prints what was acknowledged."""

from __future__ import annotations

import asyncio
import sys

from redis_core import connect
from redis_core.pubsub import PresenceLease


async def main() -> None:
    PresenceLease.seconds, PresenceLease.refresh = 2, 0.3
    async with await connect() as client:
        workspace = client.workspace("acme")
        await workspace.presence("room").join("u1", {"of": "the publisher"})
        number = 0
        while True:
            number += 1
            await workspace.topic("t").publish(number)
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
