"""What is told of a workspace's usage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Final

import msgspec
from msgspec import Struct

from redis_core.accounting.prices import NANO

__all__ = ["Budget", "DayUsage", "ModelUsage", "Spent", "UsagePage", "days_of", "field_of", "fields_of"]

_MOST: Final = 1e9
"""Dollars, above which a budget is a mistake."""


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """What a workspace may spend, in US dollars; None is no limit."""

    day: float | None = None
    month: float | None = None
    warn: float = 0.8
    """Share of a limit at which a warning is given, once."""

    def __post_init__(self) -> None:
        for name in ("day", "month"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < _MOST:
                raise ValueError(f"a budget is more than 0 dollars, not {name}={limit!r}")
        if not 0 < self.warn <= 1:
            raise ValueError(f"a budget warns at a share above 0 and up to 1, not {self.warn!r}")


class Spent(Struct, frozen=True):
    """What a workspace has spent, in US dollars, as far as the store told."""

    day: float = 0.0
    month: float = 0.0
    budget: Budget | None = None
    cost: float = 0.0
    """Of the report that was answered with this."""
    known: bool = True
    """False while the store is away: the report is kept, and the sums are not known."""


class ModelUsage(Struct):
    """What one model was used for."""

    input_tokens: int = 0
    """The cached ones included."""
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class DayUsage(Struct):
    """What a workspace used on one day (UTC)."""

    day: str
    commands: int = 0
    """That the store answered to the workspace's handles; a script is one."""
    bytes: int = 0
    """Of them and their replies, without what the protocol adds."""
    jobs: int = 0
    """Runs of jobs that ended."""
    cost: float = 0.0
    """Of models and whatever else was reported with a cost, in US dollars."""
    models: dict[str, ModelUsage] = msgspec.field(default_factory=dict[str, ModelUsage])


class UsagePage(Struct, frozen=True):
    """What a workspace used on some days, what it spent, and what it may spend."""

    workspace: str
    days: list[DayUsage]
    spent_today: float
    spent_this_month: float
    budget: Budget | None = None


def field_of(day: date, what: str, model: str = "") -> str:
    """The field of a month's hash that has one day's sum."""
    return f"{day.day:02}:{what}:{model}" if model else f"{day.day:02}:{what}"


def fields_of(day: date, sums: Mapping[str, int], model: str = "") -> dict[str, int]:
    """Sums of one report, by the fields they are added to."""
    return {field_of(day, what, model): by for what, by in sums.items() if by}


def days_of(month: str, fields: Iterable[tuple[bytes, bytes]]) -> dict[str, DayUsage]:
    """The days of a month's hash, by date.

    Args:
        month: `2026-11`.
        fields: of the hash.
    """
    days: defaultdict[str, DayUsage] = defaultdict(lambda: DayUsage(""))
    for field, value in fields:
        number, _, rest = field.decode().partition(":")
        what, _, model = rest.partition(":")
        if not number.isdigit():
            continue  # a sum of the whole month
        day = days[f"{month}-{number}"]
        amount = int(value)
        if model:
            used = day.models.setdefault(model, ModelUsage())
            _add(used, what, amount)
        else:
            _add(day, what, amount)
    return {
        name: msgspec.structs.replace(day, day=name, cost=round(day.cost, 9))
        for name, day in sorted(days.items())
    }


def _add(into: DayUsage | ModelUsage, what: str, amount: int) -> None:
    if what == "cost":
        into.cost += amount / NANO
    elif what in into.__struct_fields__:
        setattr(into, what, getattr(into, what) + amount)
