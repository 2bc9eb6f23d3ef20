"""What the store's commands cost, and will cost at this rate."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from redis_core.measuring.documents import Cost, DayCost
from redis_core.measuring.recorder import DAY, HOUR

if TYPE_CHECKING:
    from redis_core.config import Settings
    from redis_core.measuring.window import Window

__all__ = ["cost_of", "price_per_million"]

_UPSTASH: Final = 2.0
"""US dollars a million commands on Upstash's pay-as-you-go plan: $0.20 for 100,000."""
_MONTH: Final = 30


def price_per_million(settings: Settings, mode: str) -> float:
    """US dollars a million commands cost.

    Args:
        settings: where it may be set.
        mode: the store's, which tells Upstash from others.
    """
    if settings.redis_price_per_million is not None:
        return settings.redis_price_per_million
    return _UPSTASH if mode == "upstash" else 0.0


def cost_of(days: Window | None, now: float, price: float) -> Cost:
    """The bill by days, and its forecast.

    Args:
        days: what was measured by hours; None if the store did not tell.
        now: the time, in Unix seconds.
        price: US dollars a million commands.
    """
    by_day: dict[int, float] = defaultdict(float)
    last_day = 0.0
    earliest = now
    for begin, batch in sorted((days.buckets if days is not None else {}).items()):
        billed = batch.counters.get("billed_commands_total", 0)
        by_day[begin // DAY * DAY] += billed
        if begin > now - DAY:
            last_day += billed
            earliest = min(earliest, begin)
    # A fleet that was started an hour ago has no day behind it: what it did is taken for its pace.
    pace = last_day / max(now - earliest, HOUR)
    today = int(now) // DAY * DAY
    rest_of_today = today + DAY - now
    return Cost(
        price_per_million=price,
        billed_commands_today=round(by_day.get(today, 0)),
        cost_today=_dollars(by_day.get(today, 0), price),
        forecast_today=_dollars(by_day.get(today, 0) + pace * rest_of_today, price),
        forecast_month=_dollars(pace * DAY * _MONTH, price),
        days=[
            DayCost(
                datetime.fromtimestamp(day, UTC).date().isoformat(), round(billed), _dollars(billed, price)
            )
            for day, billed in sorted(by_day.items())
        ],
    )


def _dollars(commands: float, price: float) -> float:
    return round(commands * price / 1e6, 6)
