"""The cache without its store, on real sockets: what is served meanwhile, and that nothing invalidated ever comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core.cache import Cache, CacheRegion
from redis_core.errors import JournalFull
from redis_core.resilience.epoch import EPOCH_KEY, epoch_micros
from tests.outage_world import OutageProcess, OutageWorld, outage_world, until

__all__ = ["outage_world"]

PRICES = CacheRegion("price", int, jitter=0)


def cache_of(process: OutageProcess) -> Cache:
    return process.client.workspace("acme").cache


class Row:
    """What is cached: a row of a database that both processes read."""

    def __init__(self, value: int = 1) -> None:
        self.value = value
        self.loads = 0

    async def load(self, _: str) -> int:
        self.loads += 1
        await asyncio.sleep(0.01)
        return self.value


async def get(process: OutageProcess, row: Row, key: str = "book") -> int:
    return await cache_of(process).get_or_load(PRICES, key, row.load)


async def test_memory_serves_and_says_that_it_may_be_stale(outage_world: OutageWorld) -> None:
    one, row = await outage_world.process(), Row()
    await get(one, row)
    await one.cut_off()
    entry = await cache_of(one).get_entry(PRICES, "book")
    assert entry is not None
    assert (entry.value, entry.tier, entry.stale) == (1, "memory", True)
    assert row.loads == 1


async def test_what_memory_has_not_is_loaded_once_a_process_and_kept(outage_world: OutageWorld) -> None:
    one, row = await outage_world.process(), Row()
    await get(one, Row(), "other")
    await one.cut_off()
    assert await asyncio.gather(*(get(one, row) for _ in range(20))) == [1] * 20
    assert await get(one, row) == 1
    assert row.loads == 1
    assert await cache_of(one).get(PRICES, "never loaded") is None


async def test_memory_serves_no_longer_than_its_region_lets_it(outage_world: OutageWorld) -> None:
    brief: CacheRegion[int] = CacheRegion("brief", int, jitter=0, memory_ttl=0.3)
    one, other, row = await outage_world.process(), await outage_world.process(), Row()
    cache = cache_of(one)
    assert await cache.get_or_load(brief, "book", row.load) == 1
    await one.cut_off()
    row.value = 2
    await cache_of(other).delete(brief, "book")
    await asyncio.sleep(0.35)
    assert await cache.get_or_load(brief, "book", row.load) == 2
    assert (await cache.get_many(brief, ["book"], lambda _: {})) == {"book": 2}
    row.value = 3
    await asyncio.sleep(0.35)
    assert await cache.get_many(brief, ["book"], lambda keys: dict.fromkeys(keys, row.value)) == {"book": 3}

    async def broken(_: str) -> int:
        raise RuntimeError("the database is away too")

    await asyncio.sleep(0.35)
    entry = await cache.get_entry_or_load(brief, "book", broken)
    assert (entry.value, entry.stale) == (3, True)


@pytest.mark.parametrize("how", ["delete", "flush", "flush_tag", "flush_all", "set"])
async def test_an_invalidation_of_the_outage_is_carried_out_before_the_store_is_read(
    outage_world: OutageWorld, how: str
) -> None:
    one, other, row = await outage_world.process(), await outage_world.process(), Row()
    cache, tags = cache_of(one), ["shop"] if how == "flush_tag" else []
    await cache.get_or_load(PRICES, "book", row.load, tags=tags)
    assert await cache_of(other).get(PRICES, "book", tags=tags) == 1
    await one.cut_off()
    row.value = 2
    calls: dict[str, Any] = {
        "delete": lambda: cache.delete(PRICES, "book"),
        "flush": lambda: cache.flush(PRICES),
        "flush_tag": lambda: cache.flush_tag("shop"),
        "flush_all": lambda: one.client.delete("cache:acme:*"),
        "set": lambda: cache.set(PRICES, "book", 2),
    }
    await calls[how]()
    assert await cache.get_or_load(PRICES, "book", row.load, tags=tags) == 2
    one.link.up()
    while one.client.outage.figures.waiting or not one.client.outage.available:
        assert await cache.get_or_load(PRICES, "book", row.load, tags=tags) == 2
        await asyncio.sleep(0.002)
    assert await cache.get_or_load(PRICES, "book", row.load, tags=tags) == 2
    for _ in range(1000):
        if await cache_of(other).get_or_load(PRICES, "book", row.load, tags=tags) == 2:
            break
        await asyncio.sleep(0.005)
    assert await cache_of(other).get_or_load(PRICES, "book", row.load, tags=tags) == 2
    assert await cache_of(await outage_world.process()).get_or_load(PRICES, "book", row.load, tags=tags) == 2


async def test_the_call_on_which_the_outage_shows_is_kept_too(outage_world: OutageWorld) -> None:
    one, row = await outage_world.process(), Row()
    await get(one, row)
    row.value = 2
    one.link.blackhole()
    await cache_of(one).delete(PRICES, "book")
    assert await get(one, row) == 2
    await one.heal()
    await until(lambda: not one.client.outage.figures.waiting)
    assert await get(await outage_world.process(), row) == 2


async def test_who_is_cut_off_hears_afterwards_what_others_changed(outage_world: OutageWorld) -> None:
    one, other, row = await outage_world.process(), await outage_world.process(), Row()
    await get(one, row)
    await get(other, row)
    await one.cut_off()
    row.value = 2
    await cache_of(other).delete(PRICES, "book")
    assert await get(other, row) == 2
    await one.heal()
    assert await get(one, row) == 2


async def test_a_crash_before_the_return_loses_no_invalidation(outage_world: OutageWorld) -> None:
    one, row = await outage_world.process(), Row()
    await get(one, row)
    await one.cut_off()
    row.value = 2
    await cache_of(one).delete(PRICES, "book")
    await one.client.aclose()
    heir = await outage_world.process(heir_of=one)
    cache_of(heir)
    await until(lambda: heir.client.outage.figures.replayed_total > 0)
    assert await get(heir, row) == 2


async def test_a_store_that_comes_back_empty_is_filled_anew(outage_world: OutageWorld) -> None:
    one, row = await outage_world.process(), Row()
    await get(one, row)
    await outage_world.empty()
    await one.seen_loss()
    row.value = 2
    assert await get(one, row) == 2, "memory was forgotten: nobody knows what changed meanwhile"


async def test_a_store_that_went_back_in_time_serves_nothing_of_before(outage_world: OutageWorld) -> None:
    one, other, row = await outage_world.process(), await outage_world.process(), Row()
    await get(one, row)
    backup = await copy_of_everything(outage_world)
    before = await outage_world.direct.get(EPOCH_KEY)
    # A probe more, so that the store of now differs from the backup.
    await one.cut_off()
    await one.heal()
    row.value = 2
    await cache_of(one).delete(PRICES, "book")
    await get(other, row)
    for process in (one, other):
        process.link.refuse()
    await restore(outage_world, backup)
    for process in (one, other):
        process.link.up()
    await one.seen_loss()
    await until(lambda: not one.client.outage._probe._to_raise)  # type: ignore[attr-defined]
    after = await outage_world.direct.get(EPOCH_KEY)
    assert epoch_micros(after) > epoch_micros(before)
    newcomer = await outage_world.process()
    assert await get(newcomer, row) == 2
    assert await get(one, row) == 2


async def test_locks_are_granted_by_greater_tokens_afterwards(outage_world: OutageWorld) -> None:
    one = await outage_world.process()
    ws = one.client.workspace("acme")
    backup = await copy_of_everything(outage_world)
    await one.cut_off()
    await one.heal()
    async with ws.lock("report") as lease:
        token = lease.token
    one.link.refuse()
    await restore(outage_world, backup)
    one.link.up()
    await one.seen_loss()
    await until(lambda: not one.client.outage._probe._to_raise)  # type: ignore[attr-defined]
    newcomer = await outage_world.process()
    async with newcomer.client.workspace("acme").lock("report") as lease:
        assert lease.token > token


async def test_very_many_invalidations_become_one_flush(
    outage_world: OutageWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_core.caching.invalidations._MOST", 5)
    one, row = await outage_world.process(), Row()
    await get(one, row)
    await one.cut_off()
    for number in range(20):
        await cache_of(one).delete(PRICES, f"{number}")
    row.value = 2
    await cache_of(one).delete(PRICES, "book")
    assert one.client.outage.figures.waiting == 6
    await one.heal()
    assert await get(await outage_world.process(), row) == 2


async def test_what_the_journal_cannot_keep_is_not_promised(
    outage_world: OutageWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, row = await outage_world.process(), Row()
    await get(one, row)
    await one.cut_off()

    async def full(*_: object, **__: object) -> None:
        raise JournalFull("full", limit="JOURNAL_MAX_BYTES")

    monkeypatch.setattr(one.client.outage, "record", full)
    with pytest.raises(JournalFull):
        await cache_of(one).delete(PRICES, "book")


async def copy_of_everything(world: OutageWorld) -> dict[bytes, tuple[bytes, int]]:
    """What a backup of the store has: every key, as DUMP tells it."""
    copy: dict[bytes, tuple[bytes, int]] = {}
    keys: Any = await world.direct.execute("KEYS", "*")
    for key in keys:
        data: Any = await world.direct.execute("DUMP", key)
        if data is not None:
            copy[key] = data, max(0, await world.direct.pttl(key))
    return copy


async def restore(world: OutageWorld, copy: dict[bytes, tuple[bytes, int]]) -> None:
    await world.direct.execute("FLUSHALL")
    for key, (data, ttl) in copy.items():
        await world.direct.execute("RESTORE", key, ttl, data)
