"""How often a failed job is tried again, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["Backoff", "Retry"]

_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: evenly between nothing and `base * factor ** failures`, at most `most`.

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015.
    """

    base: float = 1.0
    """Seconds after the first failure, at most."""
    most: float = 300.0
    """Seconds."""
    factor: float = 2.0

    def limit(self, failures: int) -> float:
        """The longest wait after so many failures, in seconds."""
        # The exponent is bounded, as a float is.
        return min(self.most, self.base * self.factor ** min(failures - 1, 64))

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return _RANDOM.uniform(0, self.limit(failures))


class Retry(Exception):
    """A task's policy, `@task(retries=Retry(5))`; raised by a job, it asks to be run again.

    Args:
        times: failures after which it is tried again; one more and it is buried.
        backoff: when.
        after: raised by a job: seconds until it runs again, instead of the policy's.
        reason: raised by a job: what its history says.
    """

    def __init__(
        self, times: int = 3, *, backoff: Backoff | None = None, after: float | None = None, reason: str = ""
    ) -> None:
        super().__init__(reason or "the job asked to be run again")
        self.times = times
        self.backoff = backoff or Backoff()
        self.after = after
