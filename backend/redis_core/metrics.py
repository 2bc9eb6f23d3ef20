"""What a fleet of processes measures: counted in each, flushed once per 10 s, read back as a report or over time.

::

    metrics = client.service(Metrics)
    metrics.start()                          # in each process that serves; a library by itself sends nothing
    report = await metrics.together(900)     # all processes within the last 15 minutes

Counting begins with the client and costs under 2 % of its throughput; see `measuring/meter.py`. Flushing begins with `start()`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.log import get_logger
from redis_core.measuring.catalogue import CATALOGUE, Metric
from redis_core.measuring.documents import Series
from redis_core.measuring.recorder import Recorder
from redis_core.measuring.series import plan_of, series_of
from redis_core.measuring.window import HOURS, MINUTES, Archive, Window

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["CATALOGUE", "Metric", "Metrics"]

_LOG = get_logger("redis_core.metrics")


class Metrics:
    """One a client; see `Client.service`.

    Args:
        client: the store, and what counts.
        clock: the time.
    """

    def __init__(self, client: Client, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.recorder = Recorder(client, clock=clock)
        self.archive = Archive(client, clock=clock)
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Flush once per 10 s from now on, if anything happened. Idempotent. Budget: see `Recorder`."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.recorder.run(), name="metrics")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("metrics are flushed no more", error=repr(error))

    async def recent(self, seconds: float) -> Window:
        """What all processes measured lately: by minutes, beyond a day by hours.

        Budget: 1 trip, 1 command an hour that is not remembered, beyond a day 1 a day.

        Args:
            seconds: how far back, at most 30 days.
        """
        now = self._clock.now()
        return await self.archive.window(now - seconds, now, MINUTES if seconds <= MINUTES.kept else HOURS)

    async def days(self, count: int) -> Window:
        """What all processes measured in the last days, by hours. Budget: 1 trip, 1 command a day that is not remembered."""
        now = self._clock.now()
        return await self.archive.window(now - count * 86_400, now, HOURS)

    async def series(self, metric: Metric, begin: float, end: float, step: int) -> Series:
        """A metric over time.

        Args:
            metric: of the catalogue.
            begin: in Unix seconds.
            end: in Unix seconds.
            step: seconds from one time to the next that are wanted; raised to what the buckets allow.

        Budget: 1 trip; 1 command for each hour of the range, or each day if it goes back further than one, that is not remembered.
        """
        scale, step = plan_of(begin, end, step, self._clock.now())
        window = await self.archive.window(begin // step * step, end, scale)
        return series_of(metric, window, begin, end, step)

    async def aclose(self) -> None:
        """End flushing, what is new written first. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.remove_done_callback(self._ended)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.recorder.flush(last=True)
