"""What tests of the metrics share: a clock that is moved, and a transport that loses replies."""

from __future__ import annotations

from collections.abc import Sequence

from redis_core.errors import DeadlineExceeded
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient
from tests.hand_clock import HandClock

__all__ = ["NOON", "LosingTransport", "MovedClock"]

NOON = 1_800_000_000.0 // 86_400 * 86_400 + 43_200
"""A time at which an hour begins."""


class MovedClock(HandClock):
    """A clock that stands at noon until it is moved."""

    def __init__(self, time: float = NOON) -> None:
        super().__init__(time)


class LosingTransport(MockRedisClient):
    """Memory whose replies get lost while `losing` is set: commands are done, and nobody hears of it."""

    losing = False
    away = False

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        if self.away:
            raise DeadlineExceeded("the store is away")
        replies = await super().execute(batch, timeout=timeout)
        if self.losing:
            raise DeadlineExceeded("the reply was lost")
        return replies
