"""The cache, on every store: two processes (two clients of one store) that load, change and lose things."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from redis_core.cache import Cache, CacheRegion, Fresh, cached
from redis_core.caching.engine import CacheEngine
from redis_core.client import Client
from redis_core.errors import CodecError, InvalidKey, LoadCancelled, LoadTimeout


class Profile(msgspec.Struct, frozen=True):
    name: str
    visits: int = 0


class Here:
    """One process: its client, its cache of the workspace, and a loader that counts."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.cache: Cache = client.workspace("acme").cache
        self.loaded: list[str] = []

    async def load(self, key: str) -> Profile:
        self.loaded.append(key)
        await asyncio.sleep(0.02)
        return Profile(f"{key} #{len(self.loaded)}")

    async def commands(self, call: Callable[[], object]) -> int:
        before = self.client.stats.commands
        await call()  # type: ignore[misc]
        return self.client.stats.commands - before


@pytest.fixture
async def here(client: Client) -> AsyncIterator[Here]:
    yield Here(client)
    await client.service(CacheEngine).aclose()


@pytest.fixture
async def there(client: Client) -> AsyncIterator[Here]:
    twin = Client(client.transport, client.settings)
    yield Here(twin)
    await twin.service(CacheEngine).aclose()


def region(**options: float) -> CacheRegion[Profile]:
    return CacheRegion("profile", Profile, **{"ttl": 60, **options})  # type: ignore[arg-type]


async def live(*sides: Here) -> None:
    """Until memory may be used: each side's backplane has given a sign of life."""
    for side in sides:
        engine = side.client.service(CacheEngine)
        engine.listen()
        async with asyncio.timeout(10):
            while engine.clock.monotonic() >= engine.backplane.live_until:
                await asyncio.sleep(0.005)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class TestReading:
    async def test_a_missing_value_is_none(self, here: Here) -> None:
        assert await here.cache.get(region(), "42") is None
        assert await here.cache.get_entry(region(), "42") is None

    async def test_a_loaded_value_comes_from_the_loader_then_from_memory(self, here: Here) -> None:
        profiles = region()
        await live(here)
        first = await here.cache.get_entry_or_load(profiles, "42", here.load)
        second = await here.cache.get_entry_or_load(profiles, "42", here.load)
        assert (first.tier, second.tier) == ("loader", "memory")
        assert first.value == second.value == Profile("42 #1")
        assert here.loaded == ["42"]

    async def test_another_process_finds_it_in_the_store(self, here: Here, there: Here) -> None:
        profiles = region()
        await here.cache.get_or_load(profiles, "42", here.load)
        entry = await there.cache.get_entry_or_load(profiles, "42", there.load)
        assert (entry.tier, entry.value, there.loaded) == ("store", Profile("42 #1"), [])

    async def test_workspaces_do_not_see_each_other(self, here: Here) -> None:
        profiles = region()
        await here.cache.set(profiles, "42", Profile("of acme"))
        assert await here.client.workspace("other").cache.get(profiles, "42") is None

    async def test_regions_do_not_see_each_other(self, here: Here) -> None:
        await here.cache.set(region(), "42", Profile("profile"))
        assert await here.cache.get(CacheRegion("campaign", Profile), "42") is None

    async def test_a_hostile_key_is_refused_before_anything_is_sent(self, here: Here) -> None:
        with pytest.raises(InvalidKey):
            await here.cache.get(region(), "a}:b")
        assert here.client.stats.commands == 0 or await here.client.dbsize() == 0

    async def test_a_sync_loader_will_do(self, here: Here) -> None:
        assert await here.cache.get_or_load(region(), "42", lambda key: Profile(key)) == Profile("42")

    async def test_a_value_that_could_be_changed_is_copied_for_each_caller(self, here: Here) -> None:
        lists: CacheRegion[list[int]] = CacheRegion("numbers", list[int], ttl=60)
        await live(here)
        first, second = await asyncio.gather(
            *(here.cache.get_or_load(lists, "a", lambda _: [1]) for _ in range(2))
        )
        first.append(2)
        third = await here.cache.get_or_load(lists, "a", lambda _: [9])
        third.append(3)
        assert second == [1]
        assert await here.cache.get(lists, "a") == [1]

    async def test_a_value_of_another_schema_version_is_a_miss(self, here: Here, there: Here) -> None:
        await here.cache.set(region(version=1), "42", Profile("old"))
        assert await there.cache.get(region(version=2), "42") is None

    async def test_corrupt_bytes_are_a_miss_and_counted(self, here: Here) -> None:
        profiles = region()
        key = here.client.workspace("acme").keys.key("cache", "profile", "42")
        await here.client.set(key, b"\x01\x00garbage")
        assert await here.cache.get(profiles, "42") is None
        assert await here.cache.get_or_load(profiles, "42", here.load) == Profile("42 #1")
        assert profiles.figures.corrupt == 2

    async def test_a_value_of_another_type_is_a_miss(self, here: Here, there: Here) -> None:
        await here.cache.set(CacheRegion("profile", int, ttl=60), "42", 7)
        profiles = region()
        assert await there.cache.get(profiles, "42") is None
        assert profiles.figures.corrupt == 1

    async def test_what_cannot_be_stored_is_an_error_that_says_so(self, here: Here) -> None:
        anything: CacheRegion[object] = CacheRegion("anything", object, ttl=60)
        with pytest.raises(CodecError, match="cannot be stored"):
            await here.cache.set(anything, "42", object())


