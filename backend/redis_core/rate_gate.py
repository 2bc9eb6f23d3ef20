"""Rate limits in front of jobs: what is over a limit waits for its turn, and has not failed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from redis_core.rate_limiting.policy import By

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.queueing.context import JobContext

__all__ = ["RateGate"]

_SHORTEST: Final = 0.05
"""Seconds that a job waits at least before it asks again."""
_SPREAD: Final = 0.25
_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret


class RateGate:
    """Lets jobs begin as fast as limits allow: `@task(gate=RateGate("model", "60/min"))`.

    Tasks with gates of one name share its limits, and so does a service that calls a `RateLimiter` with that name as its
    endpoint. Budget of a job: one decision each time it asks; after a refusal it asks again when the limit says so, up to a
    quarter later, so that those who wait do not all come at once.

    Args:
        name: of what is limited.
        rules: rates such as `"60/min"`, or `Rule`s; all must let a job pass.
        by: for rates: who has a budget of its own, each workspace or everyone together.
        subject: whose a job is; its workspace unless given.
        costs: what a job costs in other units than requests, such as `{"tokens": 800}`.

    Raises:
        ConfigError: a rule is wrong.
    """

    def __init__(
        self,
        name: str,
        *rules: str | Rule,
        by: By = "workspace",
        subject: Callable[[JobContext], Subject] | None = None,
        costs: Callable[[JobContext], Mapping[str, int]] | None = None,
    ) -> None:
        self.name = name
        self.limits = RateLimits(
            rules=tuple(
                Rule(f"gate-{place}", rule, by=by) if isinstance(rule, str) else rule
                for place, rule in enumerate(rules)
            )
        )
        self._subject = subject or _of_workspace
        self._costs = costs
        self._limiters: WeakKeyDictionary[Client, RateLimiter] = WeakKeyDictionary()

    async def __call__(self, job: JobContext) -> float:
        """Seconds that a job has to wait; 0 to begin."""
        client = job.queue.client
        limiter = self._limiters.get(client)
        if limiter is None:
            limiter = self._limiters[client] = RateLimiter(client, self.limits)
        costs = None if self._costs is None else self._costs(job)
        decision = await limiter.check(self._subject(job), self.name, costs=costs)
        if decision.allowed:
            return 0.0
        return max(decision.retry_after, _SHORTEST) * (1 + _RANDOM.uniform(0, _SPREAD))


def _of_workspace(job: JobContext) -> Subject:
    return Subject(workspace=job.workspace)
