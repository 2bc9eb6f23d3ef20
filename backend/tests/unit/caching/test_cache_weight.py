"""What values weigh in memory: near the truth for what is made of many small parts, and cheap to tell."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import msgspec
import pytest

from redis_core.cache import CacheRegion
from redis_core.caching import weight
from redis_core.caching.store import Stored
from redis_core.caching.tiers import CacheTiers
from redis_core.caching.weight import Weight, held_bytes
from tests.cache_world import CacheWorld


class Colour(Enum):
    RED = "red"


class Item(msgspec.Struct, frozen=True):
    id: int
    name: str
    colour: Colour = Colour.RED
    when: datetime | None = None


@dataclass(frozen=True)
class Pair:
    left: int
    right: str


MAKERS: dict[str, tuple[Any, Callable[[int], Any]]] = {
    "numbers": (tuple[int, ...], lambda n: tuple(range(n * 1000, n * 1000 + 500))),
    "texts": (tuple[str, ...], lambda n: tuple(f"{n} {i}" for i in range(500))),
    "set": (frozenset[int], lambda n: frozenset(range(n * 1000, n * 1000 + 500))),
    "structs": (tuple[Item, ...], lambda n: tuple(Item(n * i, f"{i}", when=datetime.now(UTC)) for i in range(100))),
    "dataclasses": (tuple[Pair, ...], lambda n: tuple(Pair(n * i, f"{i}") for i in range(100))),
    "wide text": (str, lambda n: f"{n}" + "\N{CYRILLIC SMALL LETTER YA}" * 2_000),
    "one small struct": (Item, lambda n: Item(n, f"{n}")),
}  # fmt: skip


@pytest.mark.parametrize("kind", MAKERS)
async def test_what_memory_believes_to_hold_is_near_what_it_holds(kind: str) -> None:
    type_, make = MAKERS[kind]
    region: CacheRegion[Any] = CacheRegion("thing", type_, ttl=600)
    world = CacheWorld(processes=1)
    await world.begin()
    process = world.processes[0]
    cache, memory = process.cache(), process.engine.memory
    await cache.set(region, "first", make(0))
    payloads = [region.take_in(make(n))[1] for n in range(100)]
    # Without the store, which is in this process as well.
    gc.collect()
    tracemalloc.start()
    before, believed = tracemalloc.get_traced_memory()[0], memory.bytes
    tiers = cache._tiers
    for number, payload in enumerate(payloads):
        assert payload is not None
        stored = as_stored(tiers, region, payload)
        tiers.keep(region, tiers.entry(region, f"k{number}", region.codec.decode(payload), stored, ()))
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.5 < (memory.bytes - believed) / held < 2
    await world.end()


def as_stored(tiers: CacheTiers, region: CacheRegion[Any], payload: bytes) -> Stored:
    return Stored(tiers.new_envelope(region, 600, tiers.engine.clock.now(), 0), payload)


def test_of_a_long_collection_a_sample_is_measured() -> None:
    calls = 0

    class Counted(tuple[int, ...]):
        __slots__ = ()

        def __sizeof__(self) -> int:
            nonlocal calls
            calls += 1
            return 1_000

    held = held_bytes(tuple(Counted((n,)) for n in range(10_000)))
    assert calls < 200
    assert 10_000 * 1_000 < held < 10_000 * 1_200


def test_of_many_small_values_some_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[object] = []

    def measure(value: object) -> int:
        measured.append(value)
        return 500

    monkeypatch.setattr(weight, "held_bytes", measure)
    one = Weight()
    assert [one.of(n, 50) for n in range(64)] == [500] * 64
    assert len(measured) == 2
    assert one.of("large", 5_000) == 500, "a large one always"
    assert one.of("small", 100) == 500


def test_what_there_is_once_weighs_nothing() -> None:
    assert held_bytes(None) == held_bytes(True) == held_bytes(Colour.RED) == 0
