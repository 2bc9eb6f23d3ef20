"""Retries: only what is safe to do twice, and never more than the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    DeadlineExceeded,
    Outcome,
    StoreReadOnly,
    StoreUnavailable,
)
from redis_core.resilience.classify import READ_ONLY
from redis_core.retry import RetryBudget, may_repeat

UNKNOWN = StoreUnavailable("x", outcome=Outcome.UNKNOWN)
NOT_SENT = StoreUnavailable("x", outcome=Outcome.NOT_SENT)


@pytest.mark.parametrize("name", sorted(READ_ONLY))
def test_reads_may_be_repeated_whatever_became_of_them(name: str) -> None:
    assert may_repeat([(name, "k")], UNKNOWN)
    assert may_repeat([(name.lower(), "k")], UNKNOWN)


@pytest.mark.parametrize(
    "name", ["INCR", "SET", "DEL", "EVAL", "EVALSHA", "XADD", "LPUSH", "EXPIRE", "GETDEL", "BLPOP", "PUBLISH"]
)
def test_writes_are_repeated_only_if_they_never_left(name: str) -> None:
    assert not may_repeat([(name, "k")], UNKNOWN)
    assert not may_repeat([(name, "k")], DeadlineExceeded("x", outcome=Outcome.UNKNOWN))
    assert may_repeat([(name, "k")], NOT_SENT)


def test_one_write_in_a_batch_makes_it_a_write() -> None:
    assert may_repeat([("GET", "a"), ("TTL", "a")], UNKNOWN)
    assert not may_repeat([("GET", "a"), ("INCR", "a")], UNKNOWN)


def test_what_the_store_refused_is_not_repeated() -> None:
    for error in (CommandError("ERR"), CredentialsRejected("NOAUTH"), StoreReadOnly("READONLY")):
        assert not may_repeat([("GET", "a")], error)


@given(st.lists(st.booleans(), max_size=400))
def test_budget_is_one_retry_in_ten_calls_and_ten_to_begin_with(wanted: list[bool]) -> None:
    budget = RetryBudget()
    granted = 0
    for wants in wanted:
        budget.deposit()
        granted += wants and budget.withdraw()
    assert granted <= RetryBudget.CAPACITY + len(wanted) * RetryBudget.DEPOSIT + 1e-6


def test_empty_budget_fills_again() -> None:
    budget = RetryBudget()
    while budget.withdraw():
        pass
    for _ in range(11):
        assert not budget.withdraw()
        budget.deposit()
    assert budget.withdraw()


def test_delay_is_within_its_bounds() -> None:
    budget = RetryBudget()
    assert all(0 <= budget.delay() <= RetryBudget.MAX_DELAY for _ in range(100))
