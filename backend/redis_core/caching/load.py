"""Loading: one load a key over all processes, in a task that the cache owns, under a lease that fences what it stores.

What a caller of a value that is not cached goes through::

    look in the store ── fresh ──────────────────────────────────────────> serve
          │ not there, or stale
    take the lease ── somebody has it ── stale to serve? ──────────────────> serve stale
          │                                  │ no: wait to be woken, look again
    load ── failed ── fail-safe covers it? ── serve stale, else the error
          │
    store, if the lease still stands (a deletion takes it away) ───────────> serve
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from redis_core.caching.memory import MemoryEntry
from redis_core.caching.reader import READ_TIMEOUT
from redis_core.caching.region import CacheRegion, Fresh
from redis_core.caching.steps import Lease, Made, Steps, made_by
from redis_core.caching.tiers import CacheTiers, Found
from redis_core.errors import CodecError, LoadTimeout, StoreError

__all__ = ["POLL", "SOFT_READ", "Loader", "Loads"]

T = TypeVar("T")

Loader = Callable[[str], "Awaitable[T | Fresh[T] | None] | T | Fresh[T] | None"]
"""Takes the key and returns the value, or `Fresh` with a TTL of its own; None is an absence."""

SOFT_READ: Final = 0.05
"""Seconds a read of the store may take when memory has a stale value to serve instead."""
POLL: Final = (0.1, 0.25)
"""Seconds between a waiter's own looks at the store, drawn at random, when nobody could wake it."""
_MARGIN: Final = (0.01, 0.1)
"""Seconds after the end of a lease at which a waiter looks by itself, drawn at random so that not all do at once."""
_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret


