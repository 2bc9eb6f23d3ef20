"""The cache beside cashews, aiocache, dogpile.cache, fastapi-cache2 and cachebox.

python backend/benchmarks/cache.py [--quick] [--json]
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import multiprocessing
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
from harness import Row, Server, callers, compare, main, peer, row, valkey_server

from redis_core.cache import TTL, CacheRegion, cached
from redis_core.caching.engine import CacheEngine
from redis_core.caching.memory import MemoryEntry, MemoryTier
from redis_core.client import Client, connect
from redis_core.transport.memory import MockRedisClient


class Document(msgspec.Struct, frozen=True):
    """About 1 KB, as a profile or a campaign is."""

    id: str
    title: str
    body: str
    tags: tuple[str, ...]
    counts: tuple[int, ...]


DOCUMENT = Document("42", "A document", "x" * 800, tuple(f"tag-{n}" for n in range(10)), tuple(range(20)))
PLAIN: dict[str, Any] = msgspec.to_builtins(DOCUMENT)
DOCUMENTS = CacheRegion("document", Document, ttl=TTL.USER_PROFILE, compress_above=100_000)
BYPASSED = CacheRegion("document", Document, ttl=TTL.USER_PROFILE, compress_above=100_000, memory_ttl=0)


async def measure(quick: bool) -> list[Row]:
    """All rows."""
    return [
        *await in_memory(quick),
        *await in_store(quick),
        *stampede(),
        *hit_ratios(),
        neighbours(),
    ]


# --- a hit in memory ---


async def in_memory(quick: bool) -> list[Row]:
    """What `await` of a hit costs, by method and by decorator."""
    count, rounds = (20_000, 3) if quick else (100_000, 5)
    async with Client(MockRedisClient()) as client:
        workspace = client.workspace("acme")
        engine = client.service(CacheEngine)
        engine.listen()
        while engine.clock.monotonic() >= engine.backplane.live_until:
            await asyncio.sleep(0.01)
        await workspace.cache.set(DOCUMENTS, "42", DOCUMENT)
        get = workspace.cache.get

        @cached(DOCUMENTS)
        async def document(_: object, key: str) -> Document:
            raise AssertionError(key)

        peers = await peer_hits()
        sides: dict[str, Callable[[], Awaitable[object]]] = {
            "ours": lambda: get(DOCUMENTS, "42"),
            "ours, decorator": lambda: document(workspace, "42"),
            **peers,
        }
        costs = await compare(*(repeated(side, count) for side in sides.values()), rounds=rounds)
        figures = dict(zip(sides, (cost.cpu_us for cost in costs), strict=True))
    rows = [
        row("l1 hit", figures["ours"], "us CPU/op", "limit", 1.0, target=1),
        row("l1 hit, decorator", figures["ours, decorator"], "us CPU/op", "limit", 2.0, target=1),
    ]
    for name in peers:
        ours = figures["ours, decorator" if "decorator" in name else "ours"]
        rows.append(row(f"l1 hit vs {name}", ours, "us CPU/op", name, figures[name], target=None))
    return rows


def repeated(operation: Callable[[], Awaitable[object]], count: int) -> Callable[[], Awaitable[int]]:
    """A round: the operation, one after the other."""

    async def run() -> int:
        for _ in range(count):
            await operation()
        return count

    return run


async def peer_hits() -> dict[str, Callable[[], Awaitable[object]]]:
    """The peers' hits in memory, by method and by decorator."""
    cashews, _ = peer("cashews", "cashews")
    memory = cashews.Cache()
    memory.setup("mem://")
    await memory.set("document:42", PLAIN, expire=3600)

    @memory(ttl="1h", key="decorated:{_}")
    async def by_cashews(_: str) -> dict[str, Any]:
        return PLAIN

    aiocache, _ = peer("aiocache", "aiocache")
    simple = aiocache.SimpleMemoryCache()
    await simple.set("document:42", PLAIN, ttl=3600)

    @aiocache.cached(ttl=3600)
    async def by_aiocache(_: str) -> dict[str, Any]:
        return PLAIN

    dogpile, _ = peer("dogpile.cache", "dogpile.cache")
    region = dogpile.make_region().configure("dogpile.cache.memory", expiration_time=3600)
    region.set("42", PLAIN)
    cachebox, _ = peer("cachebox", "cachebox")
    box = cachebox.TTLCache(10_000, 3600)
    box["42"] = PLAIN

    async def dogpile_get() -> object:
        return region.get("42")

    async def cachebox_get() -> object:
        return box.get("42")

    await by_cashews("42")
    await by_aiocache("42")
    return {
        "cashews": lambda: memory.get("document:42"),
        "cashews, decorator": lambda: by_cashews("42"),
        "aiocache": lambda: simple.get("document:42"),
        "aiocache, decorator": lambda: by_aiocache("42"),
        "dogpile.cache": dogpile_get,
        "cachebox": cachebox_get,
    }


