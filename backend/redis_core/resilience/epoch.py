"""Whether the store that is back is the store that went: which data it has.

`sys:epoch` is written once, when it is missing, and lives as long as the data. Each process has a mark of its own besides, a number
that only grows, written with each probe. An epoch that is missing or another one says that the data is gone; a mark that is
missing or older than the last one that was confirmed says that the store went back in time (an old snapshot, a replica that was behind).

Who finds that it went back raises the epoch: `<seconds>-<random>` becomes `<later seconds>-<random>-<generation>`. The seconds are the
first part of a lock's fencing token, so tokens only grow. The generation tells copies made since from older ones, which may be what
was invalidated already; it is empty in a store that never went back.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

__all__ = [
    "EPOCH_KEY",
    "MARK_SECONDS",
    "Epoch",
    "Seen",
    "epoch_micros",
    "generation_of",
    "later_epoch",
    "new_epoch",
]

EPOCH_KEY: Final = "sys:epoch"
MARK_SECONDS: Final = 86_400
"""Seconds a process' mark lives after the last look."""


_MICRO: Final = 1_000_000


def new_epoch(now: float) -> str:
    """The epoch of a store that has none.

    Args:
        now: seconds since the Unix epoch.
    """
    return f"{now:.6f}-{secrets.token_hex(8)}"


def later_epoch(known: bytes | None, now: float) -> str:
    """The epoch of a store that has lost data: later than the one before, whatever the clocks say.

    Args:
        known: the one before.
        now: seconds since the Unix epoch.
    """
    micros = max(int(now * _MICRO), epoch_micros(known) + 1)
    seconds, rest = divmod(micros, _MICRO)
    return f"{seconds}.{rest:06d}-{secrets.token_hex(8)}-{secrets.token_hex(4)}"


def epoch_micros(epoch: bytes | None) -> int:
    """An epoch's time in microseconds; written as a whole number where somebody raised it by hand. 0 for none."""
    text, dash, _ = (epoch or b"0").decode("utf-8", "replace").partition("-")
    try:
        if not dash:
            return int(text)
        seconds, _, rest = text.partition(".")
        return int(seconds) * _MICRO + int(rest[:6].ljust(6, "0") or 0)
    except ValueError:
        return 0


def generation_of(epoch: bytes | None) -> bytes:
    """What copies of the store's data are to be marked with; empty in a store that never went back."""
    parts = (epoch or b"").split(b"-")
    return parts[2] if len(parts) > 2 else b"" if len(parts) == 2 else parts[0]  # noqa: PLR2004 - raised, first, by hand


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
