"""When a command may be sent a second time, how often, and how soon.

A reply that was lost says nothing of the command: sending INCR again counts twice (redis-py, coredis and upstash-redis do).
So a command is repeated only if it never left, or if doing it twice is the same as doing it once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from redis_core.errors import StoreError
from redis_core.resilience.classify import may_answer_elsewhere
from redis_core.transport.base import Command

__all__ = ["RetryBudget", "may_repeat"]


def may_repeat(batch: Sequence[Command], error: StoreError) -> bool:
    """Whether a batch that ended with this error may be sent again without doing anything twice.

    Args:
        batch: what was sent.
        error: how it ended.
    """
    return error.retryable and may_answer_elsewhere(batch, error)


class RetryBudget:
    """At most one retry in ten calls, so that a store in trouble is not sent twice the load (AWS SDK, SRE book).

    A token bucket: each call deposits a tenth of a token, a retry withdraws one.
    """

    __slots__ = ("_random", "_tokens")

    CAPACITY: Final = 10.0
    DEPOSIT: Final = 0.1
    MAX_DELAY: Final = 0.05
    """Seconds; the delay is drawn evenly from zero to this (full jitter)."""

    def __init__(self) -> None:
        self._tokens = self.CAPACITY
        self._random = random.Random()  # noqa: S311 - jitter is no secret

    def deposit(self, calls: int = 1) -> None:
        """Count calls.

        Args:
            calls: how many.
        """
        if self._tokens < self.CAPACITY:
            self._tokens = min(self._tokens + self.DEPOSIT * calls, self.CAPACITY)

    def withdraw(self) -> bool:
        """Take a retry, if there is one left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def delay(self) -> float:
        """Seconds to wait before the retry."""
        return self._random.uniform(0, self.MAX_DELAY)
