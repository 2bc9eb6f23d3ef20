"""The worker: runs the jobs of some queues until it is told to stop.

While idle it costs less than two commands a minute and queue, failover and metrics included; it renews one lease, whatever the number of its jobs.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from redis_core.errors import ConfigError
from redis_core.log import get_logger
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.run import Middleware, Runner
from redis_core.queueing.schedule import Schedule
from redis_core.queueing.station import Places, Station
from redis_core.queueing.task import Task, check_queue
from redis_core.queueing.timetable import Timetable

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Worker"]

_MOST_CONCURRENCY: Final = 5000
"""What one turn can acknowledge: a script takes so many values of one reply."""
_HEALTH_EVERY: Final = 5.0
_TO_HAND_BACK: Final = 10.0
"""Seconds that jobs have to end after they were told to."""
_LOG: Final = get_logger("redis_core.queue")


class Worker:
    """Runs jobs in this process.

    ::

        async with await connect() as client:
            await Worker(client, [summarize, research], queues=["agents"], concurrency=100).run()

    Args:
        client: the store.
        tasks: those it knows. Two of one name are an error.
        queues: whose jobs it takes; those of its tasks unless given.
        concurrency: jobs at once, over all queues; 5000 at most.
        lease: seconds after which it is taken for dead when it gives no sign; QUEUE_LEASE unless given.
        grace: seconds that jobs have to finish after `stop`; then they are handed back.
        schedules: jobs that the clock makes.
        middleware: around each run.
        most_deaths: workers that a job may outlive before it is buried.
        health_file: written every 5 s while the store answers, for whoever supervises this process.

    Raises:
        ConfigError: two tasks have one name, or there is no queue.
    """

    def __init__(
        self,
        client: Client,
        tasks: Iterable[Task[..., Any]],
        *,
        queues: Sequence[str] | None = None,
        concurrency: int = 100,
        lease: float | None = None,
        grace: float = 30.0,
        schedules: Sequence[Schedule] = (),
        middleware: Sequence[Middleware] = (),
        most_deaths: int = 3,
        health_file: Path | None = None,
    ) -> None:
        known = list(dict.fromkeys(tasks))
        names = [task.name for task in known]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError("tasks", ", ".join(twice), "give each task a name of its own")
        chosen = [check_queue(name) for name in (queues or sorted({task.queue for task in known}))]
        if not chosen:
            raise ConfigError("queues", None, "a worker needs a task or the name of a queue")
        if not 1 <= concurrency <= _MOST_CONCURRENCY:
            raise ConfigError(
                "concurrency", str(concurrency), f"1 to {_MOST_CONCURRENCY} a process; take more processes"
            )
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        """Unique over all processes and starts."""
        self._engine = client.service(QueueEngine)
        self._places = Places(concurrency)
        self._runner = Runner(client, known, self.name, self._engine.clock, middleware, threads=concurrency)
        self._lease = client.settings.queue_lease if lease is None else lease
        self._grace = grace
        self._health_file = health_file
        self._stop = asyncio.Event()
        self._timetable = Timetable(self._engine, schedules)
        self.stations = [
            Station(
                self._engine,
                shard,
                self._runner,
                self.name,
                self._places,
                lease=self._lease,
                most_deaths=most_deaths,
            )
            for queue in chosen
            for shard in self._engine.shards(queue)
        ]

        client.meter.watch(self, Worker.totals)
        for queue in chosen:
            self._engine.tell_depth(queue)

    def totals(self) -> dict[str, float]:
        """What runs, by the metrics' names."""
        return {"jobs_running": sum(len(each.jobs) for each in self.stations)}

    async def run(self, *, signals: bool = False) -> None:
        """Work until `stop`; then let the jobs finish, hand back what does not, and return.

        Args:
            signals: whether SIGTERM and SIGINT stop it; a second one hands the jobs back at once.
        """
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT) if signals else ()
        for number in numbers:
            loop.add_signal_handler(number, self._signalled)
        queues = [station.shard.name for station in self.stations]
        _LOG.info("worker starts", worker=self.name, queues=queues, concurrency=self._places.most)
        tasks = [
            loop.create_task(self._timetable.run(), name="queue-schedules"),
            loop.create_task(self._tell_health(), name="queue-health"),
        ]
        try:
            await self._work(tasks)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._runner.aclose()
            for number in numbers:
                loop.remove_signal_handler(number)
            _LOG.info("worker stopped", worker=self.name)

    async def _work(self, tasks: list[asyncio.Task[None]]) -> None:
        """Run the stations until one fails or all are told to stop.

        Args:
            tasks: where what is begun here is noted, for who ends it.
        """
        loop = asyncio.get_running_loop()
        working = [loop.create_task(each.run(), name=f"queue-{each.shard.name}") for each in self.stations]
        stopped = loop.create_task(self._stopped(), name="queue-stop")
        tasks += [*working, stopped]
        await asyncio.wait([*working, stopped], return_when=asyncio.FIRST_COMPLETED)
        for station in self.stations:
            station.stop()
        _, late = await asyncio.wait(working, timeout=self._grace)
        if late:
            for station in self.stations:
                station.hand_back()
            # A thread cannot be interrupted, and the store may be away: its lease ends by itself then.
            await asyncio.wait(working, timeout=_TO_HAND_BACK)
        for each in working:
            if each.done():
                each.result()

    async def _stopped(self) -> None:
        await self._stop.wait()

    def stop(self) -> None:
        """Claim nothing more and end when the jobs are over, or the grace period is."""
        self._stop.set()

    async def drain(self) -> None:
        """Run what is ready, and what that makes ready, then return. For tests, and for programs that end."""
        finished = -1
        try:
            # Again: a job of one queue may have made one of another ready.
            while finished != (finished := sum(each.finished for each in self.stations)):
                for station in self.stations:
                    await station.drain()
        finally:
            await self._runner.aclose()

    def healthy(self) -> bool:
        """Whether every queue's store has answered lately, or need not have."""
        now = asyncio.get_running_loop().time()
        # An idle station has not asked; one with jobs must have renewed its lease.
        return all(not each.jobs or now - each.healthy_at < self._lease for each in self.stations)

    def report(self) -> dict[str, object]:
        """What the health file and the probe tell."""
        return {
            "worker": self.name,
            "healthy": self.healthy(),
            "running": sum(len(each.jobs) for each in self.stations),
            "finished": sum(each.finished for each in self.stations),
            "free": self._places.free,
            "stopping": self._stop.is_set(),
        }

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._grace = 0.0
            for station in self.stations:
                station.hand_back()
        self._stop.set()

    async def _tell_health(self) -> None:
        if self._health_file is None:
            return
        path = self._health_file
        try:
            while True:
                if self.healthy():
                    fresh = path.with_suffix(path.suffix + ".new")
                    fresh.write_bytes(msgspec.json.encode(self.report()))
                    fresh.replace(path)
                await asyncio.sleep(_HEALTH_EVERY)
        finally:
            with suppress(OSError):
                path.unlink()
