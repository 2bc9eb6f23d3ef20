"""GET by the client, beside redis-py, valkey-glide and upstash-redis; and what importing it costs.

python backend/benchmarks/client.py [--quick] [--json]

Compared is the CPU time of the client's process; `rate of ...` tells operations a second by the clock of the same rounds. In the
sequential line client and server share one core, see `harness.one_core`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from harness import (
    BACKEND,
    Row,
    Server,
    callers,
    closing,
    compare,
    gateway_process,
    main,
    one_core,
    peer,
    row,
    valkey_server,
)

from redis_core.client import connect
from redis_core.config import Settings

CALLERS = 100
KEY = "bench:key"
VALUE = b"x" * 64
TOKEN = "benchmark-token"
IMPORT_LIMIT_MS = 150.0
REMARK = """\
CPU time is that of the client's process, all threads, the least of the rounds. In the sequential line client and server
share one core, because waking an idle virtual core costs 30-90 us that a bare blocking socket pays as well."""


def settings(**overrides: Any) -> Settings:
    """Nothing from the environment, and deadlines that a busy machine does not pass."""
    return Settings(_env_file=None, redis_command_timeout=30, redis_connect_timeout=10, **overrides)


async def versus(
    what: str,
    ours: Callable[[], Awaitable[object]],
    theirs: Callable[[], Awaitable[object]],
    name: str,
    *,
    target: float,
    concurrent: int,
    each: tuple[int, int],
    rounds: int,
) -> list[Row]:
    """One comparison: the CPU time an operation, and the rate.

    Args:
        what: the line's name.
        ours: one operation.
        theirs: the same operation of the peer.
        name: the peer's.
        target: the ratio that is wanted.
        concurrent: tasks at once.
        each: operations a task and round, ours and the peer's.
        rounds: how many count.
    """
    mine, peers = await compare(
        partial(callers, ours, concurrent=concurrent, each=each[0]),
        partial(callers, theirs, concurrent=concurrent, each=each[1]),
        rounds=rounds,
    )
    return [
        row(what, mine.cpu_us, "us CPU/op", name, peers.cpu_us, target=target),
        row(f"rate of {what}", mine.rate, "op/s", name, peers.rate, target=None, higher_is_better=True),
    ]


async def against_redis_py(server: Server, rounds: int) -> list[Row]:
    """redis-py's asyncio client with hiredis, its pool as large as there are callers."""
    redis, name = peer("redis.asyncio", "redis")
    peer("hiredis", "hiredis")
    name = f"{name} asyncio"
    theirs = redis.Redis(host="127.0.0.1", port=server.port, max_connections=CALLERS)
    async with await connect(settings(redis_url=server.url)) as ours, closing(theirs):
        await ours.set(KEY, VALUE)
        assert await theirs.get(KEY) == await ours.get(KEY) == VALUE
        get, their_get = partial(ours.get, KEY), partial(theirs.get, KEY)
        rows = await versus(
            "get concurrent vs redis-py", get, their_get, name,
            target=10, concurrent=CALLERS, each=(200, 20), rounds=rounds,
        )  # fmt: skip
        with one_core(server.pid) as pinned:
            rows += await versus(
                "get sequential vs redis-py", get, their_get, name if pinned else f"{name} (not on one core)",
                target=3, concurrent=1, each=(5_000, 2_000), rounds=rounds,
            )  # fmt: skip
        return rows


async def against_glide(server: Server, rounds: int) -> list[Row]:
    """valkey-glide: one multiplexed connection, as ours, in Rust on threads of its own."""
    glide, name = peer("glide", "valkey-glide")
    options = glide.GlideClientConfiguration(
        [glide.NodeAddress("127.0.0.1", server.port)], request_timeout=30_000
    )
    async with (
        await connect(settings(redis_url=server.url)) as ours,
        closing(await glide.GlideClient.create(options)) as theirs,
    ):
        await ours.set(KEY, VALUE)
        assert await theirs.get(KEY) == await ours.get(KEY) == VALUE
        return await versus(
            "get concurrent vs valkey-glide", partial(ours.get, KEY), partial(theirs.get, KEY), name,
            target=3, concurrent=CALLERS, each=(200, 50), rounds=rounds,
        )  # fmt: skip


async def against_upstash(server: Server, rounds: int) -> list[Row]:
    """upstash-redis' asyncio client, through the same gateway as ours."""
    upstash, name = peer("upstash_redis.asyncio", "upstash-redis")
    with gateway_process(server, TOKEN) as gateway:
        theirs = upstash.Redis(url=gateway.url, token=TOKEN, allow_telemetry=False)
        mine = settings(upstash_redis_url=gateway.url, upstash_redis_token=TOKEN)
        async with await connect(mine) as ours, closing(theirs):
            await ours.set(KEY, VALUE)
            assert await theirs.get(KEY) == VALUE.decode()
            assert await ours.get(KEY) == VALUE
            return await versus(
                "rest get concurrent vs upstash-redis", partial(ours.get, KEY), partial(theirs.get, KEY), name,
                target=20, concurrent=CALLERS, each=(100, 3), rounds=rounds,
            )  # fmt: skip


def import_time(statement: str, runs: int) -> float:
    """Milliseconds that a statement takes in a new process, the least of several, the interpreter's own start left out."""
    program = (
        "import time; t = time.perf_counter(); " + statement + "; print((time.perf_counter() - t) * 1000)"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(BACKEND)}
    return min(
        float(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
        for _ in range(runs)
    )


def imports(runs: int) -> list[Row]:
    """What it costs a program to have us."""
    bare = import_time("import redis_core", runs)
    whole = import_time("from redis_core import connect", runs)
    theirs = import_time("import redis.asyncio", runs)
    limit = f"limit of {IMPORT_LIMIT_MS:g} ms"
    return [
        row("import time of redis_core", bare, "ms", limit, IMPORT_LIMIT_MS, target=1),
        row("import time with connect", whole, "ms", limit, IMPORT_LIMIT_MS, target=1),
        row("import time with connect vs redis-py", whole, "ms", "redis.asyncio", theirs, target=None),
    ]


async def measure(quick: bool) -> list[Row]:
    """All lines."""
    rounds = 3 if quick else 9
    with valkey_server() as server:
        return [
            *await against_redis_py(server, rounds),
            *await against_glide(server, rounds),
            *await against_upstash(server, rounds),
            *imports(3 if quick else 9),
        ]


if __name__ == "__main__":
    main("client", measure, REMARK)
