"""One request as its limits see it: keys, policies and costs; and the plans that ask the store about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self, cast

from redis_core.errors import CostExceedsLimit, StoreError
from redis_core.pipeline import Pending, Pipeline
from redis_core.rate_limiting.economy import Deck, DeckTake, KnownDecks, make_decks
from redis_core.rate_limiting.exact import (
    NO_LEASE,
    ExactForm,
    adjust_script,
    costs_as_words,
    figures_of,
    take_script,
    words_for,
)
from redis_core.rate_limiting.policy import Policy, PolicySet
from redis_core.transport.base import Command, Reply
from redis_core.transport.cluster_slots import key_slot

__all__ = ["Asked", "ExactTake", "KeyForm", "KeyRequest", "Take", "costs_of", "form_of"]


class KeyForm:
    """How one set of policies is counted: which by script, which by decks."""

    __slots__ = ("costs", "decks", "exact", "exact_places", "policies", "set", "whole")

    def __init__(self, policies: PolicySet, *, economy: bool) -> None:
        self.set = policies
        self.policies: tuple[Policy, ...] = policies.policies
        if economy:
            # A penalty in the store would cost a command each time; on this plan each process keeps its own.
            self.policies = tuple(policy for policy in self.policies if policy.kind != "b")
        plain = [place for place, policy in enumerate(self.policies) if economy and policy.kind in "rf"]
        self.decks = _placed(make_decks([self.policies[place] for place in plain]), plain)
        self.exact_places = tuple(place for place in range(len(self.policies)) if place not in plain)
        self.exact = (
            ExactForm([self.policies[place] for place in self.exact_places]) if self.exact_places else None
        )
        self.whole = not plain
        """Whether the script counts all of it."""
        self.costs: dict[int, tuple[int, ...]] = {}
        """Costs by weight, for requests that have no other."""


def _placed(decks: Sequence[Deck], places: Sequence[int]) -> tuple[Deck, ...]:
    return tuple(Deck(deck.columns, deck.period, [places[place] for place in deck.places]) for deck in decks)


def form_of(policies: PolicySet, *, economy: bool) -> KeyForm:
    """The form of a set, made once and kept with it."""
    known = policies.forms.get(economy)
    if known is None:
        known = policies.forms[economy] = KeyForm(policies, economy=economy)
    return known  # type: ignore[return-value]


def costs_of(form: KeyForm, weight: int, costs: Mapping[str, int] | None, *, leases: bool) -> tuple[int, ...]:
    """What a request costs under each policy of a key.

    Raises:
        CostExceedsLimit: more than a policy ever lets pass.
        ValueError: a cost is negative.
    """
    if not costs and not leases:
        known = form.costs.get(weight)
        if known is not None:
            return known
    listed = tuple(_cost(policy, weight, costs, leases) for policy in form.policies)
    for policy, cost in zip(form.policies, listed, strict=True):
        if cost > policy.most and not policy.shadow:
            raise CostExceedsLimit(
                f"{cost} {policy.unit} are more than {policy.name!r} ever lets pass at once ({policy.most})"
            )
        if cost < 0:
            raise ValueError(f"a cost of {cost} {policy.unit}: it must be at least 0")
    if not costs and not leases and len(form.costs) < 1024:  # noqa: PLR2004 - weights are few, unless a caller computes them
        form.costs[weight] = listed
    return listed


def _cost(policy: Policy, weight: int, costs: Mapping[str, int] | None, leases: bool) -> int:
    if policy.kind == "c":
        return int(leases and weight > 0)
    if policy.kind == "b":
        return 0
    given = costs.get(policy.unit) if costs else None
    if given is not None:
        return given
    return weight if policy.unit == "requests" else 0


class KeyRequest(NamedTuple):
    """What is asked under one key."""

    key: str
    form: KeyForm
    costs: tuple[int, ...]


class Asked(tuple[KeyRequest, ...]):  # noqa: SLOT001 - a tuple's subclass can have no others
    """What a request asks under all its keys, and what follows from it."""

    keys: tuple[str, ...]
    policies: tuple[Policy, ...]
    whole: bool
    """Whether the script counts all of it."""
    leases: bool
    asks: tuple[tuple[ExactForm, tuple[bytes, ...]], ...]
    """What the script is asked, where it counts all."""

    def __new__(cls, requests: Sequence[KeyRequest]) -> Self:
        """Make it, once for a subject and endpoint."""
        self = super().__new__(cls, requests)
        self.keys = tuple(request.key for request in requests)
        self.policies = tuple(policy for request in requests for policy in request.form.policies)
        self.whole = all(request.form.whole for request in requests)
        self.leases = any(request.form.set.leases for request in requests)
        self.asks = (
            tuple((_exact(request), costs_as_words(request.costs)) for request in requests)
            if self.whole
            else ()
        )
        return self


class ExactTake:
    """One decision by script on some keys, in a batch with others.

    Args:
        asked: what is asked under each key.
        lease: the id of a lease.
        peek: count nothing.
    """

    def __init__(self, asked: Sequence[KeyRequest], lease: bytes = NO_LEASE, *, peek: bool = False) -> None:
        self._asked = asked
        self._lease = lease
        self._peek = peek
        self._keys = [request.key for request in asked]
        self._costs = [tuple(r.costs[place] for place in r.form.exact_places) for r in asked]
        self.policies = [policy for r in asked for policy in _exact(r).policies]
        self.at = 0
        """When the store decided, in ms."""
        self.values: list[int] = []

    def queue(self, batch: Pipeline) -> list[Pending[Reply]]:
        """Put its command into a batch."""
        words = words_for(
            [[(_exact(r), costs_as_words(costs)) for r, costs in zip(self._asked, self._costs, strict=True)]]
        )
        return [
            batch.run(take_script(), self._keys, (b"peek" if self._peek else b"take", self._lease, *words))
        ]

    def read(self, replies: Sequence[Reply]) -> list[Command]:
        """Understand the reply; nothing must be sent after it."""
        self.at, self.values = figures_of(replies[0], len(self.policies))
        return []

    def refused(self) -> bool:
        """Whether a policy that is not only watched refuses."""
        return any(
            wait and not policy.shadow for wait, policy in zip(self.values[1::2], self.policies, strict=True)
        )

    def undo(self) -> list[tuple[int, ...]]:
        """The changes that give back what was counted, for each key."""
        waits = iter(self.values[1::2])
        return [tuple(-cost if not next(waits) else 0 for cost in costs) for costs in self._costs]

    def change(self, batch: Pipeline, changes: Sequence[Sequence[int]]) -> None:
        """Put the command that corrects it into a batch; changes for each key, by place in the set."""
        picked = [tuple(c[p] for p in r.form.exact_places) for r, c in zip(self._asked, changes, strict=True)]
        self.change_exact(batch, picked)

    def change_exact(self, batch: Pipeline, picked: Sequence[tuple[int, ...]]) -> None:
        """As `change`, the changes by place among the script's policies."""
        if not any(any(changes) for changes in picked):
            return
        changed = [
            [(_exact(r), costs_as_words(changes))] for r, changes in zip(self._asked, picked, strict=True)
        ]
        words = words_for(changed, counted=False)
        batch.run(adjust_script(), self._keys, (b"%d" % self.at, self._lease, *words))

    def figures(self, number: int, *, passed: bool) -> list[tuple[int, int, int]]:
        """For each policy of the key of this number its place in the set, what remains, and the wait."""
        before = sum(len(_exact(r).policies) for r in self._asked[:number])
        rows: list[tuple[int, int, int]] = []
        for offset, place in enumerate(self._asked[number].form.exact_places):
            remaining, wait = self.values[2 * (before + offset)], self.values[2 * (before + offset) + 1]
            if not passed and not wait and not self.refused() and not self._peek:
                remaining += self._costs[number][offset]
            rows.append((place, remaining, wait))
        return rows


