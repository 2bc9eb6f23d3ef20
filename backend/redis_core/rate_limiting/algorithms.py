# ruff: noqa: ARG002 - one signature for all kinds of counter
"""The algorithms in Python: what each script does, for counting in this process and as the model that tests hold scripts to.

Each counter is one policy under one key. Times are microseconds since the epoch, so that GCRA's pace is exact; everything else
goes by whole milliseconds, as the scripts do. Nothing here waits or asks the time.

Sources: the ring of sub-windows is Figma's (2017), the even leaving of the oldest Cloudflare's (2017), its bound ours; GCRA is the
ATM Forum's in the form of Brandur Leach's throttled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Final

from redis_core.rate_limiting.policy import Kind, Policy

__all__ = ["Counter", "adjust", "counter_for", "ring_look", "take"]

_ROUNDING: Final = 1e-6
"""Far below one request, far above what floating-point numbers lose."""


def ring_look(
    ring: Sequence[int], total: int, elapsed: int, slot: int, cost: int, limit: int
) -> tuple[float, int]:
    """What of a sliding window is used, and milliseconds until a cost could pass, 0 if it could now.

    Args:
        ring: the sub-windows, oldest first, of which there is one more than the window has.
        total: their sum without the oldest.
        elapsed: milliseconds since the newest began.
        slot: milliseconds of one sub-window.
        cost: how much is asked for.
        limit: how much the window takes.
    """
    # Of the oldest, what an even pace would have put there leaves evenly; what is more came in a burst, nobody knows when, and
    # counts until the last of it may have left. So no window ever takes more than one sub-window's even share above the limit.
    share = -(-limit // (len(ring) - 1))
    elapsed = max(min(elapsed, slot), 0)
    even = min(ring[0], share)
    inside = ring[0] - even * (elapsed / slot)
    used = total + inside
    over = used + cost - limit
    if over <= _ROUNDING:
        return used, 0
    if over <= even * (1 - elapsed / slot) + _ROUNDING:
        return used, max(ceil(over / even * slot), 1)
    over -= inside
    later = slot - elapsed
    for count in ring[1:]:
        if over <= _ROUNDING:
            break
        even = min(count, share)
        if over <= even:
            return used, max(ceil(later + over / even * slot), 1)
        over -= count
        later += slot
    return used, max(later, 1)


class Counter(ABC):
    """What was admitted under one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @abstractmethod
    def look(self, now: int, cost: int, policy: Policy) -> tuple[float, int]:
        """What is used, and milliseconds until the cost could pass, 0 if it could now. Counts nothing.

        Args:
            now: microseconds.
            cost: how much.
            policy: the present numbers, of the same mark: a limit may have been changed.
        """

    @abstractmethod
    def count(self, now: int, cost: int, lease: str) -> None:
        """Count what passes, after `look` with the same time and cost."""

    @abstractmethod
    def adjust(self, now: int, then: int, change: int, lease: str) -> bool:
        """Correct by `change` what was counted at `then` (ms); whether there was anything to correct."""

    @abstractmethod
    def ends(self) -> int:
        """The millisecond after which this counter means nothing."""


class RingCounter(Counter):
    """A sliding window as a ring of sub-windows, see `ring_look`."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._slot = policy.window_ms // policy.slots
        self._head = 0
        self._ring = [0] * (policy.slots + 1)
        self._sum = 0

    def _advance(self, ms: int) -> None:
        slots, head = self.policy.slots, ms - ms % self._slot
        passed = (head - self._head) // self._slot
        if passed < 0:
            return
        if passed > slots:
            self._ring, self._sum = [0] * (slots + 1), 0
        elif passed:
            self._sum -= sum(self._ring[1 : passed + 1])
            self._ring = self._ring[passed:] + [0] * passed
        self._head = head

    def look(self, now: int, cost: int, policy: Policy) -> tuple[float, int]:
        self.policy = policy
        ms = now // 1000
        self._advance(ms)
        return ring_look(self._ring, self._sum, ms - self._head, self._slot, cost, policy.limit)

    def count(self, now: int, cost: int, lease: str) -> None:
        self._ring[-1] += cost
        self._sum += cost

    def adjust(self, now: int, then: int, change: int, lease: str) -> bool:
        self._advance(now // 1000)
        slots = self.policy.slots
        place = slots - (self._head - (then - then % self._slot)) // self._slot
        if not 0 <= place <= slots:
            return False
        before = self._ring[place]
        after = min(max(before + change, 0), 10**self.policy.digits - 1)
        self._ring[place] = after
        if place:
            self._sum += after - before
        return True

    def ends(self) -> int:
        return self._head + self.policy.window_ms + self._slot


class FixedCounter(Counter):
    """A count that begins anew with each window of the clock."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._ends = 0
        self._used = 0

    def look(self, now: int, cost: int, policy: Policy) -> tuple[float, int]:
        self.policy = policy
        ms, window = now // 1000, policy.window_ms
        ends = ms - ms % window + window
        if self._ends < ends:
            self._ends, self._used = ends, 0
        return self._used, self._ends - ms if self._used + cost > policy.limit else 0

    def count(self, now: int, cost: int, lease: str) -> None:
        self._used += cost

    def adjust(self, now: int, then: int, change: int, lease: str) -> bool:
        ends = then - then % self.policy.window_ms + self.policy.window_ms
        if ends <= now // 1000 or ends < self._ends:
            return False
        if self._ends < ends:
            self._ends, self._used = ends, 0
        self._used = max(self._used + change, 0)
        return True

    def ends(self) -> int:
        return self._ends


