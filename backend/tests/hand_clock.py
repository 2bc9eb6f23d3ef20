"""A clock that a test moves by hand."""

from __future__ import annotations

__all__ = ["HandClock"]


class HandClock:
    """Stands still until it is moved; who sleeps moves it. For what waits side by side, `redis_core.testing.FakeClock`.

    Args:
        time: seconds, of the wall and monotonic alike, at the beginning.
    """

    def __init__(self, time: float = 1_800_000_000.0) -> None:
        self.time = time

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
