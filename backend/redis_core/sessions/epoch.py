"""What a process remembers of the revocation epochs, so that most reads need not ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["MAX_ENTRIES", "EpochCache"]

MAX_ENTRIES: Final = 20_000


class EpochCache:
    """Epochs by key, each for a limited time. Bounded: the one learned longest ago makes room.

    Args:
        seconds: how long an epoch is remembered.
    """

    __slots__ = ("_known", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[str, tuple[int, float]] = {}

    def get(self, key: str, now: float) -> int | None:
        """The epoch, or None if it must be asked for. `now` is monotonic seconds."""
        known = self._known.get(key)
        return known[0] if known is not None and now < known[1] else None

    def last(self, key: str) -> int:
        """The last that was heard of an epoch, however long ago; 0 if nothing."""
        known = self._known.get(key)
        return 0 if known is None else known[0]

    def learn(self, key: str, epoch: int, now: float) -> bool:
        """An epoch was read or begun; whether that is news. Epochs only grow, so a late reply of an older one is none."""
        known = self._known.pop(key, None)
        fresh = known is not None and now < known[1]
        if fresh and known is not None and known[0] > epoch:
            self._known[key] = known
            return False
        if known is None and len(self._known) >= MAX_ENTRIES:
            del self._known[next(iter(self._known))]
        self._known[key] = (epoch, now + self._seconds)
        return known is not None and known[0] != epoch

    def until(self, keys: Sequence[str]) -> float:
        """Until when all of these are known, in monotonic seconds."""
        return min(self._known[key][1] if key in self._known else 0.0 for key in keys)
