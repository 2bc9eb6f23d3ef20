"""The cache against a database: two processes, loads that overlap with writes, flushes and lost keys, in any order.

The database is the model. A row is changed and then invalidated, as an application does it; from the moment the invalidation has
returned and the other process has heard of it, nobody may get an older row, whatever was under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from redis_core.cache import Cache, CacheRegion
from redis_core.caching.engine import CacheEngine
from redis_core.client import Client
from redis_core.transport.memory import MockRedisClient

T = TypeVar("T")

ROWS: CacheRegion[int] = CacheRegion("row", int, ttl=3600, early_refresh=0)
KEYS = st.sampled_from(["a", "b", "c"])
SIDES = st.sampled_from([0, 1])
TENANTS = st.sampled_from(["acme", "other"])
TAG = "all"


class Overlap:
    """A load that has read its row and has not returned yet."""

    def __init__(self, task: asyncio.Task[int], gate: asyncio.Event) -> None:
        self.task = task
        self.gate = gate


class CacheModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.rows: dict[tuple[str, str], int] = {}
        self.overlaps: list[Overlap] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        store = MockRedisClient()
        self.sides = [Client(store) for _ in range(2)]
        for side in self.sides:
            engine = side.service(CacheEngine)
            engine.listen()
            while engine.clock.monotonic() >= engine.backplane.live_until:
                await asyncio.sleep(0)

    def teardown(self) -> None:
        if hasattr(self, "sides"):
            self.run(self._end())
        self.runner.close()

    async def _end(self) -> None:
        for overlap in self.overlaps:
            overlap.gate.set()
            await overlap.task
        for side in self.sides:
            await side.service(CacheEngine).aclose()
        await self.sides[0].aclose()

    def cache(self, side: int, tenant: str) -> Cache:
        return self.sides[side].workspace(tenant).cache

    async def _heard(self) -> None:
        """Until the other process' backplane has taken what was announced: here, some turns of the loop."""
        for _ in range(20):
            await asyncio.sleep(0)

    @rule(side=SIDES, tenant=TENANTS, key=KEYS)
    def read(self, side: int, tenant: str, key: str) -> None:
        row = self.rows.get((tenant, key), 0)
        found = self.run(
            self._finish(self.cache(side, tenant).get_or_load(ROWS, key, lambda _: row, tags=[TAG]))
        )
        assert found == row

    async def _finish(self, asking: Coroutine[Any, Any, T]) -> T:
        """What is asked for; it may have to wait for a load that is under way."""
        task = asyncio.create_task(asking)
        await self._heard()
        if not task.done():
            await self._end_loads()
        return await task

    @rule(side=SIDES, tenant=TENANTS, key=KEYS)
    def peek(self, side: int, tenant: str, key: str) -> None:
        found: int | None = self.run(self._peek(side, tenant, key))
        assert found in {None, self.rows.get((tenant, key), 0)}

    async def _peek(self, side: int, tenant: str, key: str) -> int | None:
        return await self.cache(side, tenant).get(ROWS, key, tags=[TAG])

    @rule(side=SIDES, tenant=TENANTS)
    def read_all(self, side: int, tenant: str) -> None:
        rows = {key: self.rows.get((tenant, key), 0) for key in ("a", "b", "c")}

        async def load(keys: Any) -> dict[str, int]:
            return {key: rows[key] for key in keys}

        asking = self.cache(side, tenant).get_many(ROWS, list(rows), load, tags=[TAG])
        assert self.run(self._finish(asking)) == rows

    @rule(
        side=SIDES,
        tenant=TENANTS,
        key=KEYS,
        how=st.sampled_from(["delete", "set", "flush", "flush all", "tag"]),
    )
    def write(self, side: int, tenant: str, key: str, how: str) -> None:
        self.rows[tenant, key] = row = self.rows.get((tenant, key), 0) + 1
        self.run(self._invalidate(self.cache(side, tenant), key, row, how))

    async def _invalidate(self, cache: Cache, key: str, row: int, how: str) -> None:
        if how == "delete":
            await cache.delete(ROWS, key)
        elif how == "set":
            await cache.set(ROWS, key, row, tags=[TAG])
        elif how == "flush":
            await cache.flush(ROWS)
        elif how == "flush all":
            await cache.flush()
        else:
            await cache.flush_tag(TAG)
        await self._heard()

    @rule(side=SIDES, tenant=TENANTS, key=KEYS)
    def begin_to_load(self, side: int, tenant: str, key: str) -> None:
        self.run(self._begin(side, tenant, key))

    async def _begin(self, side: int, tenant: str, key: str) -> None:
        gate = asyncio.Event()

        async def load(_: str) -> int:
            row = self.rows.get((tenant, key), 0)
            await gate.wait()
            return row

        task = asyncio.create_task(self.cache(side, tenant).get_or_load(ROWS, key, load, tags=[TAG]))
        self.overlaps.append(Overlap(task, gate))
        await self._heard()

    @rule()
    def end_loads(self) -> None:
        self.run(self._end_loads())

    async def _end_loads(self) -> None:
        overlaps, self.overlaps = self.overlaps, []
        for overlap in overlaps:
            overlap.gate.set()
        for overlap in overlaps:
            await overlap.task
        await self._heard()

    @rule(side=SIDES)
    def changes_may_have_been_missed(self, side: int) -> None:
        self.sides[side].service(CacheEngine).forget()

    @rule(tenant=TENANTS, what=st.sampled_from(["gen", "gen:row", "gen:tag:all"]))
    def a_generation_is_lost(self, tenant: str, what: str) -> None:
        self.run(self._lose(tenant, what))

    async def _lose(self, tenant: str, what: str) -> None:
        keys = self.sides[0].workspace(tenant).keys
        await self.sides[0].unlink(keys.key(*what.split(":")))


CacheModel.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestCacheModel = CacheModel.TestCase
