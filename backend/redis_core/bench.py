"""How fast this store is from here: GET, SET and pipelines through the client, as an application's own calls would be.

A look at one's own store and the way to it. It compares nothing and is no benchmark of the library; those are in backend/benchmarks.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from redis_core.client import Client
from redis_core.keys import canary_key
from redis_core.latency import Latency, LatencyRing
from redis_core.measuring.cost import price_per_million

__all__ = ["BATCH", "CALLERS", "MOST_CALLS", "Bench", "BenchRow", "bench", "commands_of"]

CALLERS: Final = 20
"""Callers at once in the rows that say so."""
BATCH: Final = 100
"""Commands of one pipeline."""
MOST_CALLS: Final = 100_000
_WARM: Final = 3
_BATCH_EVERY: Final = 10
"""Pipelines are so much fewer than single calls: each has `BATCH` commands."""
_KEPT_SECONDS: Final = 600


class BenchRow(Struct, frozen=True):
    """One kind of call."""

    what: str
    calls: int
    callers: int
    commands: int
    trips: int
    """Requests, or writes to a socket: calls at the same time share one."""
    seconds: float
    calls_per_second: float
    commands_per_second: float
    latency: Latency
    """Of a call, from its start until its result is there."""


class Bench(Struct, frozen=True):
    """What was measured."""

    mode: str
    target: str
    """Where the store is, without user or secret."""
    value_bytes: int
    commands: int
    """All that were sent, warming up and clearing away included."""
    cost: float
    """What they cost in dollars, by `REDIS_PRICE_PER_MILLION`."""
    rows: list[BenchRow]


def commands_of(calls: int) -> int:
    """How many commands `bench` sends for so many calls a row."""
    batches = _batches(calls)
    return 4 * (calls + _WARM) + 2 * (batches + _WARM) * BATCH + 1


def _batches(calls: int) -> int:
    return max(calls // _BATCH_EVERY, 1)


async def bench(
    client: Client,
    *,
    calls: int = 200,
    value_bytes: int = 64,
    progress: Callable[[int], None] = lambda _: None,
) -> Bench:
    """Measure the client's store. Budget: `commands_of(calls)`, none of them in a script.

    Writes one key of its own, `sys:canary:bench-...`, deletes it, and lets it expire should it be stopped before.

    Args:
        client: the store.
        calls: of each row of single commands; pipelines are a tenth.
        value_bytes: size of the value that is written and read.
        progress: called with the number of rows done.

    Raises:
        StoreError: the store did not answer; what was measured until then is dropped.
    """
    key = canary_key(f"bench-{secrets.token_hex(8)}")
    value = secrets.token_bytes(value_bytes)

    async def write() -> None:
        await client.set(key, value, ex=_KEPT_SECONDS)

    async def read() -> None:
        await client.get(key)

    async def write_many() -> None:
        async with client.pipeline() as batch:
            for _ in range(BATCH):
                batch.set(key, value, ex=_KEPT_SECONDS)

    async def read_many() -> None:
        async with client.pipeline() as batch:
            for _ in range(BATCH):
                batch.get(key)

    batches = _batches(calls)
    plan: list[tuple[str, Callable[[], Awaitable[None]], int, int]] = [
        ("SET", write, calls, 1),
        ("GET", read, calls, 1),
        ("SET, 20 callers", write, calls, CALLERS),
        ("GET, 20 callers", read, calls, CALLERS),
        ("pipeline of 100 SET", write_many, batches, 1),
        ("pipeline of 100 GET", read_many, batches, 1),
    ]
    before = client.stats.commands
    rows: list[BenchRow] = []
    try:
        for what, call, count, callers in plan:
            rows.append(await _row(client, what, call, count, callers))
            progress(len(rows))
    finally:
        await client.delete(key)
    commands = client.stats.commands - before
    cost = round(commands * price_per_million(client.settings, client.mode) / 1e6, 6)
    return Bench(str(client.mode), client.transport.target, value_bytes, commands, cost, rows)


async def _row(
    client: Client, what: str, call: Callable[[], Awaitable[None]], calls: int, callers: int
) -> BenchRow:
    for _ in range(_WARM):
        await call()
    ring = LatencyRing(calls)
    left = calls

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await call()
            ring.add(time.perf_counter() - began)

    commands, trips = client.stats.commands, client.stats.trips
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(callers, calls)):
            group.create_task(caller())
    seconds = time.perf_counter() - began
    commands, trips = client.stats.commands - commands, client.stats.trips - trips
    return BenchRow(
        what=what,
        calls=calls,
        callers=min(callers, calls),
        commands=commands,
        trips=trips,
        seconds=round(seconds, 6),
        calls_per_second=round(calls / seconds, 1),
        commands_per_second=round(commands / seconds, 1),
        latency=ring.percentiles(),
    )
