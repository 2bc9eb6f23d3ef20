"""Whether the store that is back is the store that went: which data it has.

`sys:epoch` is written once, when it is missing, and lives as long as the data. Each process has a mark of its own besides, a number
that only grows, written with each probe. An epoch that is missing or another one says that the data is gone; a mark that is
missing or older than the last one that was confirmed says that the store went back in time (an old snapshot, a replica that was behind).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["EPOCH_KEY", "MARK_SECONDS", "Epoch", "Seen"]

EPOCH_KEY: Final = "sys:epoch"
MARK_SECONDS: Final = 86_400
"""Seconds a process' mark lives after the last look."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look into the store found, before anything was written."""

    epoch: bytes | None
    mark: int | None
    """This process' mark."""


class Epoch:
    """What is known of the store's data."""

    def __init__(self) -> None:
        self.known: bytes | None = None
        self._mark = 0
        self._marked = 0.0

    def next_mark(self) -> int:
        """The number to write with the next look."""
        return self._mark + 1

    def lost(self, seen: Seen, now: float) -> bool:
        """Whether data is gone that was there at the last look; False at the first look, which has nothing to compare.

        Args:
            seen: what was found.
            now: monotonic seconds; a mark that has expired proves nothing.
        """
        if self.known is None:
            return False
        if seen.epoch != self.known:
            return True
        return now - self._marked < MARK_SECONDS and (seen.mark is None or seen.mark < self._mark)

    def confirmed(self, epoch: bytes, mark: int, now: float) -> None:
        """Both were written and read back."""
        self.known = epoch
        self._mark = mark
        self._marked = now
