"""One process' measurements on their way into the store, once per 10 s.

What a process has measured in one minute is one field of a hash, `<minute>:<process>`, and a flush writes it anew, whole. Writing a
total twice is the same as writing it once, so a flush whose reply was lost costs nothing and counts nothing twice, unlike HINCRBY.
What cannot be written stays here and is written when the store is back, for up to 15 minutes; the hour has it in any case.

Promised: while a process lives, every number reaches the store exactly once. A process that is killed loses what it measured since
its last flush, 10 s at most of the minutes and 5 minutes of the hours.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreError
from redis_core.keys import metrics_key
from redis_core.log import get_logger
from redis_core.measuring.batch import Batch, encode_batch

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.pipeline import Pipeline

__all__ = ["DAY", "FLUSH_EVERY", "HOUR", "HOURS_KEPT", "MINUTE", "MINUTES_KEPT", "Recorder"]

FLUSH_EVERY: Final = 10.0
"""Seconds from one flush to the next."""
MINUTE: Final = 60
HOUR: Final = 3_600
DAY: Final = 86_400
MINUTES_KEPT: Final = 25 * HOUR
"""Seconds after which an hour's minutes are gone, counted from its beginning."""
HOURS_KEPT: Final = 31 * DAY
"""Seconds after which a day's hours are gone, counted from its beginning."""
_HOUR_EVERY: Final = 300
"""Seconds from one writing of an hour to the next: minutes have what is newer."""
_MOST_UNWRITTEN: Final = 15
"""Minutes that wait for a store that is away."""
_WITHIN: Final = 2.0
"""Seconds a flush may take."""
_LOG: Final = get_logger("redis_core.metrics")


