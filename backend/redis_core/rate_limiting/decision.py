"""The one answer to "may this pass?", whoever asks and however it was found."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import msgspec

from redis_core.rate_limiting.policy import Policy

__all__ = ["Decision", "PolicyState", "decide"]

Source = str
"""Where an answer came from: `store`, `cache` (a refusal known in this process), `local` or `list`."""


class PolicyState(NamedTuple):
    """Where one policy stands after the decision."""

    policy: Policy
    remaining: int
    """What may still pass now."""
    wait: float
    """Seconds until what was asked for could pass; 0 if it could at once."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Whether a request may pass, and what to tell the one who asked."""

    allowed: bool
    policy: str
    """The policy that refused, or the one nearest to its limit."""
    remaining: int
    """What that policy still lets pass."""
    retry_after: float
    """Seconds until the same request could pass if nothing else does; 0 if it passed."""
    degraded: bool = False
    """Whether the store did not take part: each policy did what it says under `on_failure`."""
    violated: tuple[str, ...] = ()
    """The policies that refused."""
    shadowed: tuple[str, ...] = ()
    """The policies that would have refused, were they not only watched."""
    states: tuple[PolicyState, ...] = ()
    """Every policy that took part."""
    source: Source = "store"
    """Who answered: the `store`, the `cache` of refusals, `local` counting, or the deny `list`."""

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def retry_after_seconds(self) -> int:
        """`retry_after` in whole seconds, never too early: what `Retry-After` says."""
        return ceil(self.retry_after - 1e-9)


def decide(
    policies: Sequence[Policy], figures: Sequence[int], *, degraded: bool = False, source: Source = "store"
) -> Decision:
    """The decision that a plan's figures mean.

    Args:
        policies: in the plan's order.
        figures: for each two: what remains, and milliseconds to wait, 0 if it lets pass.
        degraded: whether the store took no part.
        source: who answered.
    """
    if len(policies) == 1 and not figures[1]:
        # The usual case, kept short.
        policy = policies[0]
        return Decision(
            allowed=True,
            policy=policy.name,
            remaining=figures[0],
            retry_after=0.0,
            degraded=degraded,
            states=(PolicyState(policy, figures[0], 0.0),),
            source=source,
        )
    states: list[PolicyState] = []
    violated: list[str] = []
    shadowed: list[str] = []
    longest, nearest = -1, 2.0
    refused = closest = policies[0]
    place = least = refused_with = 0
    for policy in policies:
        remaining, wait = figures[place], figures[place + 1]
        place += 2
        if policy.kind == "b" and not wait:
            continue
        states.append(PolicyState(policy, remaining, wait / 1000))
        if wait:
            if policy.shadow:
                shadowed.append(policy.name)
                continue
            violated.append(policy.name)
            if wait > longest:
                longest, refused, refused_with = wait, policy, remaining
        share = remaining / policy.limit
        if share < nearest:
            nearest, closest, least = share, policy, remaining
    return Decision(
        allowed=not violated,
        policy=refused.name if violated else closest.name,
        remaining=refused_with if violated else least,
        retry_after=longest / 1000 if violated else 0.0,
        degraded=degraded,
        violated=tuple(violated),
        shadowed=tuple(shadowed),
        states=tuple(states),
        source=source,
    )
