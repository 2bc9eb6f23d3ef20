"""How long to leave a store alone after it could not be reached."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["Backoff"]


class Backoff:
    """Delays between attempts to connect: none after the first failure, then doubling with full jitter to one second."""

    __slots__ = ("_failures", "_random")

    BASE: Final = 0.05
    MAX: Final = 1.0

    def __init__(self) -> None:
        self._failures = 0
        self._random = random.Random()  # noqa: S311 - jitter is no secret

    def succeeded(self) -> None:
        """A connection stands: the next failure is the first again."""
        self._failures = 0

    def failed(self) -> float:
        """Seconds until the next attempt makes sense."""
        self._failures += 1
        if self._failures == 1:
            return 0.0
        doubled: float = self.BASE * 2 ** min(self._failures - 2, 10)
        return self._random.uniform(0.5, 1) * min(self.MAX, doubled)
