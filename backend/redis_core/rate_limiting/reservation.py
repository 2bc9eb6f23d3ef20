"""What was counted before it is known: settled afterwards, given back if nothing came of it, kept alive while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

from redis_core.errors import RateLimited, StoreError
from redis_core.rate_limiting.decision import Decision

if TYPE_CHECKING:
    from redis_core.rate_limiting.engine import Engine
    from redis_core.rate_limiting.request import KeyRequest, Take

__all__ = ["Reservation"]

_RENEWALS: Final = 3
"""Renewals in the time a lease lasts."""


class Reservation:
    """An admitted request whose true cost is not known yet, or that holds a place among the concurrent ones.

    Use it as `async with`: an exception or cancellation inside gives everything back; otherwise what was settled holds, and where
    nothing was settled the estimate. Leases are renewed while it runs and end with it. What is never settled because the process
    died counts as estimated until its window has passed; its leases end by their deadline.

    Made by `RateLimiter.reserve`. Budget: leaving 1 trip where something is to be corrected; a lease 1 command each third of it.
    """

    def __init__(
        self,
        engine: Engine,
        asked: Sequence[KeyRequest],
        take: Take | None,
        decision: Decision,
        lease: str,
        *,
        give_back: bool = True,
        hold: float | None = None,
    ) -> None:
        self._engine = engine
        self._asked = asked
        self._take = take
        self.decision = decision
        """What was decided."""
        self._lease = lease
        self._gives_back = give_back
        self._then = engine.here_ms()
        self._counted = [list(row) for row in self._costs()]
        self._closed = not decision.allowed
        self._background: asyncio.Task[None] | None = None
        shortest = min(
            (policy.lease_ms for request in asked for policy in request.form.policies if policy.kind == "c"),
            default=0,
        )
        if not self._closed and (shortest or hold is not None):
            self._background = asyncio.get_running_loop().create_task(
                self._watch(shortest / 1000 / _RENEWALS, hold), name="rate-limit-reservation"
            )

    @property
    def allowed(self) -> bool:
        """Whether it was admitted; if not, leaving it does nothing."""
        return self.decision.allowed

    def _costs(self) -> list[tuple[int, ...]]:
        """What was counted: nothing for a policy that is only watched and would have refused."""
        watched = set(self.decision.shadowed)
        return [
            tuple(
                0 if policy.name in watched else cost
                for policy, cost in zip(request.form.policies, request.costs, strict=True)
            )
            for request in self._asked
        ]

    async def settle(self, actual: Mapping[str, int] | None = None, /, **units: int) -> None:
        """Count what it truly cost, by unit: `await held.settle(tokens=812)`. May be called again; units not named keep theirs.

        More than was estimated is counted even beyond the limit: it was spent. It is counted where the estimate was, so that it
        leaves the window with it.

        Raises:
            ValueError: a cost is negative, or the reservation is over.
        """
        wanted = {**(actual or {}), **units}
        if self._closed:
            raise ValueError("this reservation is over: settle it inside its `async with`")
        if any(cost < 0 for cost in wanted.values()):
            raise ValueError("a cost must be at least 0")
        changes: list[list[int]] = []
        for request, counted in zip(self._asked, self._counted, strict=True):
            row = [0] * len(counted)
            for place, policy in enumerate(request.form.policies):
                if (
                    policy.kind not in "cb"
                    and policy.unit in wanted
                    and policy.name not in self.decision.shadowed
                ):
                    row[place] = wanted[policy.unit] - counted[place]
                    counted[place] = wanted[policy.unit]
            changes.append(row)
        await self._correct(changes)

    async def release(self, *, give_back: bool = False) -> None:
        """End it: leases end, and with `give_back` nothing stays counted. Idempotent; finishes even if the caller is cancelled."""
        if self._closed:
            return
        self._closed = True
        if self._background is not None and self._background is not asyncio.current_task():
            self._background.cancel()
        changes = [
            [
                -1 if policy.kind == "c" and cost else -cost if give_back and policy.kind != "c" else 0
                for policy, cost in zip(request.form.policies, counted, strict=True)
            ]
            for request, counted in zip(self._asked, self._counted, strict=True)
        ]
        await self._engine.finish(self._correct(changes))

    async def _correct(self, changes: Sequence[Sequence[int]]) -> None:
        if not any(any(row) for row in changes):
            return
        engine = self._engine
        for request in self._asked:
            engine.refusals.forget(request.key)
        if self._take is None:
            engine.adjust_here(self._asked, changes, self._then, self._lease)
            return
        try:
            await self._take.correct(engine.client.pipeline(), changes, engine.estimated_now())
        except StoreError as error:
            engine.lost(error)

    async def _watch(self, renew_every: float, hold: float | None) -> None:
        """Renew the leases; give back what was held too long."""
        clock = self._engine.clock
        ends = None if hold is None else clock.monotonic() + hold
        renewals = [
            [int(policy.kind == "c" and cost > 0) for policy, cost in zip(r.form.policies, row, strict=True)]
            for r, row in zip(self._asked, self._counted, strict=True)
        ]
        while not self._closed:
            left = float("inf") if ends is None else ends - clock.monotonic()
            await clock.sleep(max(min(left, renew_every or left), 0))
            if ends is not None and clock.monotonic() >= ends:
                await self.release(give_back=True)
            elif not self._closed:
                await self._correct(renewals)

    async def __aenter__(self) -> Self:
        if not self.allowed:
            raise RateLimited(
                f"rate limit {self.decision.policy!r} refuses for {self.decision.retry_after:.3g} s more",
                retry_after=self.decision.retry_after,
                decision=self.decision,
            )
        return self

    async def __aexit__(self, error_type: type[BaseException] | None, *exc: object) -> None:
        await self.release(give_back=error_type is not None and self._gives_back)
