"""When jobs are made by the clock: cron expressions with a time zone, and intervals."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from redis_core.errors import InvalidJob
from redis_core.keys import check_part, check_workspace_id
from redis_core.queueing.task import Call

__all__ = ["Cron", "Schedule"]

_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS: Final[Sequence[str]] = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS: Final[Sequence[str]] = "sun mon tue wed thu fri sat".split()
_PIECE: Final = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", re.ASCII)
_FURTHEST_DAYS: Final = 8 * 366 + 1
"""29 February comes again after eight years at most."""
_MOST_AT_ONCE: Final = 1000
"""Missed firings that `catch_up="all"` makes up for."""


class Cron:
    """A cron expression: minute, hour, day of month, month, day of week; `*`, lists, ranges, steps, names, `@daily` and its like.

    Where both days are restricted, either will do, as in every cron. Times are of the zone's wall clock: one that a change to
    summer time skips fires as much later as the clock jumps, one that comes twice fires the first time; where the hour is `*`
    it fires in each hour that passes.

    Args:
        expression: five fields or an alias.
        zone: a name of the IANA database.

    Raises:
        InvalidJob: the expression or the zone is wrong.
    """

    __slots__ = (
        "_days",
        "_each_hour",
        "_either",
        "_hours",
        "_known",
        "_minutes",
        "_months",
        "_weekdays",
        "_zone",
        "expression",
    )

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        self.expression = expression
        fields = _ALIASES.get(expression, expression).lower().split()
        if len(fields) != 5:  # noqa: PLR2004 - as cron has
            raise InvalidJob(f"cron {expression!r} must have five fields: minute hour day month weekday")
        try:
            self._zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidJob(f"time zone {zone!r} is not known") from None
        self._minutes = sorted(self._field(fields[0], 0, 59))
        self._hours = sorted(self._field(fields[1], 0, 23))
        self._days = self._field(fields[2], 1, 31)
        self._months = self._field(fields[3], 1, 12, _MONTHS, 1)
        self._weekdays = {day % 7 for day in self._field(fields[4], 0, 7, _DAYS)}
        self._known: tuple[date, list[float]] | None = None
        self._each_hour = fields[1].startswith("*")
        self._either = not fields[2].startswith("*") and not fields[4].startswith("*")
        if self.next(0.0) is None:
            raise InvalidJob(f"cron {expression!r} never comes")

    def next(self, after: float) -> float | None:
        """The first time after this one, both Unix times in seconds; None if there is none in eight years."""
        day = datetime.fromtimestamp(after, self._zone).date()
        for _ in range(_FURTHEST_DAYS):
            instants = self._instants(day)
            place = bisect_right(instants, after)
            if place < len(instants):
                return instants[place]
            day += timedelta(days=1)
        return None

    def last(self, after: float, until: float, most: int) -> list[float]:
        """The last times after the one and until the other, Unix times in seconds, so many at most; those of eight years at most."""
        found: list[float] = []
        day = datetime.fromtimestamp(until, self._zone).date()
        earliest = datetime.fromtimestamp(after, self._zone).date()
        for _ in range(_FURTHEST_DAYS):
            if day < earliest or len(found) >= most:
                break
            found[:0] = [at for at in self._instants(day) if after < at <= until]
            day -= timedelta(days=1)
        return found[-most:]

    def _matches(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        in_month, in_week = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return in_month or in_week if self._either else in_month and in_week

    def _instants(self, day: date) -> list[float]:
        """The times of a day; those of the last day are remembered, for the next time is mostly of the same."""
        if not self._matches(day):
            return []
        if self._known is None or self._known[0] != day:
            self._known = day, self._made(day)
        return self._known[1]

    def _made(self, day: date) -> list[float]:
        found = set()
        for hour in self._hours:
            for minute in self._minutes:
                local = datetime.combine(day, time(hour, minute), self._zone)
                for fold in (0, 1) if self._each_hour else (0,):
                    found.add(local.replace(fold=fold).astimezone(UTC).timestamp())
        return sorted(found)

    def _field(
        self, text: str, low: int, high: int, names: Sequence[str] | None = None, first: int = 0
    ) -> set[int]:
        def number(word: str) -> int:
            return names.index(word) + first if names and word in names else int(word)

        def chosen(piece: str) -> range:
            match = _PIECE.fullmatch(piece)
            if match is None:
                return range(0)
            begin, end, step = match.groups()
            if begin == "*":
                return range(low, high + 1, int(step or 1))
            start = number(begin)
            return range(start, (number(end) if end else high if step else start) + 1, int(step or 1))

        values: set[int] = set()
        for piece in text.split(","):
            try:
                numbers = chosen(piece)
            except ValueError:
                numbers = range(0)
            if not numbers or numbers[0] < low or numbers[-1] > high:
                raise InvalidJob(f"cron {self.expression!r}: {piece!r} is not of {low} to {high}")
            values.update(numbers)
        return values


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that the clock makes, once over the whole fleet; given to each worker, which may be any number.

    Args:
        name: by which the fleet knows when it last fired: one of a kind in its workspace and queue, which a worker checks.
        call: the task with its arguments.
        workspace: whose job it is.
        cron: a `Cron` expression; or `every`.
        every: seconds between two firings, counted from 1970; or `cron`.
        zone: the cron expression's time zone.
        catch_up: what becomes of firings that no worker was there for: none, the last one, or all (1000 at most).
        priority: of its jobs.
    """

    name: str
    call: Call[Any]
    workspace: str
    cron: str | None = None
    every: float | None = None
    zone: str = "UTC"
    catch_up: Literal["none", "one", "all"] = "one"
    priority: int = 0

    def __post_init__(self) -> None:
        check_part(self.name)
        check_workspace_id(self.workspace)
        if (self.cron is None) == (self.every is None):
            raise InvalidJob(f"schedule {self.name} needs either `cron` or `every`")
        if self.every is not None and self.every < 1:
            raise InvalidJob(f"schedule {self.name}: every {self.every} s is too often, at most each second")
        if self.cron is not None:
            Cron(self.cron, self.zone)

    def firings(self) -> Firings:
        """Its times."""
        return Firings(self)


class Firings:
    """The times of one schedule, in milliseconds."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._cron = Cron(schedule.cron, schedule.zone) if schedule.cron is not None else None

    def next(self, after: int) -> int:
        """The first time after this one."""
        if self._cron is None:
            every = round((self._schedule.every or 1) * 1000)
            return (after // every + 1) * every
        found = self._cron.next(after / 1000)
        if found is None:
            raise InvalidJob(f"schedule {self._schedule.name} never comes again")
        return round(found * 1000)

    def due(self, last: int, now: int, on_time: int) -> tuple[list[int], int | None]:
        """What is to be fired now, and the last time that is over with it; None if nothing is.

        Args:
            last: the last firing that the fleet knows of.
            now: the present.
            on_time: how late, in milliseconds, a firing is not yet a missed one.
        """
        catch_up = self._schedule.catch_up
        times = self._last(last, now, _MOST_AT_ONCE if catch_up == "all" else 1)
        if not times:
            return [], None
        if catch_up == "none" and now - times[-1] > on_time:
            return [], times[-1]
        return times, times[-1]

    def _last(self, last: int, now: int, most: int) -> list[int]:
        """The last firings after one time and until another. Any number may have been missed: found from the end."""
        if self._cron is not None:
            return [round(at * 1000) for at in self._cron.last(last / 1000, now / 1000, most)]
        every = round((self._schedule.every or 1) * 1000)
        first = max(last // every + 1, now // every - most + 1)
        return [number * every for number in range(first, now // every + 1)]