class Recorder:
    """Writes what a client's meter counts.

    Budget: per flush 1 trip, 1 HSET, a second HSET once per 5 minutes, an EXPIREAT once an hour and one a day, and in a worker a HLEN once a minute and queue. So 374 commands an
    hour of a process that is always busy, and none of one at rest: nothing is written when nothing has happened.

    Args:
        client: the store, and the meter.
        clock: the time.
    """

    def __init__(self, client: Client, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.process = secrets.token_hex(4)
        """This process' name in the hashes."""
        self.failures = 0
        """Flushes that failed in a row."""
        self.flushed_at: float | None = None
        """When the last one succeeded, in Unix seconds."""
        self._client = client
        self._clock = clock
        self._minute = self._begin(MINUTE)
        self._measured = Batch()
        """What the present minute has so far, written or not."""
        self._of_minutes: dict[int, Batch] = {}
        """Minutes with something that is not written yet."""
        self._of_hours: dict[int, Batch] = {}
        """The present hour, and those with something that is not written yet."""
        self._unwritten: set[int] = set()
        """Which of the hours have something that is not written yet."""
        self._held = Batch()
        """What was taken from the meter and belongs to no minute yet."""
        self._since_start = Batch()
        self._hour_due = 0.0
        self._lengths: dict[str, float] = {}
        self._lengths_due = 0.0
        self._expiring: set[str] = set()
        self._at_rest = None if client.stats.commands else client.meter.activity()
        self._flushing = asyncio.Lock()

    def _begin(self, scale: int) -> int:
        return int(self._clock.now()) // scale * scale

    async def run(self) -> None:
        """Flush for ever."""
        while True:
            await self._clock.sleep(FLUSH_EVERY)
            await self.flush()

    async def flush(self, *, last: bool = False) -> bool:
        """Write what is new. A store that is away is logged once, and is no error.

        Args:
            last: whether the process ends, so that the hour is written as well.

        Returns:
            Whether anything was written.
        """
        async with self._flushing:
            meter = self._client.meter
            before = meter.activity()
            if self._rests(before) and not self._of_minutes and not self._hours_to_write(last=last):
                return False
            self._collect()
            batch = self._client.within(_WITHIN).pipeline()
            minutes, hours = dict(self._of_minutes), self._hours_to_write(last=last)
            commands = self._client.stats.commands
            for begin, measured in minutes.items():
                self._put(batch, "minutes", begin, HOUR, MINUTES_KEPT, measured)
            for begin, measured in hours.items():
                self._put(batch, "hours", begin, DAY, HOURS_KEPT, measured)
            asked = self._ask_lengths(batch)
            sent = len(batch)
            try:
                for reply in await batch.send():
                    if isinstance(reply, StoreError):
                        raise reply
                lengths = {series: sum([await each for each in hashes]) for series, hashes in asked.items()}
            except StoreError as error:
                self._failed(error)
                return False
            self._written(minutes, hours)
            # At rest is who did nothing but flush since, and has nothing to tell with the next one.
            after = meter.activity()
            alone = self._client.stats.commands - commands == sent
            told = all(self._lengths.get(series) == length for series, length in lengths.items())
            self._lengths |= lengths
            self._at_rest = after if alone and told else None
            return True

    def _rests(self, activity: tuple[float, ...]) -> bool:
        """Whether nothing happened since the last flush."""
        rest = self._at_rest
        # Who keeps watch says so before its command is sent, and for that moment there seem to be fewer commands.
        return rest is not None and activity[0] <= rest[0] and activity[1:] == rest[1:]

    def since_start(self) -> Batch:
        """What this process has measured since it started, for whoever scrapes it. Budget: nothing."""
        self._take_into_hold()
        return self._since_start

    def _take(self) -> Batch:
        """What is new since the last flush."""
        self._take_into_hold()
        taken, self._held = self._held, Batch()
        return taken.first()

    def _take_into_hold(self) -> None:
        taken = self._client.meter.take()
        for batch in (self._held, self._since_start):
            batch.add_counts(taken)
            batch.levels = taken.levels | self._lengths
        # No tenant is told to whoever scrapes, and what has one only grows.
        self._since_start.workspaces.clear()
        self._since_start.refused.clear()

    def _collect(self) -> None:
        """Take what the meter has, into the present minute and hour."""
        taken = self._take()
        hour = self._of_hours.setdefault(self._begin(HOUR), Batch())
        self._unwritten.add(self._begin(HOUR))
        for batch in (self._minute_batch(self._begin(MINUTE)), hour):
            batch.add_counts(taken)
            batch.levels = dict(taken.levels)
        while len(self._of_minutes) > _MOST_UNWRITTEN:
            del self._of_minutes[min(self._of_minutes)]

    def _minute_batch(self, begin: int) -> Batch:
        if begin != self._minute:
            self._minute, self._measured = begin, Batch()
        self._of_minutes[begin] = self._measured
        return self._measured

    def _hours_to_write(self, *, last: bool) -> dict[int, Batch]:
        """The hours that are over, and the present one if it is its turn."""
        present = self._begin(HOUR)
        due = last or self._clock.now() >= self._hour_due
        return {begin: self._of_hours[begin] for begin in self._unwritten if due or begin < present}

    def _ask_lengths(self, batch: Pipeline) -> dict[str, list[Awaitable[int]]]:
        if self._clock.now() < self._lengths_due:
            return {}
        self._lengths_due = self._clock.now() + MINUTE
        return {
            series: [batch.hlen(key) for key in keys] for series, keys in self._client.meter.lengths.items()
        }

    def _put(
        self, batch: Pipeline, scale: str, begin: int, hash_scale: int, kept: int, measured: Batch
    ) -> None:
        beginning = begin // hash_scale * hash_scale
        key = metrics_key(scale, beginning)
        batch.hset(key, {f"{begin}:{self.process}": encode_batch(measured.first())})
        if key not in self._expiring:
            batch.expireat(key, beginning + kept)

    def _written(self, minutes: dict[int, Batch], hours: dict[int, Batch]) -> None:
        now = self._clock.now()
        for begin in minutes:
            self._of_minutes.pop(begin, None)
            self._expiring.add(metrics_key("minutes", begin // HOUR * HOUR))
        present = self._begin(HOUR)
        for begin in hours:
            self._expiring.add(metrics_key("hours", begin // DAY * DAY))
            self._unwritten.discard(begin)
        for begin in [each for each in self._of_hours if each < present and each not in self._unwritten]:
            del self._of_hours[begin]
        if hours:
            self._hour_due = now + _HOUR_EVERY
        if len(self._expiring) > _MOST_UNWRITTEN:
            self._expiring.clear()
        if self.failures:
            _LOG.info("metrics are flushed again", failures=self.failures)
        self.failures, self.flushed_at = 0, now

    def _failed(self, error: StoreError) -> None:
        self.failures += 1
        if self.failures == 1:
            _LOG.warning("metrics wait for the store", error=type(error).__name__, reason=str(error))
