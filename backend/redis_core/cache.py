"""The cache of one workspace: memory, then the store, then the loader, as one call.

What holds whatever happens (docs/cache.md shows each on a time line):

- a key is loaded once at a time, over all processes; the load belongs to the cache, so a caller that goes away harms nobody;
- a value read before a deletion is never stored after it, and never answers who asks after it;
- a flush is one number and is seen by every process at once;
- what is wrong with the store or with a stored value costs time, never an error to who reads.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from logging import DEBUG
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from redis_core.caching.call_key import key_of_call
from redis_core.caching.engine import CacheEngine
from redis_core.caching.invalidations import Invalidation
from redis_core.caching.load import Loader, Loads
from redis_core.caching.load_many import BatchLoader, ManyLoads
from redis_core.caching.memory import MemoryEntry
from redis_core.caching.region import MOST_SECONDS, TTL, CacheEntry, CacheRegion, Fresh, several
from redis_core.caching.steps import Steps
from redis_core.caching.store import Stored
from redis_core.caching.tiers import CacheTiers, Found, lines_wanted
from redis_core.errors import ConfigError, InvalidKey
from redis_core.keys import check_part

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.keys import WorkspaceKeys
    from redis_core.sync import Workspace as BlockingWorkspace
    from redis_core.workspace import Workspace

__all__ = ["TTL", "Cache", "CacheEntry", "CacheRegion", "Fresh", "cached"]

T = TypeVar("T")
P = ParamSpec("P")

_MAX_FREQUENCY = 3  # of a hit counter: S3-FIFO has two bits


class Cache:
    """One workspace's cache, reached as `ws.cache`.

    Args:
        client: the store.
        keys: the workspace's key names.
        engine: what this process has of the cache; the client's own unless given.
    """

    def __init__(self, client: Client, keys: WorkspaceKeys, *, engine: CacheEngine | None = None) -> None:
        self._engine = engine or client.service(CacheEngine)
        self._tiers = CacheTiers(client, keys, self._engine)
        steps = Steps(self._tiers, lambda: client.settings.redis_default_ttl)
        self._loads = Loads(self._tiers, steps)
        self._many_loads = ManyLoads(self._tiers, steps, self._loads)
        self._client = client
        # What a hit in memory needs, at hand.
        self._monotonic = self._tiers.monotonic
        self._backplane = self._engine.backplane
        self._by_region = self._tiers.share.by_region

    # --- reading ---

    async def get(self, region: CacheRegion[T], key: str, *, tags: Sequence[str] = ()) -> T | None:
        """The value, or None if it is not cached or is a remembered absence. Budget: memory 0, store 1 command.

        Args:
            region: what kind of value.
            key: which one.
            tags: those it was stored with.
        """
        entries = self._by_region.get(region)
        if entries is not None:
            entry = entries.get(key)
            if entry is not None and region.shared and not entry.overdue and not lines_wanted(DEBUG):
                now = self._monotonic()
                if now < entry.fresh_until and now < self._backplane.live_until:
                    if entry.frequency < _MAX_FREQUENCY:
                        entry.frequency += 1
                    region.figures.memory_hits += 1
                    return cast("T | None", entry.value)
        self._engine.listen()
        tiers = self._tiers
        entry = tiers.in_memory(region, key)
        if entry is not None and not entry.overdue and tiers.may_serve(entry):
            return tiers.take(region, (entry, "memory"))
        found = await self._loads.look(region, key, several(tags, "tags"))
        return None if found is None else tiers.take(region, found)

    async def get_entry(
        self, region: CacheRegion[T], key: str, *, tags: Sequence[str] = ()
    ) -> CacheEntry[T | None] | None:
        """As `get`, with the value's age, the tier that had it and whether it is stale; None if it is not cached."""
        self._engine.listen()
        entry = self._tiers.in_memory(region, key)
        if entry is not None and not entry.overdue and self._tiers.may_serve(entry):
            return self._tiers.hit(region, (entry, "memory"))
        found = await self._loads.look(region, key, several(tags, "tags"))
        return None if found is None else self._tiers.hit(region, found)

    async def get_or_load(
        self, region: CacheRegion[T], key: str, load: Loader[T], *, tags: Sequence[str] = ()
    ) -> T:
        """The value, loaded if it is not cached.

        Budget: memory 0; store 1 command; loading 1 to look, 1 for the lease, 4 to store.

        Args:
            region: what kind of value.
            key: which one; given to the loader.
            load: makes it. Its errors are the caller's, unless there is a value that fail-safe may serve; they are not cached.
            tags: names by which it can be invalidated together with others; the same at every call.

        Raises:
            LoadTimeout: the load took longer than the region's `hard_timeout`.
        """
        entries = self._by_region.get(region)
        if entries is not None:
            entry = entries.get(key)
            if entry is not None and region.shared and not entry.overdue and not lines_wanted(DEBUG):
                now = self._monotonic()
                if now < entry.fresh_until and now < entry.refresh_at and now < self._backplane.live_until:
                    if entry.frequency < _MAX_FREQUENCY:
                        entry.frequency += 1
                    region.figures.memory_hits += 1
                    return cast("T", entry.value)
        return (await self.get_entry_or_load(region, key, load, tags=tags)).value

    async def get_entry_or_load(
        self, region: CacheRegion[T], key: str, load: Loader[T], *, tags: Sequence[str] = ()
    ) -> CacheEntry[T]:
        """As `get_or_load`, with the value's age, the tier that had it and whether it is stale."""
        self._engine.listen()
        tiers, tags = self._tiers, several(tags, "tags")
        entry = tiers.in_memory(region, key)
        if entry is not None and (tiers.may_serve(entry) or tiers.may_serve_stale(region, entry)):
            if self._monotonic() >= entry.refresh_at:
                self._loads.flight(region, key, load, tags, entry, renew=True)
            return cast("CacheEntry[T]", tiers.hit(region, (entry, "memory")))
        flight = self._loads.flight(region, key, load, tags, entry)
        if entry is not None and region.soft_timeout is not None:
            done, _ = await asyncio.wait({flight}, timeout=region.soft_timeout)
            # Unless it turned out meanwhile that it was deleted.
            entry = tiers.in_memory(region, key)
            if not done and entry is not None:
                return cast("CacheEntry[T]", tiers.hit(region, (entry, "memory")))
        return cast("CacheEntry[T]", tiers.hit(region, await asyncio.shield(flight)))

    async def get_many(
        self,
        region: CacheRegion[T],
        keys: Sequence[str],
        load_many: BatchLoader[T] | None = None,
        *,
        tags: Sequence[str] = (),
    ) -> dict[str, T]:
        """Several values; what is missing is loaded by one call of `load_many`, or left out without it.

        Each of them is treated as by `get_or_load`, or `get` without a loader: served stale, renewed and fallen back on as its region says.

        Budget: 1 command to look, whatever the number of keys; loading 1 a key for its lease and 4 to store it, in 2 trips.

        Raises:
            Exception: what the loader raised, if it left a key without a value that fail-safe may serve.
            LoadTimeout: the load took longer than the region's `hard_timeout`.
        """
        self._engine.listen()
        tiers, tags = self._tiers, several(tags, "tags")
        keys = tuple(dict.fromkeys(several(keys, "keys")))
        found: dict[str, Found] = {}
        for key in keys:
            entry = tiers.in_memory(region, key)
            if entry is not None and self._serves(region, entry, loads=load_many is not None):
                found[key] = entry, "memory"
        missing = [key for key in keys if key not in found]
        if load_many is None:
            if missing:
                found |= await self._many_loads.look(region, missing, tags)
        else:
            self._many_loads.renew(region, list(found.values()), load_many, tags)
            if missing:
                flights = self._many_loads.flights(region, missing, load_many, tags)
                found |= await self._land(region, flights)
        values = {key: tiers.hit(region, found[key]).value for key in keys if key in found}
        return {key: value for key, value in values.items() if value is not None}

    def _serves(self, region: CacheRegion[Any], entry: MemoryEntry, *, loads: bool) -> bool:
        """Whether memory answers with this, with a loader at hand or without."""
        tiers = self._tiers
        if not loads:
            return not entry.overdue and tiers.may_serve(entry)
        return tiers.may_serve(entry) or tiers.may_serve_stale(region, entry)

    async def _land(
        self, region: CacheRegion[Any], flights: dict[str, asyncio.Future[Found]]
    ) -> dict[str, Found]:
        """What is being fetched, or after the soft timeout what memory has, if it has all of it."""
        tiers = self._tiers
        if region.soft_timeout is not None and len(tiers.remembered(region, flights)) == len(flights):
            _, late = await asyncio.wait(flights.values(), timeout=region.soft_timeout)
            stale = tiers.remembered(region, flights)
            if late and len(stale) == len(flights):
                return stale
        # Not awaited one by one: that would cancel them, and with them who else waits, if this caller is cancelled.
        done, _ = await asyncio.wait(flights.values(), return_when=asyncio.FIRST_EXCEPTION)
        for flight in done:
            flight.result()
        return {key: flight.result() for key, flight in flights.items()}

    # --- writing and invalidating ---

    async def set(
        self,
        region: CacheRegion[T],
        key: str,
        value: T | None,
        *,
        ttl: float | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        """Store a value that the caller knows to be right. Budget: 4 commands, 2 trips.

        Args:
            region: what kind of value.
            key: which one.
            value: the value; None remembers an absence.
            ttl: seconds, above 0; None takes the region's.
            tags: names by which it can be invalidated together with others.

        Raises:
            CodecError: the value cannot be stored, or is not of the region's type.
            ConfigError: the TTL is not above 0, or too long.
            StoreError: the store did not take it. While it is away memory keeps the value, and the store forgets the one it has.
            JournalError: it is away, and the journal is full or broken.
        """
        self._engine.listen()
        tiers, engine = self._tiers, self._engine
        if ttl is not None and not 0 < ttl <= MOST_SECONDS:
            raise ConfigError(
                "Cache.set(ttl=...)",
                str(ttl),
                f"give seconds above 0, at most {MOST_SECONDS:,}, or delete the value",
            )
        check_part(key)  # now: what is kept for later must be possible later
        tags = several(tags, "tags")
        seconds = ttl or region.ttl or self._client.settings.redis_default_ttl
        value, payload = region.take_in(value)
        stored = Stored(tiers.new_envelope(region, seconds, engine.clock.now(), 0), payload)
        place = tiers.place(region, key)
        fence = engine.fence(place)
        write = partial(tiers.store.write, region, key, tags, stored.envelope, payload)
        await self._change(Invalidation(tiers.workspace, region.name, (key,)), write)
        if engine.fence(place) == fence + 2:
            tiers.keep(region, tiers.entry(region, key, value, stored, tags))

    async def delete(self, region: CacheRegion[Any] | str, key: str) -> None:
        """Remove a value everywhere; a load under way will not bring the old one back. Budget: 2 commands, 1 trip.

        While the store is away this holds here at once, and elsewhere when it is back.

        Raises:
            StoreError: the store did not do it.
            JournalError: it is away, and the journal is full or broken: it is not promised.
        """
        await self.delete_many(region, [key])

    async def delete_many(self, region: CacheRegion[Any] | str, keys: Sequence[str]) -> None:
        """As `delete`, for several keys. Budget: 2 commands, 1 trip, whatever their number."""
        keys = several(keys, "keys")
        if keys:
            name = _name(region)
            for key in keys:
                check_part(key)  # as above
            work = partial(self._tiers.store.delete, name, keys)
            await self._change(Invalidation(self._tiers.workspace, name, keys), work)

    async def flush(self, region: CacheRegion[Any] | str | None = None) -> None:
        """Make every value of a region, or of the workspace, a miss, however many. Budget: 2 commands, 1 trip."""
        name = "" if region is None else _name(region)
        await self._change(Invalidation(self._tiers.workspace, name), partial(self._tiers.store.flush, name))

    async def flush_tag(self, tag: str) -> None:
        """Make every value that carries a tag a miss, however many. Budget: 2 commands, 1 trip."""
        work = partial(self._tiers.store.flush_tag, check_part(tag))
        await self._change(Invalidation(self._tiers.workspace, tag=tag), work)

    async def _change(self, change: Invalidation, work: Callable[[], Awaitable[None]]) -> None:
        """Change the store, and forget what memory has of it before and after.

        Again after: a read that began before the change and ended after the first of these may have kept what was there before.
        """
        engine = self._engine
        engine.invalidated(change)

        async def in_the_store() -> None:
            try:
                await work()
            except BaseException:
                # It may be done later than this, or not at all: the backplane will tell.
                engine.backplane.disown()
                raise

        try:
            await self._tiers.invalidate(change, in_the_store)
        finally:
            engine.invalidated(change)


def _name(region: CacheRegion[Any] | str) -> str:
    return check_part(region) if isinstance(region, str) else region.name


class _Decorator(Protocol[T]):
    """What `cached` makes: it takes a function of an async workspace, or one of a blocking one."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Workspace, P], Awaitable[T]], /
    ) -> Callable[Concatenate[Workspace, P], Awaitable[T]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[BlockingWorkspace, P], T], /
    ) -> Callable[Concatenate[BlockingWorkspace, P], T]: ...


def cached(region: CacheRegion[T], *, key: Callable[..., str] | None = None) -> _Decorator[T]:
    """Cache what a function returns, by its arguments, in the workspace it is given first.

    ::

        @cached(profiles)
        async def profile(ws: Workspace, user_id: str) -> Profile: ...

    One that is not async is for a workspace of `redis_core.sync`.

    Args:
        region: what kind of value it returns.
        key: makes the key of the arguments after the workspace; by default they must be text or numbers, and are joined by `|`, what is
            named as `%name=value`. A `|` or `%` of their own is written `%7C` or `%25`: other arguments are another key.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        def name_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
            if key is not None:
                return key(*args, **kwargs)
            one = args[0] if len(args) == 1 and not kwargs else None
            if type(one) is str and one and "|" not in one and "%" not in one:
                return one
            try:
                return key_of_call(signature, args, kwargs)
            except InvalidKey as error:
                raise InvalidKey(f"{function.__qualname__}: {error}; give key=") from None

        def of_blocking(workspace: Any, /, *args: Any, **kwargs: Any) -> Any:
            def load(_: str) -> Any:
                return function(workspace, *args, **kwargs)

            return workspace.cache.get_or_load(region, name_of(args, kwargs), load)

        async def of_async(workspace: Workspace, /, *args: Any, **kwargs: Any) -> T:
            def load(_: str) -> Any:
                return function(workspace, *args, **kwargs)

            return await workspace.cache.get_or_load(region, name_of(args, kwargs), load)

        wrapper: Any = of_async if inspect.iscoroutinefunction(function) else of_blocking
        return functools.wraps(function)(wrapper)

    return cast("_Decorator[T]", decorate)
