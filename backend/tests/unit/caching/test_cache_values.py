"""What comes out is of the region's type and nobody else's: whatever a caller or a loader gave, and does to it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from redis_core.cache import Cache, CacheRegion
from redis_core.errors import CodecError, InvalidKey
from tests.cache_world import CacheProcess, CacheWorld


class Profile(msgspec.Struct, frozen=True):
    name: str
    tags: tuple[str, ...] = ()


PAIRS: CacheRegion[tuple[int, ...]] = CacheRegion("pair", tuple[int, ...], ttl=60)
PROFILES: CacheRegion[Profile] = CacheRegion("profile", Profile, ttl=60)
ROWS: CacheRegion[list[int]] = CacheRegion("row", list[int], ttl=60)
NUMBERS: CacheRegion[int] = CacheRegion("number", int, ttl=60)


@pytest.fixture
async def world() -> AsyncIterator[CacheWorld]:
    made = CacheWorld()
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
def here(world: CacheWorld) -> CacheProcess:
    return world.processes[0]


@pytest.fixture
def cache(here: CacheProcess) -> Cache:
    return here.cache()


async def test_a_list_that_stands_for_a_tuple_is_not_shared(cache: Cache) -> None:
    loose: Any = [1, 2]
    assert await cache.get_or_load(PAIRS, "a", lambda _: loose) == (1, 2)
    loose.append(3)
    assert await cache.get(PAIRS, "a") == (1, 2)
    await cache.set(PAIRS, "b", loose)
    loose.append(4)
    assert await cache.get(PAIRS, "b") == (1, 2, 3)


async def test_what_a_frozen_object_holds_is_of_its_type(cache: Cache) -> None:
    loose: Any = ["new"]
    await cache.set(PROFILES, "42", Profile("Ada", loose))
    loose.append("forged")
    assert await cache.get(PROFILES, "42") == Profile("Ada", ("new",))
    many = await cache.get_many(PROFILES, ["43"], lambda _: {"43": Profile("Bob", loose)})
    loose.clear()
    assert many["43"] == await cache.get(PROFILES, "43") == Profile("Bob", ("new", "forged"))


@pytest.mark.parametrize(
    ("region", "wrong"), [(ROWS, ["a"]), (NUMBERS, "7"), (PROFILES, {"name": 7})], ids=["list", "int", "Struct"]
)  # fmt: skip
async def test_what_is_of_another_type_is_an_error_of_who_gave_it_and_is_not_cached(
    world: CacheWorld, cache: Cache, region: CacheRegion[Any], wrong: Any
) -> None:
    with pytest.raises(CodecError, match=f"is not what cache region {region.name} holds"):
        await cache.get_or_load(region, "a", lambda _: wrong)
    with pytest.raises(CodecError, match=f"is not what cache region {region.name} holds"):
        await cache.set(region, "a", wrong)
    for process in world.processes:
        assert await process.cache().get(region, "a") is None
        assert await process.cache().get_many(region, ["a"]) == {}
    assert region.figures.corrupt == 0


async def test_a_list_of_tags_that_is_changed_afterwards_changes_nothing(cache: Cache) -> None:
    tags = ["shop"]
    await cache.set(NUMBERS, "a", 1, tags=tags)

    async def load(_: str) -> int:
        tags.append("another")
        return 2

    assert await cache.get_or_load(NUMBERS, "b", load, tags=tags) == 2
    tags.clear()
    await cache.flush_tag("shop")
    assert await cache.get_many(NUMBERS, ["a", "b"], tags=["shop"]) == {}


async def test_one_text_is_not_taken_for_its_letters(cache: Cache) -> None:
    with pytest.raises(InvalidKey, match="tags are several"):
        await cache.set(NUMBERS, "a", 1, tags="shop")
    with pytest.raises(InvalidKey, match="keys are several"):
        await cache.delete_many(NUMBERS, "abc")
    with pytest.raises(InvalidKey, match="keys are several"):
        await cache.get_many(NUMBERS, "abc")


async def test_a_name_that_can_be_no_key_invalidates_nothing(cache: Cache, here: CacheProcess) -> None:
    await cache.set(NUMBERS, "a", 1)
    calls: list[Callable[[], Awaitable[None]]] = [
        lambda: cache.flush(""),
        lambda: cache.flush("a b"),
        lambda: cache.flush_tag(""),
        lambda: cache.delete("", "a"),
        lambda: cache.delete(NUMBERS, "a b"),
        lambda: cache.set(NUMBERS, "a b", 1),
    ]
    for refused in calls:
        with pytest.raises(InvalidKey):
            await refused()
    assert await cache.get(NUMBERS, "a") == 1
