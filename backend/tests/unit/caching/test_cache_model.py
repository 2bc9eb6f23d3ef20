"""The cache against a database: two processes, loads that overlap with writes, flushes, expiry, lost messages and lost keys.

The database is the model. A row is changed and then invalidated, as an application does it. From the moment the invalidation has
returned and was heard of, nobody may get an older row, whatever was under way; a process that was deaf just then may serve what it
has until its time in memory is over. Every value names its tenant and its key: no other may ever come out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from redis_core.cache import CacheRegion
from tests.cache_world import CacheWorld

T = TypeVar("T")

TTL, MEMORY_TTL, STALE = 100, 60, 20
ROWS: CacheRegion[str] = CacheRegion(
    "row", str, ttl=TTL, memory_ttl=MEMORY_TTL, stale_while_revalidate=STALE, jitter=0, lease=0.02
)
HEARD_LATE = MEMORY_TTL + STALE + 1
"""Seconds after which even a process that missed a message may not serve what it had."""

KEYS = st.sampled_from(["a", "b"])
SIDES = st.sampled_from([0, 1])
TENANTS = st.sampled_from(["acme", "other"])
INVALIDATIONS = st.sampled_from(["delete", "flush", "flush all", "tag"])
TAG = "all"

Row = tuple[str, str]


class CacheModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.rows: dict[Row, int] = {}
        self.floors: dict[tuple[int, Row], int] = {}
        """The oldest version that a process may serve."""
        self.late: list[tuple[float, int, Row, int]] = []
        """Floors that a deaf process will have to keep to, and from when."""
        self.under_way: list[asyncio.Task[Any]] = []
        self.gate = asyncio.Event()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        self.world = CacheWorld()
        await self.world.begin()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self._end_loads())
            self.run(self.world.end())
        self.runner.close()

    # --- the database, and what it allows ---

    def row(self, row: Row) -> str:
        return f"{row[0]}/{row[1]}/{self.rows.get(row, 0)}"

    def check(self, side: int, row: Row, found: str, floor: int) -> None:
        tenant, key, version = found.split("/")
        assert (tenant, key) == row
        assert floor <= int(version) <= self.rows.get(row, 0), (side, row, found)

    async def invalidate(self, side: int, row: Row, how: str) -> None:
        """Change the row, then say so."""
        tenant, key = row
        self.rows[row] = self.rows.get(row, 0) + 1
        cache = self.world.processes[side].cache(tenant)
        if how == "delete":
            await cache.delete(ROWS, key)
        elif how == "set":
            await cache.set(ROWS, key, self.row(row), tags=[TAG])
        elif how == "flush":
            await cache.flush(ROWS)
        elif how == "flush all":
            await cache.flush()
        else:
            await cache.flush_tag(TAG)

    async def acknowledged(self, *rows: Row) -> None:
        await self.world.heard()
        for side, process in enumerate(self.world.processes):
            for row in rows:
                if process.deaf:
                    self.late.append((self.world.clock.time + HEARD_LATE, side, row, self.rows[row]))
                else:
                    self.floors[side, row] = self.rows[row]

    async def finished(self, task: asyncio.Task[T]) -> T:
        """Its result; if it waits for a load that was begun before, that one is let go on."""
        for _ in range(200):
            if task.done():
                return await task
            await asyncio.sleep(0)
        await self._end_loads()
        async with asyncio.timeout(20):
            return await task

    async def load(self, row: Row, turns: int) -> str:
        value = self.row(row)
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    async def read_one(self, side: int, row: Row, turns: int = 0) -> None:
        floor = self.floors.get((side, row), 0)
        cache = self.world.processes[side].cache(row[0])
        work = cache.get_or_load(ROWS, row[1], lambda _: self.load(row, turns), tags=[TAG])
        self.check(side, row, await self.finished(asyncio.ensure_future(work)), floor)

    # --- reading ---

    @rule(side=SIDES, tenant=TENANTS, key=KEYS)
    def read(self, side: int, tenant: str, key: str) -> None:
        self.run(self.read_one(side, (tenant, key)))

    @rule(side=SIDES, tenant=TENANTS, key=KEYS)
    def peek(self, side: int, tenant: str, key: str) -> None:
        self.run(self.peek_one(side, (tenant, key)))

    async def peek_one(self, side: int, row: Row) -> None:
        found = await self.world.processes[side].cache(row[0]).get(ROWS, row[1], tags=[TAG])
        if found is not None:
            self.check(side, row, found, self.floors.get((side, row), 0))

    async def peek_everywhere(self, row: Row) -> None:
        for side in (0, 1):
            await self.peek_one(side, row)

    @rule(side=SIDES, tenant=TENANTS)
    def read_all(self, side: int, tenant: str) -> None:
        self.run(self._read_all(side, tenant))

    async def _read_all(self, side: int, tenant: str) -> None:
        floors = {key: self.floors.get((side, (tenant, key)), 0) for key in "ab"}

        async def load(keys: Any) -> dict[str, str]:
            return {key: self.row((tenant, key)) for key in keys}

        work = self.world.processes[side].cache(tenant).get_many(ROWS, ["a", "b"], load, tags=[TAG])
        found = await self.finished(asyncio.ensure_future(work))
        assert set(found) == {"a", "b"}
        for key, value in found.items():
            self.check(side, (tenant, key), value, floors[key])

    # --- changing ---

    @rule(side=SIDES, tenant=TENANTS, key=KEYS, how=INVALIDATIONS | st.just("set"))
    def change(self, side: int, tenant: str, key: str, how: str) -> None:
        self.run(self._change(side, (tenant, key), how))

    async def _change(self, side: int, row: Row, how: str) -> None:
        await self.invalidate(side, row, how)
        await self.acknowledged(row)
        await self.peek_everywhere(row)

    @rule(
        tenant=TENANTS,
        reads=st.lists(st.tuples(SIDES, KEYS, st.integers(0, 15)), max_size=5),
        changes=st.lists(st.tuples(SIDES, KEYS, INVALIDATIONS), min_size=1, max_size=3),
    )
    def all_at_once(
        self, tenant: str, reads: list[tuple[int, str, int]], changes: list[tuple[int, str, str]]
    ) -> None:
        self.run(self._all_at_once(tenant, reads, changes))

    async def _all_at_once(
        self, tenant: str, reads: list[tuple[int, str, int]], changes: list[tuple[int, str, str]]
    ) -> None:
        await asyncio.gather(
            *(self.read_one(side, (tenant, key), turns) for side, key, turns in reads),
            *(self.invalidate(side, (tenant, key), how) for side, key, how in changes),
        )
        await self.acknowledged(*{(tenant, key) for _, key, _ in changes})
        for key in "ab":
            await self.peek_everywhere((tenant, key))

    # --- loads that take long ---

    @rule(
        loading=SIDES,
        changing=SIDES,
        tenant=TENANTS,
        key=KEYS,
        how=INVALIDATIONS,
        stale=st.booleans(),
        asked_meanwhile=st.booleans(),
    )
    def change_during_a_load(
        self,
        loading: int,
        changing: int,
        tenant: str,
        key: str,
        how: str,
        *,
        stale: bool,
        asked_meanwhile: bool,
    ) -> None:
        if stale:
            self.time_passes(TTL + STALE + 1)
        self.run(
            self._change_during_a_load(loading, changing, (tenant, key), how, asked_meanwhile=asked_meanwhile)
        )

    async def _change_during_a_load(
        self, loading: int, changing: int, row: Row, how: str, *, asked_meanwhile: bool
    ) -> None:
        await self._begin_to_load(loading, row)
        await self._change(changing, row, how)
        after = [asyncio.ensure_future(self.read_one(loading, row, 3))] if asked_meanwhile else []
        await self.world.heard()
        await self._end_loads()
        await asyncio.gather(*after)
        await self.peek_everywhere(row)

    @rule(side=SIDES, tenant=TENANTS, key=KEYS, how=INVALIDATIONS, turns=st.integers(0, 20))
    def change_during_a_look(self, side: int, tenant: str, key: str, how: str, turns: int) -> None:
        self.run(self._change_during_a_look(side, (tenant, key), how, turns))

    async def _change_during_a_look(self, side: int, row: Row, how: str, turns: int) -> None:
        process = self.world.processes[side]
        await self.world.processes[1 - side].cache(row[0]).set(ROWS, row[1], self.row(row), tags=[TAG])
        await self.world.heard()
        process.engine.memory.flush()
        process.store.turns = turns
        look = asyncio.ensure_future(self.read_one(side, row) if turns % 2 else self.peek_one(side, row))
        for _ in range(turns // 2):
            await asyncio.sleep(0)
        change = asyncio.ensure_future(self.invalidate(1 - side, row, how))
        await asyncio.gather(look, change)
        await self.acknowledged(row)
        await self.peek_everywhere(row)

    @rule(side=SIDES, tenant=TENANTS, key=KEYS)
    def begin_to_load(self, side: int, tenant: str, key: str) -> None:
        self.run(self._begin_to_load(side, (tenant, key)))

    async def _begin_to_load(self, side: int, row: Row) -> None:
        gate = self.gate

        async def load(_: str) -> str:
            value = self.row(row)
            await gate.wait()
            return value

        work = self.world.processes[side].cache(row[0]).get_or_load(ROWS, row[1], load, tags=[TAG])
        self.under_way.append(asyncio.ensure_future(work))
        await self.world.heard()

    @precondition(lambda self: self.under_way)
    @rule()
    def end_loads(self) -> None:
        self.run(self._end_loads())

    async def _end_loads(self) -> None:
        tasks, self.under_way = self.under_way, []
        self.gate.set()
        self.gate = asyncio.Event()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        await self.world.heard()

    @precondition(lambda self: self.under_way)
    @rule()
    def who_began_them_goes(self) -> None:
        for task in self.under_way:
            task.cancel()
        self.run(self._gone())

    async def _gone(self) -> None:
        tasks, self.under_way = self.under_way, []
        await asyncio.gather(*tasks, return_exceptions=True)
        self.gate.set()
        self.gate = asyncio.Event()
        await self.world.heard()

    # --- what goes wrong ---

    @rule(side=SIDES, turns=st.integers(0, 12))
    def replies_come_late(self, side: int, turns: int) -> None:
        self.world.processes[side].store.turns = turns

    @rule(side=SIDES)
    def messages_are_lost(self, side: int) -> None:
        self.world.processes[side].deaf = True

    @rule(side=SIDES)
    def messages_come_again_and_it_is_known_that_some_were_lost(self, side: int) -> None:
        process = self.world.processes[side]
        process.engine.forget()
        process.deaf = False
        for late in [one for one in self.late if one[1] == side]:
            self.late.remove(late)
            self.floors[late[1], late[2]] = max(self.floors.get((late[1], late[2]), 0), late[3])

    @rule(seconds=st.sampled_from([1, 30, MEMORY_TTL + 1, TTL + 1, TTL + STALE + 1]))
    def time_passes(self, seconds: int) -> None:
        self.run(self._end_loads())
        self.world.clock.time += seconds
        for late in [one for one in self.late if one[0] <= self.world.clock.time]:
            self.late.remove(late)
            self.floors[late[1], late[2]] = max(self.floors.get((late[1], late[2]), 0), late[3])

    @rule(
        tenant=TENANTS,
        what=st.sampled_from(["gen", "gen:row", "gen:tag:all", "cache:row:a", "cache-lease:row:a"]),
    )
    def a_key_is_lost(self, tenant: str, what: str) -> None:
        process = self.world.processes[0]
        self.run(process.client.unlink(process.client.workspace(tenant).keys.key(*what.split(":"))))  # type: ignore[arg-type]


CacheModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestCacheModel = CacheModel.TestCase
