"""What the failover costs while all is well, and how long an outage takes to be noticed and to be over.

    python backend/benchmarks/resilience.py [--quick] [--json]

Needs `redis-server` or the `embedded` extra. The cost is CPU time an operation of this process, of the client with and without the
failover layer on one server, in short rounds that take turns; the least of each counts. On a shared machine two clients of the same
kind differ by 9 % in their medians and by 2 % in their least.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from harness import Row, callers, compare, main, row

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.resilience.outage import State
from redis_core.testing import FaultProxy
from tests.stores import running_server, valkey_binary

OPERATIONS = 2_000
DEAREST = 1.03
"""What an operation with the layer may cost, in those of one without."""
LIMITS = {"refuse": ("refused", 50.0), "stall": ("silent", 1500.0)}
"""Milliseconds from the first failure to the answer from memory."""
LONGEST_RETURN = 5.0
"""Seconds from the store's return to ours."""
WARM = 3.0
"""Seconds in which the watch loads what it needs."""


async def measure(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, running_server(valkey_binary()) as socket:
        rounds = 16 if quick else 60
        rows = [await cost(socket, Path(folder), concurrent, rounds=rounds) for concurrent in (1, 100)]
        for fault in LIMITS:
            rows += await outages(socket, Path(folder), fault, times=2 if quick else 10)
    return rows


def settings(url: str, folder: Path, *, failover: bool) -> Settings:
    return Settings(_env_file=None, redis_url=url, redis_failover=failover, journal_path=folder / "journal")


async def cost(socket: str, folder: Path, concurrent: int, *, rounds: int) -> Row:
    """CPU time of a GET with the layer, held against one without."""
    url = f"unix://{socket}"
    async with (
        await connect(settings(url, folder, failover=False)) as without,
        await connect(settings(url, folder, failover=True)) as guarded,
    ):
        await without.set("k", b"x" * 100)
        await guarded.get("k")
        await asyncio.sleep(WARM)

        each = OPERATIONS // concurrent

        def gets(client: Client) -> Callable[[], Awaitable[int]]:
            return lambda: callers(lambda: client.get("k"), concurrent=concurrent, each=each)

        # Each side comes first as often as second, and the least of both places counts.
        costs = await compare(gets(guarded), gets(without), gets(without), gets(guarded), rounds=rounds)
        ours = min(costs[0].cpu_us, costs[3].cpu_us)
        theirs = min(costs[1].cpu_us, costs[2].cpu_us)
    caller = "caller" if concurrent == 1 else "callers"
    return row(
        f"GET with failover, {concurrent} {caller}",
        ours,
        "us CPU",
        "without failover",
        theirs,
        target=round(1 / DEAREST, 3),
    )


async def outages(socket: str, folder: Path, fault: str, *, times: int) -> list[Row]:
    """How long the first call waits that finds the store away, and how long until all is well after its return: the worst of some."""
    name, limit = LIMITS[fault]
    noticed: list[float] = []
    returned: list[float] = []
    with FaultProxy(socket) as proxy:
        async with await connect(settings(proxy.url, folder, failover=True)) as client:
            await client.set("k", "v")
            await asyncio.sleep(WARM)
            for _ in range(times):
                proxy.refuse() if fault == "refuse" else proxy.stall()
                await asyncio.sleep(0.05)
                began = time.perf_counter()
                await client.get("k")
                noticed.append((time.perf_counter() - began) * 1000)
                if client.outage.state is not State.DEGRADED:
                    raise RuntimeError(f"a store that is {name} was not noticed")
                await asyncio.sleep(WARM)
                proxy.up()
                began = time.perf_counter()
                while client.outage.state is not State.HEALTHY:
                    await asyncio.sleep(0.005)
                returned.append(time.perf_counter() - began)
                await client.set("k", "v")
    return [
        row(f"first failure to degraded, {name}: worst", max(noticed), "ms", "limit", limit, target=1),
        row(f"first failure to degraded, {name}: median", median(noticed), "ms", "limit", limit, target=None),
        row(f"back after the store, {name}: worst", max(returned), "s", "limit", LONGEST_RETURN, target=1),
    ]


if __name__ == "__main__":
    main(
        "resilience",
        measure,
        "The processes of a service return within 2 s of each other on purpose, so that a store that is back is not run over.",
    )
