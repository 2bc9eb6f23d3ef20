"""What a response says about limits: `RateLimit`, `RateLimit-Policy`, `Retry-After` and the problem of a refusal.

Source: draft-ietf-httpapi-ratelimit-headers-11 (structured fields, RFC 9651; problem types of the IANA registry), RFC 9457.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Final

import msgspec

from redis_core.rate_limiting.decision import Decision, PolicyState
from redis_core.rate_limiting.policy import Policy

__all__ = ["Header", "LimitProblem", "problem_of", "rate_limit_headers"]

Header = tuple[bytes, bytes]

_TYPES: Final = "https://iana.org/assignments/http-problem-types#"
_ABNORMAL: Final = frozenset({"penalty", "deny-list"})


class LimitProblem(msgspec.Struct, frozen=True, rename={"violated_policies": "violated-policies"}):
    """A refusal, as RFC 9457 problem details."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    violated_policies: tuple[str, ...]


def rate_limit_headers(decisions: Sequence[Decision], *, legacy: bool = False) -> list[Header]:
    """The header lines that tell a client where it stands.

    Args:
        decisions: all that were made on the request.
        legacy: add `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now) of the policy nearest to its limit.
    """
    states = [state for decision in decisions for state in decision.states if _shown(state.policy)]
    headers: list[Header] = []
    if states:
        headers.append((b"ratelimit-policy", _policies(tuple(state.policy for state in states))))
        headers.append((b"ratelimit", ", ".join(map(_state, states)).encode()))
    refused = [decision for decision in decisions if not decision.allowed]
    if refused:
        headers.append((b"retry-after", b"%d" % max(decision.retry_after_seconds for decision in refused)))
    if legacy and states:
        state = min(states, key=lambda state: (-state.wait, state.remaining / state.policy.limit))
        headers += (
            (b"x-ratelimit-limit", b"%d" % state.policy.limit),
            (b"x-ratelimit-remaining", b"%d" % state.remaining),
            (b"x-ratelimit-reset", b"%d" % (ceil(state.wait) or state.policy.window)),
        )
    return headers


def problem_of(decision: Decision) -> LimitProblem:
    """The body of a refusal: 429, or 503 where the store is away and a rule refuses meanwhile."""
    seconds = decision.retry_after_seconds
    again = f"Come again in {seconds} s." if seconds else "Come again later."
    if decision.degraded and not any(
        state.remaining or state.wait != 1.0 for state in decision.states if state.wait
    ):
        return LimitProblem(
            _TYPES + "temporary-reduced-capacity", "Temporary reduced capacity", 503, "temporary-reduced-capacity",
            f"Requests cannot be counted now, and this endpoint does not go on without. {again}", decision.violated,
        )  # fmt: skip
    if decision.policy in _ABNORMAL:
        return LimitProblem(
            _TYPES + "abnormal-usage-detected", "Abnormal usage detected", 429, "abnormal-usage-detected",
            f"Too many requests were refused. {again}", decision.violated,
        )  # fmt: skip
    return LimitProblem(
        _TYPES + "quota-exceeded", "Quota exceeded", 429, "quota-exceeded",
        f"The limit {decision.policy!r} is used up. {again}", decision.violated,
    )  # fmt: skip


def _shown(policy: Policy) -> bool:
    return policy.kind != "b" and not policy.shadow


@lru_cache(maxsize=1024)
def _policies(policies: tuple[Policy, ...]) -> bytes:
    return ", ".join(map(_policy, policies)).encode()


def _policy(policy: Policy) -> str:
    unit = "concurrent-requests" if policy.kind == "c" else policy.unit
    quota = f'"{policy.name}";q={policy.limit}'
    if policy.window:
        quota += f";w={policy.window}"
    return quota if unit == "requests" else f'{quota};qu="{unit}"'


def _state(state: PolicyState) -> str:
    text = f'"{state.policy.name}";r={state.remaining}'
    return f"{text};t={ceil(state.wait - 1e-9)}" if state.wait else text