# --- a hit in the store ---


async def in_store(quick: bool) -> list[Row]:
    """100 callers at once, a typed value of 1 KB."""
    each, theirs_each, rounds = (50, 5, 2) if quick else (200, 20, 4)
    with valkey_server() as server:
        async with await connect(redis_url=server.url) as client:
            cache = client.workspace("acme").cache
            names = [str(number) for number in range(100)]
            await asyncio.gather(*(cache.set(BYPASSED, name, DOCUMENT) for name in names))
            turn = itertools.cycle(names)
            cashews, cashews_version = peer("cashews", "cashews")
            store = cashews.Cache()
            store.setup(server.url)
            for name in names:
                await store.set(name, PLAIN, expire=3600)
            aiocache, aiocache_version = peer("aiocache", "aiocache")
            serializers, _ = peer("aiocache.serializers", "aiocache")
            redis = aiocache.RedisCache(port=server.port, serializer=serializers.JsonSerializer())
            for name in names:
                await redis.set(name, PLAIN, ttl=3600)
            fastapi_cache, fastapi_version = peer("fastapi_cache.backends.redis", "fastapi-cache2")
            redis_py, _ = peer("redis.asyncio", "redis")
            connection = redis_py.Redis(port=server.port, max_connections=100)
            backend = fastapi_cache.RedisBackend(connection)
            for name in names:
                await backend.set("f" + name, json.dumps(PLAIN).encode(), 3600)

            async def fastapi_get() -> object:
                _, data = await backend.get_with_ttl("f" + next(turn))
                return json.loads(data)

            sides = {
                "ours": lambda: cache.get(BYPASSED, next(turn)),
                cashews_version: lambda: store.get(next(turn)),
                aiocache_version: lambda: redis.get(next(turn)),
                fastapi_version: fastapi_get,
            }
            rounds_of = [
                at_once(side, each if name == "ours" else theirs_each) for name, side in sides.items()
            ]
            costs = dict(zip(sides, await compare(*rounds_of, rounds=rounds), strict=True))
            await store.close()
            await redis.close()
            await connection.aclose()
    best = min(cost.cpu_us for name, cost in costs.items() if name != "ours")
    return [
        row(
            f"l2 hit concurrent vs {name.split()[0]}", costs["ours"].cpu_us, "us CPU/op", name, cost.cpu_us,
            target=8 if cost.cpu_us == best else None,
        )
        for name, cost in costs.items()
        if name != "ours"
    ]  # fmt: skip


def at_once(operation: Callable[[], Awaitable[object]], each: int) -> Callable[[], Awaitable[int]]:
    """A round: 100 callers."""

    async def run() -> int:
        return await callers(operation, concurrent=100, each=each)

    return run


# --- a stampede ---

PROCESSES, CALLERS, LOADER_SECONDS = 4, 50, 0.1


def stampede() -> list[Row]:
    """A cold key, four processes with fifty callers each."""
    with valkey_server() as server:
        loads, seconds = _stampede(server, _ours_in_a_process)
        peer_loads, peer_seconds = _stampede(server, _cashews_in_a_process)
        unlocked, _ = _stampede(server, _aiocache_in_a_process)
    return [
        row("loads, 4 processes", loads, "loads", "limit", 1, target=1),
        row("seconds to answer all, 4 processes", seconds * 1000, "ms", "limit", 300, target=1),
        row("loads, 4 processes vs cashews", loads, "loads", "cashews lock=True", peer_loads, target=None),
        row(
            "seconds to answer all vs cashews",
            seconds * 1000,
            "ms",
            "cashews lock=True",
            peer_seconds * 1000,
            target=None,
        ),
        row("loads, 4 processes vs aiocache", loads, "loads", "aiocache cached", unlocked, target=None),
        *interrupted(),
    ]


