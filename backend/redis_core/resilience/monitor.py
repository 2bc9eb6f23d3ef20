"""The state machine of an outage: events in, decisions out. No task, no socket, no wait; time is an argument.

::

    HEALTHY --a call fails--> SUSPECT --three in a row, or half of ten--> DEGRADED --three probes in a row--> RECOVERING --> HEALTHY
       ^                        | a probe is answered                        ^                                    |
       +------------------------+                                            +------------- it fails again -------+
"""

from __future__ import annotations

import random
from typing import Final

from redis_core.errors import Kind
from redis_core.resilience.breaker import Breaker
from redis_core.resilience.outage import State

__all__ = ["Monitor"]


class Monitor:
    """One store as one process sees it. Times are monotonic seconds.

    Args:
        draw: the random numbers; a test's own for what it can repeat.
    """

    PROBES: Final = 3
    """Answered probes in a row after which the store is back."""
    FIRST_PAUSE: Final = 0.2
    LONGEST_PAUSE: Final = 1.0
    """Seconds between probes, doubled from the first to this, with jitter. Short: a probe that fails costs nothing that is billed, and
    an outage shall be over soon after the store is back."""
    SETTLE: Final = 2.0
    """Seconds that processes spread their return over, so that a store that is back is not run over (FusionCache's barrier)."""

    def __init__(self, draw: random.Random | None = None) -> None:
        self.state = State.HEALTHY
        self.forced = False
        self.since = 0.0
        """When the state was entered."""
        self.began = 0.0
        """When the outage began, the last one if none is."""
        self.outages = 0
        self._breaker = Breaker()
        self._random = draw or random.Random()  # noqa: S311 - jitter is no secret
        self._good = 0
        self._bad = 0

    # --- events ---

    def call_failed(self, now: float, answered: int, *, counts: bool = True) -> None:
        """A call found the store unreachable.

        Args:
            now: the time.
            answered: how many calls have ever been answered.
            counts: False for a deadline of the caller's own, shorter than the store's: a reason to look, no proof.
        """
        if self.state is State.RECOVERING:
            self._enter(State.DEGRADED, now)
        elif self.state is not State.DEGRADED:
            tripped = counts and self._breaker.failed(now, answered)
            self._enter(State.DEGRADED if tripped else State.SUSPECT, now)

    def probed(self, now: float, trouble: Kind | None, answered: int, *, silent: bool = False) -> None:
        """A probe has ended.

        Args:
            now: the time.
            trouble: what was wrong, None if it wrote and read back.
            answered: as for `call_failed`.
            silent: it was not answered in time. A probe asks for so little that its silence counts twice.
        """
        if trouble is Kind.UNREACHABLE:
            self._good = 0
            self._bad += 1
            if self.state is State.SUSPECT:
                if self._breaker.failed(now, answered, 2 if silent else 1):
                    self._enter(State.DEGRADED, now)
            elif self.state is State.RECOVERING:
                self._enter(State.DEGRADED, now)
            return
        # Whatever else it said, it is there: overload, a full disk and a wrong password are no outage.
        if self.state is State.SUSPECT:
            self._breaker.reset()
            self._enter(State.HEALTHY, now)
        elif self.state is State.DEGRADED and not self.forced:
            # A wrong password keeps an outage from ending, though it would not begin one: nothing could be replayed.
            self._good = self._good + 1 if trouble is not Kind.CREDENTIALS else 0
            if self._good >= self.PROBES:
                self._enter(State.RECOVERING, now)

    def replayed(self, now: float) -> None:
        """Nothing waits any more."""
        if self.state is State.RECOVERING:
            self._breaker.reset()
            self._enter(State.HEALTHY, now)

    def force(self, now: float, on: bool) -> None:
        """An operator's switch: an outage that no probe ends; taken away, the store has to prove itself."""
        self.forced = on
        if on:
            self._enter(State.DEGRADED, now)

    # --- decisions ---

    def pause(self) -> float:
        """Seconds until the next probe."""
        if self.state is State.SUSPECT:
            return 0.0 if self._bad == 0 else 0.005
        if self._good:
            return 0.02
        doubled = self.FIRST_PAUSE * 2.0 ** min(self._bad, 10)
        return self._random.uniform(0.5, 1.0) * min(self.LONGEST_PAUSE, doubled)

    def settle(self) -> float:
        """Seconds to wait before replaying."""
        return self._random.uniform(0, self.SETTLE)

    def _enter(self, state: State, now: float) -> None:
        if state is self.state:
            return
        if state is State.DEGRADED and self.state is not State.RECOVERING:
            self.began = now
            self.outages += 1
        self._good = self._bad = 0
        self.state, self.since = state, now