class Loads:
    """The loads of one workspace, of one value each.

    Args:
        tiers: where values are looked for and stored.
        steps: what each load goes through.
    """

    def __init__(self, tiers: CacheTiers, steps: Steps) -> None:
        self._tiers = tiers
        self._steps = steps
        self._engine = tiers.engine
        self._store = tiers.store
        self._monotonic = tiers.monotonic

    def flight(
        self,
        region: CacheRegion[T],
        key: str,
        load: Loader[T],
        tags: Sequence[str],
        stale: MemoryEntry | None,
        *,
        renew: bool = False,
    ) -> asyncio.Future[Found]:
        """The one task of this process that fetches this value now. Wait for it shielded: others do too.

        Args:
            region: what kind of value.
            key: which one.
            load: makes it.
            tags: those it carries.
            stale: what memory has of it.
            renew: whether that was served already, so that only a newer one will do.
        """
        place = self._tiers.place(region, key)
        under_way = self._engine.loads.get(place)
        if under_way is not None:
            self._tiers.figures(region).coalesced += 1
            return under_way
        known = None if stale is None else (stale, "memory")
        work = self.fetch(region, key, load, tags, known, renew=renew)
        task = self._engine.spawn(work, f"cache {region.name}")
        self._engine.board(place, task)
        return task

    async def fetch(  # noqa: C901, PLR0912 - the picture at the top of this file, step by step
        self,
        region: CacheRegion[T],
        key: str,
        load: Loader[T],
        tags: Sequence[str],
        known: Found | None,
        *,
        renew: bool = False,
    ) -> Found:
        """The value, from wherever it comes; as `flight`, by whoever asks."""
        tiers = self._tiers
        place = tiers.place(region, key)
        began = self._engine.fence(place)
        give_up = self._monotonic() + region.hard_timeout + region.lease
        missed = False
        others: tuple[bytes, ...] = ()
        while True:
            fence = self._engine.fence(place)
            snapshot = await tiers.read(region, [key], tags, READ_TIMEOUT if known is None else SOFT_READ)
            found = tiers.in_snapshot(region, key, snapshot, tags)
            if snapshot is not None and found is None and known is not None and tiers.is_gone(region, known):
                known = None
            if found is not None and tiers.is_news(found, known, renew=renew):
                if self._engine.fence(place) == fence:
                    tiers.keep(region, found)
                known = found, "store"
                now = self._monotonic()
                if now < found.expires + region.stale_while_revalidate:
                    if now >= found.refresh_at:
                        work = self.fetch(region, key, load, tags, known, renew=True)
                        self._engine.spawn(work, f"cache {region.name}")
                    return known
            if not missed:
                missed = True
                tiers.miss(region)
            if snapshot is None:
                if known is not None and tiers.hears and self._monotonic() < known[0].expires:
                    return known
                return await self._load(region, key, load, tags, None, known, began)
            if snapshot.generations == others:
                await self._oust(region, key, others)
            lease = await self._steps.acquire(region, [key], tags, snapshot)
            if lease is None or lease.keys:
                return await self._load(region, key, load, tags, lease, known, began)
            if known is not None and self._monotonic() < known[0].kept_until:
                tiers.postpone(known[0], _RANDOM.uniform(*POLL))
                return known
            if self._monotonic() >= give_up:
                raise LoadTimeout(f"cache {region.name}: another process has been loading this for too long")
            others = await self._await_other(region, key, lease)

    async def _oust(self, region: CacheRegion[Any], key: str, generations: tuple[bytes, ...]) -> None:
        """A load is over, or began before a flush: nobody is to wait for what will be a miss."""
        try:
            await self._store.oust(region, key, generations)
        except StoreError as error:
            self._tiers.store_failed(region, error)

    async def _await_other(self, region: CacheRegion[Any], key: str, lease: Lease) -> tuple[bytes, ...]:
        """Until another has stored the value, or given up, or died and its lease ended.

        Returns:
            If the other is done or loads under other generations, those that we looked for: another look tells which are the present
            ones, and whether its value is there. Else nothing.
        """
        place = self._tiers.place(region, key)
        told = self._engine.expect(place)
        try:
            patience = _RANDOM.uniform(*POLL)
            try:
                left = await self._store.wait(region, key, lease.generations)
            except StoreError as error:
                self._tiers.store_failed(region, error)
            else:
                if left is None:
                    return lease.generations
                if not left:
                    return ()
                if self._monotonic() < self._engine.backplane.live_until:
                    patience = left + _RANDOM.uniform(*_MARGIN)
            await asyncio.wait({told}, timeout=patience)
            return ()
        finally:
            self._engine.expected(place, told)

    async def _load(
        self,
        region: CacheRegion[T],
        key: str,
        load: Loader[T],
        tags: Sequence[str],
        lease: Lease | None,
        known: Found | None,
        began: int,
    ) -> Found:
        steps = self._steps
        fences = steps.fences(region, [key])
        started, created = self._monotonic(), self._engine.clock.now()

        async def call() -> Made:
            made = await made_by(load(key))
            return steps.make(region, key, made, tags, created, self._monotonic() - started)

        try:
            entry, stored = await steps.run(region, (key,), call, lease)
        except Exception as error:
            if known is None or not steps.covered(region, known[0]):
                raise
            steps.fall_back(region, [known[0]], error, {key: began})
            return known
        if stored is None and known is not None:
            await steps.settle(steps.withdraw(region, [key]))
        else:
            await steps.settle(steps.fill(region, {key: (entry, stored)}, lease, fences))
        return entry, "loader"

    async def look(self, region: CacheRegion[T], key: str, tags: Sequence[str]) -> Found | None:
        """A fresh value from the store, without a loader."""
        tiers = self._tiers
        if tiers.apart:
            tiers.miss(region)
            return None
        fence = self._engine.fence(place := tiers.place(region, key))
        try:
            stored = await self._store.look(region, key, tags)
        except StoreError as error:
            tiers.store_failed(region, error)
            stored = None
        except CodecError:
            tiers.corrupt(region, 1)
            stored = None
        entry = None if stored is None else tiers.entry_from(region, key, stored, tags)
        if entry is None or self._monotonic() >= entry.expires:
            tiers.miss(region)
            return None
        if region.memory_ttl and self._engine.fence(place) == fence:
            tiers.keep(region, entry)
        return entry, "store"
