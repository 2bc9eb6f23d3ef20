"""What `queue.py` measures: jobs a second, what a job costs the store, and how soon it is picked up.

Each contender's worker is one process of its own, started for the round by its library's means with its defaults. Pick-up is from
before the job is enqueued to its first line, at 50 jobs a second. What an idle worker costs is counted by the server for as long as
the benchmark runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import BACKEND, Row, Server, gateway_process, row, valkey_server
from queue_fairness import fairness
from queue_peers import COUNTS, find, named
from queue_workers import dramatiq_actor, our_task, rq_nothing, taskiq_task

from redis_core.client import Client, connect
from redis_core.keys import queue_key
from redis_core.queue import Call, Queue
from redis_core.queueing.engine import QueueEngine
from redis_core.worker import Worker

WORKERS = Path(__file__).with_name("queue_workers.py")
TOKEN = "benchmark-token-of-32-characters"
CALLERS = 100
PEER_PACKAGES = {"dramatiq": "dramatiq", "taskiq-redis": "taskiq-redis", "rq": "rq"}


async def measure(quick: bool) -> list[Row]:
    """All rows."""
    lines: list[Row] = []
    with (
        valkey_server() as server,
        valkey_server() as idle_tcp,
        valkey_server() as behind,
        gateway_process(behind, TOKEN) as rest,
    ):
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                await connect(redis_url=server.url, mock_redis=False, redis_command_timeout=30)
            )
            tcp = await stack.enter_async_context(idle(idle_tcp, quick=quick, redis_url=idle_tcp.url))
            http = await stack.enter_async_context(
                idle(behind, quick=quick, upstash_redis_url=rest.url, upstash_redis_token=TOKEN)
            )
            peers = await processing(client, server, lines, quick=quick)
            await enqueueing(client, server, lines, quick=quick)
            await costs(lines)
            await pick_up(client, server, lines, peers, quick=quick)
            await programs(client, server, lines, quick=quick)
            await many_waiting(client, lines, quick=quick)
            await fairness(client, lines, quick=quick)
            for name, count in (("idle commands per minute", tcp), ("idle commands per minute, REST", http)):
                sent, seconds = await count()
                lines.append(row(name, max(sent * 60 / seconds, 0.01), "commands/min", "limit", 2, target=1))
    return lines


# --- processing ---


async def worker_process(
    kind: str, server: Server, count: int, *, before: Callable[[], Awaitable[object]] | None = None
) -> dict[str, float]:
    """Run a contender's worker until it has run so many jobs; what it tells."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BACKEND), str(WORKERS.parent)]),
        "RAPTORFLOW_ENV": "test",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKERS), kind, server.url, str(count), stdout=-1, stderr=-3, env=environment
    )
    try:
        if before is not None:
            await asyncio.sleep(1.5)
            await before()
        async with asyncio.timeout(120):
            assert process.stdout is not None
            line = await process.stdout.readline()
        told: dict[str, float] = json.loads(line)
        return told
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def fill(client: Client, kind: str, server: Server, count: int) -> None:
    """So many jobs of a contender, waiting."""
    await client.execute("FLUSHALL", "SYNC")
    if kind in {"results", "ours"}:
        await queue_of(client).enqueue_many([our_task(results=kind == "results").call()] * count)
        return
    await asyncio.to_thread(_fill_peer, kind, server.url, count)


def _fill_peer(kind: str, url: str, count: int) -> None:
    send = sender(kind, url)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: send(), range(count)))


def sender(kind: str, url: str) -> Callable[..., object]:
    """What enqueues one job of a peer, blocking."""
    if kind == "dramatiq":
        _, actor = dramatiq_actor(url)
        return lambda *sent: actor.send(*sent)
    if kind == "rq":
        from redis import Redis
        from rq import Queue as RqQueue

        queue = RqQueue("default", connection=Redis.from_url(url))
        return lambda *sent: queue.enqueue(rq_nothing, *sent)
    runner = asyncio.Runner()
    broker, job = taskiq_task(url)
    runner.run(broker.startup())
    from threading import Lock

    turn = Lock()

    def send(*sent: float) -> object:
        with turn:
            return runner.run(job.kiq(*sent))

    return send


async def processing(client: Client, server: Server, lines: list[Row], *, quick: bool) -> list[str]:
    """Jobs a second of each."""
    ours: dict[str, float] = {}
    for kind in ("ours", "results"):
        rates = []
        for _ in range(2 if quick else 3):
            await fill(client, kind, server, 20_000)
            rates.append((await worker_process(kind, server, 20_000))["rate"])
        ours[kind] = max(rates)
    theirs: dict[str, float] = {}
    for kind, count in (("dramatiq", 2_000), ("taskiq-redis", 1_500), ("rq", 40)):
        rates = []
        for _ in range(1 if quick else 3):
            await fill(client, kind, server, count)
            rates.append((await worker_process(kind, server, count))["rate"])
        theirs[kind] = max(rates)
    best = max(theirs, key=lambda kind: theirs[kind])
    for kind, rate in theirs.items():
        target = 8 if kind == best else None
        lines.append(
            row(
                f"processing vs {kind}",
                ours["ours"],
                "jobs/s",
                _named(kind),
                rate,
                target=target,
                higher_is_better=True,
            )
        )
    lines.append(
        row(
            f"processing with results vs {best}",
            ours["results"],
            "jobs/s",
            _named(best),
            theirs[best],
            target=6,
            higher_is_better=True,
        )
    )
    return list(theirs)


