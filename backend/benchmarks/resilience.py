"""What the failover costs while all is well, and how long an outage takes to be noticed and to be over.

    python backend/benchmarks/resilience.py

Needs `redis-server` or the `embedded` extra. Compares the client with and without the failover layer on one server, in CPU time per
operation of this process, in alternating short rounds. The least of each is compared: on a shared machine two clients of the same kind
differ by 9 % in their medians and by 2 % in their least.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.resilience.outage import State
from redis_core.testing import FaultProxy
from tests.stores import running_server, valkey_binary

OPERATIONS = 5_000
ROUNDS = 40


def settings(url: str, folder: Path, *, failover: bool) -> Settings:
    return Settings(_env_file=None, redis_url=url, redis_failover=failover, journal_path=folder / "journal")


async def cpu_per_operation(client: Client, concurrency: int, operations: int) -> float:
    async def caller() -> None:
        for _ in range(operations // concurrency):
            await client.get("k")

    before = time.process_time()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return (time.process_time() - before) / operations * 1e6


async def cost(socket: str, folder: Path, concurrency: int, rounds: int) -> tuple[float, float]:
    plain: list[float] = []
    guarded: list[float] = []
    async with (
        await connect(settings(f"unix://{socket}", folder, failover=False)) as without,
        await connect(settings(f"unix://{socket}", folder, failover=True)) as with_failover,
    ):
        await without.set("k", b"x" * 100)
        await asyncio.sleep(3)  # the watch has loaded what it needs
        for turn in range(rounds):
            pair = ((without, plain), (with_failover, guarded))
            for client, figures in pair if turn % 2 else reversed(pair):
                figures.append(await cpu_per_operation(client, concurrency, OPERATIONS))
    print(
        f"{concurrency:>4} callers: {min(plain):6.2f} us without, "
        f"{min(guarded):6.2f} us with, ratio {min(guarded) / min(plain):.4f}"
    )
    return min(plain), min(guarded)


async def outage(socket: str, folder: Path, fault: str, times: int) -> None:
    noticed: list[float] = []
    returned: list[float] = []
    with FaultProxy(socket) as proxy:
        async with await connect(settings(proxy.url, folder, failover=True)) as client:
            await client.set("k", "v")
            await asyncio.sleep(3)
            for _ in range(times):
                getattr(proxy, fault)()
                await asyncio.sleep(0.05)
                began = time.perf_counter()
                await client.get("k")
                noticed.append(time.perf_counter() - began)
                assert client.outage.state is State.DEGRADED
                await asyncio.sleep(3)
                proxy.up()
                began = time.perf_counter()
                while client.outage.state is not State.HEALTHY:
                    await asyncio.sleep(0.005)
                returned.append(time.perf_counter() - began)
                await client.set("k", "v")
    print(
        f"{fault:>10}: first failure answered from memory after {statistics.median(noticed) * 1000:.1f} ms "
        f"(worst {max(noticed) * 1000:.1f}), back {statistics.median(returned):.2f} s after the store (worst {max(returned):.2f})"
    )


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--outages", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_server(valkey_binary()) as socket:
        for concurrency in (1, 100):
            await cost(socket, Path(folder), concurrency, chosen.rounds)
        for fault in ("refuse", "stall", "blackhole") if chosen.outages else ():
            await outage(socket, Path(folder), fault, chosen.outages)


if __name__ == "__main__":
    asyncio.run(main())
