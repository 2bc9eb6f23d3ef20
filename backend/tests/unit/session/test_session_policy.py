"""The arithmetic of a session's life, in whole milliseconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.config import load_settings
from redis_core.sessions.policy import SessionPolicy

DAY_MS = 86_400_000
TIMES = st.integers(min_value=0, max_value=4_000_000_000_000)


def test_asvs_7_1_1_the_documented_times_are_24_hours_idle_and_30_days_absolute() -> None:
    policy = SessionPolicy()
    created = 1_000
    assert policy.end(created, policy.absolute_end(created)) == created + DAY_MS
    assert policy.absolute_end(created) == created + 30 * DAY_MS
    assert policy.end(created + 30 * DAY_MS - 1, policy.absolute_end(created)) == created + 30 * DAY_MS


def test_the_settings_name_the_policy() -> None:
    settings = load_settings(
        redis_session_ttl=600, session_absolute_ttl=900, session_max_per_user=3, session_at_max="refuse"
    )
    policy = SessionPolicy.from_settings(settings)
    assert (policy.idle, policy.absolute, policy.max_sessions, policy.at_max) == (600, 900, 3, "refuse")


def test_constant_use_touches_24_times_a_day() -> None:
    policy = SessionPolicy()
    touched, touches = 0, 0
    for now in range(0, DAY_MS + 1, 10_000):
        if policy.touch_due(touched, now):
            touched, touches = now, touches + 1
    assert touches == 24


@given(TIMES, st.floats(min_value=0.001, max_value=1e7), st.floats(min_value=0.001, max_value=1e7))
def test_redis_keeps_a_session_until_after_its_end_and_never_without_limit(
    now: int, idle: float, absolute: float
) -> None:
    policy = SessionPolicy(idle=idle, absolute=absolute)
    absolute_end = policy.absolute_end(now)
    end, ttl = policy.end(now, absolute_end), policy.redis_ttl(now, absolute_end, now)
    assert now < end <= absolute_end
    assert end < now + ttl <= end + policy.touch_after_ms
    assert policy.epoch_ttl_ms > ttl


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle": 0},
        {"absolute": -1},
        {"renew_after": 0},
        {"max_sessions": -1},
        {"max_bytes": 0},
        {"epoch_cache": -1},
    ],
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        SessionPolicy(**wrong)  # type: ignore[arg-type]
