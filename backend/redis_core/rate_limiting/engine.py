"""How a limiter asks: the fastest way that the request allows, and what it does when the store does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from redis_core.client import Client
from redis_core.clock import Clock
from redis_core.errors import Kind, Outcome, StoreError
from redis_core.rate_limiting.decision import Decision, PolicyState, decide
from redis_core.rate_limiting.economy import KnownDecks
from redis_core.rate_limiting.exact import NO_LEASE, adjust_script, costs_as_words, words_for
from redis_core.rate_limiting.gather import Gather
from redis_core.rate_limiting.limits import RateLimits
from redis_core.rate_limiting.local import LocalCounters, Refusals, Strikes, refused_again
from redis_core.rate_limiting.owed import Debt, Owed
from redis_core.rate_limiting.policy import PolicySet, block_policy
from redis_core.rate_limiting.request import Asked, KeyRequest, Take, costs_of, form_of
from redis_core.rate_limiting.subject import Subject, key_for
from redis_core.resilience.outage import NO_OUTAGE, Change, State

__all__ = ["Engine", "LimiterStats", "Plan"]

Plan = Literal["auto", "exact", "economy"]

_STORE_AWAY: Final = frozenset({Kind.UNREACHABLE, Kind.OVERLOADED, Kind.READ_ONLY, Kind.CREDENTIALS})
_MOST_ASKED: Final = 16_384
_FAILURES: Final = 3
_PAUSE: Final = 1.0
"""Seconds in which a store that failed so often in a row is not asked: each request would wait out its deadline."""
_DEBTS_AT_ONCE: Final = 200
"""In one trip, so that a store that has just come back is not run over."""
_CLOCK_GOOD_FOR: Final = 300.0
"""Seconds until the store's clock is asked for again, on the economy plan."""


@dataclass(slots=True)
class LimiterStats:
    """Running totals of one limiter, for metrics."""

    allowed: int = 0
    refused: int = 0
    refused_from_memory: int = 0
    """Of the refused: those that cost no command."""
    degraded: int = 0
    """Decisions in which the store took no part."""
    shadowed: int = 0
    """Decisions that a rule which is only watched would have refused."""
    penalties: int = 0
    corrections_lost: int = 0
    """What should have been given back or settled while the store was away; it stays counted until its window ends."""


