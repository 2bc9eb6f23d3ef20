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
import inspect
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import msgspec

from redis_core.caching.invalidations import Invalidation
from redis_core.caching.memory import MemoryEntry
from redis_core.caching.reader import READ_TIMEOUT
from redis_core.caching.region import CacheRegion, Fresh
from redis_core.caching.store import Snapshot, Stored
from redis_core.caching.tiers import CacheTiers, Found
from redis_core.errors import CodecError, JournalError, LoadCancelled, LoadTimeout, StoreError
from redis_core.log import get_logger

__all__ = ["BatchLoader", "Loader", "Loads"]

T = TypeVar("T")

Loader = Callable[[str], "Awaitable[T | Fresh[T] | None] | T | Fresh[T] | None"]
"""Takes the key and returns the value, or `Fresh` with a TTL of its own; None is an absence."""
BatchLoader = Callable[[Sequence[str]], "Awaitable[Mapping[str, T | Fresh[T]]] | Mapping[str, T | Fresh[T]]"]
"""Takes the keys and returns the values it has; the others are absences."""

_SOFT_READ: Final = 0.05
"""Seconds a read of the store may take when memory has a stale value to serve instead."""
_POLL: Final = (0.1, 0.25)
"""Seconds between a waiter's own looks at the store, drawn at random, when nobody could wake it."""
_MARGIN: Final = (0.01, 0.1)
"""Seconds after the end of a lease at which a waiter looks by itself, drawn at random so that not all do at once."""
_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret
_LOG: Final = get_logger("redis_core.cache")


@dataclass(frozen=True, slots=True)
class _Lease:
    """The right to store what is loaded for these keys."""

    token: str
    keys: tuple[str, ...]
    generations: tuple[bytes, ...]


_Made = tuple[MemoryEntry, Stored | None]
"""A loaded value, and its stored form or None if it is not to be cached."""


