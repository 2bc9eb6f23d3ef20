"""Loading several values by one call: each of them as `load.py` has it, what is missing of them together.

Whoever asks for one of them meanwhile, alone or among others, waits for the same call. What another process is loading is waited for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from redis_core.caching.load import POLL, SOFT_READ, Loads
from redis_core.caching.reader import READ_TIMEOUT
from redis_core.caching.region import CacheRegion, Fresh
from redis_core.caching.steps import Lease, Made, Steps, made_by
from redis_core.caching.tiers import CacheTiers, Found

__all__ = ["BatchLoader", "ManyLoads"]

T = TypeVar("T")

BatchLoader = Callable[[Sequence[str]], "Awaitable[Mapping[str, T | Fresh[T]]] | Mapping[str, T | Fresh[T]]"]
"""Takes the keys and returns the values it has; the others are absences."""

_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret

_Flights = Mapping[str, "asyncio.Future[Found]"]
"""By key, what those wait for who ask for it."""


class ManyLoads:
    """The loads of one workspace, of several values each.

    Args:
        tiers: where values are looked for and stored.
        steps: what each load goes through.
        loads: those of one value.
    """

    def __init__(self, tiers: CacheTiers, steps: Steps, loads: Loads) -> None:
        self._tiers = tiers
        self._steps = steps
        self._loads = loads
        self._engine = tiers.engine
        self._monotonic = tiers.monotonic

    async def look(
        self, region: CacheRegion[T], keys: Sequence[str], tags: Sequence[str]
    ) -> dict[str, Found]:
        """Fresh values from the store, without a loader."""
        tiers = self._tiers
        fences = self._steps.fences(region, keys)
        snapshot = await tiers.read(region, keys, tags, READ_TIMEOUT)
        found: dict[str, Found] = {}
        for key in keys:
            entry = tiers.in_snapshot(region, key, snapshot, tags)
            if entry is None or self._monotonic() >= entry.expires:
                tiers.miss(region)
                continue
            found[key] = entry, "store"
            if self._engine.fence(tiers.place(region, key)) == fences[key]:
                tiers.keep(region, entry)
        return found

    def flights(
        self, region: CacheRegion[T], keys: Sequence[str], load_many: BatchLoader[T], tags: Sequence[str]
    ) -> dict[str, asyncio.Future[Found]]:
        """By key, what fetches it now: begun here, all together, or before. Others may wait for them too: they are not to be cancelled."""
        flights: dict[str, asyncio.Future[Found]] = {}
        own: dict[str, asyncio.Future[Found]] = {}
        for key in keys:
            place = self._tiers.place(region, key)
            under_way = self._engine.loads.get(place)
            if under_way is None:
                under_way = own[key] = asyncio.get_running_loop().create_future()
                self._engine.board(place, under_way)
            else:
                self._tiers.figures(region).coalesced += 1
            flights[key] = under_way
        if own:
            self._engine.spawn(self._take_off(region, own, load_many, tags), f"cache {region.name}[]")
        return flights

    async def _take_off(
        self, region: CacheRegion[T], flights: _Flights, load_many: BatchLoader[T], tags: Sequence[str]
    ) -> None:
        try:
            await self._fly(region, flights, load_many, tags)
        except asyncio.CancelledError:
            for flight in flights.values():
                flight.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is: handed to who waits
            for flight in flights.values():
                if not flight.done():
                    flight.set_exception(error)

    async def _fly(
        self, region: CacheRegion[T], flights: _Flights, load_many: BatchLoader[T], tags: Sequence[str]
    ) -> None:
        """See to it that all of these land; those that another process loads may do so later."""
        tiers, steps = self._tiers, self._steps
        began = steps.fences(region, flights)
        known = tiers.remembered(region, flights)
        snapshot = await tiers.read(region, list(flights), tags, READ_TIMEOUT)
        served: list[Found] = []
        missing: list[str] = []
        for key, flight in flights.items():
            entry = tiers.in_snapshot(region, key, snapshot, tags)
            if entry is not None:
                if self._engine.fence(tiers.place(region, key)) == began[key]:
                    tiers.keep(region, entry)
                known[key] = entry, "store"
            elif key in known and snapshot is not None and tiers.is_gone(region, known[key]):
                del known[key]
            if key in known and self._serves(region, known[key], asked=snapshot is not None):
                flight.set_result(known[key])
                served.append(known[key])
            else:
                tiers.miss(region)
                missing.append(key)
        self.renew(region, served, load_many, tags)
        if not missing:
            return
        lease = await steps.acquire(region, missing, tags, snapshot) if snapshot is not None else None
        mine = missing if lease is None else list(lease.keys)
        for key in set(missing).difference(mine):
            self._follow(region, key, load_many, tags, known.get(key), flights[key])
        if mine:
            await self._load(region, mine, load_many, tags, lease, known, began, flights)

    def _serves(self, region: CacheRegion[Any], known: Found, *, asked: bool) -> bool:
        """Whether a value is served without a load: of the store fresh or renewed behind, of memory where the store could not be asked."""
        entry, tier = known
        now = self._monotonic()
        if tier == "store":
            return now < entry.expires + region.stale_while_revalidate
        return not asked and self._tiers.hears and now < entry.expires

    def _follow(
        self,
        region: CacheRegion[T],
        key: str,
        load_many: BatchLoader[T],
        tags: Sequence[str],
        known: Found | None,
        flight: asyncio.Future[Found],
    ) -> None:
        """Land a value that another process is loading: as it is if there is a stale one, else when it comes."""
        if known is not None and self._monotonic() < known[0].kept_until:
            self._tiers.postpone(known[0], _RANDOM.uniform(*POLL))
            flight.set_result(known)
            return

        async def load_one(one: str) -> T | Fresh[T] | None:
            return (await made_by(load_many([one]))).get(one)

        def landed(task: asyncio.Task[Found]) -> None:
            if flight.done():
                return
            if task.cancelled():
                flight.cancel()
            elif (error := task.exception()) is not None:
                flight.set_exception(error)
            else:
                flight.set_result(task.result())

        work = self._loads.fetch(region, key, load_one, tags, None)
        self._engine.spawn(work, f"cache {region.name}").add_done_callback(landed)

    async def _load(
        self,
        region: CacheRegion[T],
        keys: Sequence[str],
        load_many: BatchLoader[T],
        tags: Sequence[str],
        lease: Lease | None,
        stale: Mapping[str, Found],
        began: Mapping[str, int],
        flights: _Flights,
    ) -> None:
        steps = self._steps
        fences = steps.fences(region, keys)
        started, created = self._monotonic(), self._engine.clock.now()

        async def call() -> dict[str, Made]:
            # A list of its own: what the loader does to it is of no matter.
            made = await made_by(load_many(list(keys)))
            took = self._monotonic() - started
            return {key: steps.make(region, key, made.get(key), tags, created, took) for key in keys}

        try:
            entries = await steps.run(region, keys, call, lease)
        except Exception as error:  # noqa: BLE001 - whatever a loader raises: each key's, unless fail-safe covers it
            served = {
                key: stale[key] for key in keys if key in stale and steps.covered(region, stale[key][0])
            }
            steps.fall_back(region, [entry for entry, _ in served.values()], error, began)
            for key in flights.keys() & set(keys):
                if key in served:
                    flights[key].set_result(served[key])
                else:
                    flights[key].set_exception(error)
            return
        gone = [key for key, (_, stored) in entries.items() if stored is None and key in stale]
        if gone:
            await steps.settle(steps.withdraw(region, gone))
        left = {key: made for key, made in entries.items() if key not in gone}
        if left:
            await steps.settle(steps.fill(region, left, lease, fences))
        for key in flights.keys() & entries.keys():
            flights[key].set_result((entries[key][0], "loader"))

    # --- behind the caller's back ---

    def renew(
        self, region: CacheRegion[T], served: Sequence[Found], load_many: BatchLoader[T], tags: Sequence[str]
    ) -> None:
        """Begin to load anew what of this was served and is due."""
        now = self._monotonic()
        due = [one for one in served if now >= one[0].refresh_at]
        if due:
            for entry, _ in due:
                # Nobody else is to begin it meanwhile.
                self._tiers.postpone(entry, _RANDOM.uniform(*POLL))
            self._engine.spawn(self._renew(region, due, load_many, tags), f"cache {region.name}[]")

    async def _renew(
        self, region: CacheRegion[T], due: Sequence[Found], load_many: BatchLoader[T], tags: Sequence[str]
    ) -> None:
        tiers, steps = self._tiers, self._steps
        known = {entry.key: (entry, tier) for entry, tier in due}
        began = steps.fences(region, known)
        snapshot = await tiers.read(region, list(known), tags, SOFT_READ)
        wanted: list[str] = []
        for key, before in known.items():
            found = tiers.in_snapshot(region, key, snapshot, tags)
            if found is not None and tiers.is_news(found, before, renew=True):
                if self._engine.fence(tiers.place(region, key)) == began[key]:
                    tiers.keep(region, found)
            elif found is not None or snapshot is None or not tiers.is_gone(region, before):
                wanted.append(key)
        if not wanted:
            return
        lease = await steps.acquire(region, wanted, tags, snapshot) if snapshot is not None else None
        mine = wanted if lease is None else list(lease.keys)
        for key in set(wanted).difference(mine):
            tiers.postpone(known[key][0], _RANDOM.uniform(*POLL))
        if mine:
            await self._load(region, mine, load_many, tags, lease, known, began, {})