class TestStampede:
    async def test_many_callers_of_one_process_load_once(self, here: Here) -> None:
        profiles = region()
        values = await asyncio.gather(*(here.cache.get_or_load(profiles, "42", here.load) for _ in range(50)))
        assert set(values) == {Profile("42 #1")}
        assert here.loaded == ["42"]
        assert profiles.figures.coalesced == 49

    async def test_many_callers_of_two_processes_load_once(self, here: Here, there: Here) -> None:
        profiles = region()
        await live(here, there)
        callers = [side.cache.get_or_load(profiles, "42", side.load) for side in (here, there) * 20]
        values = await asyncio.gather(*callers)
        assert len(set(values)) == 1
        assert len(here.loaded) + len(there.loaded) == 1

    async def test_a_cancelled_caller_harms_nobody(self, here: Here) -> None:
        profiles = region()
        first = asyncio.create_task(here.cache.get_or_load(profiles, "42", here.load))
        others = [asyncio.create_task(here.cache.get_or_load(profiles, "42", here.load)) for _ in range(19)]
        await until(lambda: here.loaded)
        first.cancel()
        assert set(await asyncio.gather(*others)) == {Profile("42 #1")}
        with pytest.raises(asyncio.CancelledError):
            await first

    async def test_a_dead_holder_of_the_lease_costs_one_lease_time(self, here: Here, there: Here) -> None:
        profiles = region(lease=0.3)
        await live(here, there)
        dead = asyncio.create_task(there.cache.get_or_load(profiles, "42", lambda _: asyncio.sleep(60)))
        lease = there.client.workspace("acme").keys.key("cache-lease", "profile", "42")
        async with asyncio.timeout(5):
            while not await here.client.exists(lease):
                await asyncio.sleep(0.01)
        # As kill -9 leaves it: the lease stands, and nobody renews it or gives it back.
        for task in list(there.client.service(CacheEngine)._tasks):
            if task.get_name() == "cache lease":
                task.cancel()
        async with asyncio.timeout(5):
            assert await here.cache.get_or_load(profiles, "42", here.load) == Profile("42 #1")
        dead.cancel()

    async def test_a_long_load_keeps_its_lease(self, here: Here, there: Here) -> None:
        profiles = region(lease=0.6)
        await live(here, there)
        enough = asyncio.Event()

        async def slow(key: str) -> Profile:
            await enough.wait()
            return await here.load(key)

        loading = asyncio.create_task(here.cache.get_or_load(profiles, "42", slow))
        lease = there.client.workspace("acme").keys.key("cache-lease", "profile", "42")
        async with asyncio.timeout(10):
            while not await here.client.exists(lease):
                await asyncio.sleep(0.01)
        waiting = asyncio.create_task(there.cache.get_or_load(profiles, "42", there.load))
        renewals, last = 0, await here.client.pttl(lease)
        async with asyncio.timeout(30):
            while renewals < 4:  # of which one alone would not last so long
                await asyncio.sleep(0.02)
                left = await here.client.pttl(lease)
                renewals, last = renewals + (left > last), left
        enough.set()
        assert await waiting == await loading
        assert there.loaded == []


