"""What a rate limit is: the text an operator writes (`"100/min"`), and the checked numbers that it becomes.

A `Rule` is what is written down: a name, a rate, whose requests are counted together and what happens when they are too many.
A `Policy` is the same as numbers, for one customer plan. All policies that are counted under one key are a `PolicySet`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal, NamedTuple, get_args

from redis_core.errors import ConfigError

__all__ = [
    "Algorithm",
    "By",
    "OnFailure",
    "Penalty",
    "Policy",
    "PolicySet",
    "Rate",
    "Rule",
    "Scope",
    "parse_rate",
]

Algorithm = Literal["sliding", "fixed", "gcra", "log", "concurrency"]
By = Literal["user", "workspace", "ip", "everyone"]
Scope = Literal["endpoint", "all"]
OnFailure = Literal["open", "closed", "local"]
Kind = Literal["r", "f", "g", "l", "c", "b"]
"""How a script knows an algorithm: ring, fixed, GCRA, log, concurrency, block."""

_KINDS: Final[dict[str, Kind]] = {"sliding": "r", "fixed": "f", "gcra": "g", "log": "l", "concurrency": "c"}
_UNITS: Final = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3_600, "hour": 3_600, "d": 86_400, "day": 86_400}
_LONG: Final = {
    "second": "sec",
    "seconds": "sec",
    "secs": "sec",
    "minute": "min",
    "minutes": "min",
    "mins": "min",
}
_LONG_HOURS: Final = {"hours": "hour", "days": "day"}
_RATE: Final = re.compile(
    r"(?P<limit>\d[\d_]{0,18})\s*(?:/|\s+per\s+)\s*(?P<many>\d{1,7})?\s*(?P<unit>[a-z]+)(?:\s+burst\s+(?P<burst>\d{1,12}))?",
    re.ASCII,
)
_CONCURRENT: Final = re.compile(r"(?P<limit>\d{1,6})\s+concurrent", re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)

MAX_LIMIT: Final = 10**10
MAX_WINDOW: Final = 31 * 86_400
"""Seconds; a longer period is a quota of the billing system, not a rate."""
MAX_LOG: Final = 1_000
"""An exact log keeps 13 bytes for each request it admits."""
MAX_CONCURRENT: Final = 1_000
MOST_SLOTS: Final = 60
"""Sub-windows of a sliding window: no window ever takes more than one part in so many above the limit."""


class Rate(NamedTuple):
    """A rate as numbers."""

    limit: int
    window: int
    """Seconds; 0 for a number of concurrent uses."""
    burst: int | None = None
    """What may come at once, for GCRA."""


def parse_rate(text: str) -> Rate:
    """The numbers of `"100/min"`, `"5 per 15 min"`, `"1_000/day"`, `"100/min burst 20"` or `"20 concurrent"`.

    Raises:
        ValueError: it is none of these, or out of range; says what is wrong.
    """
    plain = text.strip().lower()
    concurrent = _CONCURRENT.fullmatch(plain)
    if concurrent is not None:
        return Rate(_in_range(int(concurrent["limit"]), MAX_CONCURRENT, "the number of concurrent uses"), 0)
    match = _RATE.fullmatch(plain)
    unit = None if match is None else (_LONG | _LONG_HOURS).get(match["unit"], match["unit"])
    if match is None or unit not in _UNITS:
        raise ValueError(
            'write it as "100/min", "5/15min", "1000/day", "100/min burst 20" or "20 concurrent"'
        )
    limit = _in_range(int(match["limit"].replace("_", "")), MAX_LIMIT, "the limit")
    window = _in_range(int(match["many"] or 1) * _UNITS[unit], MAX_WINDOW, "the window in seconds")
    burst = None if match["burst"] is None else _in_range(int(match["burst"]), limit, "the burst")
    return Rate(limit, window, burst)


def _in_range(value: int, most: int, what: str) -> int:
    if not 1 <= value <= most:
        raise ValueError(f"{what} must be from 1 to {most}")
    return value


@dataclass(frozen=True, slots=True)
class Penalty:
    """Who is refused again and again is refused everything for a while.

    Args:
        after: refusals.
        within: seconds in which they are counted, by each process for itself.
        seconds: how long the key is blocked then; on the exact plan for all processes.
    """

    after: int
    within: int = 60
    seconds: int = 600

    def __post_init__(self) -> None:
        for name, value in (("after", self.after), ("within", self.within), ("seconds", self.seconds)):
            if value < 1:
                raise ValueError(f"a penalty's {name} must be at least 1")


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit, as it is written down.

    Args:
        name: what headers and problem details call it: 1 to 40 of `a-z 0-9 -`.
        rate: how much, see `parse_rate`.
        by: whose requests are counted together.
        scope: whether each endpoint is counted apart, or all are counted together.
        algorithm: how: `sliding` window, `fixed` window, `gcra` (even pace, with a burst), `log` (exact, for few), or
            `concurrency` (how many at a time), which "20 concurrent" chooses by itself.
        unit: what is counted: `requests`, or anything a caller gives a cost for, such as `tokens`.
        on_failure: what to do while the store does not answer: let pass, refuse, or count in this process.
        shadow: whether it is only watched: what it would refuse passes, and is told in `Decision.shadowed`.
        penalty: what becomes of who is refused again and again.
        by_plan: whether a customer's plan multiplies it.
        lease: seconds after which a concurrent use whose holder went silent is free again.
    """

    name: str
    rate: str
    by: By = "user"
    scope: Scope = "endpoint"
    algorithm: Algorithm = "sliding"
    unit: str = "requests"
    on_failure: OnFailure = "local"
    shadow: bool = False
    penalty: Penalty | None = None
    by_plan: bool = True
    lease: float = 30.0

    def policy(self, factor: float = 1) -> Policy:
        """Its numbers, multiplied for a customer's plan.

        Raises:
            ConfigError: the rule is wrong; names it and says why.
        """
        try:
            return self._policy(factor if self.by_plan else 1)
        except ValueError as error:
            raise ConfigError(f"rate limit {self.name!r}", self.rate, str(error)) from None

    def _policy(self, factor: float) -> Policy:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError("its name must be 1 to 40 of a-z 0-9 - and begin and end with a letter or digit")
        for name, value, allowed in (
            ("by", self.by, get_args(By)),
            ("scope", self.scope, get_args(Scope)),
            ("algorithm", self.algorithm, get_args(Algorithm)),
            ("on_failure", self.on_failure, get_args(OnFailure)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
        if not 1 <= self.lease <= 86_400:  # noqa: PLR2004 - a day
            raise ValueError("lease must be from 1 to 86400 seconds")
        if _NAME.fullmatch(self.unit) is None:
            raise ValueError(f"its unit is {self.unit!r}: it must be 1 to 40 of a-z 0-9 -")
        rate = parse_rate(self.rate)
        algorithm: Algorithm = "concurrency" if rate.window == 0 else self.algorithm
        if algorithm == "concurrency" and rate.window:
            raise ValueError('a concurrency limit is written "20 concurrent"')
        if (rate.burst is None) == (algorithm == "gcra"):
            raise ValueError('"... burst N" belongs to the algorithm gcra, which needs it')
        limit = max(1, ceil(rate.limit * factor))
        most = {"log": MAX_LOG, "concurrency": MAX_CONCURRENT}.get(algorithm, MAX_LIMIT)
        if limit > most:
            raise ValueError(f"{algorithm} limits go up to {most}, and this is {limit}")
        return Policy(
            name=self.name,
            kind=_KINDS[algorithm],
            limit=limit,
            window=rate.window,
            burst=max(1, ceil(rate.burst * factor)) if rate.burst else 0,
            unit=self.unit,
            on_failure=self.on_failure,
            shadow=self.shadow,
            penalty=self.penalty,
            lease_ms=int(self.lease * 1000),
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """One limit as numbers."""

    name: str
    kind: Kind
    limit: int
    window: int = 0
    """Seconds; 0 for a concurrency limit."""
    burst: int = 0
    unit: str = "requests"
    on_failure: OnFailure = "local"
    shadow: bool = False
    penalty: Penalty | None = None
    lease_ms: int = 30_000
    window_ms: int = field(init=False)
    slots: int = field(init=False)
    """Sub-windows of a sliding window."""
    digits: int = field(init=False)
    """Decimal digits kept for each sub-window: room for a plan of many times this limit, so that both share one form."""
    most: int = field(init=False)
    """The largest cost that can ever pass."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "window_ms", self.window * 1000)
        # Every whole second has the divisor 50, so a slot is a whole number of milliseconds and at least 50 make a window.
        slots = next((n for n in range(MOST_SLOTS, 0, -1) if self.window_ms % n == 0), 1)
        put(self, "slots", slots)
        put(self, "digits", 7 if self.limit < 10**5 else 11)
        put(self, "most", self.burst if self.kind == "g" else self.limit)

    @property
    def mark(self) -> str:
        """What a stored counter of this policy is known by; another algorithm or window begins anew, another limit does not."""
        shape = f"{self.slots}.{self.digits}" if self.kind == "r" else ""
        return f"{self.name}:{self.kind}:{self.window_ms}:{shape}="


def block_policy() -> Policy:
    """The pseudo-policy that holds a penalty: refuses while it lasts, costs nothing."""
    return Policy(name="penalty", kind="b", limit=1, on_failure="open")


class PolicySet:
    """All policies that are counted under one key.

    Args:
        policies: at least one, of different names.

    Raises:
        ConfigError: there is none, or two have one name.
    """

    __slots__ = ("forms", "leases", "names", "penalties", "policies", "units")

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.names = tuple(policy.name for policy in policies)
        if not policies:
            raise ConfigError("rate limits", "()", "give at least one")
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None or "penalty" in self.names:
            raise ConfigError("rate limits", twice or "penalty", "each needs a name of its own")
        self.penalties = tuple(policy for policy in policies if policy.penalty is not None)
        block = (block_policy(),) if self.penalties else ()
        self.policies: tuple[Policy, ...] = (*policies, *block)
        self.leases = any(policy.kind == "c" for policy in policies)
        self.units = frozenset(policy.unit for policy in policies)
        self.forms: dict[bool, object] = {}
        """What the plans have made of it."""

    def __repr__(self) -> str:
        return f"PolicySet({', '.join(self.names)})"
