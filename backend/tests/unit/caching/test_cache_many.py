"""Several values by one call: each of them is treated as if it had been asked for alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from redis_core.cache import Cache, CacheRegion, Fresh
from redis_core.errors import LoadTimeout, StoreUnavailable
from tests.cache_world import CacheProcess, CacheWorld


def region(**options: Any) -> CacheRegion[int]:
    return CacheRegion("number", int, **{"ttl": 100, "jitter": 0, "early_refresh": 0, **options})


class Rows:
    """A loader of several rows that notes what it was asked for."""

    def __init__(self, rows: Mapping[str, int] | None = None) -> None:
        self.rows = dict(rows or {})
        self.calls: list[list[str]] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.reading = asyncio.Event()

    async def __call__(self, keys: Sequence[str]) -> dict[str, int]:
        self.calls.append(sorted(keys))
        self.reading.set()
        rows = {key: self.rows[key] for key in keys if key in self.rows}
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return rows


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
def there(world: CacheWorld) -> CacheProcess:
    return world.processes[1]


@pytest.fixture
def cache(here: CacheProcess) -> Cache:
    return here.cache()


@pytest.fixture
def rows() -> Rows:
    return Rows({"a": 1, "b": 2, "c": 3})


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class TestStale:
    @pytest.mark.parametrize("memory_ttl", [60, 0], ids=["memory", "store"])
    async def test_what_is_stale_is_served_at_once_and_renewed_together(
        self, world: CacheWorld, cache: Cache, rows: Rows, memory_ttl: int
    ) -> None:
        numbers = region(ttl=50, stale_while_revalidate=1000, memory_ttl=memory_ttl)
        await cache.get_many(numbers, ["a", "b"], rows)
        world.clock.time += 51
        rows.rows |= {"a": 10, "b": 20}
        rows.gate = asyncio.Event()
        rows.reading.clear()
        for _ in range(3):
            assert await cache.get_many(numbers, ["a", "b"], rows) == {"a": 1, "b": 2}
        await rows.reading.wait()
        rows.gate.set()
        await until(lambda: not cache._engine._tasks)
        assert await cache.get_many(numbers, ["a", "b"], rows) == {"a": 10, "b": 20}
        assert rows.calls == [["a", "b"]] * 2

    async def test_what_is_due_early_is_renewed_behind(
        self, world: CacheWorld, cache: Cache, rows: Rows
    ) -> None:
        numbers = region(early_refresh=10**9)

        async def slow(keys: Sequence[str]) -> dict[str, int]:
            world.clock.time += 0.5
            return dict.fromkeys(keys, 7)

        await cache.get_many(numbers, ["a"], slow)
        world.clock.time += 2
        assert await cache.get_many(numbers, ["a"], rows) == {"a": 7}
        await until(lambda: rows.calls)

    async def test_what_another_process_has_renewed_is_taken(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, rows: Rows
    ) -> None:
        numbers = region(ttl=50, stale_while_revalidate=1000)
        for process in (here, there):
            await process.cache().get_many(numbers, ["a"], rows)
        world.clock.time += 51
        rows.rows["a"] = 10
        await here.cache().get_many(numbers, ["a"], rows)
        await until(lambda: not here.engine._tasks)
        assert await there.cache().get_many(numbers, ["a"], rows) == {"a": 1}
        await until(lambda: not there.engine._tasks)
        assert await there.cache().get_many(numbers, ["a"], rows) == {"a": 10}
        assert rows.calls == [["a"]] * 2

    async def test_while_another_process_renews_it_is_not_begun_here(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, rows: Rows
    ) -> None:
        numbers = region(ttl=50, stale_while_revalidate=1000)
        for process in (here, there):
            await process.cache().get_many(numbers, ["a", "b"], rows)
        world.clock.time += 51
        rows.gate = asyncio.Event()
        rows.reading.clear()
        await there.cache().get_many(numbers, ["a", "b"], rows)
        await rows.reading.wait()

        async def ask() -> None:
            for _ in range(50):
                assert await here.cache().get_many(numbers, ["a", "b"], rows) == {"a": 1, "b": 2}
                await world.heard()

        assert await here.commands(ask) <= 5
        assert len(rows.calls) == 2
        rows.gate.set()

    async def test_what_is_stale_is_not_served_without_a_loader(
        self, world: CacheWorld, cache: Cache, rows: Rows
    ) -> None:
        numbers = region(stale_while_revalidate=1000, fail_safe=1000)
        await cache.get_many(numbers, ["a"], rows)
        world.clock.time += 101
        assert await cache.get_many(numbers, ["a"]) == {}
        rows.error = RuntimeError("away")
        await cache.get_many(numbers, ["a"], rows)
        await until(lambda: not cache._engine._tasks)
        assert await cache.get_many(numbers, ["a"], rows) == {"a": 1}
        assert await cache.get_many(numbers, ["a"]) == {}, "also while the loader is left alone"

    async def test_what_is_gone_is_taken_away_everywhere(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, rows: Rows
    ) -> None:
        numbers = region(fail_safe=1000)
        for process in (here, there):
            await process.cache().get_many(numbers, ["a", "b"], rows)
        world.clock.time += 101
        del rows.rows["a"]
        assert await here.cache().get_many(numbers, ["a", "b"], rows) == {"b": 2}
        await world.heard()
        rows.error = RuntimeError("away")
        assert await there.cache().get_many(numbers, ["b"], rows) == {"b": 2}
        with pytest.raises(RuntimeError):
            await there.cache().get_many(numbers, ["a"], rows)

    @pytest.mark.parametrize("all_known", [True, False])
    async def test_who_waits_too_long_takes_what_memory_has_if_it_has_all(
        self, world: CacheWorld, cache: Cache, rows: Rows, *, all_known: bool
    ) -> None:
        numbers = region(fail_safe=1000, soft_timeout=0.02)
        await cache.get_many(numbers, ["a"] if not all_known else ["a", "b"], rows)
        world.clock.time += 101
        rows.rows |= {"a": 10, "b": 20}
        rows.gate = asyncio.Event()
        asking = asyncio.create_task(cache.get_many(numbers, ["a", "b"], rows))
        await asyncio.sleep(0.1)
        assert asking.done() == all_known
        rows.gate.set()
        assert await asking == ({"a": 1, "b": 2} if all_known else {"a": 10, "b": 20})


class TestFailure:
    async def test_fail_safe_serves_what_there_is(self, world: CacheWorld, cache: Cache, rows: Rows) -> None:
        numbers = region(fail_safe=50, fail_safe_throttle=5)
        await cache.get_many(numbers, ["a", "b"], rows)
        world.clock.time += 101
        rows.error = RuntimeError("away")
        for _ in range(5):
            assert await cache.get_many(numbers, ["b", "a"], rows) == {"b": 2, "a": 1}
        assert len(rows.calls) == 2, "the loader is left alone for a while"
        world.clock.time += 50
        with pytest.raises(RuntimeError):
            await cache.get_many(numbers, ["a", "b"], rows)

    async def test_a_key_without_anything_to_serve_is_an_error_and_the_others_are_kept(
        self, world: CacheWorld, cache: Cache, rows: Rows
    ) -> None:
        numbers = region(fail_safe=50)
        await cache.get_many(numbers, ["a"], rows)
        world.clock.time += 101
        rows.error = RuntimeError("away")
        with pytest.raises(RuntimeError):
            await cache.get_many(numbers, ["a", "b"], rows)
        assert await cache.get_many(numbers, ["a"], rows) == {"a": 1}
        assert len(rows.calls) == 2
        rows.error = None
        assert await cache.get_many(numbers, ["a", "b"], rows) == {"a": 1, "b": 2}

    async def test_a_load_that_takes_too_long_ends(self, cache: Cache, rows: Rows) -> None:
        rows.gate = asyncio.Event()
        with pytest.raises(LoadTimeout):
            await cache.get_many(region(hard_timeout=0.02), ["a", "b"], rows)
        assert not cache._engine.loads

    async def test_a_value_that_cannot_be_stored_fails_all_and_gives_the_leases_back(
        self, here: CacheProcess, cache: Cache
    ) -> None:
        wrong: Any = {"a": 1, "b": "two"}
        with pytest.raises(Exception, match="is not what cache region number holds"):
            await cache.get_many(region(), ["a", "b"], lambda _: wrong)
        async with asyncio.timeout(5):
            while await here.client.exists(*(cache._tiers.store.lease_key("number", key) for key in "ab")):
                await asyncio.sleep(0)

    async def test_what_is_no_mapping_is_an_error_for_who_gave_it(self, cache: Cache) -> None:
        nothing: Any = None
        with pytest.raises(AttributeError):
            await cache.get_many(region(), ["a"], lambda _: nothing)
        assert await cache.get_many(region(), ["a"], lambda _: {"a": 1}) == {"a": 1}


class TestTogether:
    async def test_who_asks_for_the_same_meanwhile_waits_for_the_same_call(
        self, here: CacheProcess, cache: Cache, rows: Rows
    ) -> None:
        numbers = region()
        rows.gate = asyncio.Event()
        wanted = ["a", "b"], ["b", "c"], ["a", "c"]
        asking = [asyncio.create_task(cache.get_many(numbers, keys, rows)) for keys in wanted]
        one = asyncio.create_task(cache.get_or_load(numbers, "b", lambda _: 99))
        await rows.reading.wait()
        await asyncio.sleep(0.01)
        asking[0].cancel()
        rows.gate.set()
        assert await asyncio.gather(*asking[1:], one) == [{"b": 2, "c": 3}, {"a": 1, "c": 3}, 2]
        assert sorted(key for call in rows.calls for key in call) == ["a", "b", "c"]
        assert not here.engine.loads

    async def test_without_the_store_too(
        self, here: CacheProcess, cache: Cache, rows: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(batch: Any, *, timeout: float | None = None) -> Any:
            raise StoreUnavailable("away")

        monkeypatch.setattr(here.client.transport, "execute", away)
        numbers = region()
        asking = [cache.get_many(numbers, ["a", "b"], rows) for _ in range(10)]
        assert await asyncio.gather(*asking) == [{"a": 1, "b": 2}] * 10
        assert rows.calls == [["a", "b"]]

    async def test_while_the_store_does_not_answer_memory_serves_what_is_fresh(
        self, world: CacheWorld, here: CacheProcess, cache: Cache, rows: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = region(memory_ttl=10)
        await cache.get_many(numbers, ["a"], rows)
        world.clock.time += 11
        here.engine.backplane.live_until = float("inf")

        async def away(batch: Any, *, timeout: float | None = None) -> Any:
            raise StoreUnavailable("away")

        monkeypatch.setattr(here.client.transport, "execute", away)
        assert await cache.get_many(numbers, ["a", "b"], rows) == {"a": 1, "b": 2}
        assert rows.calls == [["a"], ["b"]]

    async def test_what_another_process_loads_is_waited_for(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, rows: Rows
    ) -> None:
        numbers = region(lease=30)
        other = Rows({"a": 100})
        other.gate = asyncio.Event()
        loading = asyncio.create_task(there.cache().get_many(numbers, ["a"], other))
        await other.reading.wait()
        asking = asyncio.create_task(here.cache().get_many(numbers, ["a", "b"], rows))
        await until(lambda: here.engine._waiters)
        assert rows.calls == [["b"]]
        other.gate.set()
        async with asyncio.timeout(5):
            assert await asking == {"a": 100, "b": 2}
        assert await loading == {"a": 100}

    async def test_if_that_one_gives_up_it_is_loaded_here(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, rows: Rows
    ) -> None:
        numbers = region(lease=30)
        other = Rows()
        other.gate, other.error = asyncio.Event(), RuntimeError("away")
        loading = asyncio.create_task(there.cache().get_many(numbers, ["a"], other))
        await other.reading.wait()
        asking = asyncio.create_task(here.cache().get_many(numbers, ["a", "b"], rows))
        await until(lambda: here.engine._waiters)
        await world.heard()
        other.gate.set()
        async with asyncio.timeout(5):
            assert await asking == {"a": 1, "b": 2}
        with pytest.raises(RuntimeError):
            await loading
        assert rows.calls == [["b"], ["a"]]

    async def test_a_stale_value_is_served_while_another_process_loads(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, rows: Rows
    ) -> None:
        numbers = region(fail_safe=1000)
        for process in (here, there):
            await process.cache().get_many(numbers, ["a"], rows)
        world.clock.time += 101
        rows.gate = asyncio.Event()
        rows.reading.clear()
        loading = asyncio.create_task(there.cache().get_many(numbers, ["a"], rows))
        await rows.reading.wait()
        async with asyncio.timeout(5):
            assert await here.cache().get_many(numbers, ["a"], rows) == {"a": 1}
        rows.gate.set()
        await loading
        assert len(rows.calls) == 2

    async def test_closing_ends_what_waits(self, here: CacheProcess, cache: Cache, rows: Rows) -> None:
        rows.gate = asyncio.Event()
        numbers = region(lease=30)
        asking = asyncio.create_task(cache.get_many(numbers, ["a"], rows))
        await rows.reading.wait()
        one = asyncio.create_task(cache.get_or_load(numbers, "a", lambda _: 1))
        await asyncio.sleep(0)
        await here.engine.aclose()
        ended = await asyncio.gather(asking, one, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
        assert not await here.client.exists(cache._tiers.store.lease_key("number", "a"))


class TestLoader:
    async def test_it_may_do_with_its_keys_as_it_likes(self, cache: Cache) -> None:
        calls = 0

        def greedy(keys: Any) -> dict[str, int]:
            nonlocal calls
            calls += 1
            found = dict.fromkeys(keys, 1)
            keys.clear()
            return found

        keys = ["b", "a", "b"]
        assert list((await cache.get_many(region(), keys, greedy)).items()) == [("b", 1), ("a", 1)]
        assert (calls, keys) == (1, ["b", "a", "b"])

    async def test_each_value_may_have_a_time_of_its_own(self, world: CacheWorld, cache: Cache) -> None:
        numbers = region(negative_ttl=30)
        calls: list[list[str]] = []

        def load(keys: Sequence[str]) -> dict[str, int | Fresh[int]]:
            calls.append(list(keys))
            return {"brief": Fresh(1, ttl=5), "never": Fresh(2, ttl=0), "long": 3}

        keys = ["brief", "never", "long", "absent"]
        for _ in range(2):
            assert await cache.get_many(numbers, keys, load) == {"brief": 1, "never": 2, "long": 3}
        world.clock.time += 6
        await cache.get_many(numbers, keys, load)
        world.clock.time += 30
        await cache.get_many(numbers, keys, load)
        assert calls == [keys, ["never"], ["brief", "never"], ["brief", "never", "absent"]]

    async def test_a_load_of_very_many_keeps_all_its_leases(
        self, here: CacheProcess, there: CacheProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("redis_core.caching.store._MOST_LEASES", 100)
        numbers = region(lease=0.3)
        keys = [str(number) for number in range(250)]
        trips = 0

        async def slow(wanted: Sequence[str]) -> dict[str, int]:
            nonlocal trips
            before = here.client.stats.trips
            await asyncio.sleep(0.15)
            trips = here.client.stats.trips - before
            return dict.fromkeys(wanted, 1)

        assert len(await here.cache().get_many(numbers, keys, slow)) == 250
        assert trips <= 4, "not one for each"
        assert len(await there.cache().get_many(numbers, keys)) == 250
        assert numbers.figures.refused_fills == 0
