"""The contenders of `queue.py`: how each enqueues, and its worker, which runs as a process of its own.

A worker is told how many jobs will come. Its job notes when it began; when all have, it prints a line of JSON and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue  # noqa: F401 - puts the standard library's in place, see queue.py
import sys
import threading
import time
from typing import Any

__all__ = ["PEERS", "Tally"]


class Tally:
    """The jobs that a worker has run."""

    wanted = 0
    times: list[float] = []  # noqa: RUF012 - one a process
    late: list[float] = []  # noqa: RUF012
    lock = threading.Lock()

    @classmethod
    def note(cls, sent: float) -> None:
        now = time.monotonic()
        with cls.lock:
            cls.times.append(now)
            if sent:
                cls.late.append(now - sent)
            if len(cls.times) == cls.wanted:
                cls.tell()

    @classmethod
    def tell(cls) -> None:
        # The clock of the last job's end would need hooks of each library; its beginning is as fair to all.
        rate = (cls.wanted - 1) / max(cls.times[-1] - cls.times[0], 1e-9)
        late = sorted(cls.late)
        told = {"rate": rate}
        if late:
            told |= {"p50": late[len(late) // 2] * 1e3, "p99": late[int(len(late) * 0.99)] * 1e3}
        print(json.dumps(told), flush=True)
        threading.Timer(0.3, lambda: os._exit(0)).start()


# --- dramatiq ---


def dramatiq_actor(url: str) -> Any:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)

    @dramatiq.actor(broker=broker)
    def nothing(sent: float = 0.0) -> None:
        Tally.note(sent)

    return broker, nothing


def dramatiq_worker(url: str) -> None:
    import dramatiq

    broker, _ = dramatiq_actor(url)
    dramatiq.Worker(broker, worker_threads=8).start()
    threading.Event().wait()


# --- taskiq ---


def taskiq_task(url: str) -> Any:
    from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

    broker = RedisStreamBroker(url).with_result_backend(RedisAsyncResultBackend(url, result_ex_time=3600))

    @broker.task(task_name="nothing")
    async def nothing(sent: float = 0.0) -> None:
        Tally.note(sent)

    return broker, nothing


def taskiq_worker(url: str) -> None:
    from taskiq.api import run_receiver_task

    broker, _ = taskiq_task(url)
    broker.is_worker_process = True
    asyncio.run(run_receiver_task(broker, run_startup=True, max_async_tasks=100))


# --- rq ---


def rq_nothing(sent: float = 0.0) -> None:
    """Runs in a process that rq forks; the count is the store's."""
    from redis import Redis

    client = Redis.from_url(os.environ["RQ_URL"])
    now = time.monotonic()
    client.rpush("times", now)
    if sent:
        client.rpush("late", now - sent)


def rq_worker(url: str) -> None:
    from redis import Redis
    from rq import Queue, Worker

    os.environ["RQ_URL"] = url
    client = Redis.from_url(url)

    def watch() -> None:
        while client.llen("times") < Tally.wanted:
            time.sleep(0.02)
        Tally.times = [float(at) for at in client.lrange("times", 0, -1)]
        Tally.late = [float(at) for at in client.lrange("late", 0, -1)]
        Tally.tell()

    threading.Thread(target=watch, daemon=True).start()
    Worker([Queue("default", connection=client)], connection=client, log_job_description=False).work(
        logging_level="ERROR"
    )


# --- ours ---


def our_worker(url: str, *, results: bool) -> None:
    import uvloop

    from redis_core.client import connect
    from redis_core.worker import Worker

    async def run() -> None:
        client = await connect(redis_url=url, mock_redis=False)
        await Worker(client, [our_task(results=results)]).run()

    uvloop.run(run())


def our_task(*, results: bool) -> Any:
    from redis_core.queue import task

    @task(name="nothing", result_ttl=3600 if results else 0)
    async def nothing(sent: float = 0.0) -> None:
        Tally.note(sent)

    return nothing


PEERS = {"dramatiq": dramatiq_worker, "taskiq-redis": taskiq_worker, "rq": rq_worker}


if __name__ == "__main__":
    kind, server, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # What rq and others import by name must be this module, not a second one.
    sys.modules["queue_workers"] = sys.modules["__main__"]
    Tally.wanted = count
    if kind in PEERS:
        PEERS[kind](server)
    else:
        our_worker(server, results=kind == "results")
