"""When failures are an outage: three in a row, or half of the calls of ten seconds.

Pure, and made so that a success costs its caller one addition: successes are a running total that the breaker is shown when something
fails.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Breaker"]


class Breaker:
    """Counts failures against the total of what was answered."""

    IN_A_ROW: Final = 3
    """Failures with no answer in between. Few, because each costs a caller; a probe is sent after the first to find out sooner."""
    WINDOW: Final = 10.0
    """Seconds looked back on for the rate."""
    SHARE: Final = 0.5
    LEAST: Final = 10
    """Calls below which a share says nothing."""

    def __init__(self) -> None:
        self._row = 0
        self._answered = 0
        self._failures: deque[tuple[float, int]] = deque()
        """When each failure of the window was, and how many answers there had been before it."""

    @property
    def in_a_row(self) -> int:
        """Failures since the last answer, as far as failures tell."""
        return self._row

    def failed(self, now: float, answered: int, weight: int = 1) -> bool:
        """Count a failure; whether that makes it an outage.

        Args:
            now: monotonic seconds.
            answered: how many calls have ever been answered.
            weight: failures it counts as, of those in a row.
        """
        self._row = weight if answered != self._answered else self._row + weight
        self._answered = answered
        self._failures.append((now, answered))
        while self._failures[0][0] < now - self.WINDOW:
            self._failures.popleft()
        if self._row >= self.IN_A_ROW:
            return True
        failures = len(self._failures)
        calls = failures + answered - self._failures[0][1]
        return calls >= self.LEAST and failures >= self.SHARE * calls

    def reset(self) -> None:
        """Begin again: the store has proved itself."""
        self._row = 0
        self._failures.clear()
