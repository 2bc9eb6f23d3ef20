from __future__ import annotations

import pytest

from redis_core.cli import services
from redis_core.config import load_settings
from redis_core.errors import ConfigError
from redis_core.gateway import tokens_from_settings


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mock_redis": True, "redis_url": "redis://cache.example.com"},
        {"redis_url": "redis://127.0.0.1"},
        {"redis_url": "unix:///run/redis.sock"},
    ],
)
def test_visitors_come_by_themselves_to_a_store_of_this_host(settings: dict[str, object]) -> None:
    assert services._is_near(load_settings(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"redis_url": "redis://10.0.0.5"},
        {"upstash_redis_url": "https://x.upstash.io", "upstash_redis_token": "t"},
    ],
)
def test_visitors_do_not_come_by_themselves_to_a_store_elsewhere(settings: dict[str, object]) -> None:
    assert not services._is_near(load_settings(**settings))


def test_the_demo_is_there_unless_this_is_production() -> None:
    production = load_settings(raptorflow_env="production", mock_redis=True, mock_redis_in_production=True)
    assert services._find_demo(load_settings(), None) is not None
    assert services._find_demo(load_settings(), False) is None
    assert services._find_demo(production, None) is None
    assert services._find_demo(production, True) is not None


def test_a_demo_that_is_asked_for_and_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_core.__file__", "/usr/lib/python3/site-packages/redis_core/__init__.py")
    assert services._find_demo(load_settings(), None) is None
    with pytest.raises(ConfigError, match="--demo"):
        services._find_demo(load_settings(), True)


def test_tokens_that_are_set_are_used_and_not_shown() -> None:
    settings = load_settings(gateway_token="one, two", gateway_readonly_token="three")
    assert services._made_tokens(settings) == {}
    accepted = [(token.token.reveal(), token.read_only) for token in tokens_from_settings(settings)]
    assert accepted == [("one", False), ("two", False), ("three", True)]


@pytest.mark.parametrize("text", ["one,", ",one", "one,,two", " "])
def test_a_token_of_several_that_is_empty_is_an_error_that_does_not_show_the_others(text: str) -> None:
    with pytest.raises(ConfigError, match="GATEWAY_TOKEN") as refused:
        tokens_from_settings(load_settings(gateway_token=text))
    assert "one" not in refused.value.remedy.replace("with one comma", "")


def test_tokens_that_are_made_are_new_each_time_and_one_only_reads() -> None:
    first, second = services._made_tokens(load_settings()), services._made_tokens(load_settings())
    assert list(first) == ["GATEWAY_TOKEN", "GATEWAY_READONLY_TOKEN"]
    assert not set(first.values()) & set(second.values())
