"""One subscriber of a topic: what it has, and what came while it read where it starts."""

from __future__ import annotations

from collections.abc import Callable

from redis_core.realtime.history import Restart, Start, Update, rest_of

__all__ = ["Seat", "Sink"]

Sink = Callable[[Update | Restart], None]


class Seat:
    """One subscriber's place in a feed."""

    __slots__ = ("_leave", "offset", "pending", "sink")

    def __init__(self, leave: Callable[[Seat], None], sink: Sink) -> None:
        self._leave = leave
        self.sink = sink
        self.offset = 0
        """Of the last update that it has."""
        self.pending: list[tuple[int, Update] | Restart] | None = []
        """What came while the start was read; None afterwards."""

    def put(self, before: int, update: Update) -> None:
        """Hand over an update that follows on a position, or what of it the subscriber has not."""
        if self.pending is not None:
            self.pending.append((before, update))
        elif update.offset > self.offset:
            begin, self.offset = self.offset, update.offset
            self.sink(update if before >= begin else rest_of(update, begin))

    def restart(self) -> None:
        """Have the subscriber join again."""
        if self.pending is not None:
            self.pending.append(Restart())
        else:
            self.sink(Restart())

    def begin(self, start: Start, reached: int) -> bool:
        """Add to a start what came while it was read; False if something between the two was lost.

        Args:
            start: as it was read.
            reached: where the feed is.
        """
        at, came = start.reached, list[Update]()
        for item in self.pending or ():
            if isinstance(item, Restart):
                return False
            before, update = item
            if update.offset <= at:
                continue
            if before > at:
                return False
            came.append(update if before == at else rest_of(update, at))
            at = update.offset
        if at < reached:
            return False
        start.updates += came
        self.offset, self.pending = at, None
        return True

    def leave(self) -> None:
        """Hear no more. Idempotent."""
        self._leave(self)
