"""What measuring costs: the client's throughput with and without it, and the commands that flushing sends.

python backend/benchmarks/metrics.py [--quick] [--json]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from harness import Row, callers, compare, main, row, valkey_server

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.measuring.meter import Meter
from redis_core.metrics import Metrics
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient

CALLERS = 100
MOST_OVERHEAD = 1.02
MOST_BUSY = 400
NOTE = """\
`overhead` is CPU time of this process an operation with metrics counted, and flushed once per 10 s, over that of the same client
with the meter out of its way. At rest a process sends nothing; a busy one is counted over an hour of a moved clock."""


class Bare(Client):
    """The client as it would be without metrics: the same code, nothing counted."""

    async def _execute(self, batch: Sequence[Command]) -> list[Reply]:
        self._retries.deposit()
        return await self.transport.execute(batch, timeout=self._timeout)


class MovedClock:
    """Stands still until it is moved."""

    at = time.time() // 3600 * 3600

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


async def overhead(quick: bool) -> list[Row]:
    """The same GET, counted and not."""
    with valkey_server() as server:
        settings = Settings(_env_file=None, redis_url=server.url, redis_command_timeout=30)
        async with await connect(settings) as client:
            bare = Bare(client.transport, settings)
            bare.meter = Meter(client.transport)
            client.service(Metrics).start()  # flushes once per 10 s, as in production
            key = client.workspace("acme").keys.key("app", "x")
            await client.set(key, b"x" * 64)
            each = 200

            counted = partial(callers, partial(client.get, key), concurrent=CALLERS, each=each)
            plain = partial(callers, partial(bare.get, key), concurrent=CALLERS, each=each)
            ours, theirs = await compare(counted, plain, rounds=25 if quick else 60)
    return [
        row("get concurrent with metrics", ours.cpu_us, "us CPU/op", "without", theirs.cpu_us, target=None),
        row("overhead", ours.cpu_us / theirs.cpu_us, "ratio", "limit", MOST_OVERHEAD, target=1),
    ]


async def commands() -> list[Row]:
    """What an hour of flushing sends, at rest and busy."""
    found: list[float] = []
    for busy in (False, True):
        clock = MovedClock()
        async with Client(MockRedisClient()) as client:
            recorder = Metrics(client, clock=clock).recorder
            work = 0
            before = client.stats.commands
            for _ in range(360):
                if busy:
                    await client.get("k")
                    work += 1
                await recorder.flush()
                clock.at += 10
            found.append(client.stats.commands - before - work)
    rest, busy_commands = found
    return [
        Row("commands per process and hour at rest", rest, "commands", "limit", 0, 1.0, 1.0, rest == 0),
        row(
            "commands per process and hour when busy", busy_commands, "commands", "limit", MOST_BUSY, target=1
        ),
    ]


async def measure(quick: bool) -> list[Row]:
    """All rows."""
    return [*await overhead(quick), *await commands()]


if __name__ == "__main__":
    main("metrics", measure, NOTE)
