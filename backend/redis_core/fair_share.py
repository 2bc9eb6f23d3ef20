"""The gate before the store: while it is busy workspaces take turns, and one that is past its rate waits.

An open gate costs a call two comparisons. It closes while more than `BUSY` commands wait for an answer, and for all calls where
workspaces are held to rates. While the store is busy each workspace's calls queue behind its own, and the queues are served in turn (round robin, as in fair queueing after
Nagle, RFC 970): a tenant with ten thousand calls delays another by one call of each who waits, not by ten thousand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import DeadlineExceeded, QuotaExceeded, StoreOverloaded
from redis_core.measuring.attribution import attribute
from redis_core.transport.base import Command, TransportStats

__all__ = ["BUSY", "FairShare"]

BUSY: Final = 1_000
"""Commands without an answer yet, of all workspaces, from which on they take turns: a few milliseconds of a server's time."""
_LOOK_EVERY: Final = 0.001
"""Seconds between two looks whether there is room, while somebody waits."""
_PATIENCE: Final = 5.0
"""Seconds a call waits for its turn at most, unless it has a deadline of its own."""
_MOST_WAITING: Final = 100_000
_MOST_KNOWN: Final = 100_000
"""Workspaces whose rates are counted."""
_BURST: Final = 1.0
"""Seconds' worth of its rate that a workspace may use at once."""

_Waiting = tuple[asyncio.Future[None], int]


class FairShare:
    """One a client.

    Args:
        stats: the transport's; what is in flight.
        clock: refills the rates.
    """

    __slots__ = ("_clock", "_lanes", "_left", "_looking", "_rate_of", "_stats", "_waiting", "limited")

    def __init__(self, stats: TransportStats, clock: Clock = SYSTEM_CLOCK) -> None:
        self.limited = False
        """Whether workspaces are held to rates, so that every call has to enter."""
        self._stats = stats
        self._clock = clock
        self._rate_of: Callable[[str], float | None] = _no_rate
        self._lanes: dict[str, deque[_Waiting]] = {}
        self._waiting = 0
        self._left: dict[str, tuple[float, float]] = {}
        """Commands that a workspace may send at once, below zero those promised to who waits; and when that was so."""
        self._looking: asyncio.TimerHandle | None = None

    # --- rates ---

    def hold_to(self, rate_of: Callable[[str], float | None] | None) -> None:
        """Hold workspaces to rates.

        Args:
            rate_of: commands a second that a workspace may send, or None; None for all holds nobody.
        """
        self.limited = rate_of is not None
        self._rate_of = rate_of or _no_rate
        self._left.clear()

    async def _within_rate(self, workspace: str, commands: int, patience: float) -> None:
        """Take commands of a workspace's rate, and wait until they are there: a token bucket that may be overdrawn by who waits.

        Taken before the wait, so that of many who come at once each waits for its own.
        """
        rate = self._rate_of(workspace)
        if rate is None:
            return
        now = self._clock.monotonic()
        left, at = self._left.get(workspace, (rate * _BURST, now))
        left = min(rate * _BURST, left + (now - at) * rate) - commands
        wait = -left / rate
        if wait > patience:
            raise QuotaExceeded(workspace, "commands a second", rate, retry_after=wait)
        if workspace not in self._left and len(self._left) >= _MOST_KNOWN:
            self._forget(now)
        self._left[workspace] = left, now
        if wait > 0:
            await self._clock.sleep(wait)

    def _forget(self, now: float) -> None:
        """Leave out workspaces whose bucket is full again, or all: a little too much is let through then."""
        full = [name for name, (left, at) in self._left.items() if left >= 0 and now - at >= _BURST]
        for name in full or list(self._left):
            del self._left[name]

    # --- turns ---

    async def enter(self, batch: Sequence[Command], timeout: float | None) -> None:
        """Wait for a turn. What is of no workspace has none to wait for.

        Args:
            batch: what is to be sent; its first key that is a workspace's tells whose it is.
            timeout: seconds it may take; None for 5.

        Raises:
            QuotaExceeded: the workspace is past its rate for longer than that.
            DeadlineExceeded: its turn did not come; nothing was sent.
            StoreOverloaded: too many wait already; nothing was sent.
        """
        workspace = next((whose for command in batch if (whose := attribute(command).workspace)), "")
        if not workspace:
            return
        patience = _PATIENCE if timeout is None else timeout
        if self.limited:
            await self._within_rate(workspace, len(batch), patience)
        if self._stats.in_flight > BUSY or workspace in self._lanes:
            await self._turn(workspace, len(batch), patience)

    async def _turn(self, workspace: str, commands: int, patience: float) -> None:
        if self._waiting >= _MOST_WAITING:
            raise StoreOverloaded(f"{self._waiting} calls wait for their turn at the store already")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._lanes.setdefault(workspace, deque()).append((turn, commands))
        self._waiting += 1
        if self._looking is None:
            self._looking = loop.call_later(_LOOK_EVERY, self._look)
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            raise DeadlineExceeded(
                f"workspace {workspace}: its turn did not come within {patience:g} s; {self._stats.in_flight} commands wait for an answer"
            ) from None

    def _look(self) -> None:
        """Let through what there is room for, one call of each workspace in turn."""
        room = BUSY - self._stats.in_flight
        while room > 0 and self._lanes:
            workspace = next(iter(self._lanes))
            lane = self._lanes.pop(workspace)
            turn, commands = lane.popleft()
            self._waiting -= 1
            if lane:
                # To the end of the line.
                self._lanes[workspace] = lane
            if not turn.done():
                turn.set_result(None)
                room -= commands
        self._looking = (
            asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look) if self._lanes else None
        )


def _no_rate(_workspace: str) -> None:
    """Nobody is held to one."""