class Engine:
    """The state of one limiter and its ways to the store.

    Args:
        client: the store's client.
        plan: how to count.
        instances: how many processes share the limits while the store is away.
        remember_refusals: seconds a refusal is repeated from memory at most; 0 asks every time.
        timeout: seconds a decision waits for the store.
        clock: what time is asked of.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        instances: int,
        remember_refusals: float,
        timeout: float,
        clock: Clock,
    ) -> None:
        client = client.primary
        self.client = client.within(timeout)
        self._outage = client.outage
        self._owed = Owed()
        self._paying = False
        self.clock = clock
        self.stats = LimiterStats()
        client.meter.watch(self, Engine.totals)
        self.economy = plan == "economy" or (plan == "auto" and client.store_mode == "upstash")
        self.decks = KnownDecks()
        self.refusals = Refusals(remember_refusals)
        self.remembers = remember_refusals > 0
        self._strikes = Strikes()
        self.local = LocalCounters(instances)
        self._one_place = client.store_mode != "cluster"
        self.gather = Gather(
            self.client, timeout, together=self._one_place and client.store_mode != "upstash"
        )
        self._asked: dict[tuple[RateLimits, Subject, str, int | None], Asked] = {}
        self._failures = 0
        self._last_failure: StoreError | None = None
        self._not_before = 0.0
        self._ahead = 0.0
        """Seconds that the store's clock is ahead of ours."""
        self._ahead_until = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_watching = self._outage.watch(self._outage_changed)

    # --- what is asked ---

    def requests(
        self,
        limits: RateLimits,
        subject: Subject,
        endpoint: str,
        weight: int | None,
        costs: Mapping[str, int] | None,
        *,
        leases: bool = False,
    ) -> Asked:
        """What a request asks under each key."""
        if costs or leases:
            return self._requests(limits, subject, endpoint, weight, costs, leases=leases)
        name = limits, subject, endpoint, weight
        asked = self._asked.get(name)
        if asked is None:
            asked = self._requests(limits, subject, endpoint, weight, None, leases=False)
            if len(self._asked) >= _MOST_ASKED:
                del self._asked[next(iter(self._asked))]
            self._asked[name] = asked
        return asked

    def _requests(
        self,
        limits: RateLimits,
        subject: Subject,
        endpoint: str,
        weight: int | None,
        costs: Mapping[str, int] | None,
        *,
        leases: bool,
    ) -> Asked:
        groups, own_weight = limits.route(endpoint, subject.plan)
        asked: list[KeyRequest] = []
        for by, place, policies in groups:
            key = key_for(subject, by, place, limits.ipv6_prefix)
            if key is not None:
                form = form_of(policies, economy=self.economy)
                cost = costs_of(form, own_weight if weight is None else weight, costs, leases=leases)
                # A unit that costs nothing yet may be settled.
                if any(cost) or (leases and costs and not policies.units.isdisjoint(costs)):
                    asked.append(KeyRequest(key, form, cost))
        return Asked(asked)

    def known_refusal(self, asked: Asked) -> Decision | None:
        """A refusal that needs no question: the same, or more, was refused a moment ago."""
        if not self.refusals:
            return None
        for place, key in enumerate(asked.keys):
            refusal = self.refusals.find(key)
            if refusal is None:
                continue
            now = self.clock.monotonic()
            if now >= refusal.until:
                self.refusals.forget(key)
            elif _covers(refusal.policy, refusal.cost, asked[place]):
                return refused_again(refusal, now)
        return None

    # --- asking ---

    async def decide(self, asked: Asked, *, peek: bool = False) -> Decision:
        """Ask the store, or count here while it is away."""
        if self._store_is_away():
            return self.decide_here(asked, peek=peek)
        try:
            if asked.whole and (self._one_place or len(asked) == 1):
                ask = self.gather.peek if peek else self.gather.ask
                figures = await ask(asked.keys, asked.asks, len(asked.policies))
            else:
                take = await self.take(asked, peek=peek)
                rows = await take.decide(self.client.pipeline(), self.client.pipeline())
                figures = [figure for row in rows for figure in row]
        except StoreError as error:
            self._failed(error)
            return self.decide_here(asked, peek=peek)
        self._answered()
        return decide(asked.policies, figures)  # type: ignore[arg-type]

    async def take(self, asked: Sequence[KeyRequest], lease: bytes = NO_LEASE, *, peek: bool = False) -> Take:
        """A decision that can be corrected later."""
        now = 0
        if any(request.form.decks for request in asked):
            now = await self.store_now()
        return Take(asked, now, self.decks, lease, apart=self.client.store_mode == "cluster", peek=peek)

    async def store_now(self) -> int:
        """The store's clock in ms. Budget: 1 command in five minutes and process."""
        monotonic = self.clock.monotonic()
        if monotonic >= self._ahead_until:
            before = self.clock.now()
            theirs = await self.client.time()
            self._ahead = theirs - (before + self.clock.now()) / 2
            self._ahead_until = monotonic + _CLOCK_GOOD_FOR
        return int((self.clock.now() + self._ahead) * 1000)

    # --- while the store is away ---

    def decide_here(self, asked: Sequence[KeyRequest], *, lease: str = "", peek: bool = False) -> Decision:
        """Decide in this process, each policy as it says under `on_failure`."""
        keyed = [(request.key, policy) for request in asked for policy in request.form.policies]
        costs = [cost for request in asked for cost in request.costs]
        figures = self.local.decide(keyed, costs, self._micros(), lease=lease, peek=peek)
        decision = decide([policy for _, policy in keyed], figures, degraded=True, source="local")
        if decision.allowed and not peek and self._outage is not NO_OUTAGE:
            costs_by_key = [request.costs for request in asked]
            self._owed.add(asked, costs_by_key, self.here_ms(), decision.shadowed)
        return decision

    def adjust_here(
        self, asked: Sequence[KeyRequest], changes: Sequence[Sequence[int]], then: int, lease: str
    ) -> None:
        """Correct what was decided here."""
        now = self._micros()
        for request, row in zip(asked, changes, strict=True):
            for policy, change in zip(request.form.policies, row, strict=True):
                if change:
                    self.local.adjust(request.key, policy, change, now, then, lease)
        if self._outage is not NO_OUTAGE:
            self._owed.add(asked, changes, then)
            if not self._store_is_away():
                self._pay_soon()

    def _micros(self) -> int:
        return int(self.clock.now() * 1_000_000)

    def here_ms(self) -> int:
        """Our own clock in ms."""
        return self._micros() // 1000

    def _store_is_away(self) -> bool:
        if self._failures >= _FAILURES and self.clock.monotonic() < self._not_before:
            return True
        return not self._outage.available or self.client.transport.mode == "degraded"

    def _failed(self, error: StoreError) -> None:
        """Note that the store is away; an error that is ours is raised again."""
        if error.kind not in _STORE_AWAY:
            raise error
        if error is not self._last_failure:
            # Requests that share a script share its failure: it is one.
            self._failures += 1
            self._last_failure = error
        self._not_before = self.clock.monotonic() + _PAUSE

    async def take_or_none(self, asked: Sequence[KeyRequest], lease: bytes) -> tuple[Take, Decision] | None:
        """Ask the store for what will be corrected later; None if it is away."""
        if self._store_is_away():
            return None
        try:
            take = await self.take(asked, lease)
            figures = await take.decide(self.client.pipeline(), self.client.pipeline())
        except StoreError as error:
            self._failed(error)
            return None
        self._answered()
        flat = [figure for row in figures for figure in row]
        return take, decide([policy for request in asked for policy in request.form.policies], flat)

    def _answered(self) -> None:
        if self._failures:
            self._failures = 0
            self._pay_soon()

    def _outage_changed(self, change: Change) -> None:
        if change.after is State.HEALTHY:
            self._pay_soon()

    def _pay_soon(self) -> None:
        if self._owed and not self._paying:
            self._paying = True
            self.keep(self._pay())

    async def _pay(self) -> None:
        """Have the store count what was admitted without it, in windows that are still open. Budget: 2 commands a key and second."""
        try:
            while not self._store_is_away() and (debts := self._owed.take(_DEBTS_AT_ONCE, self.here_ms())):
                settled = await asyncio.gather(*map(self._settle, debts), return_exceptions=True)
                self._owed.put_back(
                    [debt for debt, error in zip(debts, settled, strict=True) if _not_paid(error)]
                )
                for error in settled:
                    if error is not None and not isinstance(error, StoreError):
                        raise error
                    if error is not None and not _not_paid(error):
                        self.lost(error)
                if any(settled):
                    return
        finally:
            self._paying = False

    async def _settle(self, debt: Debt) -> None:
        await self.store_now()
        request = KeyRequest(debt.key, debt.form, debt.costs)
        then = debt.then + int(self._ahead * 1000)
        take = Take.of_before([request], then, self.decks, apart=not self._one_place)
        await take.correct(self.client.pipeline(), [debt.costs], self.estimated_now())

    # --- afterwards ---

    def totals(self) -> dict[str, float]:
        """The running totals, by the metrics' names."""
        stats = self.stats
        return {
            "rate_limit_decisions_total|allowed": stats.allowed,
            "rate_limit_decisions_total|refused": stats.refused,
            "rate_limit_degraded_total": stats.degraded,
        }

    async def note(self, asked: Sequence[KeyRequest], decision: Decision) -> None:
        """Count a decision, remember a refusal, and begin a penalty where one is due."""
        stats = self.stats
        if decision.degraded:
            stats.degraded += 1
        if decision.shadowed:
            stats.shadowed += 1
        if decision.allowed:
            stats.allowed += 1
            return
        stats.refused += 1
        self._count_offence(asked)
        if decision.source == "cache":
            stats.refused_from_memory += 1
        elif not decision.degraded and self.remembers:
            self._remember(asked, decision)
        for request in asked:
            for policy in request.form.set.penalties:
                if policy.name in decision.violated and policy.penalty is not None:
                    now = self.clock.monotonic()
                    if self._strikes.add(request.key, policy.name, policy.penalty, now):
                        await self._punish(request, policy.penalty.seconds)

    def _count_offence(self, asked: Sequence[KeyRequest]) -> None:
        for request in asked:
            self.client.meter.refused(request.key)

    def _remember(self, asked: Sequence[KeyRequest], decision: Decision) -> None:
        now = self.clock.monotonic()
        places = iter(decision.states)
        by_policy = {id(state.policy): state for state in places}
        for request in asked:
            for policy, cost in zip(request.form.policies, request.costs, strict=True):
                state = by_policy.get(id(policy))
                # A lease may be given back at any moment.
                if state is not None and state.wait and not policy.shadow and policy.kind != "c":
                    self.refusals.learn(
                        request.key, state, cost, decision.states, now, whole=policy.kind == "b"
                    )

    async def _punish(self, request: KeyRequest, seconds: int) -> None:
        self.stats.penalties += 1
        state = PolicyState(block_policy(), 0, seconds)
        self.refusals.learn(request.key, state, 0, (state,), self.clock.monotonic(), whole=True)
        form = request.form.exact
        if form is None or form.policies[-1].kind != "b":
            return
        changes = tuple(seconds * 1000 if policy.kind == "b" else 0 for policy in form.policies)
        words = words_for([[(form, costs_as_words(changes))]], counted=False)
        try:
            await self.client.run(adjust_script(), (request.key,), (b"0", NO_LEASE, *words))
        except StoreError as error:
            self.lost(error)

    def lost(self, error: StoreError) -> None:
        """A correction could not be made; errors that are ours are raised."""
        if error.kind not in _STORE_AWAY:
            raise error
        self.stats.corrections_lost += 1

    def estimated_now(self) -> int:
        """The store's clock in ms, as far as it is known without asking."""
        return int((self.clock.now() + self._ahead) * 1000)

    def forget(self, key: str, policies: PolicySet, now: int) -> list[str]:
        """Forget what this process knows of a key; the names of what the store holds of it."""
        self.refusals.forget(key)
        self.local.forget(key)
        names = [key]
        for deck in form_of(policies, economy=True).decks:
            names += deck.names(key, now)
        for name in names:
            self.decks.forget(name)
        return names

    # --- work that outlives its caller ---

    def keep(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Let it finish, whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work, name="rate-limit-correction")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, work: Coroutine[object, object, None]) -> None:
        """Do it to the end even if the caller is cancelled meanwhile."""
        await asyncio.shield(self.keep(work))

    async def aclose(self) -> None:
        """Wait for what is under way. Idempotent."""
        self._stop_watching()
        await self.gather.aclose()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _not_paid(error: BaseException | None) -> bool:
    """Whether a debt was certainly not counted. What may have been counted is not sent again: it would be counted twice."""
    return isinstance(error, StoreError) and error.kind in _STORE_AWAY and error.outcome is Outcome.NOT_SENT


def _covers(policy: str, cost: int, request: KeyRequest) -> bool:
    """Whether a refusal of this cost by this policy says the same of a request: as much or more is asked."""
    if policy == "penalty":
        return True
    for known, mine in zip(request.form.policies, request.costs, strict=True):
        if known.name == policy:
            return mine >= cost > 0
    return False
