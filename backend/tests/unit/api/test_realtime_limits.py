"""What a workspace may publish: two buckets of a second's worth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redis_core.api.realtime_limits import Allowance, RealtimeLimits
from redis_core.config import Settings
from tests.hand_clock import HandClock

LIMITS = RealtimeLimits(max_publishes=10, max_bytes=1_000)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 400)), max_size=60))
def test_no_stretch_of_time_passes_more_than_its_share(asks: list[tuple[float, int]]) -> None:
    clock = HandClock(100.0)
    allowance = Allowance(LIMITS, clock)
    passed: list[tuple[float, int]] = []
    for wait, size in asks:
        clock.time += wait
        if allowance.take(size) is None:
            passed.append((clock.time, size))
    for first, (began, _) in enumerate(passed):
        size = 0
        for last, (at, one) in enumerate(passed[first:], 1):
            size += one
            share = 1 + at - began
            assert last <= LIMITS.max_publishes * share + 1e-6
            assert size <= LIMITS.max_bytes * share + 1e-6


def test_says_which_of_both_is_used_up() -> None:
    clock = HandClock(100.0)
    allowance = Allowance(LIMITS, clock)
    assert allowance.take(1_000) is None
    assert allowance.take(1) == "too-many-bytes"
    clock.time += 1
    assert [allowance.take(1) for _ in range(11)] == [None] * 10 + ["too-many-publishes"]


def test_one_larger_than_a_seconds_worth_passes_and_is_paid_for() -> None:
    clock = HandClock(100.0)
    allowance = Allowance(LIMITS, clock)
    assert allowance.take(3_000) is None
    clock.time += 1.5
    assert allowance.take(1) == "too-many-bytes"
    clock.time += 1
    assert allowance.take(1) is None


def test_limits_are_the_settings() -> None:
    settings = Settings(_env_file=None, realtime_heartbeat=7, realtime_max_topics=3)  # type: ignore[call-arg]
    limits = RealtimeLimits.from_settings(settings)
    assert (limits.heartbeat, limits.max_topics) == (7, 3)
