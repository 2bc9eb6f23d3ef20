"""Realtime tokens: nothing but what we signed is accepted, and it opens nothing but what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core import realtime_token
from redis_core.config import Settings
from redis_core.errors import ConfigError, InvalidKey
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing

OLD = "old:" + "o" * 40
NEW = "new:" + "n" * 40
KEYS = PepperRing(Secret(OLD))


def test_says_what_it_was_given() -> None:
    token = realtime_token.issue("acme", "u1", read=["campaign:*"], write=["doc:9"], seconds=60, keys=KEYS)
    claims = realtime_token.read(KEYS, token)
    assert claims is not None
    assert (claims.workspace, claims.user) == ("acme", "u1")
    assert claims.may_read("campaign:9")
    assert not claims.may_read("doc:9")
    assert claims.may_write("doc:9")
    assert not claims.may_write("doc:91")
    assert not claims.may_write("campaign:9")


@given(st.data())
def test_any_change_of_a_character_makes_it_nobodys(data: st.DataObject) -> None:
    token = realtime_token.issue("acme", "u1", read=["*"], keys=KEYS)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != token[at]))
    assert realtime_token.read(KEYS, token[:at] + other + token[at + 1 :]) is None


@given(st.text())
def test_any_other_text_is_no_token_and_no_error(text: str) -> None:
    assert realtime_token.read(KEYS, text) is None


def test_a_new_key_signs_and_the_old_ones_tokens_still_count_until_it_goes() -> None:
    before = realtime_token.issue("acme", "u1", keys=KEYS)
    both = PepperRing(Secret(f"{NEW},{OLD}"))
    after = realtime_token.issue("acme", "u1", keys=both)
    assert realtime_token.read(both, before) is not None
    assert realtime_token.read(KEYS, after) is None
    assert realtime_token.read(PepperRing(Secret(NEW)), before) is None
    assert realtime_token.read(PepperRing(Secret(NEW)), after) is not None


@pytest.mark.parametrize("pattern", ["", "a b", "a*b", "*a", "**", "a[1]", "{a}", "é", "a" * 201])
def test_refuses_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidKey):
        realtime_token.issue("acme", "u1", read=[pattern], keys=KEYS)


@pytest.mark.parametrize("seconds", [0, -1, realtime_token.MAX_SECONDS + 1, float("nan")])
def test_lives_for_a_while_and_no_longer_than_a_day(seconds: float) -> None:
    with pytest.raises(ValueError, match="realtime token lives"):
        realtime_token.issue("acme", "u1", seconds=seconds, keys=KEYS)


def test_refuses_a_token_too_large_for_a_header() -> None:
    with pytest.raises(ValueError, match="too large"):
        realtime_token.issue("acme", "u1", read=[f"topic:{n:0100}" for n in range(100)], keys=KEYS)


def test_production_without_keys_is_a_mistake_that_names_the_setting() -> None:
    settings = Settings(_env_file=None, raptorflow_env="production", redis_url="redis://x")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="REALTIME_KEYS"):
        realtime_token.keys_from_settings(settings)


def test_a_malformed_key_names_its_setting_and_hides_its_value() -> None:
    settings = Settings(_env_file=None, realtime_keys="k1:short")  # type: ignore[call-arg, arg-type]
    with pytest.raises(ConfigError, match="REALTIME_KEYS") as caught:
        realtime_token.keys_from_settings(settings)
    assert "short" not in str(caught.value).replace("shortest", "")


def test_what_this_process_issues_its_service_accepts() -> None:
    settings = Settings(_env_file=None, mock_redis=True)  # type: ignore[call-arg]
    token = realtime_token.issue("acme", "u1", keys=realtime_token.keys_from_settings(settings))
    assert realtime_token.read(realtime_token.keys_from_settings(settings), token) is not None
