"""A clock that stands still until a test moves it; a `redis_core.clock.Clock`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Final

__all__ = ["FakeClock"]

_TURNS: Final = 50
"""Turns of the event loop that tasks are given after each step of time: enough for what does not wait for anything else."""


class FakeClock:
    """Time that a test moves.

    ::

        clock = FakeClock()
        sleeper = asyncio.create_task(clock.sleep(60))
        await clock.elapse(60)          # the task has gone on
        clock.set_back(3600)            # wall time alone: an administrator's correction

    Args:
        now: wall time at the beginning, in seconds since the Unix epoch.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._wall = now
        self._monotonic = 1_000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """Wall time, in seconds since the Unix epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until the test has moved time this far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        awake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._numbers), awake))
        await awake

    @property
    def sleepers(self) -> int:
        """Tasks that wait for time to pass."""
        return sum(not awake.done() for _, _, awake in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move time at once; who slept until then goes on at the next turn of the loop."""
        self._wall += seconds
        self._monotonic += seconds
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            _, _, awake = heapq.heappop(self._sleepers)
            if not awake.done():
                awake.set_result(None)

    async def elapse(self, seconds: float) -> None:
        """Let time pass: it stops at each moment somebody sleeps until, and lets tasks do what they do then."""
        end = self._monotonic + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.advance(max(0.0, self._sleepers[0][0] - self._monotonic))
            await self.settle()
        self.advance(end - self._monotonic)
        await self.settle()

    async def settle(self) -> None:
        """Let tasks run until they wait for time, or for something outside this process."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def set_back(self, seconds: float) -> None:
        """Put the wall clock back (negative: forward) without time passing, as a correction of the machine's clock does."""
        self._wall -= seconds
