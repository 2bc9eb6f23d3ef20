"""Loads, one step at a time: two processes, one store in memory, and a clock that only the test moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from redis_core.cache import Cache, CacheRegion, Fresh
from redis_core.caching.envelope import EnvelopeKeys
from redis_core.errors import ConfigError, LoadTimeout, StoreUnavailable
from redis_core.secret import Secret
from redis_core.transport.base import Command
from tests.cache_world import CacheProcess, CacheWorld
from tests.hand_clock import HandClock


def region(**options: Any) -> CacheRegion[int]:
    return CacheRegion("number", int, **{"ttl": 100, "jitter": 0, "early_refresh": 0, **options})


async def read(cache: Cache, numbers: CacheRegion[int], key: str) -> int | None:
    return await cache.get(numbers, key)


class Counter:
    """A loader that counts its calls, and returns how many there were."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.error = error
        self.gate: asyncio.Event | None = None
        self.reading = asyncio.Event()

    async def __call__(self, _: str) -> int:
        self.calls += 1
        value = self.calls
        self.reading.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return value


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


def no_store(monkeypatch: pytest.MonkeyPatch, process: CacheProcess) -> None:
    """Its store does not answer any more, and nothing is heard of the others."""

    async def away(batch: Any, *, timeout: float | None = None) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(process.client.transport, "execute", away)
    process.engine.backplane.live_until = 0


class TestWhatIsInTheStore:
    async def test_it_is_served_where_a_region_keeps_nothing_in_memory(self, cache: Cache) -> None:
        load = Counter()
        numbers = region(memory_ttl=0)
        entries = [await cache.get_entry_or_load(numbers, "a", load) for _ in range(3)]
        assert [entry.tier for entry in entries] == ["loader", "store", "store"]
        assert load.calls == 1

    async def test_it_is_served_when_its_time_in_memory_is_over(
        self, world: CacheWorld, cache: Cache
    ) -> None:
        load = Counter()
        numbers = region(ttl=1000, memory_ttl=10)
        tiers = []
        for _ in range(20):
            tiers.append((await cache.get_entry_or_load(numbers, "a", load)).tier)
            world.clock.time += 10.001
        assert tiers == ["loader"] + ["store"] * 19
        assert load.calls == 1

    async def test_the_order_in_which_tags_are_named_means_nothing(self, cache: Cache) -> None:
        numbers = region(memory_ttl=0)
        await cache.set(numbers, "a", 1, tags=["x", "y"])
        assert await cache.get(numbers, "a", tags=["y", "x", "y"]) == 1


