"""What measuring costs: the client's throughput with and without it, and the commands that flushing sends.

python backend/benchmarks/metrics.py [--quick] [--json]
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import median

from harness import Row, callers, main, row, valkey_server

from redis_core.client import TROUBLE, Client, connect
from redis_core.config import Settings
from redis_core.errors import StoreError
from redis_core.fair_share import BUSY
from redis_core.measuring.meter import Meter
from redis_core.measuring.recorder import FLUSH_EVERY, Recorder
from redis_core.metrics import Metrics
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient

CALLERS = 100
EACH = 20
AFTER_FLUSH = 33_000
"""Calls after which a client measures as few as it ever does."""
MOST_OVERHEAD = 1.02
MOST_BUSY = 400
NOTE = """\
`overhead` is CPU time of this process an operation with metrics counted over that of the same client without a meter: the median over
many short pairs of rounds, so that what disturbs one disturbs the other; and to it the share of a core that one flush in 10 s takes. At rest a process sends nothing; a busy one is counted over an hour of a moved clock."""


class Bare(Client):
    """The client as it would be without metrics: the same code line by line, nothing counted."""

    async def _execute(self, batch: Sequence[Command]) -> list[Reply]:
        if self._stats.in_flight > BUSY or self._fair_share.limited:
            await self._wait_turn(batch)
        guard = self._guard
        try:
            if guard is None or not guard.direct:
                return await self.transport.execute(batch, timeout=self._timeout)
            try:
                replies = await guard.store.execute(batch, timeout=self._timeout)
            except StoreError as error:
                return await guard.failed(batch, self._timeout, error)
            guard.answered += 1
            single = len(replies) == 1
            if type(replies[0]) not in TROUBLE if single else TROUBLE.isdisjoint(map(type, replies)):
                return replies
            return await guard.troubled(batch, self._timeout, replies)
        except StoreError as error:
            return await self._retried(batch, error)


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
            key = client.workspace("acme").keys.key("app", "x")
            await client.set(key, b"x" * 64)
            counted = partial(callers, partial(client.get, key), concurrent=CALLERS, each=EACH)
            plain = partial(callers, partial(bare.get, key), concurrent=CALLERS, each=EACH)
            recorder = client.service(Metrics).recorder
            gc.collect()
            gc.disable()
            try:
                for _ in range(AFTER_FLUSH // (CALLERS * EACH) + 1):
                    await counted()
                pairs = [
                    await pair(counted, plain, turned=bool(n % 2)) for n in range(300 if quick else 1_500)
                ]
                ours, theirs = (median(side) for side in zip(*pairs, strict=True))
                flushes = [await flushed(recorder, counted, ours) for _ in range(9)]
            finally:
                gc.enable()
    ratio, flush = median(a / b for a, b in pairs), median(flushes)
    return [
        row("get concurrent with metrics", ours, "us CPU/op", "without", theirs, target=None),
        Row("a flush", round(flush, 3), "ms CPU", "", 0, 0, None, None),
        row("overhead", ratio + flush / 1_000 / FLUSH_EVERY, "ratio", "limit", MOST_OVERHEAD, target=1),
    ]


async def usage(quick: bool) -> list[Row]:
    """The same GET through a workspace's handle, by a process that reports usage, and by one that does not."""
    with valkey_server() as server:
        settings = Settings(_env_file=None, redis_url=server.url, redis_command_timeout=30)
        async with await connect(settings) as client, Client(client.transport, settings) as other:
            client.tallies.counting = True
            key = client.workspace("acme").keys.key("app", "x")
            await client.set(key, b"x" * 64)
            reporting, silent = (
                partial(
                    callers, partial(each.workspace("acme").redis.get, key), concurrent=CALLERS, each=EACH
                )
                for each in (client, other)
            )
            gc.collect()
            gc.disable()
            try:
                pairs = [
                    await pair(reporting, silent, turned=bool(n % 2)) for n in range(300 if quick else 1_500)
                ]
            finally:
                gc.enable()
    ours, theirs = (median(side) for side in zip(*pairs, strict=True))
    return [
        row("get concurrent with usage counted", ours, "us CPU/op", "without", theirs, target=None),
    ]


async def flushed(recorder: Recorder, counted: Callable[[], Awaitable[int]], each: float) -> float:
    """CPU time in milliseconds of a flush and of the calls after it that are measured more often than the others."""
    began = time.process_time()
    await recorder.flush()
    calls = 0
    while calls < AFTER_FLUSH:
        calls += await counted()
    return (time.process_time() - began) * 1e3 - calls * each / 1e3


async def pair(
    counted: Callable[[], Awaitable[int]], plain: Callable[[], Awaitable[int]], *, turned: bool
) -> tuple[float, float]:
    """CPU time of one short round of each, in microseconds an operation; which one comes first takes turns."""
    found = []
    for side in (plain, counted) if turned else (counted, plain):
        began = time.process_time()
        count = await side()
        found.append((time.process_time() - began) * 1e6 / count)
    return (found[1], found[0]) if turned else (found[0], found[1])


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
    return [*await overhead(quick), *await usage(quick), *await commands()]


if __name__ == "__main__":
    main("metrics", measure, NOTE)
