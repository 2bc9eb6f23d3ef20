"""The one clock: wall time for what is written down, monotonic time for what is waited for.

Everything that asks the time takes a `Clock`, so that a test can move it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Seconds since the Unix epoch: for what is stored and compared between processes."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back: for deadlines within this process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds of this clock."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of `time.monotonic`, which is also the event loop's clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait in the running event loop."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
