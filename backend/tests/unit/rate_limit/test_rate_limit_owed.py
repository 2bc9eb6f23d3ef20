"""What a process owes to the store's count after an outage."""

from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.errors import Outcome, StoreUnavailable
from redis_core.rate_limit import RateLimiter
from redis_core.rate_limiting.owed import Debt, Owed
from redis_core.rate_limiting.policy import Policy, PolicySet
from redis_core.rate_limiting.request import KeyForm, KeyRequest
from tests.rate_world import START, Clock, limits

NOW = int(START * 1000)
FORM = KeyForm(PolicySet([Policy("minute", "r", 10, 60), Policy("hour", "r", 100, 3600)]), economy=False)


def request(key: str = "k") -> KeyRequest:
    return KeyRequest(key, FORM, (1, 1))


def test_admissions_of_one_second_are_one_debt() -> None:
    owed = Owed()
    for at in (0, 400, 999, 1000):
        owed.add([request()], [(1, 1)], NOW + at)
    assert [(debt.then - NOW, debt.costs) for debt in owed.take(9, NOW)] == [(0, (3, 3)), (1000, (1, 1))]
    assert not owed


def test_what_has_left_its_window_is_forgiven() -> None:
    owed = Owed()
    owed.add([request()], [(1, 1)], NOW)
    owed.add([request("other")], [(1, 0)], NOW)
    assert [debt.costs for debt in owed.take(9, NOW + 60_000)] == [(0, 1)]


def test_what_was_given_back_here_is_not_owed() -> None:
    owed = Owed()
    owed.add([request()], [(3, 3)], NOW)
    owed.add([request()], [(-3, -2)], NOW)
    assert [debt.costs for debt in owed.take(9, NOW)] == [(0, 1)]


def test_a_policy_that_is_only_watched_counts_nothing_of_what_it_would_refuse() -> None:
    owed = Owed()
    owed.add([request()], [(1, 1)], NOW, watched=[FORM.policies[0].name])
    assert [debt.costs for debt in owed.take(9, NOW)] == [(0, 1)]


def test_the_oldest_is_forgiven_where_there_are_too_many() -> None:
    owed = Owed(most=2)
    for key in "abc":
        owed.add([request(key)], [(1, 1)], NOW)
    assert [debt.key for debt in owed.take(9, NOW)] == ["b", "c"]
    assert owed.forgiven == 1


def test_what_is_put_back_comes_first_again_and_loses_nothing() -> None:
    owed = Owed()
    owed.add([request("a")], [(1, 1)], NOW)
    owed.add([request("b")], [(1, 1)], NOW)
    taken = owed.take(2, NOW)
    owed.add([request("c")], [(1, 1)], NOW)
    owed.add([request("a")], [(2, 2)], NOW)
    owed.put_back(taken)
    assert [(debt.key, debt.costs) for debt in owed.take(9, NOW)] == [
        ("a", (3, 3)),
        ("b", (1, 1)),
        ("c", (1, 1)),
    ]


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_a_debt_that_may_have_been_counted_is_not_paid_twice(
    outcome: Outcome, valkey: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    engine = RateLimiter(valkey, limits("10/min"), plan="exact", timeout=20, clock=clock)._engine
    engine._owed.add([request()], [(1, 1)], engine.here_ms())

    async def fails(debt: Debt) -> None:
        raise StoreUnavailable("away", outcome=outcome)

    monkeypatch.setattr(engine, "_settle", fails)
    await engine._pay()
    assert bool(engine._owed) is (outcome is Outcome.NOT_SENT)
    assert engine.stats.corrections_lost == (0 if outcome is Outcome.NOT_SENT else 1)