class TestRenewing:
    async def test_a_value_whose_renewal_is_due_is_served_at_once(
        self, world: CacheWorld, cache: Cache
    ) -> None:
        numbers = region(memory_ttl=0, early_refresh=10**9)  # due at once

        async def slow(_: str) -> int:
            world.clock.time += 0.5
            return 1

        await cache.get_or_load(numbers, "a", slow)
        world.clock.time += 2
        load = Counter()
        load.gate = asyncio.Event()
        assert (await cache.get_entry_or_load(numbers, "a", load)).tier == "store"
        await load.reading.wait()
        load.gate.set()

    async def test_a_stale_value_of_the_store_is_served_at_once_too(
        self, world: CacheWorld, cache: Cache
    ) -> None:
        numbers = region(memory_ttl=0, stale_while_revalidate=1000)
        await cache.set(numbers, "a", 1)
        world.clock.time += 101
        load = Counter()
        load.gate = asyncio.Event()
        entry = await cache.get_entry_or_load(numbers, "a", load)
        assert (entry.value, entry.tier, entry.stale) == (1, "store", True)
        await load.reading.wait()
        load.gate.set()

    async def test_while_another_process_renews_a_stale_value_costs_no_storm_of_commands(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess
    ) -> None:
        numbers = region(stale_while_revalidate=1000)
        load = Counter()
        assert await here.cache().get_or_load(numbers, "a", load) == 1
        assert await there.cache().get_or_load(numbers, "a", load) == 1
        world.clock.time += 101
        load.gate = asyncio.Event()
        assert await there.cache().get_or_load(numbers, "a", load) == 1
        await load.reading.wait()
        await world.heard()

        async def ask() -> None:
            for _ in range(50):
                assert (await here.cache().get_entry_or_load(numbers, "a", load)).stale
                await world.heard()

        assert await here.commands(ask) <= 4
        assert load.calls == 2
        load.gate.set()

    async def test_an_absence_takes_the_value_from_before_away_everywhere(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess
    ) -> None:
        numbers = region(stale_while_revalidate=1000)
        for process in (here, there):
            assert await process.cache().get_or_load(numbers, "a", lambda _: 1) == 1
        world.clock.time += 101
        await here.cache().get_or_load(numbers, "a", lambda _: None)
        await world.heard()
        for process in (here, there):
            assert await process.cache().get_or_load(numbers, "a", lambda _: None) is None

    @pytest.mark.parametrize("how", ["delete", "set", "flush", "flush_tag"])
    async def test_a_load_that_fails_does_not_bring_back_what_was_invalidated_meanwhile(
        self, world: CacheWorld, cache: Cache, how: str
    ) -> None:
        numbers = region(fail_safe=1000)
        await cache.set(numbers, "a", 1, tags=["t"])
        world.clock.time += 101
        load = Counter(error=RuntimeError("away"))
        load.gate = asyncio.Event()
        before = asyncio.create_task(cache.get_or_load(numbers, "a", load, tags=["t"]))
        await load.reading.wait()
        await {
            "delete": lambda: cache.delete(numbers, "a"),
            "set": lambda: cache.set(numbers, "a", 2, tags=["t"]),
            "flush": lambda: cache.flush(numbers),
            "flush_tag": lambda: cache.flush_tag("t"),
        }[how]()
        load.gate.set()
        assert await before == 1, "who asked before may have it"
        assert await cache.get_or_load(numbers, "a", lambda _: 2, tags=["t"]) == 2

    async def test_a_renewal_that_fails_is_not_tried_again_at_once(
        self, world: CacheWorld, cache: Cache
    ) -> None:
        numbers = region(stale_while_revalidate=50, fail_safe_throttle=5)
        await cache.set(numbers, "a", 1)
        world.clock.time += 101
        broken = Counter(error=RuntimeError("away"))
        for _ in range(20):
            assert await cache.get_or_load(numbers, "a", broken) == 1
            await world.heard()
        assert broken.calls == 1
        world.clock.time += 6
        assert await cache.get_or_load(numbers, "a", broken) == 1
        await world.heard()
        assert broken.calls == 2
        world.clock.time += 45
        with pytest.raises(RuntimeError):
            await cache.get_or_load(numbers, "a", broken)

    async def test_fail_safe_ends(self, world: CacheWorld, cache: Cache) -> None:
        numbers = region(fail_safe=50, fail_safe_throttle=5)
        broken = Counter(error=RuntimeError("away"))
        await cache.set(numbers, "a", 1)
        served = []
        for _ in range(40):
            world.clock.time += 2.5
            try:
                served.append((await cache.get_entry_or_load(numbers, "a", broken)).stale)
            except RuntimeError:
                served.append(None)  # type: ignore[arg-type]
        assert served == [False] * 39 + [True]
        world.clock.time += 49
        assert (await cache.get_entry_or_load(numbers, "a", broken)).stale
        assert await cache.get(numbers, "a") is None, "what is stale is not served without a loader"
        world.clock.time += 2
        with pytest.raises(RuntimeError):
            await cache.get_or_load(numbers, "a", broken)
        assert broken.calls == 3

    async def test_serving_stale_for_ever_does_not_grow_the_queues(
        self, world: CacheWorld, cache: Cache
    ) -> None:
        numbers = region(fail_safe=10**7, fail_safe_throttle=5)
        await cache.set(numbers, "a", 1)
        world.clock.time += 101
        for _ in range(300):
            world.clock.time += 6
            await cache.get_or_load(numbers, "a", Counter(error=RuntimeError("away")))
        share = cache._tiers.share
        assert share.count == 1
        assert len(share._main) + len(share._small) <= 66


