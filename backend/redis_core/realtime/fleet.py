"""What the process tells about itself, to streams of this process: no command, no history, and it goes on while the store is away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.measuring.recorder import FLUSH_EVERY
from redis_core.realtime.history import Position, Restart, Start, Update

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.resilience.outage import Change

__all__ = ["FLEET", "FleetFeed", "FleetSeat"]

FLEET: Final = "_fleet"
"""Stands where a tenant's id does, and can be none."""


class FleetSeat:
    """One subscriber's place."""

    def __init__(self, feed: FleetFeed, sink: Callable[[Update | Restart], None], offset: int) -> None:
        self._feed = feed
        self.sink = sink
        self.offset = offset

    def leave(self) -> None:
        """Hear no more. Idempotent."""
        self._feed.remove(self)


class FleetFeed:
    """A topic that only this process has: `figures` each time there may be new ones, `outage` when one begins or ends.

    Reached as `client.service(FleetFeed)`. It runs while somebody listens.

    Args:
        client: whose outages are told.
        clock: tells when figures are due.
    """

    def __init__(self, client: Client, clock: Clock = SYSTEM_CLOCK) -> None:
        self._outage = client.outage
        self._clock = clock
        self._epoch = secrets.token_hex(8)
        self._offset = 0
        self._seats: list[FleetSeat] = []
        self._ticking: asyncio.Task[None] | None = None
        self._stop_watching: Callable[[], None] | None = None

    async def join(
        self, sink: Callable[[Update | Restart], None], after: Position | None
    ) -> tuple[Start, FleetSeat]:
        """Subscribe. What was missed is gone: these events say that there is something to read anew. Budget: nothing.

        Args:
            sink: called with each event; must not block.
            after: the position the subscriber has.
        """
        seat = FleetSeat(self, sink, self._offset)
        self._seats.append(seat)
        if self._ticking is None:
            self._stop_watching = self._outage.watch(self._outage_changed)
            self._ticking = asyncio.get_running_loop().create_task(self._tick(), name="fleet-feed")
        recovered = after is None or after == Position(self._epoch, self._offset)
        return Start(self._epoch, self._offset, recovered, [], self._offset), seat

    def remove(self, seat: FleetSeat) -> None:
        """Forget a subscriber."""
        if seat in self._seats:
            self._seats.remove(seat)
        if not self._seats:
            self._rest()

    async def aclose(self) -> None:
        """Tell nobody any more. Idempotent."""
        self._seats.clear()
        if (ticking := self._rest()) is not None:
            await asyncio.wait([ticking])

    def _rest(self) -> asyncio.Task[None] | None:
        ticking, self._ticking = self._ticking, None
        stop, self._stop_watching = self._stop_watching, None
        if stop is not None:
            stop()
        if ticking is not None:
            ticking.cancel()
        return ticking

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_EVERY)
            self._publish({"type": "figures"})

    def _outage_changed(self, change: Change) -> None:
        self._publish({"type": "outage", "state": change.after.value})

    def _publish(self, event: dict[str, str]) -> None:
        self._offset += 1
        update = Update(self._offset, "msg", msgspec.Raw(msgspec.json.encode(event)))
        for seat in list(self._seats):
            seat.offset = self._offset
            seat.sink(update)
