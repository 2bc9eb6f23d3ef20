"""Regions: what is shared in memory and what is copied, and options that make no sense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

import msgspec
import pytest

from redis_core.caching.region import TTL, CacheRegion, Fresh, is_immutable
from redis_core.errors import ConfigError, InvalidKey


class Colour(Enum):
    RED = 1


class Frozen(msgspec.Struct, frozen=True):
    name: str
    when: datetime | None = None
    tags: tuple[str, ...] = ()
    colour: Colour = Colour.RED


class Loose(msgspec.Struct):
    name: str


class HoldsAList(msgspec.Struct, frozen=True):
    names: list[str]


class Tree(msgspec.Struct, frozen=True):
    name: str
    children: tuple[Tree, ...] = ()


class LooseTree(msgspec.Struct, frozen=True):
    children: list[LooseTree]


@dataclass(frozen=True)
class Chain:
    next: Chain | None = None


@dataclass(frozen=True)
class FrozenData:
    name: str


@dataclass
class LooseData:
    name: str


@pytest.mark.parametrize(
    "type_",
    [str, bytes, int, float, bool, Frozen, FrozenData, tuple[str, int], tuple[Frozen, ...], frozenset[str], str | None, Literal["a"], Colour, Tree, Chain],
    ids=str,
)  # fmt: skip
def test_what_cannot_change_is_shared(type_: type) -> None:
    assert is_immutable(type_)
    assert CacheRegion("r", type_).shared


@pytest.mark.parametrize(
    "type_", [list, dict, list[int], Loose, HoldsAList, LooseData, object, tuple[list[int], ...], bytearray, LooseTree], ids=str
)  # fmt: skip
def test_what_could_change_is_copied(type_: type) -> None:
    assert not is_immutable(type_)
    assert not CacheRegion("r", type_).shared


@pytest.mark.parametrize(
    "option", ["ttl", "stale_while_revalidate", "fail_safe", "memory_ttl", "hard_timeout"]
)
def test_a_negative_time_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"CacheRegion\('profile'\)\.{option} is '-1'"):
        CacheRegion("profile", str, **{option: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e18])
@pytest.mark.parametrize("option", ["ttl", "stale_while_revalidate", "fail_safe", "negative_ttl", "lease"])
def test_a_time_that_cannot_be_stored_is_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"CacheRegion\('profile'\)\.{option}"):
        CacheRegion("profile", str, **{option: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Fresh\.ttl"):
        Fresh("x", ttl=value)


def test_no_time_at_all_is_not_taken_for_the_default() -> None:
    with pytest.raises(ConfigError, match=r"ttl is '0'"):
        CacheRegion("profile", str, ttl=0)


def test_jitter_is_a_part_below_one_and_a_lease_takes_time() -> None:
    with pytest.raises(ConfigError, match="jitter"):
        CacheRegion("profile", str, jitter=1)
    with pytest.raises(ConfigError, match="lease"):
        CacheRegion("profile", str, lease=0)


@pytest.mark.parametrize("name", ["", "a:b", "a*", "{a}", "a b"])
def test_a_name_must_be_fit_for_a_key(name: str) -> None:
    with pytest.raises(InvalidKey):
        CacheRegion(name, str)


def test_jitter_only_shortens() -> None:
    region = CacheRegion("r", str, jitter=0.5)
    assert all(50 <= region.with_jitter(100) <= 100 for _ in range(200))
    assert CacheRegion("r", str, jitter=0).with_jitter(100) == 100


def test_the_manuals_times() -> None:
    assert TTL.STATIC_CONFIG >= 24 * 3600
    assert (TTL.USER_PROFILE, TTL.CAMPAIGN, TTL.LIVE_ANALYTICS) == (30 * 60, 15 * 60, 5 * 60)
