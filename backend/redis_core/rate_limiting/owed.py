"""What was admitted while the store was away, to be counted there when it is back: addition, so that processes need not agree.

It is kept in this process alone: what dies with it was one share of a limit, which leaves with its window anyway. What must not be
lost, such as a month's spending, is a matter of usage, which has a journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from redis_core.rate_limiting.request import KeyForm, KeyRequest

__all__ = ["Debt", "Owed"]

_BUCKET_MS: Final = 1_000
"""Admissions of one second are counted together: as fine as the sub-windows of a minute."""
_COUNTED: Final = frozenset("rfgl")
"""What is admitted is counted by these; concurrent uses end by themselves."""


class Debt(NamedTuple):
    """What was admitted under one key in one second."""

    key: str
    form: KeyForm
    then: int
    """The second's first millisecond, by our clock."""
    costs: tuple[int, ...]


class Owed:
    """Admissions that the store has not counted.

    Args:
        most: debts; the oldest are forgiven, because their windows end first.
    """

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._debts: dict[tuple[str, int, int], Debt] = {}
        self.forgiven = 0

    def add(
        self,
        asked: Sequence[KeyRequest],
        changes: Sequence[Sequence[int]],
        at: int,
        watched: Sequence[str] = (),
    ) -> None:
        """Note what was admitted, or how that was corrected since.

        Args:
            asked: under which keys.
            changes: for each key one for each policy; below 0 what was given back.
            at: ms, by our clock; when it was admitted, also of a correction.
            watched: policies that would have refused, had they a say; they count nothing.
        """
        then = at - at % _BUCKET_MS
        for request, row in zip(asked, changes, strict=True):
            costs = tuple(
                cost if policy.kind in _COUNTED and policy.name not in watched else 0
                for policy, cost in zip(request.form.policies, row, strict=True)
            )
            if not any(costs):
                continue
            name = request.key, id(request.form), then
            known = self._debts.get(name)
            debt = Debt(request.key, request.form, then, costs)
            if known is None and len(self._debts) >= self._most:
                del self._debts[next(iter(self._debts))]
                self.forgiven += 1
            self._debts[name] = debt if known is None else _sum(known, debt)

    def take(self, most: int, now: int) -> list[Debt]:
        """The oldest debts of windows that are still open, taken out; what is past is forgiven."""
        taken: list[Debt] = []
        while self._debts and len(taken) < most:
            debt = self._debts.pop(next(iter(self._debts)))
            costs = tuple(
                cost if now - debt.then < policy.window_ms else 0
                for policy, cost in zip(debt.form.policies, debt.costs, strict=True)
            )
            if any(costs):
                taken.append(debt._replace(costs=costs))
        return taken

    def put_back(self, debts: Sequence[Debt]) -> None:
        """The store would not have them after all."""
        later, self._debts = self._debts, {(debt.key, id(debt.form), debt.then): debt for debt in debts}
        for name, debt in later.items():
            known = self._debts.get(name)
            self._debts[name] = debt if known is None else _sum(known, debt)

    def __len__(self) -> int:
        return len(self._debts)


def _sum(one: Debt, other: Debt) -> Debt:
    return one._replace(costs=tuple(map(sum, zip(one.costs, other.costs, strict=True))))
