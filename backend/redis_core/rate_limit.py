"""Rate limits: may this request pass, by all its limits at once, in one trip to the store.

::

    limiter = RateLimiter(await get_redis())
    decision = await limiter.check(Subject(user="u1", workspace="acme", ip="203.0.113.7"), "/api/v1/agents")
    if not decision:
        ...  # decision.policy refused; come again in decision.retry_after seconds

All policies of a request (by user, workspace, address or everyone; requests, tokens or another unit; a second, a minute, a day) are
decided together: all let it pass and count it, or none counts anything. What is counted is what was admitted; counting refusals
would starve an eager client. The limits are those of `rate_limit_config.py`, or any `RateLimits`.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import RateLimited
from redis_core.rate_limiting.decision import Decision, PolicyState
from redis_core.rate_limiting.engine import Engine, LimiterStats, Plan
from redis_core.rate_limiting.limits import Endpoint, RateLimits, limits_of
from redis_core.rate_limiting.policy import Penalty, Policy, Rule
from redis_core.rate_limiting.request import KeyRequest, Take
from redis_core.rate_limiting.reservation import Reservation
from redis_core.rate_limiting.subject import Subject, client_address, key_for

__all__ = [
    "Decision",
    "Endpoint",
    "LimiterStats",
    "Penalty",
    "PolicyState",
    "RateLimited",
    "RateLimiter",
    "RateLimits",
    "Reservation",
    "Rule",
    "Subject",
    "client_address",
    "limits_of",
]

_DENY_LIST: Final = Policy(name="deny-list", kind="b", limit=1)
_DENIED: Final = Decision(
    allowed=False,
    policy="deny-list",
    remaining=0,
    retry_after=3600.0,
    violated=("deny-list",),
    states=(PolicyState(_DENY_LIST, 0, 3600.0),),
    source="list",
)
_NOTHING_TO_DECIDE: Final = Decision(allowed=True, policy="", remaining=0, retry_after=0.0, source="none")
_LONGEST_NAP: Final = 5.0
_MOST_OTHERS: Final = 256


class RateLimiter:
    """Decides on requests by the limits of a service.

    Budget of a decision: 1 trip. Exact plan: 1 command, a script; where a store bills a script's own too: 4 if it passes, 3 if it
    is refused, and for each further key 1. Economy plan: 1 for each deck (windows of up to 3600:1 share one), 1 more if it is
    refused, and twice in sixteen windows 1 more for each key and process. Refused again: nothing.

    While the store does not answer, each rule does what it says under `on_failure`, and the decision is marked `degraded`.

    Args:
        client: the store's client.
        limits: the limits; None takes those of `rate_limit_config.py`.
        plan: `exact` counts by script, 60 sub-windows and the server's clock; `economy` by one plain command; `auto` takes economy
            over Upstash's REST interface, which bills a script's inner commands, and exact elsewhere.
        instances: how many processes share the limits; each counts its share while the store is away.
        timeout: seconds a decision waits for the store.
        remember_refusals: seconds a refusal is repeated from memory at most; 0 asks every time.
        clock: what time is asked of.
    """

    def __init__(
        self,
        client: Client,
        limits: RateLimits | None = None,
        *,
        plan: Plan = "auto",
        instances: int = 1,
        timeout: float = 0.25,
        remember_refusals: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if instances < 1 or timeout <= 0:
            raise ValueError("instances must be at least 1, and the timeout above 0 s")
        if limits is None:
            # Loaded when it is used, so that a service with limits of its own does not depend on that file.
            from redis_core.rate_limit_config import LIMITS  # noqa: PLC0415

            limits = LIMITS
        self.limits = limits
        self._engine = Engine(client, plan, instances, remember_refusals, timeout, clock)
        self._clock = clock
        self._random = random.Random()  # noqa: S311 - jitter is no secret
        self._others: dict[int, RateLimits] = {}

    @property
    def stats(self) -> LimiterStats:
        """Running totals."""
        return self._engine.stats

    async def check(
        self,
        subject: Subject,
        endpoint: str,
        *,
        weight: int | None = None,
        costs: Mapping[str, int] | None = None,
        limits: RateLimits | None = None,
    ) -> Decision:
        """Decide on a request, and count it if it passes.

        Args:
            subject: whose it is.
            endpoint: the path template (`/agents/{id}`), never the path: each path would be a budget of its own.
            weight: how many requests it counts as; None takes the endpoint's.
            costs: what it costs in other units, such as `{"tokens": 800}`; a policy of a unit that is not given has no say.
            limits: other limits than the limiter's, made once and kept.

        Raises:
            CostExceedsLimit: it costs more than a limit ever lets pass; nothing was counted.
            ValueError: a limit is of concurrent uses: take it with `reserve`.
            InvalidKey: an id may not stand in a key.
        """
        limits = self._with(limits)
        if limits.denies(subject):
            self._engine.stats.refused += 1
            return _DENIED
        engine = self._engine
        asked = engine.requests(limits, subject, endpoint, weight, costs)
        if not asked:
            return _NOTHING_TO_DECIDE
        if asked.leases:
            raise ValueError(
                f"{endpoint} limits concurrent uses: take it with `async with await reserve(...)`"
            )
        decision = engine.known_refusal(asked)
        if decision is None:
            decision = await engine.decide(asked)
        if decision.allowed and not decision.degraded and not decision.shadowed:
            engine.stats.allowed += 1
        else:
            await engine.note(asked, decision)
        return decision

    async def peek(
        self,
        subject: Subject,
        endpoint: str,
        *,
        weight: int | None = None,
        costs: Mapping[str, int] | None = None,
        limits: RateLimits | None = None,
    ) -> Decision:
        """What `check` would say now; counts nothing and always asks. Budget: as `check` when refused."""
        limits = self._with(limits)
        if limits.denies(subject):
            return _DENIED
        asked = self._engine.requests(limits, subject, endpoint, weight, costs)
        return await self._engine.decide(asked, peek=True) if asked else _NOTHING_TO_DECIDE

    async def reserve(
        self,
        subject: Subject,
        endpoint: str,
        *,
        weight: int | None = None,
        costs: Mapping[str, int] | None = None,
        limits: RateLimits | None = None,
        give_back: bool = True,
        hold: float | None = None,
    ) -> Reservation:
        """Count an estimate now and the truth later, and take a place among the concurrent uses.

        ::

            async with await limiter.reserve(subject, "/chat", costs={"tokens": 4000}) as held:
                answer = await model(prompt)
                await held.settle(tokens=answer.tokens)

        A cancelled call gives back what it may have counted.

        Args:
            subject: as in `check`.
            endpoint: as in `check`.
            weight: as in `check`; 0 where the request itself was counted already, which takes no place among the concurrent either.
            costs: the estimates.
            limits: as in `check`.
            give_back: whether an exception or cancellation inside gives back what was counted; leases end in any case.
            hold: seconds after which it is given back if it was not ended.

        Raises:
            CostExceedsLimit: an estimate is more than a limit ever lets pass; nothing was counted.
            RateLimited: on entering it, if it was refused. `allowed` and `decision` tell before.
        """
        limits = self._with(limits)
        engine = self._engine
        if limits.denies(subject):
            return Reservation(engine, (), None, _DENIED, "")
        asked = engine.requests(limits, subject, endpoint, weight, costs, leases=True)
        if not asked:
            return Reservation(engine, (), None, _NOTHING_TO_DECIDE, "")
        known = engine.known_refusal(asked)
        if known is not None:
            await engine.note(asked, known)
            return Reservation(engine, asked, None, known, "")
        lease = secrets.token_hex(8)
        taking = asyncio.ensure_future(engine.take_or_none(asked, lease.encode()))
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            engine.keep(self._give_back_later(taking, asked, lease))
            raise
        take, decision = (None, engine.decide_here(asked, lease=lease)) if taken is None else taken
        await engine.note(asked, decision)
        return Reservation(engine, asked, take, decision, lease, give_back=give_back, hold=hold)

    async def wait(
        self,
        subject: Subject,
        endpoint: str,
        *,
        within: float,
        weight: int | None = None,
        costs: Mapping[str, int] | None = None,
        limits: RateLimits | None = None,
    ) -> Decision:
        """As `check`, waiting up to `within` seconds until it passes; those who wait come back at scattered times.

        Budget: `check`, once for each time it is refused by the store.
        """
        ends = self._clock.monotonic() + within
        while True:
            decision = await self.check(subject, endpoint, weight=weight, costs=costs, limits=limits)
            nap = min(decision.retry_after, _LONGEST_NAP) * self._random.uniform(1.0, 1.1) + 0.001
            if decision.allowed or self._clock.monotonic() + nap > ends:
                return decision
            await self._clock.sleep(nap)

    async def reset(self, subject: Subject, endpoint: str, *, limits: RateLimits | None = None) -> int:
        """Clear what is counted for a subject at an endpoint; how many Redis keys there were. Budget: 1 command, 2 on economy.

        Only the keys of this endpoint are cleared, not those where all endpoints are counted together. Other processes may go on
        refusing from memory, for at most `remember_refusals`.
        """
        engine = self._engine
        now = await engine.store_now() if engine.economy else engine.here_ms()
        names: dict[str, None] = {}
        for known in {
            id(known): known for known in (self._with(limits), self.limits, *self._others.values())
        }.values():
            for by, at, policies in known.route(endpoint, subject.plan).groups:
                key = key_for(subject, by, at, known.ipv6_prefix) if at == endpoint else None
                if key is not None:
                    names |= dict.fromkeys(engine.forget(key, policies, now))
        return await engine.client.unlink(*names) if names else 0

    async def aclose(self) -> None:
        """Finish what is being given back. Idempotent."""
        await self._engine.aclose()

    def _with(self, limits: RateLimits | None) -> RateLimits:
        """These limits or the limiter's; what was used is remembered, for `reset`."""
        if limits is None:
            return self.limits
        if id(limits) not in self._others:
            if len(self._others) >= _MOST_OTHERS:
                del self._others[next(iter(self._others))]
            self._others[id(limits)] = limits
        return limits

    async def _give_back_later(
        self, taking: asyncio.Future[tuple[Take, Decision] | None], asked: Sequence[KeyRequest], lease: str
    ) -> None:
        taken = await taking
        if taken is not None:
            await Reservation(self._engine, asked, *taken, lease).release(give_back=True)