class TestWaiting:
    async def test_who_waits_in_the_same_process_is_woken(self, here: CacheProcess, cache: Cache) -> None:
        """By a load that is shared no more, because changes were missed: others are shared anyhow."""
        numbers = region(lease=30)
        load = Counter()
        load.gate = asyncio.Event()
        before = asyncio.create_task(cache.get_or_load(numbers, "a", load))
        await load.reading.wait()
        here.engine.forget()
        after = asyncio.create_task(cache.get_or_load(numbers, "a", Counter()))
        while not here.engine._waiters:
            await asyncio.sleep(0)
        load.gate.set()
        async with asyncio.timeout(5):
            assert (await before, await after) == (1, 1)

    async def test_waiting_for_a_long_load_costs_no_polling(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess
    ) -> None:
        numbers = region(lease=30)
        load = Counter()
        load.gate = asyncio.Event()
        loading = asyncio.create_task(here.cache().get_or_load(numbers, "a", load))
        await load.reading.wait()
        before = there.client.stats.commands
        waiting = asyncio.create_task(there.cache().get_or_load(numbers, "a", load))
        await asyncio.sleep(0.6)
        assert there.client.stats.commands - before <= 4
        load.gate.set()
        async with asyncio.timeout(5):
            assert await waiting == await loading == 1
        assert not there.engine._waiters

    async def test_who_looked_before_a_value_was_stored_and_asks_for_the_lease_after_it_looks_again(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers, load = region(), Counter()
        looked, go_on = [asyncio.Event() for _ in range(2)], asyncio.Event()
        caches = [there.cache(), world.add().cache()]
        for cache, event in zip(caches, looked, strict=True):
            acquire = cache._tiers.store.acquire

            async def late(*args: Any, acquire: Any = acquire, event: asyncio.Event = event) -> Any:
                event.set()
                await go_on.wait()
                return await acquire(*args)

            monkeypatch.setattr(cache._tiers.store, "acquire", late)
        waiting = [asyncio.create_task(cache.get_or_load(numbers, "a", load)) for cache in caches]
        for event in looked:
            await event.wait()
        assert await here.cache().get_or_load(numbers, "a", load) == 1
        go_on.set()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*waiting) == [1, 1]
        assert load.calls == 1

    async def test_what_expired_a_moment_after_it_was_stored_is_loaded_anew(
        self, world: CacheWorld, cache: Cache
    ) -> None:
        numbers, load = region(memory_ttl=0), Counter()
        lease = cache._tiers.store.lease_key("number", "a")
        assert await cache.get_or_load(numbers, "a", load) == 1
        await cache._client.unlink(cache._tiers.store.value_key("number", "a"))
        assert await cache._client.exists(lease), "it tells for a moment that it is done"
        async with asyncio.timeout(5):
            assert await cache.get_or_load(numbers, "a", load) == 2
        world.clock.time += 1.5
        assert not await cache._client.exists(lease)

    @pytest.mark.parametrize("how", ["flush", "flush all", "tag", "delete"])
    @pytest.mark.parametrize("side", [0, 1], ids=["same process", "another process"])
    async def test_nobody_waits_for_a_load_from_before_an_invalidation(
        self, world: CacheWorld, here: CacheProcess, how: str, side: int
    ) -> None:
        numbers, tags = region(lease=30), ["t"]
        cache, asking = here.cache(), world.processes[side].cache()
        hung = Counter()
        hung.gate = asyncio.Event()
        before = asyncio.create_task(cache.get_or_load(numbers, "a", hung, tags=tags))
        await hung.reading.wait()
        invalidations: dict[str, Callable[[], Awaitable[None]]] = {
            "flush": lambda: cache.flush(numbers),
            "flush all": cache.flush,
            "tag": lambda: cache.flush_tag("t"),
            "delete": lambda: cache.delete(numbers, "a"),
        }
        await invalidations[how]()
        await world.heard()
        async with asyncio.timeout(5):
            assert await asking.get_or_load(numbers, "a", lambda _: 2, tags=tags) == 2
        hung.gate.set()
        assert await before == 1, "who asked before may have it"
        for process in world.processes:
            assert await process.cache().get(numbers, "a", tags=tags) == 2
        assert numbers.figures.refused_fills == 1

    async def test_a_lease_of_the_generations_of_now_is_not_taken_away(
        self, here: CacheProcess, there: CacheProcess
    ) -> None:
        """By one who looked before a flush, and waits for one who looked after it."""
        numbers, load = region(lease=30), Counter()
        load.gate = asyncio.Event()
        store = there.cache()._tiers.store
        await here.cache().set(numbers, "b", 1)
        before = (await store.read(numbers, ["a"], ())).generations
        await here.cache().flush(numbers)
        loading = asyncio.create_task(here.cache().get_or_load(numbers, "a", load))
        await load.reading.wait()
        old: Any = before
        assert await store.wait(numbers, "a", old) is None, "to look again"
        now: Any = (await store.read(numbers, ["a"], ())).generations
        await store.oust(numbers, "a", now)
        assert await store.wait(numbers, "a", now)
        load.gate.set()
        assert await loading == 1
        assert await there.cache().get(numbers, "a") == 1

    async def test_who_waits_is_told_when_the_load_fails(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess
    ) -> None:
        numbers = region(lease=30)
        broken = Counter(error=RuntimeError("away"))
        broken.gate = asyncio.Event()
        loading = asyncio.create_task(here.cache().get_or_load(numbers, "a", broken))
        await broken.reading.wait()
        waiting = asyncio.create_task(there.cache().get_or_load(numbers, "a", lambda _: 7))
        while not there.engine._waiters:
            await asyncio.sleep(0)
        await world.heard()
        broken.gate.set()
        async with asyncio.timeout(5):
            assert await waiting == 7
        with pytest.raises(RuntimeError):
            await loading

    async def test_waiters_leave_nothing_behind(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess
    ) -> None:
        numbers = region(lease=0.05, hard_timeout=0.1)
        lease = here.cache()._tiers.store.lease_key("number", "a")
        await here.client.set(lease, "somebody", px=10**6)
        with pytest.raises(LoadTimeout):
            waiting = asyncio.create_task(there.cache().get_or_load(numbers, "a", Counter()))
            for _ in range(50):
                await asyncio.sleep(0.01)
                world.clock.time += 0.01
                for place in list(there.engine._waiters):
                    there.engine.wake(place)
            await waiting
        assert not there.engine._waiters

    async def test_a_value_that_cannot_be_stored_gives_its_lease_back(
        self, here: CacheProcess, cache: Cache
    ) -> None:
        anything: CacheRegion[object] = CacheRegion("anything", object, lease=30)
        with pytest.raises(Exception, match="cannot be stored"):
            await cache.get_or_load(anything, "a", lambda _: object())
        async with asyncio.timeout(5):
            while await here.client.exists(cache._tiers.store.lease_key("anything", "a")):
                await asyncio.sleep(0)

    async def test_closing_gives_the_leases_back(self, here: CacheProcess, cache: Cache) -> None:
        load = Counter()
        load.gate = asyncio.Event()
        loading = asyncio.create_task(cache.get_or_load(region(lease=30), "a", load))
        await load.reading.wait()
        await here.engine.aclose()
        assert not await here.client.exists(cache._tiers.store.lease_key("number", "a"))
        await asyncio.gather(loading, return_exceptions=True)
        assert here.engine._tasks == set()
        here.engine.listen()
        assert here.engine._listener is None, "what is closed does not begin again"