def interrupted() -> list[Row]:
    """The same while the caller that began the load is cancelled, and while the process that loads is killed."""
    with valkey_server() as server:
        loads, _ = _stampede(server, _ours_with_a_cancelled_caller)
    with valkey_server() as server:
        extra, seconds = _killed_holder(server)
    allowed = DOCUMENTS.lease + 0.2 + LOADER_SECONDS
    return [
        row("loads, the first caller cancelled", loads, "loads", "limit", 1, target=1),
        row("extra loads, the lease holder killed", extra, "loads", "limit", 1, target=1),
        row(
            "answered after the kill", seconds * 1000, "ms", "lease, load and 0.2 s", allowed * 1000, target=1
        ),
    ]


def _killed_holder(server: Server) -> tuple[int, float]:
    """Loads after the holder of the lease was killed, and the seconds until the others were answered."""
    spawn = multiprocessing.get_context("spawn")
    begun, results = spawn.Event(), spawn.Queue()
    holder = spawn.Process(target=_loads_for_ever, args=(server.url, begun))
    holder.start()
    begun.wait(60)
    ready = spawn.Barrier(PROCESSES)
    waiters = [
        spawn.Process(target=_ours_in_a_process, args=(server.url, ready, results))
        for _ in range(PROCESSES - 1)
    ]
    for process in waiters:
        process.start()
    ready.wait()
    holder.kill()
    killed = time.perf_counter()
    loads = sum(results.get(timeout=60)[0] for _ in waiters)
    seconds = time.perf_counter() - killed
    for process in (holder, *waiters):
        process.join()
    return loads, seconds


def _loads_for_ever(url: str, begun: Any) -> None:
    async def load(_: str) -> Document:
        begun.set()
        await asyncio.sleep(3600)
        return DOCUMENT

    async def run() -> None:
        async with await connect(redis_url=url, redis_command_timeout=10) as client:
            await client.workspace("acme").cache.get_or_load(DOCUMENTS, "cold", load)

    asyncio.run(run())


def _ours_with_a_cancelled_caller(url: str, ready: Any, results: Any) -> None:
    asyncio.run(_fifty_callers(url, ready, results, cancel_first=True))


def _stampede(server: Server, child: Callable[[str, Any, Any], None]) -> tuple[int, float]:
    """How often the loader ran, and the seconds until the last caller was answered."""
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(PROCESSES), spawn.Queue()
    children = [spawn.Process(target=child, args=(server.url, ready, results)) for _ in range(PROCESSES)]
    for process in children:
        process.start()
    answers = [results.get(timeout=60) for _ in children]
    for process in children:
        process.join()
    return sum(loads for loads, _ in answers), max(seconds for _, seconds in answers)


def _ours_in_a_process(url: str, ready: Any, results: Any) -> None:
    asyncio.run(_fifty_callers(url, ready, results, cancel_first=False))


async def _fifty_callers(url: str, ready: Any, results: Any, *, cancel_first: bool) -> None:
    loads = 0

    async def load(_: str) -> Document:
        nonlocal loads
        loads += 1
        await asyncio.sleep(LOADER_SECONDS)
        return DOCUMENT

    async with await connect(redis_url=url, redis_command_timeout=10) as client:
        cache = client.workspace("acme").cache
        await client.ping()
        ready.wait()
        began = time.perf_counter()
        asked = [asyncio.ensure_future(cache.get_or_load(DOCUMENTS, "cold", load)) for _ in range(CALLERS)]
        if cancel_first:
            await asyncio.sleep(LOADER_SECONDS / 2)
            asked.pop(0).cancel()
        # Whoever else was cancelled raises here, and the benchmark ends.
        await asyncio.gather(*asked)
        results.put((loads, time.perf_counter() - began))


def _cashews_in_a_process(url: str, ready: Any, results: Any) -> None:
    from cashews import Cache

    async def run() -> None:
        loads = 0
        cache = Cache()
        cache.setup(url)

        @cache(ttl="1h", key="cold:{_}", lock=True)
        async def load(_: str) -> dict[str, Any]:
            nonlocal loads
            loads += 1
            await asyncio.sleep(LOADER_SECONDS)
            return PLAIN

        await cache.ping()
        ready.wait()
        began = time.perf_counter()
        await asyncio.gather(*(load("cold") for _ in range(CALLERS)))
        results.put((loads, time.perf_counter() - began))
        await cache.close()

    asyncio.run(run())


