"""What a process knows by itself: refusals it need not ask the store about again, and counting while the store is away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

from redis_core.rate_limiting.algorithms import Counter, counter_for, take
from redis_core.rate_limiting.decision import Decision, PolicyState
from redis_core.rate_limiting.policy import Penalty, Policy

__all__ = ["LocalCounters", "Refusals", "Strikes"]

_CLOSED_WAIT: Final = 1000
"""Milliseconds after which to come again where the store is away and a rule refuses meanwhile."""


class Refusal(NamedTuple):
    """What was refused under one key."""

    until: float
    """Monotonic seconds; asked again after it."""
    ready: float
    """Monotonic seconds; when the cost could pass."""
    policy: str
    cost: int
    """What was asked for: less may pass, and is asked about."""
    states: tuple[PolicyState, ...]


class Refusals:
    """Refusals by key, the latest of them. A refusal is of use only until the store would say something else.

    Args:
        longest: seconds after which the store is asked again in any case: another process may have given something back.
        most: how many keys.
    """

    def __init__(self, longest: float, most: int = 65_536) -> None:
        self._longest = longest
        self._most = most
        self._known: dict[str, Refusal] = {}

    def learn(
        self,
        key: str,
        state: PolicyState,
        cost: int,
        states: tuple[PolicyState, ...],
        now: float,
        *,
        whole: bool = False,
    ) -> None:
        """A key was refused by this policy.

        Args:
            key: the key.
            state: the policy that refused, and for how long.
            cost: what was asked for.
            states: all policies, for headers.
            now: monotonic seconds.
            whole: remember it to its end: a penalty is not given back.
        """
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        hold = state.wait if whole else min(state.wait, self._longest)
        self._known[key] = Refusal(now + hold, now + state.wait, state.policy.name, cost, states)

    def find(self, key: str) -> Refusal | None:
        """What was last refused under a key, in force or not."""
        return self._known.get(key)

    def forget(self, key: str) -> None:
        """The key was cleared, or something was given back to it."""
        self._known.pop(key, None)

    def __len__(self) -> int:
        return len(self._known)


def refused_again(refusal: Refusal, now: float) -> Decision:
    """The decision that repeats a refusal. Budget: nothing."""
    wait = refusal.ready - now
    remaining = 0
    states: list[PolicyState] = []
    for state in refusal.states:
        mine = state.policy.name == refusal.policy
        remaining = state.remaining if mine else remaining
        states.append(state._replace(wait=wait) if mine else state)
    return Decision(
        allowed=False,
        policy=refusal.policy,
        remaining=remaining,
        retry_after=wait,
        violated=(refusal.policy,),
        states=tuple(states),
        source="cache",
    )


class Strikes:
    """Refusals of each key in the last while, for penalties.

    Args:
        most: how many keys.
    """

    def __init__(self, most: int = 16_384) -> None:
        self._most = most
        self._seen: dict[tuple[str, str], list[float]] = {}

    def add(self, key: str, policy: str, penalty: Penalty, now: float) -> bool:
        """Count a refusal; whether it is the one that brings the penalty."""
        if (key, policy) not in self._seen and len(self._seen) >= self._most:
            del self._seen[next(iter(self._seen))]
        seen = [at for at in self._seen.get((key, policy), ()) if at > now - penalty.within]
        seen.append(now)
        self._seen[key, policy] = seen
        if len(seen) < penalty.after:
            return False
        del self._seen[key, policy]
        return True


class LocalCounters:
    """Counting in this process while the store is away: of each limit this process' share.

    It begins empty, so an outage may let each process' share pass once more.

    Args:
        instances: how many processes share the limits.
        most: how many keys are counted; then the ones that began first are forgotten.
    """

    def __init__(self, instances: int, most: int = 65_536) -> None:
        self._instances = instances
        self._most = most
        self._counters: dict[tuple[str, str], Counter] = {}

    def decide(
        self,
        keyed: Sequence[tuple[str, Policy]],
        costs: Sequence[int],
        now: int,
        *,
        lease: str = "",
        peek: bool = False,
    ) -> list[int]:
        """For each policy what remains and milliseconds to wait, by what it says under `on_failure`.

        Args:
            keyed: each policy with its key.
            costs: one for each.
            now: microseconds.
            lease: the id of a lease.
            peek: count nothing.
        """
        shares = [share(policy, self._instances) for _, policy in keyed]
        closed = any(
            p.on_failure == "closed" and cost and not p.shadow
            for (_, p), cost in zip(keyed, costs, strict=True)
        )
        counted = [cost if p.on_failure == "local" else 0 for (_, p), cost in zip(keyed, costs, strict=True)]
        counters = [self._counter(key, policy) for (key, _), policy in zip(keyed, shares, strict=True)]
        # A share may be less than a cost that the whole limit would let pass: it then passes when nothing else was counted.
        counted = [min(cost, policy.most) for cost, policy in zip(counted, shares, strict=True)]
        figures = take(counters, shares, counted, now, lease=lease, peek=peek or closed)
        for place, ((_, policy), cost) in enumerate(zip(keyed, costs, strict=True)):
            if policy.on_failure == "closed" and cost:
                figures[2 * place : 2 * place + 2] = (0, _CLOSED_WAIT)
            elif policy.on_failure == "open":
                figures[2 * place : 2 * place + 2] = (policy.limit, 0)
        return figures

    def adjust(self, key: str, policy: Policy, change: int, now: int, then: int, lease: str) -> None:
        """Correct what was counted here."""
        counter = self._counters.get((key, policy.mark))
        if counter is not None:
            counter.adjust(now, then, change, lease)

    def forget(self, key: str) -> None:
        """Remove what was counted under a key."""
        for known in [known for known in self._counters if known[0] == key]:
            del self._counters[known]

    def _counter(self, key: str, policy: Policy) -> Counter:
        counter = self._counters.get((key, policy.mark))
        if counter is None:
            if len(self._counters) >= self._most:
                del self._counters[next(iter(self._counters))]
            counter = self._counters[key, policy.mark] = counter_for(policy)
        return counter


@lru_cache(maxsize=4096)
def share(policy: Policy, instances: int) -> Policy:
    """The policy with this process' share of its limit."""
    if instances == 1:
        return policy
    burst = max(policy.burst // instances, 1) if policy.burst else 0
    return replace(policy, limit=max(policy.limit // instances, 1), burst=burst)
