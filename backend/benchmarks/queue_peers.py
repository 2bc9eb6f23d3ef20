"""Peers of `queue.py` that run as programs of their own: arq, saq, celery, streaq, and BullMQ on node.

python queue_peers.py PEER URL send|pace|work COUNT     `queue_bullmq.mjs` takes the same words

`send` enqueues so many jobs from 100 callers, `pace` 50 a second, `work` runs a worker until they are done; each prints a line of JSON.
What is not installed here, because its versions exclude ours, is put into an environment of its own, `.run/bench/PEER`, at first use.
This file imports nothing of ours, for it runs there as well.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["COUNTS", "find", "named"]

HERE = Path(__file__).resolve().parent
APART = HERE.parent.parent / ".run" / "bench"
COUNTS = {"arq": 1_500, "saq": 1_500, "celery": 600, "streaq": 600, "bullmq": 8_000}
"""Jobs that each is given: some seconds of work."""
VERSIONS = {
    "arq": "arq>=0.26,<1",
    "streaq": "streaq>=6,<8",
    "saq": "saq[redis]>=0.26,<1 typing_extensions",
    "celery": "celery[redis]>=5.5,<6",
}
CALLERS = 100
INSTALL_WITHIN = 180


# --- where they are ---


def find(peer: str) -> list[str] | None:
    """The command that runs a peer, None where it is absent, after a line that says so."""
    if peer == "bullmq":
        return _find_bullmq()
    if peer == "celery" and importlib.util.find_spec(peer) is not None:
        return [sys.executable, str(HERE / "queue_peers.py")]
    python = APART / peer / "bin" / "python"
    if not python.exists():
        create = [sys.executable, "-m", "venv", str(python.parent.parent)]
        install = [str(python), "-m", "pip", "install", "-qq", *VERSIONS[peer].split()]
        if not _install(peer, APART / peer, create, install):
            return None
    return [str(python), str(HERE / "queue_peers.py")]


def _find_bullmq() -> list[str] | None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        print("bullmq is left out: there is no npm", file=sys.stderr)
        return None
    folder = APART / "bullmq"
    if not (folder / "node_modules" / "bullmq").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        if not _install(
            "bullmq", folder, [npm, "install", "--silent", "--prefix", str(folder), "bullmq@6", "ioredis@5"]
        ):
            return None
    # Imports are looked up from where the program stands.
    program = folder / "queue_bullmq.mjs"
    shutil.copyfile(HERE / "queue_bullmq.mjs", program)
    return [node, str(program)]


def _install(peer: str, folder: Path, *commands: list[str]) -> bool:
    for command in commands:
        try:
            subprocess.run(command, check=True, timeout=INSTALL_WITHIN, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{peer} is left out: {error}", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            return False
    return True


def named(peer: str, command: list[str]) -> str:
    """A peer with its version."""
    if peer == "bullmq":
        told = json.loads((Path(command[1]).parent / "node_modules" / "bullmq" / "package.json").read_text())
        return f"bullmq {told['version']} on node"
    if command[0] == sys.executable:
        return f"{peer} {version(peer)}"
    code = f"import importlib.metadata as m; print(m.version({peer!r}))"
    return f"{peer} {subprocess.run([command[0], '-c', code], check=True, capture_output=True, text=True).stdout.strip()}"


# --- the jobs that were run ---


class Tally:
    """When each began, and how late that was."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.times: list[float] = []
        self.late: list[float] = []
        self._lock = threading.Lock()

    def note(self, sent: float) -> None:
        now = time.monotonic()
        with self._lock:
            self.times.append(now)
            if sent:
                self.late.append((now - sent) * 1e3)
            if len(self.times) == self.wanted:
                rate = (self.wanted - 1) / max(self.times[-1] - self.times[0], 1e-9)
                late = sorted(self.late) or [0.0]
                told = {"rate": rate, "p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)]}
                print(json.dumps(told), flush=True)
                threading.Timer(0.3, lambda: os._exit(0)).start()


# --- each of them ---

Send = Callable[[float], Awaitable[object]]


class Arq:
    def __init__(self, url: str, tally: Tally) -> None:
        from arq.connections import RedisSettings

        self.settings = RedisSettings.from_dsn(url)
        self.tally = tally

    async def open(self, stack: AsyncExitStack) -> Send:
        from arq import create_pool

        pool = await create_pool(self.settings)
        stack.push_async_callback(pool.aclose)
        return lambda sent: pool.enqueue_job("nothing", sent)

    async def work(self) -> None:
        from arq.worker import Worker, func

        async def nothing(_context: dict[str, Any], sent: float = 0.0) -> None:
            self.tally.note(sent)

        await Worker([func(nothing, name="nothing")], redis_settings=self.settings, max_jobs=CALLERS).main()


class Saq:
    def __init__(self, url: str, tally: Tally) -> None:
        from saq import Queue

        self.queue = Queue.from_url(url)
        self.tally = tally

    async def open(self, stack: AsyncExitStack) -> Send:
        await self.queue.connect()
        stack.push_async_callback(self.queue.disconnect)
        return lambda sent: self.queue.enqueue("nothing", sent=sent)

    async def work(self) -> None:
        from saq import Worker

        async def nothing(_context: Any, *, sent: float = 0.0) -> None:
            self.tally.note(sent)

        await Worker(self.queue, functions=[("nothing", nothing)], concurrency=CALLERS).start()


class Celery:
    def __init__(self, url: str, tally: Tally) -> None:
        from celery import Celery as App

        self.app = App("bench", broker=url)
        self.app.conf.task_ignore_result = True

        @self.app.task(name="nothing")
        def nothing(sent: float = 0.0) -> None:
            tally.note(sent)

        self.task = nothing
        self.pool = ThreadPoolExecutor(16)

    async def open(self, stack: AsyncExitStack) -> Send:
        stack.callback(self.pool.shutdown)
        loop = asyncio.get_running_loop()
        return lambda sent: loop.run_in_executor(self.pool, self.task.delay, sent)

    async def work(self) -> None:
        words = ["worker", "--pool=threads", "--concurrency=8", "--loglevel=ERROR"]
        await asyncio.to_thread(self.app.worker_main, words)


class Streaq:
    def __init__(self, url: str, tally: Tally) -> None:
        from streaq import Worker

        self.worker = Worker(redis_url=url, concurrency=CALLERS)

        @self.worker.task
        async def nothing(sent: float = 0.0) -> None:
            tally.note(sent)

        self.task = nothing

    async def open(self, stack: AsyncExitStack) -> Send:
        await stack.enter_async_context(self.worker)

        async def send(sent: float) -> None:
            await self.task.enqueue(sent)

        return send

    async def work(self) -> None:
        await self.worker.run_async()


PEERS = {"arq": Arq, "saq": Saq, "celery": Celery, "streaq": Streaq}


async def send(open_: Callable[[AsyncExitStack], Awaitable[Send]], how: str, count: int) -> None:
    """Enqueue so many jobs; how many a second."""
    async with AsyncExitStack() as stack:
        one = await open_(stack)
        began = time.perf_counter()
        if how == "pace":
            for _ in range(count):
                await one(time.monotonic())
                await asyncio.sleep(0.02)
        else:

            async def caller() -> None:
                for _ in range(count // CALLERS):
                    await one(0.0)

            await asyncio.gather(*(caller() for _ in range(CALLERS)))
        print(json.dumps({"rate": count / (time.perf_counter() - began)}), flush=True)


def main() -> None:
    peer, url, how, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    contender = PEERS[peer](url, Tally(count))
    asyncio.run(contender.work() if how == "work" else send(contender.open, how, count))


if __name__ == "__main__":
    # Not the folder's `queue.py`, but the standard library's.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    main()