def _aiocache_in_a_process(url: str, ready: Any, results: Any) -> None:
    import aiocache
    from aiocache.serializers import JsonSerializer

    async def run() -> None:
        loads = 0
        port = int(url.rpartition(":")[2])

        @aiocache.cached(
            ttl=3600, cache=aiocache.RedisCache, port=port, serializer=JsonSerializer(), key="aio:cold"
        )
        async def load(_: str) -> dict[str, Any]:
            nonlocal loads
            loads += 1
            await asyncio.sleep(LOADER_SECONDS)
            return PLAIN

        ready.wait()
        began = time.perf_counter()
        await asyncio.gather(*(load("cold") for _ in range(CALLERS)))
        results.put((loads, time.perf_counter() - began))

    asyncio.run(run())


# --- hit ratios ---


REQUESTS = 300_000


def zipf(items: int, exponent: float, chance: random.Random) -> Callable[[], int]:
    """Ranks by Zipf's law."""
    weights = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(items)))
    return lambda: min(bisect.bisect(weights, chance.random() * weights[-1]), items - 1)


def trace(
    requests: int = REQUESTS, *, scan: float = 0.0, reshuffles: int = 0, seed: int = 1
) -> Iterator[str]:
    """Keys of 50,000 items, zipf 1.0; a part of them never seen again (`scan`), the ranking drawn anew now and then."""
    chance = random.Random(seed)
    rank = zipf(50_000, 1.0, chance)
    order = list(range(50_000))
    fresh = itertools.count(1_000_000)
    for number in range(requests):
        if reshuffles and number and number % (requests // reshuffles) == 0:
            chance.shuffle(order)
        yield str(next(fresh)) if scan and chance.random() < scan else str(order[rank()])


def ratio_of(keys: Iterator[str], capacity: int) -> float:
    """Hits in percent of one workspace in our memory tier."""
    tier = MemoryTier(capacity, 10**12)
    hits = total = 0
    for key in keys:
        total += 1
        hits += ask(tier, "acme", key)
    return hits / total * 100


def ask(tier: MemoryTier, workspace: str, key: str) -> bool:
    """One request, stored if it was not there."""
    share = tier.share(workspace)
    entry = share.by_region.get("region", {}).get(key)
    if entry is not None:
        entry.frequency = min(entry.frequency + 1, 3)
        return True
    share.put(MemoryEntry("region", key, key, 1, 0, 1, 1, 1, 1))
    return False


def hit_ratios() -> list[Row]:
    """Against the figures an LRU and an LFU reach on the same traces."""
    scan = ratio_of(trace(scan=0.2), 2_500)
    shifting = ratio_of(trace(reshuffles=3), 2_500)
    cachebox, version = peer("cachebox", "cachebox")
    lru = boxed(cachebox.LRUCache(2_500), trace(scan=0.2))
    lfu = boxed(cachebox.LFUCache(2_500), trace(reshuffles=3))
    return [
        row("hit ratio zipf+scan", scan, "%", "limit", 54, target=1, higher_is_better=True),
        row("hit ratio shifting", shifting, "%", "limit", 60, target=1, higher_is_better=True),
        row(
            "hit ratio zipf+scan vs LRU", scan, "%", f"{version} LRU", lru, target=None, higher_is_better=True
        ),
        row(
            "hit ratio shifting vs LFU",
            shifting,
            "%",
            f"{version} LFU",
            lfu,
            target=None,
            higher_is_better=True,
        ),
    ]


def boxed(cache: Any, keys: Iterator[str]) -> float:
    """Hits in percent of a cachebox."""
    hits = total = 0
    for key in keys:
        total += 1
        if cache.get(key) is not None:
            hits += 1
        else:
            cache[key] = key
    return hits / total * 100


def neighbours() -> Row:
    """A quiet tenant beside one that scans, against the quiet one alone with half of the room."""
    quiet_alone = ratio_of(trace(REQUESTS // 5, seed=2), 500)
    tier = MemoryTier(1_000, 10**12)
    chance = random.Random(3)
    quiet, hits, total = trace(REQUESTS // 5, seed=2), 0, 0
    fresh = itertools.count()
    while True:
        if chance.random() < 0.2:
            key = next(quiet, None)
            if key is None:
                break
            total += 1
            hits += ask(tier, "quiet", key)
        else:
            ask(tier, "noisy", str(next(fresh)))
    beside = hits / total * 100
    return row(
        "hit ratio of a quiet tenant beside a noisy one",
        beside,
        "%",
        "alone, less 2 points",
        quiet_alone - 2,
        target=1,
        higher_is_better=True,
    )


if __name__ == "__main__":
    main("cache", measure)