# --- enqueue ---


async def enqueueing(client: Client, server: Server, lines: list[Row], *, quick: bool) -> None:
    """Jobs taken in a second: 100 callers at once, and in bulk."""
    each = 50 if quick else 200
    task = our_task(results=True)
    queue = queue_of(client)
    rates, bulk = [], []
    for _ in range(3):
        await client.execute("FLUSHALL", "SYNC")
        rates.append(await rate(lambda: queue.enqueue(task), each))
        calls: list[Call[Any]] = [task.call() for _ in range(20_000)]
        began = time.perf_counter()
        await queue.enqueue_many(calls)
        bulk.append(20_000 / (time.perf_counter() - began))
    theirs = {}
    await client.execute("FLUSHALL", "SYNC")
    broker, job = taskiq_task(server.url)
    await broker.startup()
    theirs["taskiq-redis"] = await rate(job.kiq, each // 5)
    await broker.shutdown()
    for kind in ("dramatiq", "rq"):
        send = sender(kind, server.url)
        with ThreadPoolExecutor(CALLERS) as pool:
            began = time.perf_counter()
            await asyncio.to_thread(
                lambda send=send, pool=pool: list(pool.map(lambda _: send(), range(CALLERS * each // 5)))
            )
            theirs[kind] = CALLERS * each // 5 / (time.perf_counter() - began)
    best = max(theirs, key=lambda kind: theirs[kind])
    for kind, their_rate in theirs.items():
        target = 8 if kind == best else None
        lines.append(
            row(
                f"enqueue concurrent vs {kind}",
                max(rates),
                "jobs/s",
                _named(kind),
                their_rate,
                target=target,
                higher_is_better=True,
            )
        )
    lines.append(row("enqueue bulk", max(bulk), "jobs/s", "limit", 30_000, target=1, higher_is_better=True))


async def rate(operation: Callable[[], Awaitable[object]], each: int) -> float:
    """Operations a second of 100 callers."""

    async def caller() -> None:
        for _ in range(each):
            await operation()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return CALLERS * each / (time.perf_counter() - began)


# --- peers that are programs of their own ---


async def programs(client: Client, server: Server, lines: list[Row], *, quick: bool) -> None:
    """Rows of arq, saq, celery, streaq and BullMQ, against our figures in the rows above; who is absent says so."""
    ours = {line.what.split(" vs ")[0]: line.ours for line in lines}
    count = 100 if quick else 500
    for peer, jobs in COUNTS.items():
        command = await asyncio.to_thread(find, peer)
        if command is None:
            continue
        try:
            await client.execute("FLUSHALL", "SYNC")
            sent = await program(command, peer, server, "send", jobs)
            done = await program(command, peer, server, "work", jobs)
            await client.execute("FLUSHALL", "SYNC")
            working = asyncio.create_task(program(command, peer, server, "work", count))
            await asyncio.sleep(2)
            await program(command, peer, server, "pace", count)
            late = await working
        except (TimeoutError, ValueError) as error:
            print(f"{peer} is left out: {error!r}", file=sys.stderr)
            continue
        shown = named(peer, command)
        for what, theirs, target in (
            ("processing", done["rate"], 2.5 if peer == "bullmq" else 8),
            ("enqueue concurrent", sent["rate"], 8),
        ):
            lines.append(
                row(
                    f"{what} vs {peer}",
                    ours[what],
                    "jobs/s",
                    shown,
                    theirs,
                    target=target,
                    higher_is_better=True,
                )
            )
        lines.extend(
            row(f"pick-up {which} vs {peer}", ours[f"pick-up {which}"], "ms", shown, late[which], target=1)
            for which in ("p50", "p99")
        )


async def program(command: list[str], peer: str, server: Server, how: str, count: int) -> dict[str, float]:
    """What one run of a peer's program tells."""
    process = await asyncio.create_subprocess_exec(
        *command, peer, server.url, how, str(count), stdout=-1, stderr=-3
    )
    try:
        async with asyncio.timeout(40):
            assert process.stdout is not None
            # celery greets first.
            while (line := await process.stdout.readline()) and not line.startswith(b"{"):
                pass
        told: dict[str, float] = json.loads(line)
        return told
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# --- what a job costs ---


async def costs(lines: list[Row]) -> None:
    """Commands and trips of a job from enqueue to result, by the server's count, and bytes while it waits, on a fresh server."""
    count = 20_000
    with valkey_server() as server:
        async with await connect(redis_url=server.url, mock_redis=False, redis_command_timeout=30) as client:
            queue, task = queue_of(client), our_task(results=True)
            await queue.enqueue(task)
            used = await memory(client)
            await client.execute("CONFIG", "RESETSTAT")
            for _ in range(count // CALLERS):
                await asyncio.gather(*(queue.enqueue(task) for _ in range(CALLERS)))
            waiting = (await memory(client) - used) / count
            trips = client.stats.trips
            await Worker(client, [task]).drain()
            trips = client.stats.trips - trips
            lines.append(row("trips per job", trips / count, "trips", "limit", 0.05, target=1))
            lines.append(
                row("commands per job", await calls(client) / count, "commands", "limit", 5, target=1)
            )
            lines.append(row("bytes per waiting job", waiting, "bytes", "limit", 260, target=1))


async def memory(client: Client) -> int:
    return int(re.search(rb"used_memory:(\d+)", await client.execute("INFO", "memory")).group(1))  # type: ignore[union-attr, arg-type]


async def calls(client: Client, *without: bytes) -> int:
    """Commands since the statistics were reset, those inside scripts included, without the asking itself."""
    told = re.findall(rb"cmdstat_([^:]+):calls=(\d+)", await client.execute("INFO", "commandstats"))  # type: ignore[arg-type]
    return sum(int(number) for name, number in told if name not in {b"info", b"config|resetstat", *without})


# --- pick-up ---


async def pick_up(client: Client, server: Server, lines: list[Row], peers: list[str], *, quick: bool) -> None:
    """Milliseconds from enqueue to begin at 50 jobs a second."""
    count = 100 if quick else 500

    async def ours() -> None:
        task, queue = our_task(results=True), queue_of(client)
        for _ in range(count):
            await queue.enqueue(task, time.monotonic())
            await asyncio.sleep(0.02)

    await client.execute("FLUSHALL", "SYNC")
    mine = await worker_process("results", server, count, before=ours)
    # rq forks for each job, which takes longer than 20 ms.
    for kind in [kind for kind in peers if kind != "rq"]:
        await client.execute("FLUSHALL", "SYNC")

        async def theirs(kind: str = kind) -> None:
            send = sender(kind, server.url) if kind != "taskiq-redis" else None
            broker, job = taskiq_task(server.url)
            await broker.startup()
            for _ in range(count):
                if send is None:
                    await job.kiq(time.monotonic())
                else:
                    await asyncio.to_thread(send, time.monotonic())
                await asyncio.sleep(0.02)
            await broker.shutdown()

        told = await worker_process(kind, server, count, before=theirs)
        lines += [
            row(f"pick-up {which} vs {kind}", mine[which], "ms", _named(kind), told[which], target=1)
            for which in ("p50", "p99")
        ]


# --- many ---


async def many_waiting(client: Client, lines: list[Row], *, quick: bool) -> None:
    """A turn's time with a million jobs of ten thousand workspaces, against a thousand jobs."""
    times = {}
    for workspaces, each in ((10, 100), (1_000, 100) if quick else (10_000, 100)):
        await client.execute("FLUSHALL", "SYNC")
        task = our_task(results=False)
        handed = [task.call()] * each
        for begin in range(0, workspaces, 100):
            await asyncio.gather(
                *(
                    client.workspace(f"w{n}").queue.enqueue_many(handed)
                    for n in range(begin, min(begin + 100, workspaces))
                )
            )
        shard = client.service(QueueEngine).shard("default", "w0")
        taken = []
        for _ in range(20):
            began = time.perf_counter()
            await shard.turn("bench", lease=15_000, free=10, flags="")
            taken.append(time.perf_counter() - began)
        times[workspaces] = min(taken) * 1e3
    few, many = times.values()
    name = "turn with 100,000 jobs waiting" if quick else "turn with 1,000,000 jobs waiting"
    lines.append(row(name, many, "ms", "twice that with 1,000", 2 * few, target=1))
    await client.execute("FLUSHALL", "SYNC")


# --- idle ---


@asynccontextmanager
async def idle(server: Server, *, quick: bool, **settings: Any) -> Any:
    """A worker with nothing to do; how to ask what it has cost.

    Counted from when it has given its lease back, which it does once, two minutes after its last job, and for four minutes: it looks
    around every two.
    """
    async with (
        await connect(mock_redis=False, **settings) as client,
        await connect(redis_url=server.url, mock_redis=False) as observer,
    ):
        worker = Worker(client, [our_task(results=True)])
        running = asyncio.create_task(worker.run())
        await (await queue_of(client).enqueue(our_task(results=True))).result(10)

        async def settle() -> float:
            await asyncio.sleep(11)
            while not quick and await observer.exists(queue_key("queue-leases", "default")):
                await asyncio.sleep(2)
            await observer.execute("CONFIG", "RESETSTAT")
            return time.monotonic()

        settled = asyncio.create_task(settle())

        async def count() -> tuple[int, float]:
            began = await settled
            await asyncio.sleep(0 if quick else began + 242 - time.monotonic())
            # Over REST the PING is the gateway's own, on its link to the server.
            return await calls(
                observer, *([b"ping"] if client.mode == "upstash" else [])
            ), time.monotonic() - began

        yield count
        worker.stop()
        await running


def queue_of(client: Client) -> Queue:
    return client.workspace("acme").queue


def _named(kind: str) -> str:
    return f"{kind} {version(PEER_PACKAGES[kind])}"