class Loads:
    """The loads of one workspace.

    Args:
        tiers: where values are looked for and stored.
        default_ttl: seconds, for regions without a TTL.
    """

    def __init__(self, tiers: CacheTiers, default_ttl: Callable[[], float]) -> None:
        self._tiers = tiers
        self._engine = tiers.engine
        self._store = tiers.store
        self._default_ttl = default_ttl
        self._monotonic = tiers.monotonic

    # --- one key ---

    def flight(
        self,
        region: CacheRegion[T],
        key: str,
        load: Loader[T],
        tags: Sequence[str],
        stale: MemoryEntry | None,
        *,
        renew: bool = False,
    ) -> asyncio.Task[Found]:
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
        loads = self._engine.loads
        task: asyncio.Task[Found] | None = loads.get(place)
        if task is not None:
            self._tiers.figures(region).coalesced += 1
            return task
        work = self._fetch(region, key, load, tags, stale, renew=renew)
        task = self._engine.spawn(work, f"cache {region.name}")
        loads[place] = task

        def landed(done: asyncio.Task[Found]) -> None:
            if loads.get(place) is done:
                del loads[place]

        task.add_done_callback(landed)
        return task

    async def _fetch(  # noqa: C901 - the picture at the top of this file, step by step
        self,
        region: CacheRegion[T],
        key: str,
        load: Loader[T],
        tags: Sequence[str],
        stale: MemoryEntry | None,
        *,
        renew: bool,
    ) -> Found:
        tiers = self._tiers
        place = tiers.place(region, key)
        began = self._engine.fence(place)
        give_up = self._monotonic() + region.hard_timeout + region.lease
        missed = False
        while True:
            fence = self._engine.fence(place)
            snapshot = await tiers.read(region, [key], tags, READ_TIMEOUT if stale is None else _SOFT_READ)
            found = self._in_store(region, key, snapshot, tags)
            known = -1 if stale is None else stale.created
            if found is not None and (found.created > known or (found.created == known and not renew)):
                if self._engine.fence(place) == fence:
                    tiers.keep(region, found)
                stale = found
                now = self._monotonic()
                if now < found.expires + region.stale_while_revalidate:
                    if now >= found.refresh_at:
                        work = self._fetch(region, key, load, tags, found, renew=True)
                        self._engine.spawn(work, f"cache {region.name}")
                    return found, "store"
            if not missed:
                missed = True
                tiers.miss(region)
            if snapshot is None:
                if stale is not None and self._monotonic() < min(stale.expires, tiers.trusted_until):
                    return stale, "memory"
                return await self._load(region, key, load, tags, None, stale, began), "loader"
            lease = await self._acquire(region, [key], tags, snapshot)
            if lease is None or lease.keys:
                return await self._load(region, key, load, tags, lease, stale, began), "loader"
            if stale is not None and self._monotonic() < stale.kept_until:
                tiers.postpone(stale, _RANDOM.uniform(*_POLL))
                return stale, "memory"
            if self._monotonic() >= give_up:
                raise LoadTimeout(f"cache {region.name}: another process has been loading this for too long")
            await self._await_other(region, key)

    def _in_store(
        self, region: CacheRegion[Any], key: str, snapshot: Snapshot | None, tags: Sequence[str]
    ) -> MemoryEntry | None:
        stored = snapshot.stored.get(key) if snapshot is not None else None
        return None if stored is None else self._tiers.entry_from(region, key, stored, tags)

    async def _await_other(self, region: CacheRegion[Any], key: str) -> None:
        """Until another has stored the value, or given up, or died and its lease ended."""
        place = self._tiers.place(region, key)
        told = self._engine.expect(place)
        try:
            patience = _RANDOM.uniform(*_POLL)
            try:
                left = await self._store.wait(region, key)
            except StoreError as error:
                self._tiers.store_failed(region, error)
            else:
                if not left:
                    return
                if self._monotonic() < self._engine.backplane.live_until:
                    patience = left + _RANDOM.uniform(*_MARGIN)
            await asyncio.wait({told}, timeout=patience)
        finally:
            self._engine.expected(place, told)

    async def _load(
        self,
        region: CacheRegion[T],
        key: str,
        load: Loader[T],
        tags: Sequence[str],
        lease: _Lease | None,
        stale: MemoryEntry | None,
        began: int,
    ) -> MemoryEntry:
        fence = self._engine.fence(self._tiers.place(region, key))
        started, created = self._monotonic(), self._engine.clock.now()

        async def call() -> _Made:
            made = await _made(load(key))
            return self._make(region, key, made, tags, created, self._monotonic() - started)

        try:
            entry, stored = await self._run(region, (key,), call, lease)
        except Exception as error:  # noqa: BLE001 - whatever a loader raises: raised again, unless fail-safe covers it
            return self._fall_back(region, key, stale, error, began)
        if stored is None and stale is not None:
            await self._settle(self._withdraw(region, key))
        else:
            await self._settle(self._fill(region, {key: (entry, stored)}, lease, {key: fence}))
        return entry

    def _fall_back(
        self, region: CacheRegion[Any], key: str, stale: MemoryEntry | None, error: Exception, began: int
    ) -> MemoryEntry:
        """The stale value, if the region's fail-safe covers it; not tried again for a while."""
        now = self._monotonic()
        if stale is None or now >= min(stale.kept_until, stale.expires + region.fail_safe):
            raise error
        _LOG.warning("cache load failed, stale value served", region=region.name, error=repr(error))
        if self._engine.fence(self._tiers.place(region, key)) == began:
            # Else it was deleted meanwhile: good enough for who asked before, for nobody after.
            self._tiers.postpone(stale, region.fail_safe_throttle)
            stale.trusted_until = stale.refresh_at
            self._tiers.keep(region, stale)
        return stale

    async def _withdraw(self, region: CacheRegion[Any], key: str) -> None:
        """The loader says that there is nothing to cache any more: then what was cached is wrong, everywhere."""
        self._engine.changed(self._tiers.workspace, region.name, (key,))
        try:
            await self._tiers.invalidate(
                Invalidation(self._tiers.workspace, region.name, (key,)),
                lambda: self._store.delete(region.name, [key]),
            )
        except (StoreError, JournalError) as error:
            self._tiers.store_failed(region, error)

    async def _settle(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for what follows a load, but no longer than for a read: the value is there, and its callers wait."""
        task = self._engine.spawn(work, "cache fill")
        await asyncio.wait({task}, timeout=READ_TIMEOUT)
        if task.done():
            task.result()

    # --- without a loader ---

    async def look(self, region: CacheRegion[T], key: str, tags: Sequence[str]) -> Found | None:
        """A fresh value from the store."""
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

    # --- many keys ---

    async def fetch_many(
        self,
        region: CacheRegion[T],
        keys: Sequence[str],
        load_many: BatchLoader[T] | None,
        tags: Sequence[str],
    ) -> dict[str, Found]:
        """Values from the store, and what is missing from one call of the loader."""
        tiers = self._tiers
        fences = {key: self._engine.fence(tiers.place(region, key)) for key in keys}
        snapshot = await tiers.read(region, keys, tags, READ_TIMEOUT)
        found: dict[str, Found] = {}
        for key in keys:
            entry = self._in_store(region, key, snapshot, tags)
            if entry is not None and self._monotonic() < entry.expires:
                if self._engine.fence(tiers.place(region, key)) == fences[key]:
                    tiers.keep(region, entry)
                found[key] = entry, "store"
        missing = [key for key in keys if key not in found]
        for _ in missing:
            tiers.miss(region)
        if not missing or load_many is None:
            return found
        lease = await self._acquire(region, missing, tags, snapshot) if snapshot is not None else None
        mine = missing if lease is None else list(lease.keys)
        if mine:
            found |= await self._load_many(region, mine, load_many, tags, lease)

        async def load_one(key: str) -> T | Fresh[T] | None:
            return (await _made(load_many([key]))).get(key)

        others = [key for key in missing if key not in found]
        flights = [asyncio.shield(self.flight(region, key, load_one, tags, None)) for key in others]
        return found | dict(zip(others, await asyncio.gather(*flights), strict=True))

    async def _load_many(
        self,
        region: CacheRegion[T],
        keys: Sequence[str],
        load_many: BatchLoader[T],
        tags: Sequence[str],
        lease: _Lease | None,
    ) -> dict[str, Found]:
        fences = {key: self._engine.fence(self._tiers.place(region, key)) for key in keys}

        started, created = self._monotonic(), self._engine.clock.now()

        async def call() -> dict[str, _Made]:
            made = await _made(load_many(keys))
            took = self._monotonic() - started
            return {key: self._make(region, key, made.get(key), tags, created, took) for key in keys}

        entries = await self._run(region, keys, call, lease)
        await self._settle(self._fill(region, entries, lease, fences))
        return {key: (entry, "loader") for key, (entry, _) in entries.items()}

    # --- the steps of a load ---

    async def _acquire(
        self, region: CacheRegion[Any], keys: Sequence[str], tags: Sequence[str], snapshot: Snapshot
    ) -> _Lease | None:
        """The leases that are free; None if the store does not answer, and then there is nothing to fence."""
        token = secrets.token_hex(8)
        try:
            generations, mine = await self._store.acquire(region, keys, tags, snapshot, token)
        except StoreError as error:
            self._tiers.store_failed(region, error)
            return None
        return _Lease(token, tuple(mine), generations)

    async def _run(
        self,
        region: CacheRegion[Any],
        keys: Sequence[str],
        call: Callable[[], Awaitable[T]],
        lease: _Lease | None,
    ) -> T:
        """Run a loader within the region's hard timeout, its lease renewed; give the lease back if it fails."""
        figures = self._tiers.figures(region)
        figures.loads += 1
        keeper = (
            None if lease is None else self._engine.spawn(self._renew(region, keys, lease), "cache lease")
        )
        started = self._monotonic()
        limit = asyncio.timeout(region.hard_timeout)
        try:
            async with limit:
                return await call()
        except BaseException as error:
            figures.load_errors += 1
            if lease is not None:
                self._engine.spawn(self._release(region, keys, lease), "cache release")
            if isinstance(error, TimeoutError) and limit.expired():
                raise LoadTimeout(
                    f"cache {region.name}: no value within {region.hard_timeout:g} s"
                ) from error
            if isinstance(error, asyncio.CancelledError) and not _being_cancelled():
                raise LoadCancelled(f"cache {region.name}: the loader was cancelled from within") from error
            raise
        finally:
            figures.load_seconds += self._monotonic() - started
            if keeper is not None:
                keeper.cancel()

    async def _renew(self, region: CacheRegion[Any], keys: Sequence[str], lease: _Lease) -> None:
        while True:
            await asyncio.sleep(region.lease / 3)
            try:
                for key in keys:
                    await self._store.renew(region, key, lease.token)
            except StoreError as error:
                self._tiers.store_failed(region, error)

    async def _release(self, region: CacheRegion[Any], keys: Sequence[str], lease: _Lease) -> None:
        try:
            for key in keys:
                await self._store.release(region, key, lease.token)
        except StoreError as error:
            self._tiers.store_failed(region, error)
        for key in keys:
            self._engine.wake(self._tiers.place(region, key))

    def _make(
        self,
        region: CacheRegion[T],
        key: str,
        made: T | Fresh[T] | None,
        tags: Sequence[str],
        created: float,
        took: float,
    ) -> _Made:
        """The entry of a loaded value, and what to store of it: nothing if it is not to be cached."""
        if isinstance(made, Fresh):
            fresh = cast("Fresh[T]", made)
            value: T | None = fresh.value
            ttl = fresh.ttl
        else:
            value = made
            ttl = region.negative_ttl if value is None else region.ttl or self._default_ttl()
        value, payload = region.take_in(value)
        stored = Stored(self._tiers.new_envelope(region, ttl, created, took), payload)
        return self._tiers.entry(region, key, value, stored, tags), stored if ttl > 0 else None

    async def _fill(
        self,
        region: CacheRegion[Any],
        made: Mapping[str, _Made],
        lease: _Lease | None,
        fences: Mapping[str, int],
    ) -> None:
        """Store what was loaded, where the lease stands; keep in memory what was stored undisturbed."""
        if lease is None:
            for key, (entry, stored) in made.items():
                if stored is not None and self._undisturbed(region, key, fences):
                    self._tiers.keep_unheard(region, entry)
            return
        unkept = [key for key, (_, stored) in made.items() if stored is None]
        if unkept:
            self._engine.spawn(self._release(region, unkept, lease), "cache release")
        values = {
            key: (msgspec.structs.replace(stored.envelope, generations=lease.generations), stored.payload)
            for key, (_, stored) in made.items()
            if stored is not None
        }
        try:
            results = await self._store.fill(region, values, lease.token) if values else {}
        except StoreError as error:
            self._tiers.store_failed(region, error)
            return
        for key, stored_there in results.items():
            if not stored_there:
                region.figures.refused_fills += 1
            elif self._undisturbed(region, key, fences):
                self._tiers.keep(region, made[key][0])
            # The others in this process hear nothing of what it tells the other processes.
            self._engine.wake(self._tiers.place(region, key))

    def _undisturbed(self, region: CacheRegion[Any], key: str, fences: Mapping[str, int]) -> bool:
        return self._engine.fence(self._tiers.place(region, key)) == fences[key]


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _made(result: Awaitable[T] | T) -> T:
    """What a loader made, whether it is to be awaited or not."""
    return await cast("Awaitable[T]", result) if inspect.isawaitable(result) else result
