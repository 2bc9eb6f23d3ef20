"""The cache between real processes, over a real server, while processes die and links fail."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import redis_core
from redis_core.cache import Cache, CacheRegion
from redis_core.caching.engine import CacheEngine
from redis_core.client import Client, connect
from redis_core.testing import FaultProxy
from tests.server_process import ServerProcess
from tests.stores import valkey_binary

BACKEND = Path(redis_core.__file__).parents[1]
NUMBERS = CacheRegion("number", int, ttl=60, jitter=0)

LOADER = """
import asyncio, sys
from redis_core.cache import CacheRegion
from redis_core.client import connect

numbers = CacheRegion("number", int, ttl=60, jitter=0)

async def main(url, seconds, callers):
    async with await connect(redis_url=url, redis_command_timeout=20) as redis:
        cache = redis.workspace("acme").cache
        await redis.ping()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        loads = 0
        async def load(key):
            nonlocal loads
            loads += 1
            print("loading", flush=True)
            await asyncio.sleep(seconds)
            return 7
        values = await asyncio.gather(*(cache.get_or_load(numbers, "cold", load) for _ in range(callers)))
        assert values == [7] * callers, values
        print("loads", loads, flush=True)

asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
"""


class Loader:
    """A process that loads one cold key with many callers once it is told to."""

    def __init__(self, url: str, seconds: float, callers: int = 50) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOADER, url, str(seconds), str(callers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=BACKEND, env={"PYTHONPATH": str(BACKEND)},
        )  # fmt: skip
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def loads(self) -> int:
        while (line := self.line()) == "loading":
            pass
        assert line.startswith("loads "), line
        return int(line.split()[1])

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess(valkey_binary()) as running:
        yield running


@asynccontextmanager
async def process(url: str) -> AsyncIterator[tuple[Client, Cache]]:
    """What another process has: a client and a cache of its own, its backplane alive."""
    # The timeout is also how long a client takes to close on a link that is dead.
    async with await connect(redis_url=url, redis_command_timeout=2) as client:
        engine = client.service(CacheEngine)
        engine.listen()
        async with asyncio.timeout(10):
            while not alive(client):
                await asyncio.sleep(0.01)
        yield client, client.workspace("acme").cache


def alive(client: Client) -> bool:
    engine = client.service(CacheEngine)
    return engine.clock.monotonic() < engine.backplane.live_until


def test_four_processes_load_a_cold_key_once(server: ServerProcess) -> None:
    loaders = [Loader(server.url, 0.1) for _ in range(4)]
    try:
        for loader in loaders:
            loader.go()
        assert sum(loader.loads() for loader in loaders) == 1
    finally:
        for loader in loaders:
            loader.end()


def test_when_the_process_that_loads_is_killed_another_loads_after_its_lease(server: ServerProcess) -> None:
    first = Loader(server.url, 600)
    others = [Loader(server.url, 0.05) for _ in range(2)]
    try:
        first.go()
        assert first.line() == "loading"
        for other in others:
            other.go()
        time.sleep(0.2)  # they wait for the lease by now
        first.process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        assert sum(other.loads() for other in others) == 1
        # One lease and the poll, and room for a busy machine: what it must not be is the length of the load.
        assert time.monotonic() - killed < 15
    finally:
        for loader in (first, *others):
            loader.end()


async def test_a_caller_that_is_cancelled_while_it_loads_harms_nobody_anywhere(server: ServerProcess) -> None:
    other = Loader(server.url, 600, callers=20)
    try:
        async with process(server.url) as (_, cache):
            began, go_on = asyncio.Event(), asyncio.Event()

            async def load(_: str) -> int:
                began.set()
                await go_on.wait()
                return 7

            first = asyncio.create_task(cache.get_or_load(NUMBERS, "cold", load))
            await began.wait()
            rest = [asyncio.create_task(cache.get_or_load(NUMBERS, "cold", load)) for _ in range(20)]
            await asyncio.to_thread(other.go)
            await asyncio.sleep(0.1)
            first.cancel()
            go_on.set()
            async with asyncio.timeout(15):
                assert await asyncio.gather(*rest) == [7] * 20
                assert await asyncio.to_thread(other.loads) == 0
            assert first.cancelled()
    finally:
        other.end()


async def test_changes_made_while_the_link_was_cut_are_heard_of_afterwards(server: ServerProcess) -> None:
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        async with process(server.url) as (_, here), process(proxy.url) as (there, behind):
            names = [str(number) for number in range(50)]
            for name in names:
                await here.set(NUMBERS, name, 1)
            assert await behind.get_many(NUMBERS, names) == dict.fromkeys(names, 1)
            proxy.refuse()
            proxy.cut()
            for name in names:
                await here.set(NUMBERS, name, 2)
            proxy.up()
            async with asyncio.timeout(20):
                while not alive(there):
                    await asyncio.sleep(0.01)
                while await behind.get_many(NUMBERS, names) != dict.fromkeys(names, 2):
                    await asyncio.sleep(0.01)


async def test_on_a_half_open_link_memory_is_not_trusted_for_long(server: ServerProcess) -> None:
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        async with process(server.url) as (_, here), process(proxy.url) as (there, behind):
            await here.set(NUMBERS, "a", 1)
            assert await behind.get(NUMBERS, "a") == 1
            proxy.blackhole()
            await here.set(NUMBERS, "a", 2)
            # Within its lease it may serve what it has; once that is over it must not.
            async with asyncio.timeout(10):
                while alive(there):
                    await asyncio.sleep(0.02)
            assert await behind.get(NUMBERS, "a") is None
            assert await behind.get_or_load(NUMBERS, "a", lambda _: 2) == 2, "not what memory still has"
            proxy.up()
            async with asyncio.timeout(20):
                while await behind.get(NUMBERS, "a") != 2:
                    await asyncio.sleep(0.02)


async def test_a_store_that_hangs_holds_up_a_read_for_a_moment_only(server: ServerProcess) -> None:
    numbers = CacheRegion("hung", int, ttl=0.05, jitter=0, fail_safe=60)
    async with process(server.url) as (client, cache):
        await cache.set(numbers, "a", 1)
        await asyncio.sleep(0.1)
        server.freeze()
        try:
            # A command may take 2 s and a read 250 ms: the first would be over the deadline, the others are well below.
            async with asyncio.timeout(1.9):
                assert await cache.get_or_load(numbers, "b", lambda _: 5) == 5
                assert await cache.get(numbers, "c") is None

            async def broken(_: str) -> int:
                raise RuntimeError("the database hangs too")

            async with asyncio.timeout(1.9):
                entry = await cache.get_entry_or_load(numbers, "a", broken)
                assert (entry.value, entry.stale) == (1, True)
            assert numbers.figures.store_errors >= 3
        finally:
            server.thaw()
        async with asyncio.timeout(20):
            while not alive(client):
                await asyncio.sleep(0.01)
            while await cache.get_or_load(numbers, "a", lambda _: 3) != 3:
                await asyncio.sleep(0.01)


async def test_while_the_store_is_away_the_loader_answers_and_a_stale_value_is_served(
    server: ServerProcess,
) -> None:
    numbers = CacheRegion("safe", int, ttl=0.05, jitter=0, fail_safe=60)
    async with process(server.url) as (_, cache):
        assert await cache.get_or_load(numbers, "a", lambda _: 1) == 1
        await asyncio.sleep(0.1)
        server.kill()

        async def broken(_: str) -> int:
            raise RuntimeError("the database is away too")

        entry = await cache.get_entry_or_load(numbers, "a", broken)
        assert (entry.value, entry.stale) == (1, True)
        assert await cache.get_or_load(numbers, "b", lambda _: 3) == 3
        with pytest.raises(RuntimeError):
            await cache.get_or_load(numbers, "c", broken)
