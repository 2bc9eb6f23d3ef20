"""The steps that every load goes through, of one value or of many: its lease, the loader itself, what is stored of it, and what if it fails."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import msgspec

from redis_core.caching.invalidations import Invalidation
from redis_core.caching.memory import MemoryEntry
from redis_core.caching.reader import READ_TIMEOUT
from redis_core.caching.region import CacheRegion, Fresh
from redis_core.caching.store import Snapshot, Stored
from redis_core.caching.tiers import CacheTiers
from redis_core.errors import JournalError, LoadCancelled, LoadTimeout, StoreError
from redis_core.log import get_logger

__all__ = ["Lease", "Made", "Steps", "made_by"]

T = TypeVar("T")

_LOG: Final = get_logger("redis_core.cache")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to store what is loaded for these keys."""

    token: str
    keys: tuple[str, ...]
    generations: tuple[bytes, ...]
    """Of before the load."""


Made = tuple[MemoryEntry, Stored | None]
"""A loaded value, and its stored form or None if it is not to be cached."""


class Steps:
    """The steps of one workspace's loads.

    Args:
        tiers: where values are stored.
        default_ttl: seconds, for regions without a TTL.
    """

    def __init__(self, tiers: CacheTiers, default_ttl: Callable[[], float]) -> None:
        self._tiers = tiers
        self._engine = tiers.engine
        self._store = tiers.store
        self._default_ttl = default_ttl
        self._monotonic = tiers.monotonic

    def fences(self, region: CacheRegion[Any], keys: Iterable[str]) -> dict[str, int]:
        """What tells afterwards whether a change to these values was heard of."""
        return {key: self._engine.fence(self._tiers.place(region, key)) for key in keys}

    # --- its lease ---

    async def acquire(
        self, region: CacheRegion[Any], keys: Sequence[str], tags: Sequence[str], snapshot: Snapshot
    ) -> Lease | None:
        """The leases that are free; None if the store does not answer, and then there is nothing to fence."""
        try:
            token, generations, mine = await self._store.acquire(region, keys, tags, snapshot)
        except StoreError as error:
            self._tiers.store_failed(region, error)
            return None
        return Lease(token, tuple(mine), generations)

    async def _renew(self, region: CacheRegion[Any], keys: Sequence[str], lease: Lease) -> None:
        while True:
            await asyncio.sleep(region.lease / 3)
            try:
                await self._store.renew(region, keys, lease.token)
            except StoreError as error:
                self._tiers.store_failed(region, error)

    async def _release(self, region: CacheRegion[Any], keys: Sequence[str], lease: Lease) -> None:
        try:
            await self._store.release(region, keys, lease.token)
        except StoreError as error:
            self._tiers.store_failed(region, error)
        for key in keys:
            self._engine.wake(self._tiers.place(region, key))

    # --- the loader ---

    async def run(
        self,
        region: CacheRegion[Any],
        keys: Sequence[str],
        call: Callable[[], Awaitable[T]],
        lease: Lease | None,
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

    def make(
        self,
        region: CacheRegion[T],
        key: str,
        made: T | Fresh[T] | None,
        tags: Sequence[str],
        created: float,
        took: float,
    ) -> Made:
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

    # --- what is stored of it ---

    async def fill(
        self,
        region: CacheRegion[Any],
        made: Mapping[str, Made],
        lease: Lease | None,
        fences: Mapping[str, int],
    ) -> None:
        """Store what was loaded, where the lease stands; keep in memory what was stored undisturbed."""
        if lease is None:
            self._keep_unheard(region, made, fences)
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
            # Nobody is to wait for the lease's end; and until they have loaded it themselves, who asks here has it from memory.
            self._engine.spawn(self._release(region, list(values), lease), "cache release")
            self._keep_unheard(region, made, fences)
            return
        for key, stored_there in results.items():
            if not stored_there:
                region.figures.refused_fills += 1
            elif self._undisturbed(region, key, fences):
                self._tiers.keep(region, made[key][0])
            # The others in this process hear nothing of what it tells the other processes.
            self._engine.wake(self._tiers.place(region, key))

    def _keep_unheard(
        self, region: CacheRegion[Any], made: Mapping[str, Made], fences: Mapping[str, int]
    ) -> None:
        for key, (entry, stored) in made.items():
            if stored is not None and self._undisturbed(region, key, fences):
                self._tiers.keep_unheard(region, entry)

    def _undisturbed(self, region: CacheRegion[Any], key: str, fences: Mapping[str, int]) -> bool:
        return self._engine.fence(self._tiers.place(region, key)) == fences[key]

    async def withdraw(self, region: CacheRegion[Any], keys: Sequence[str]) -> None:
        """The loader says that there is nothing to cache any more: then what was cached is wrong, everywhere."""
        what = Invalidation(self._tiers.workspace, region.name, tuple(keys))
        self._engine.invalidated(what)
        try:
            await self._tiers.invalidate(what, lambda: self._store.delete(region.name, keys))
        except (StoreError, JournalError) as error:
            self._tiers.store_failed(region, error)

    async def settle(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for what follows a load, but no longer than for a read: the value is there, and its callers wait."""
        task = self._engine.spawn(work, "cache fill")
        await asyncio.wait({task}, timeout=READ_TIMEOUT)
        if task.done():
            task.result()

    # --- what if it fails ---

    def covered(self, region: CacheRegion[Any], stale: MemoryEntry | None) -> bool:
        """Whether this may be served because there is nothing newer: fail-safe says so, or it would be while it is renewed."""
        return stale is not None and self._monotonic() < min(
            stale.kept_until, stale.expires + region.stale_for
        )

    def fall_back(
        self,
        region: CacheRegion[Any],
        stale: Sequence[MemoryEntry],
        error: Exception,
        began: Mapping[str, int],
    ) -> None:
        """Serve these as they are for a while, and let the loader alone meanwhile.

        Args:
            region: what kind of values.
            stale: those that are `covered`.
            error: what the loader raised.
            began: the fences of before: what was changed since is good enough for who asked before, and for nobody after.
        """
        if not stale:
            return
        _LOG.warning(
            "cache load failed, stale value served", region=region.name, count=len(stale), error=repr(error)
        )
        for entry in stale:
            if self._undisturbed(region, entry.key, began):
                self._tiers.postpone(entry, region.fail_safe_throttle)
                entry.trusted_until = entry.refresh_at
                self._tiers.keep(region, entry)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def made_by(result: Awaitable[T] | T) -> T:
    """What a loader made, whether it is to be awaited or not."""
    return await cast("Awaitable[T]", result) if inspect.isawaitable(result) else result
