"""The gate before the store: while it is busy workspaces take turns, and one that is past its rate waits.

An open gate costs a call one comparison. It closes while more than `BUSY` commands wait for an answer, or a workspace has used its
rate up. Then each workspace's calls queue behind its own, and the queues are served in turn (round robin, as in fair queueing after
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
_BURST: Final = 1.0
"""Seconds' worth of its rate that a workspace may use at once."""

_Waiting = tuple[asyncio.Future[None], int]


class FairShare:
    """One a client.

    Args:
        stats: the transport's; what is in flight.
        clock: refills the rates.
    """

    __slots__ = ("_clock", "_debts", "_lanes", "_looking", "_stats", "_waiting", "limited", "rate_of")

    def __init__(self, stats: TransportStats, clock: Clock = SYSTEM_CLOCK) -> None:
        self.limited = False
        """Whether a workspace is past its rate just now."""
        self.rate_of: Callable[[str], float | None] | None = None
        """Commands a second that a workspace may send; None where nobody has a limit."""
        self._stats = stats
        self._clock = clock
        self._lanes: dict[str, deque[_Waiting]] = {}
        self._waiting = 0
        self._debts: dict[str, tuple[float, float]] = {}
        self._looking: asyncio.TimerHandle | None = None

    # --- rates ---

    def charge(self, workspace: str, commands: int) -> None:
        """Count what a workspace has sent; of a busy process an estimate, as the meter's. Budget: nothing."""
        rate = None if self.rate_of is None else self.rate_of(workspace)
        if rate is None:
            return
        left = self._left(workspace, rate) - commands
        self._debts[workspace] = left, self._clock.monotonic()
        self.limited = self.limited or left < 0

    def _left(self, workspace: str, rate: float) -> float:
        left, at = self._debts.get(workspace, (rate * _BURST, 0.0))
        return min(rate * _BURST, left + (self._clock.monotonic() - at) * rate)

    def _wait_of(self, workspace: str) -> tuple[float, float]:
        """Seconds until a workspace is within its rate again, and the rate."""
        rate = None if self.rate_of is None else self.rate_of(workspace)
        if rate is None or workspace not in self._debts:
            return 0.0, 0.0
        return max(0.0, -self._left(workspace, rate) / rate), rate

    def _forgive(self) -> None:
        """Open the gate when nobody is past its rate any more."""
        rate_of = self.rate_of
        for workspace in list(self._debts):
            rate = None if rate_of is None else rate_of(workspace)
            if rate is None or self._left(workspace, rate) >= rate * _BURST:
                del self._debts[workspace]
        self.limited = any(self._wait_of(workspace)[0] > 0 for workspace in self._debts)

    # --- turns ---

    async def enter(self, batch: Sequence[Command], timeout: float | None) -> None:
        """Wait for a turn. What is of no workspace has none to wait for.

        Args:
            batch: what is to be sent; its first key tells whose it is.
            timeout: seconds it may take; None for 5.

        Raises:
            QuotaExceeded: the workspace is past its rate for longer than that.
            DeadlineExceeded: its turn did not come; nothing was sent.
            StoreOverloaded: too many wait already; nothing was sent.
        """
        workspace = attribute(batch[0]).workspace if batch else ""
        if not workspace:
            return
        patience = _PATIENCE if timeout is None else timeout
        if self.limited:
            wait, rate = self._wait_of(workspace)
            if wait > patience:
                raise QuotaExceeded(workspace, "commands a second", rate, retry_after=wait)
            if wait > 0:
                await self._clock.sleep(wait)
            self._forgive()
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