class PaceCounter(Counter):
    """GCRA: one number, the time at which all that was admitted is paid for at an even pace."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._due = 0

    def look(self, now: int, cost: int, policy: Policy) -> tuple[float, int]:
        self.policy = policy
        step = policy.window_ms * 1000 / policy.limit
        due = max(now, self._due)
        over = due + cost * step - now - policy.burst * step
        wait = ceil(over / 1000) if over > 0.5 else 0  # noqa: PLR2004 - half a microsecond, floats' rounding
        return policy.limit - policy.burst + (due - now) / step, wait

    def count(self, now: int, cost: int, lease: str) -> None:
        self._due = round(max(now, self._due) + cost * self.policy.window_ms * 1000 / self.policy.limit)

    def adjust(self, now: int, then: int, change: int, lease: str) -> bool:
        due = max(self._due, then * 1000) if change > 0 else self._due
        self._due = max(round(due + change * self.policy.window_ms * 1000 / self.policy.limit), 0)
        return True

    def ends(self) -> int:
        return ceil(self._due / 1000)


class LogCounter(Counter):
    """The time of each admission: exact, for limits that are small."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._log: list[int] = []
        self._ends = 0

    def look(self, now: int, cost: int, policy: Policy) -> tuple[float, int]:
        self.policy = policy
        ms = now // 1000
        while self._log and self._log[0] <= ms - policy.window_ms:
            self._log.pop(0)
        over = len(self._log) + cost - policy.limit
        wait = self._log[over - 1] + policy.window_ms - ms if over > 0 else 0
        return len(self._log), wait

    def count(self, now: int, cost: int, lease: str) -> None:
        self._log += [now // 1000] * cost
        self._ends = now // 1000 + self.policy.window_ms

    def adjust(self, now: int, then: int, change: int, lease: str) -> bool:
        kept = [entry for entry in self._log if entry != then]
        inside = then > now // 1000 - self.policy.window_ms
        same = max(len(self._log) - len(kept) + (change if inside or change < 0 else 0), 0)
        self._log = sorted([*kept, *[then] * same])
        return True

    def ends(self) -> int:
        return self._ends


class LeaseCounter(Counter):
    """How many at a time, each with a deadline that its holder moves on."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._held: dict[str, int] = {}

    def _drop(self, ms: int) -> None:
        self._held = {lease: until for lease, until in self._held.items() if until > ms}

    def look(self, now: int, cost: int, policy: Policy) -> tuple[float, int]:
        self.policy = policy
        ms = now // 1000
        self._drop(ms)
        wait = 0
        if len(self._held) + cost > policy.limit:
            wait = max(min(self._held.values(), default=ms + policy.lease_ms) - ms, 1)
        return len(self._held), wait

    def count(self, now: int, cost: int, lease: str) -> None:
        self._held[lease] = now // 1000 + self.policy.lease_ms

    def adjust(self, now: int, then: int, change: int, lease: str) -> bool:
        ms = now // 1000
        self._drop(ms)
        if lease not in self._held:
            return False
        if change > 0:
            self._held[lease] = ms + self.policy.lease_ms
        else:
            del self._held[lease]
        return True

    def ends(self) -> int:
        return max(self._held.values(), default=0)


class BlockCounter(Counter):
    """A penalty: refuses until it is over."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._until = 0

    def look(self, now: int, cost: int, policy: Policy) -> tuple[float, int]:
        return 0, max(self._until - now // 1000, 0)

    def count(self, now: int, cost: int, lease: str) -> None:
        """A penalty counts nothing."""

    def adjust(self, now: int, then: int, change: int, lease: str) -> bool:
        self._until = max(now // 1000 + change, self._until)
        return True

    def ends(self) -> int:
        return self._until


_COUNTERS: dict[Kind, type[Counter]] = {
    "r": RingCounter,
    "f": FixedCounter,
    "g": PaceCounter,
    "l": LogCounter,
    "c": LeaseCounter,
    "b": BlockCounter,
}


def counter_for(policy: Policy) -> Counter:
    """An empty counter of the policy's kind."""
    return _COUNTERS[policy.kind](policy)


def take(
    counters: Sequence[Counter],
    policies: Sequence[Policy],
    costs: Sequence[int],
    now: int,
    *,
    lease: str = "",
    peek: bool = False,
) -> list[int]:
    """Decide on all policies at once, as `rate_take.lua` does: for each what remains, and milliseconds to wait.

    Args:
        counters: one for each policy.
        policies: the present numbers.
        costs: one for each policy; what costs nothing passes.
        now: microseconds.
        lease: the id of a lease, for concurrency policies.
        peek: count nothing.
    """
    looks = [
        counter.look(now, cost, policy)
        for counter, policy, cost in zip(counters, policies, costs, strict=True)
    ]
    waits = [
        wait if cost or policy.kind == "b" else 0
        for (_, wait), policy, cost in zip(looks, policies, costs, strict=True)
    ]
    passes = not peek and not any(
        wait and not policy.shadow for wait, policy in zip(waits, policies, strict=True)
    )
    figures: list[int] = []
    for counter, policy, cost, (used, _), wait in zip(counters, policies, costs, looks, waits, strict=True):
        counted = cost if passes and not wait else 0
        if counted:
            counter.count(now, counted, lease)
        figures += (max(floor(policy.limit - used - counted + _ROUNDING), 0), wait)
    return figures


def adjust(
    counters: Mapping[int, Counter], changes: Sequence[int], now: int, then: int, *, lease: str = ""
) -> list[int]:
    """Correct what was counted, as `rate_adjust.lua` does: for each change 1 if there was something to correct.

    Args:
        counters: by their place among the changes; absent where nothing was ever counted.
        changes: one for each policy, 0 for none.
        now: microseconds.
        then: when it was counted, in ms.
        lease: the id of a lease.
    """
    return [
        int(change != 0 and place in counters and counters[place].adjust(now, then, change, lease))
        for place, change in enumerate(changes)
    ]