def _exact(request: KeyRequest) -> ExactForm:
    assert request.form.exact is not None  # noqa: S101 - only keys with such policies come here
    return request.form.exact


class Take:
    """One decision on any number of keys and plans: what is counted, and how it is corrected later.

    All commands leave in one trip. Where more than one of them counts (decks, or a cluster's slots), a refusal by one is followed
    by giving back what the others counted: never more is admitted, but what arrives in that moment may be refused in error.

    Args:
        asked: what is asked under each key.
        now: ms since the epoch, by the store's clock; decks go by it.
        known: what this process knows of decks.
        lease: the id of a lease.
        apart: send a script for each slot, because a cluster keeps them apart.
        peek: count nothing.
    """

    def __init__(
        self,
        asked: Sequence[KeyRequest],
        now: int,
        known: KnownDecks,
        lease: bytes = NO_LEASE,
        *,
        apart: bool = False,
        peek: bool = False,
    ) -> None:
        self.asked = asked
        self._decks = [
            (number, DeckTake(deck, request.key, request.costs, now, known, peek=peek))
            for number, request in enumerate(asked)
            for deck in request.form.decks
        ]
        groups: dict[int, list[int]] = {}
        for number, request in enumerate(asked):
            if request.form.exact is not None:
                groups.setdefault(key_slot(request.key) if apart else 0, []).append(number)
        self._scripts = [
            (group, ExactTake([asked[number] for number in group], lease, peek=peek))
            for group in groups.values()
        ]
        self._peek = peek
        self.passed = False

    @classmethod
    def of_before(
        cls, asked: Sequence[KeyRequest], then: int, known: KnownDecks, *, apart: bool = False
    ) -> Self:
        """A decision that was made elsewhere, of which the store has counted nothing yet; `correct` counts it.

        Args:
            asked: what was asked under each key.
            then: when, in ms by the store's clock.
            known: as above.
            apart: as above.
        """
        nothing = [request._replace(costs=(0,) * len(request.costs)) for request in asked]
        take = cls(nothing, then, known, apart=apart)
        for _, script in take._scripts:
            script.at = then
        return take

    async def decide(self, batch: Pipeline, after: Pipeline) -> list[list[int]]:
        """Ask the store; for each key what remains and the wait of each policy.

        Args:
            batch: an empty pipeline, for the question.
            after: an empty pipeline, for what must be given back.
        """
        asking: list[tuple[ExactTake | DeckTake, list[Pending[Reply]]]] = []
        asking += [(take, take.queue(batch)) for _, take in self._scripts]
        asking += [(take, [_queue(batch, command) for command in take.commands()]) for _, take in self._decks]
        await batch.send()
        failure: StoreError | None = None
        counted: list[ExactTake | DeckTake] = []
        for take, pending in asking:
            try:
                commands = take.read([item.result() for item in pending])
            except StoreError as error:
                failure = error
                continue
            counted.append(take)
            for command in commands:
                after.execute(*command)
        self.passed = failure is None and not any(take.refused() for take in counted)
        given = [] if self._peek else self._give_back(after, counted)
        if len(after):
            await after.send()
            await self._remake(after, given)
        if failure is not None:
            raise failure
        return self._figures()

    def _give_back(
        self, after: Pipeline, counted: Sequence[ExactTake | DeckTake]
    ) -> list[tuple[DeckTake, Pending[Reply]]]:
        given: list[tuple[DeckTake, Pending[Reply]]] = []
        for take in counted:
            if isinstance(take, DeckTake):
                given += [(take, _queue(after, command)) for command in take.give_back(passed=self.passed)]
            elif not self.passed and not take.refused():
                take.change_exact(after, take.undo())
        return given

    async def _remake(self, batch: Pipeline, given: Sequence[tuple[DeckTake, Pending[Reply]]]) -> None:
        for take, pending in given:
            for command in take.removed_meanwhile(pending.result()):
                batch.execute(*command)
        if len(batch):
            await batch.send()

    def _figures(self) -> list[list[int]]:
        figures = [[0] * (2 * len(request.form.policies)) for request in self.asked]
        rows = [(n, row) for n, take in self._decks for row in take.figures(passed=self.passed)]
        for group, take in self._scripts:
            rows += [
                (n, row) for place, n in enumerate(group) for row in take.figures(place, passed=self.passed)
            ]
        for number, (place, remaining, wait) in rows:
            figures[number][2 * place : 2 * place + 2] = (remaining, wait)
        return figures

    async def correct(self, batch: Pipeline, changes: Sequence[Sequence[int]], now: int) -> None:
        """Correct what was counted.

        Args:
            batch: an empty pipeline.
            changes: for each key one for each policy; a lease is renewed by 1 and ended by -1.
            now: ms since the epoch, by the store's clock.
        """
        for number, deck in self._decks:
            for command in deck.settle(changes[number], now):
                batch.execute(*command)
        for group, script in self._scripts:
            script.change(batch, [changes[number] for number in group])
        for reply in await batch.send() if len(batch) else ():
            if isinstance(reply, StoreError):
                raise reply


def _queue(batch: Pipeline, command: Command) -> Pending[Reply]:
    return cast("Pending[Reply]", batch.execute(*command))
