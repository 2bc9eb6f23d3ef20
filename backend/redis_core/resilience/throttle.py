"""Adaptive throttling: a store that is overloaded is asked less, in proportion to what it refuses, and never not at all.

Client-side throttling of Google's SRE book, chapter "Handling Overload": a call is refused here with the probability
`(requests - K * accepts) / (requests + 1)` over the last two minutes. It costs nothing while nothing was refused.
"""

from __future__ import annotations

import random
from typing import Final

__all__ = ["Throttle"]


class Throttle:
    """Requests and accepts of two minutes, in buckets of ten seconds.

    Args:
        draw: the random numbers, from 0 to 1.
    """

    K: Final = 2.0
    """How many times what is accepted may be asked for; 2 lets the store see that there is more to come."""
    WINDOW: Final = 120.0
    _BUCKET: Final = 10.0
    _BEFORE: Final = 10.0

    def __init__(self, draw: random.Random | None = None) -> None:
        self._random = draw or random.Random()  # noqa: S311 - no secret
        self._buckets: dict[int, list[float]] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing was refused lately, so that nothing needs counting."""
        return not self._buckets

    def admit(self, now: float) -> bool:
        """Count a request; whether it should be sent.

        Args:
            now: monotonic seconds.
        """
        oldest = int((now - self.WINDOW) // self._BUCKET)
        for bucket in [one for one in self._buckets if one <= oldest]:
            del self._buckets[bucket]
        if not self._buckets:
            return True
        requests = sum(bucket[0] for bucket in self._buckets.values())
        accepts = sum(bucket[1] for bucket in self._buckets.values())
        refused = max(0.0, (requests - self.K * accepts) / (requests + 1))
        self._bucket(now)[0] += 1
        return self._random.random() >= refused

    def accepted(self, now: float) -> None:
        """A request that was sent was not refused."""
        if self._buckets:
            self._bucket(now)[1] += 1

    def refused(self, now: float) -> None:
        """The store said that it is overloaded."""
        if not self._buckets:
            # What went before was not counted, and was accepted: one refusal alone shall throttle nothing.
            self._bucket(now)[:] = [self._BEFORE + 1, self._BEFORE]
        else:
            self._bucket(now)

    def _bucket(self, now: float) -> list[float]:
        return self._buckets.setdefault(int(now // self._BUCKET), [0.0, 0.0])