class TestFailure:
    async def test_a_loaders_error_is_the_callers_and_is_not_cached(self, here: Here) -> None:
        profiles = region()

        async def broken(_: str) -> Profile:
            raise RuntimeError("the database is away")

        for _ in range(2):
            with pytest.raises(RuntimeError, match="away"):
                await here.cache.get_or_load(profiles, "42", broken)
        assert profiles.figures.load_errors == 2
        assert await here.cache.get_or_load(profiles, "42", here.load) == Profile("42 #1")

    async def test_fail_safe_serves_the_last_good_value_marked_stale(self, here: Here) -> None:
        profiles = region(ttl=0.05, jitter=0, fail_safe=60)
        await live(here)
        await here.cache.get_or_load(profiles, "42", here.load)
        await asyncio.sleep(0.06)
        tries = 0

        async def broken(_: str) -> Profile:
            nonlocal tries
            tries += 1
            raise RuntimeError("the database is away")

        for _ in range(3):
            entry = await here.cache.get_entry_or_load(profiles, "42", broken)
            assert entry.stale
            assert entry.value == Profile("42 #1")
        assert tries == 1, "a failed load is not tried again at once"

    async def test_a_load_that_takes_too_long_is_given_up(self, here: Here) -> None:
        with pytest.raises(LoadTimeout, match="profile"):
            await here.cache.get_or_load(region(hard_timeout=0.05), "42", lambda _: asyncio.sleep(60))

    async def test_a_loader_cancelled_from_within_cancels_no_caller(self, here: Here) -> None:
        async def gone(_: str) -> Profile:
            raise asyncio.CancelledError

        results = await asyncio.gather(
            *(here.cache.get_or_load(region(), "42", gone) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(result, LoadCancelled) for result in results)

    async def test_past_its_soft_timeout_a_load_goes_on_behind_a_stale_value(self, here: Here) -> None:
        profiles = region(ttl=0.05, jitter=0, fail_safe=60, soft_timeout=0.02)
        await live(here)
        await here.cache.get_or_load(profiles, "42", lambda _: Profile("old"))
        await asyncio.sleep(0.06)
        gate = asyncio.Event()

        async def slow(_: str) -> Fresh[Profile]:
            await gate.wait()
            return Fresh(Profile("new"), ttl=60)

        entry = await here.cache.get_entry_or_load(profiles, "42", slow)
        assert (entry.value, entry.stale) == (Profile("old"), True)
        gate.set()
        async with asyncio.timeout(5):
            while (await here.cache.get_or_load(profiles, "42", slow)) != Profile("new"):
                await asyncio.sleep(0.01)

    async def test_stale_while_revalidate_serves_at_once_and_renews(self, here: Here) -> None:
        profiles = region(ttl=0.05, jitter=0, stale_while_revalidate=60)
        await live(here)
        await here.cache.get_or_load(profiles, "42", here.load)
        await asyncio.sleep(0.06)
        entry = await here.cache.get_entry_or_load(profiles, "42", here.load)
        assert (entry.value, entry.stale) == (Profile("42 #1"), True)
        await until(lambda: len(here.loaded) == 2)

    async def test_an_absence_is_remembered_if_the_region_says_so(self, here: Here) -> None:
        calls: list[str] = []
        profiles = region(negative_ttl=60)
        await live(here)
        for _ in range(3):
            assert await here.cache.get_or_load(profiles, "42", lambda key: calls.append(key)) is None
        assert calls == ["42"]
        assert (await here.cache.get_entry(profiles, "42")) is not None

    async def test_an_absence_is_not_remembered_otherwise(self, here: Here) -> None:
        calls: list[str] = []
        for _ in range(3):
            assert await here.cache.get_or_load(region(), "42", lambda key: calls.append(key)) is None
        assert calls == ["42"] * 3

    async def test_the_loader_decides_how_long_its_value_lives(self, here: Here) -> None:
        profiles = region(jitter=0)
        await here.cache.get_or_load(profiles, "42", lambda _: Fresh(Profile("brief"), ttl=5))
        key = here.client.workspace("acme").keys.key("cache", "profile", "42")
        assert 0 < await here.client.pttl(key) <= 5000
        await here.cache.get_or_load(profiles, "43", lambda _: Fresh(Profile("never kept"), ttl=0))
        assert await here.cache.get(profiles, "43") is None


class TestInvalidation:
    async def test_a_deletion_is_seen_by_every_process(self, here: Here, there: Here) -> None:
        profiles = region()
        await live(here, there)
        await here.cache.set(profiles, "42", Profile("old"))
        assert await there.cache.get(profiles, "42") == Profile("old")
        await here.cache.delete(profiles, "42")
        assert await here.cache.get(profiles, "42") is None
        async with asyncio.timeout(5):
            while await there.cache.get(profiles, "42") is not None:
                await asyncio.sleep(0.005)

    async def test_a_write_is_seen_by_every_process(self, here: Here, there: Here) -> None:
        profiles = region()
        await live(here, there)
        await here.cache.set(profiles, "42", Profile("old"))
        assert await there.cache.get(profiles, "42") == Profile("old")
        await here.cache.set(profiles, "42", Profile("new"))
        async with asyncio.timeout(5):
            while await there.cache.get(profiles, "42") != Profile("new"):
                await asyncio.sleep(0.005)

    @pytest.mark.parametrize("side", ["same process", "another process"])
    async def test_a_value_loaded_before_a_deletion_is_never_stored_after_it(
        self, here: Here, there: Here, side: str
    ) -> None:
        profiles = region()
        await live(here, there)
        reading, deleted = asyncio.Event(), asyncio.Event()

        async def old_row(_: str) -> Profile:
            reading.set()
            await deleted.wait()
            return Profile("old row")

        loading = asyncio.create_task(here.cache.get_or_load(profiles, "42", old_row))
        await reading.wait()
        await (here if side == "same process" else there).cache.delete(profiles, "42")
        deleted.set()
        await loading
        assert profiles.figures.refused_fills == 1
        assert await here.cache.get(profiles, "42") is None
        assert await there.cache.get(profiles, "42") is None

    async def test_who_asks_after_a_deletion_does_not_get_the_load_from_before_it(self, here: Here) -> None:
        profiles = region()
        reading, deleted = asyncio.Event(), asyncio.Event()

        async def old_row(_: str) -> Profile:
            reading.set()
            await deleted.wait()
            return Profile("old row")

        loading = asyncio.create_task(here.cache.get_or_load(profiles, "42", old_row))
        await reading.wait()
        await here.cache.delete(profiles, "42")
        after = await here.cache.get_or_load(profiles, "42", lambda _: Profile("new row"))
        deleted.set()
        assert (await loading, after) == (Profile("old row"), Profile("new row"))
        assert await here.cache.get(profiles, "42") == Profile("new row")

    async def test_a_flush_of_a_region_leaves_the_others(self, here: Here, there: Here) -> None:
        profiles, campaigns = region(), CacheRegion("campaign", Profile, ttl=60)
        await live(here, there)
        for side in (here, there):
            await side.cache.set(profiles, "42", Profile("a"))
            await side.cache.set(campaigns, "42", Profile("b"))
        await here.cache.flush(profiles)
        assert await here.cache.get(profiles, "42") is None
        assert await here.cache.get(campaigns, "42") == Profile("b")
        async with asyncio.timeout(5):
            while await there.cache.get(profiles, "42") is not None:
                await asyncio.sleep(0.005)

    async def test_a_flush_of_the_workspace_leaves_the_other_tenants(self, here: Here) -> None:
        profiles = region()
        other = here.client.workspace("other").cache
        await here.cache.set(profiles, "42", Profile("a"))
        await other.set(profiles, "42", Profile("b"))
        await here.cache.flush()
        assert await here.cache.get(profiles, "42") is None
        assert await other.get(profiles, "42") == Profile("b")

    async def test_a_flush_during_a_load_makes_what_it_stores_a_miss(self, here: Here) -> None:
        profiles = region()
        reading, flushed = asyncio.Event(), asyncio.Event()

        async def old_row(_: str) -> Profile:
            reading.set()
            await flushed.wait()
            return Profile("old row")

        loading = asyncio.create_task(here.cache.get_or_load(profiles, "42", old_row))
        await reading.wait()
        await here.cache.flush(profiles)
        flushed.set()
        await loading
        assert await here.cache.get(profiles, "42") is None

    async def test_a_tag_takes_its_values_with_it(self, here: Here, there: Here) -> None:
        profiles = region()
        await live(here, there)
        tags = ["campaign-9"]
        await here.cache.set(profiles, "42", Profile("tagged"), tags=tags)
        await here.cache.set(profiles, "43", Profile("not"))
        assert await there.cache.get(profiles, "42", tags=tags) == Profile("tagged")
        await here.cache.flush_tag("campaign-9")
        assert await here.cache.get(profiles, "42", tags=tags) is None
        assert await here.cache.get(profiles, "43") == Profile("not")
        async with asyncio.timeout(5):
            while await there.cache.get(profiles, "42", tags=tags) is not None:
                await asyncio.sleep(0.005)

    async def test_lost_generations_make_misses_never_old_values(self, here: Here, there: Here) -> None:
        profiles = region()
        keys = here.client.workspace("acme").keys
        await here.cache.set(profiles, "42", Profile("before the flush"))
        await here.cache.flush(profiles)
        await here.client.delete(keys.key("gen"), keys.key("gen", "profile"))
        assert await there.cache.get(profiles, "42") is None
        await here.cache.flush(profiles)
        await here.cache.flush()
        assert await there.cache.get(profiles, "42") is None
        assert await there.cache.get_or_load(profiles, "42", there.load) == Profile("42 #1")


class TestMany:
    async def test_what_is_missing_is_loaded_by_one_call(self, here: Here) -> None:
        profiles = region()
        calls: list[list[str]] = []

        async def load_many(keys: list[str]) -> dict[str, Profile]:
            calls.append(list(keys))
            return {key: Profile(key) for key in keys if key != "none"}

        await here.cache.set(profiles, "a", Profile("set"))
        values = await here.cache.get_many(profiles, ["a", "b", "none", "b"], load_many)  # type: ignore[arg-type]
        assert values == {"a": Profile("set"), "b": Profile("b")}
        assert calls == [["b", "none"]]
        assert await here.cache.get(profiles, "b") == Profile("b")

    async def test_without_a_loader_what_is_missing_is_left_out(self, here: Here) -> None:
        profiles = region()
        await here.cache.set(profiles, "a", Profile("a"))
        assert await here.cache.get_many(profiles, ["a", "b"]) == {"a": Profile("a")}

    async def test_two_processes_load_each_key_once(self, here: Here, there: Here) -> None:
        profiles = region()
        await live(here, there)
        keys = [str(n) for n in range(10)]
        loaded: list[str] = []

        async def load_many(wanted: list[str]) -> dict[str, Profile]:
            loaded.extend(wanted)
            await asyncio.sleep(0.05)
            return {key: Profile(key) for key in wanted}

        results = await asyncio.gather(
            *(side.cache.get_many(profiles, keys, load_many) for side in (here, there))  # type: ignore[arg-type]
        )
        assert results[0] == results[1] == {key: Profile(key) for key in keys}
        assert sorted(loaded) == sorted(keys)


class TestBudget:
    """Commands as the transport counts them; a script's inner ones are told in the docstrings."""

    async def test_each_operation_keeps_to_it(self, here: Here) -> None:
        profiles = region(memory_ttl=0)
        await here.cache.get_or_load(profiles, "first", here.load)  # makes the generations
        await here.cache.get_or_load(profiles, "first", here.load)
        commands = here.commands
        # The backplane's own reads are counted beside, one a second: measured without it.
        await here.client.service(CacheEngine).aclose()
        assert await commands(lambda: here.cache.get(profiles, "first")) == 1
        assert await commands(lambda: here.cache.get_or_load(profiles, "new", here.load)) == 3
        assert await commands(lambda: here.cache.get_many(profiles, ["first", "new", "x", "y"])) == 1
        assert await commands(lambda: here.cache.delete(profiles, "new")) == 2
        assert await commands(lambda: here.cache.delete_many(profiles, ["a", "b", "c"])) == 2
        assert await commands(lambda: here.cache.flush(profiles)) == 2
        assert await commands(lambda: here.cache.flush()) == 2
        assert await commands(lambda: here.cache.set(profiles, "s", Profile("s"))) == 4

    async def test_a_servers_own_count_agrees_inner_commands_included(
        self, here: Here, store: tuple[str, str]
    ) -> None:
        if store[0] not in {"valkey9", "redis7"}:
            # Only a real server of its own counts what scripts do; the gateway's is the first of these.
            assert store[0] in {"memory", "rest"}
            return
        profiles = region(memory_ttl=0)
        await here.cache.get_or_load(profiles, "first", here.load)
        await here.client.service(CacheEngine).aclose()

        async def counted(call: Callable[[], Awaitable[object]]) -> dict[str, int]:
            await here.client.execute("CONFIG", "RESETSTAT")
            await call()
            figures = (await here.client.execute("INFO", "commandstats")).decode()  # type: ignore[union-attr]
            calls = dict(re.findall(r"cmdstat_([^:]+):calls=(\d+)", figures))
            return {
                name: int(count) for name, count in calls.items() if not name.startswith(("config", "info"))
            }

        cache = here.cache
        assert await counted(lambda: cache.get(profiles, "first")) == {"mget": 1}
        # To look, the lease, and to store: the script and its three.
        loaded = await counted(lambda: cache.get_or_load(profiles, "new", here.load))
        assert loaded == {"mget": 1, "evalsha": 1, "get": 1, "set": 3}
        assert await counted(lambda: cache.delete(profiles, "new")) == {"unlink": 1, "xadd": 1}
        assert await counted(lambda: cache.flush(profiles)) == {"set": 1, "xadd": 1}
        assert await counted(lambda: cache.flush_tag("t")) == {"set": 1, "xadd": 1}
        await cache.get_many(profiles, ["generations", "again"])
        assert await counted(lambda: cache.get_many(profiles, ["a", "b", "c"])) == {"mget": 1}

    async def test_a_hit_in_memory_costs_nothing(self, here: Here) -> None:
        profiles = region()
        await live(here)
        await here.cache.get_or_load(profiles, "42", here.load)
        trips = here.client.stats.trips
        assert await here.cache.get(profiles, "42") == Profile("42 #1")
        assert here.client.stats.trips == trips


async def test_the_decorator_caches_by_arguments_in_its_workspace(here: Here) -> None:
    profiles = region()
    calls: list[tuple[str, str, int]] = []

    @cached(profiles)
    async def profile(workspace: object, user: str, page: int = 1) -> Profile:
        calls.append((str(workspace), user, page))
        return Profile(user, page)

    acme, other = here.client.workspace("acme"), here.client.workspace("other")
    assert await profile(acme, "u1") == await profile(acme, "u1") == Profile("u1", 1)
    assert await profile(acme, "u1", page=2) == await profile(acme, "u1", 2) == Profile("u1", 2)
    assert await profile(other, "u1") == Profile("u1", 1)
    assert len(calls) == 3
    with pytest.raises(InvalidKey, match="key="):
        await profile(acme, ["u1"])  # type: ignore[arg-type]


async def test_the_manuals_addresses_flush_and_delete_through_the_client(here: Here) -> None:
    profiles, campaigns = region(), CacheRegion("campaign", Profile, ttl=60)

    async def left() -> list[bool]:
        return [
            await here.cache.get(one, key) is not None
            for one, key in ((profiles, "42"), (profiles, "43"), (campaigns, "42"))
        ]

    for one, key in ((profiles, "42"), (profiles, "43"), (campaigns, "42")):
        await here.cache.set(one, key, Profile(key))
    assert await left() == [True, True, True]
    await here.client.set("ws:{acme}:app:plain", "x")
    assert await here.client.delete("cache:acme:profile:42", "ws:{acme}:app:plain", "ws:{acme}:app:none") == 2
    assert await left() == [False, True, True]
    assert await here.client.delete("cache:acme:profile:*") == 1
    assert await left() == [False, False, True]
    assert await here.client.delete("cache:acme:*") == 1
    assert await left() == [False, False, False]
    with pytest.raises(InvalidKey):
        await here.client.delete("cache:*:*")