class TestWithoutTheStore:
    async def test_a_value_that_the_store_does_not_take_holds_nobody_up(
        self, here: CacheProcess, there: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def full(*_: Any) -> Any:
            raise StoreUnavailable("full")

        numbers, load = region(lease=30), Counter()
        monkeypatch.setattr(cache._tiers.store, "fill", full)
        async with asyncio.timeout(5):
            assert await cache.get_or_load(numbers, "a", load) == 1
            assert await cache.get_or_load(numbers, "a", load) == 1, "for a moment from memory"
            assert await there.cache().get_or_load(numbers, "a", load) == 2

    async def test_a_hot_key_costs_the_loader_one_call_a_moment(
        self, world: CacheWorld, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load = Counter()
        no_store(monkeypatch, here)
        for _ in range(10):
            assert await cache.get_or_load(region_away, "a", load) == 1
        world.clock.time += 1.6
        assert await cache.get_or_load(region_away, "a", load) == 2

    async def test_memory_is_not_served_when_changes_may_have_been_missed(
        self, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = region(fail_safe=1000)
        await cache.set(numbers, "a", 1)
        no_store(monkeypatch, here)
        assert await cache.get(numbers, "a") is None
        assert await cache.get_or_load(numbers, "a", lambda _: 2) == 2

    async def test_memory_is_served_if_the_loader_fails_as_well(
        self, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = region()
        await cache.set(numbers, "a", 1)
        no_store(monkeypatch, here)
        broken = Counter(error=RuntimeError("away"))
        for _ in range(5):
            assert await cache.get_or_load(numbers, "a", broken) == 1
        assert broken.calls == 1

    async def test_a_change_that_failed_is_forgotten_here_all_the_same(
        self, world: CacheWorld, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = region()
        await cache.set(numbers, "a", 1)
        with monkeypatch.context() as away:
            no_store(away, here)
            with pytest.raises(StoreUnavailable):
                await cache.delete(numbers, "a")
        here.engine.backplane.live_until = float("inf")
        assert cache._tiers.share.count == 0

    async def test_a_change_that_was_done_although_its_caller_went_is_heard_of(
        self, world: CacheWorld, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the caller's going and the deletion's being done a read may put the old value into memory again."""
        numbers = region()
        await cache.set(numbers, "a", 1)
        later: list[list[Command]] = []
        execute: Callable[..., Awaitable[Any]] = here.client.transport.execute

        async def hold_back(batch: Any, *, timeout: float | None = None) -> Any:
            if any(command[0] == "UNLINK" for command in batch):
                later.append(list(batch))
                raise StoreUnavailable("no answer")
            return await execute(batch, timeout=timeout)

        with monkeypatch.context() as slow:
            slow.setattr(here.client.transport, "execute", hold_back)
            with pytest.raises(StoreUnavailable):
                await cache.delete(numbers, "a")
        assert await cache.get(numbers, "a") == 1
        for batch in later:
            await execute(batch)
        await world.heard()
        assert await cache.get(numbers, "a") is None


region_away = region()


class TestWhenChangesMayHaveBeenMissed:
    """The link to the other processes is dead, the one to the store is not."""

    @pytest.fixture(params=[1, 200], ids=["fresh", "past its time"])
    async def missed(
        self, world: CacheWorld, here: CacheProcess, there: CacheProcess, request: pytest.FixtureRequest
    ) -> CacheRegion[int]:
        """A value that memory has here and that was deleted there."""
        numbers = region(fail_safe=1000, soft_timeout=0.05)
        await there.cache().set(numbers, "a", 1)
        assert await here.cache().get(numbers, "a") == 1
        here.deaf = True
        await there.cache().delete(numbers, "a")
        world.clock.time += request.param
        here.engine.backplane.live_until = 0
        return numbers

    async def test_fail_safe_serves_nothing_that_was_deleted(
        self, cache: Cache, missed: CacheRegion[int]
    ) -> None:
        broken = Counter(error=RuntimeError("away"))
        with pytest.raises(RuntimeError):
            await cache.get_or_load(missed, "a", broken)
        with pytest.raises(RuntimeError):
            await cache.get_many(missed, ["a"], lambda _: (_ for _ in ()).throw(RuntimeError("away")))

    async def test_who_waits_too_long_is_not_given_what_was_deleted(
        self, cache: Cache, missed: CacheRegion[int]
    ) -> None:
        async def slow(_: str) -> int:
            await asyncio.sleep(0.2)
            return 2

        async def slow_many(keys: Any) -> dict[str, int]:
            await asyncio.sleep(0.2)
            return dict.fromkeys(keys, 3)

        assert await cache.get_or_load(missed, "a", slow) == 2
        await cache.delete(missed, "a")
        assert await cache.get_many(missed, ["a"], slow_many) == {"a": 3}

    async def test_the_store_is_right_whatever_the_clocks_say(
        self, here: CacheProcess, there: CacheProcess, missed: CacheRegion[int]
    ) -> None:
        """Another host, whose clock is behind, has stored a value that looks older."""
        there.engine.clock = HandClock(here.engine.clock.now() - 500)
        long = region(ttl=10_000, fail_safe=1000)
        await there.cache().set(long, "a", 2)
        broken = Counter(error=RuntimeError("away"))
        assert await here.cache().get_or_load(missed, "a", broken) == 2

    async def test_what_is_served_then_is_told_to_be_stale(
        self, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = region(fail_safe=1000)
        await cache.set(numbers, "a", 1)
        no_store(monkeypatch, here)
        broken = Counter(error=RuntimeError("away"))
        for _ in range(2):
            entry = await cache.get_entry_or_load(numbers, "a", broken)
            assert (entry.value, entry.tier, entry.stale) == (1, "memory", True)


class TestEncryption:
    async def test_a_region_that_encrypts_without_keys_fails_before_anything_is_loaded(
        self, cache: Cache
    ) -> None:
        secrets: CacheRegion[str] = CacheRegion("secret", str, encrypt=True)
        load = Counter()
        with pytest.raises(ConfigError, match="CACHE_KEYS"):
            await cache.get_or_load(secrets, "a", load)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="CACHE_KEYS"):
            await cache.set(secrets, "a", "x")
        assert load.calls == 0

    async def test_the_store_sees_nothing_of_it_and_nothing_else_is_believed(self) -> None:
        world = CacheWorld(keys=EnvelopeKeys.parse(Secret("1:" + "ab" * 32)))
        here, there = world.processes
        secrets: CacheRegion[str] = CacheRegion("secret", str, encrypt=True, memory_ttl=0)
        plain: CacheRegion[str] = CacheRegion("secret", str, memory_ttl=0)
        await here.cache().set(secrets, "a", "confidential")
        assert await there.cache().get(secrets, "a") == "confidential"
        name = here.cache()._tiers.store.value_key("secret", "a")
        assert b"confidential" not in (await here.client.get(name) or b"")
        await here.cache().set(plain, "a", "forged")
        assert await there.cache().get(secrets, "a") is None
        assert secrets.figures.corrupt == 1
        await world.end()


class TestLines:
    async def test_hits_and_misses_are_told_with_workspace_region_and_tier(
        self, cache: Cache, there: CacheProcess, caplog: pytest.LogCaptureFixture
    ) -> None:
        numbers = region()
        with caplog.at_level(logging.DEBUG, logger="redis_core.cache"):
            await cache.get(numbers, "a")
            await cache.set(numbers, "a", 1)
            await cache.get(numbers, "a")
            await cache.get_or_load(numbers, "a", lambda _: 2)
            await there.cache().get(numbers, "a")
        told = [
            (line.message, line.__dict__["workspace"], line.__dict__["region"], line.__dict__["tier"])
            for line in caplog.records
            if line.message.startswith("Redis ")
        ]
        where = ("acme", "number")
        assert told == [
            ("Redis MISS", *where, "store"),
            ("Redis HIT", *where, "memory"),
            ("Redis HIT", *where, "memory"),
            ("Redis HIT", *where, "store"),
        ]

    async def test_nothing_is_told_unless_asked_for(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="redis_core.cache"):
            await cache.get(region(), "a")
        assert caplog.records == []


class TestReading:
    async def test_what_is_asked_in_one_turn_is_one_command(self, here: CacheProcess, cache: Cache) -> None:
        numbers = region(memory_ttl=0)
        await cache.set(numbers, "a", 1)

        async def ask() -> None:
            await asyncio.gather(*(read(cache, numbers, key) for key in "abcdefgh" * 10))

        assert await here.commands(ask) == 1

    async def test_a_reader_that_goes_takes_nobody_with_it(self, cache: Cache) -> None:
        numbers = region(memory_ttl=0)
        await cache.set(numbers, "a", 1)
        first, second = (asyncio.create_task(read(cache, numbers, "a")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 1
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_a_store_that_is_away_is_a_miss_for_all_and_counted(
        self, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = region(memory_ttl=0)
        no_store(monkeypatch, here)
        assert await asyncio.gather(*(read(cache, numbers, "a") for _ in range(5))) == [None] * 5
        assert numbers.figures.store_errors == 5

    async def test_an_error_of_ours_reaches_who_asked_and_cancels_nobody(
        self, here: CacheProcess, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(batch: Any, *, timeout: float | None = None) -> Any:
            raise ZeroDivisionError

        monkeypatch.setattr(here.client.transport, "execute", broken)
        results = await asyncio.gather(
            *(read(cache, region(), "a") for _ in range(3)), return_exceptions=True
        )
        assert {type(result) for result in results} == {ZeroDivisionError}


async def test_a_ttl_that_is_not_above_zero_is_refused(cache: Cache) -> None:
    for ttl in (0, -1):
        with pytest.raises(ConfigError, match="ttl"):
            await cache.set(region(), "a", 1, ttl=ttl)


async def test_a_loader_may_say_that_its_value_is_not_to_be_kept_any_more(
    world: CacheWorld, cache: Cache
) -> None:
    numbers = region(stale_while_revalidate=1000)
    await cache.set(numbers, "a", 1)
    world.clock.time += 101
    await cache.get_or_load(numbers, "a", lambda _: Fresh(2, ttl=0))
    await world.heard()
    assert await cache.get_or_load(numbers, "a", lambda _: Fresh(3, ttl=0)) == 3


async def test_nothing_is_asked_of_the_store_before_the_cache_is_used() -> None:
    world = CacheWorld(processes=1)
    (process,) = world.processes
    process.cache()
    await asyncio.sleep(0)
    assert (process.engine._listener, process.client.stats.commands) == (None, 0)
    await process.cache().get(region(), "a")
    assert process.engine._listener is not None
    await world.end()
