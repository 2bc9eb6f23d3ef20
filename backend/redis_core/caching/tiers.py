"""Memory and store of one workspace as one: what is found in either becomes a memory entry, kept only if nothing changed."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from logging import DEBUG, getLogger
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from redis_core.caching.backplane import LEASE
from redis_core.caching.engine import CacheEngine, Place
from redis_core.caching.envelope import Envelope
from redis_core.caching.memory import MemoryEntry, entry_size
from redis_core.caching.region import CacheEntry, CacheRegion, RegionFigures
from redis_core.caching.store import CacheStore, Snapshot, Stored
from redis_core.errors import CodecError, JournalError, StoreError
from redis_core.log import get_logger

if TYPE_CHECKING:
    from redis_core.caching.invalidations import Invalidation
    from redis_core.client import Client
    from redis_core.keys import WorkspaceKeys

__all__ = ["CacheTiers", "Found", "lines_wanted"]

T = TypeVar("T")

Found = tuple[MemoryEntry, str]
"""A value and the tier that had it: `memory`, `store` or `loader`."""

_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret
_LOG: Final = get_logger("redis_core.cache")
lines_wanted: Final = getLogger("redis_core.cache").isEnabledFor
"""Whether anybody reads lines of this level: asked at every hit, so without the way through structlog."""


class CacheTiers:
    """One workspace's values in this process and in the store.

    Args:
        client: the store.
        keys: the workspace's key names.
        engine: what this process has of the cache.
    """

    def __init__(self, client: Client, keys: WorkspaceKeys, engine: CacheEngine) -> None:
        self.workspace = keys.workspace
        self.engine = engine
        self.monotonic = engine.clock.monotonic
        self.share = engine.memory.share(keys.workspace)
        self.store = CacheStore(
            client.primary, keys, engine.backplane, lambda: engine.envelope_keys, engine.clock
        )

    @property
    def apart(self) -> bool:
        """Whether the store may not be read: it is away, or does not know yet what was invalidated here."""
        return self.engine.invalidations.pending(self.workspace)

    @property
    def trusted_until(self) -> float:
        """Until when memory is trusted: while the store is known to be away nobody tells of changes, and `memory_ttl` bounds what that does."""
        return self.engine.backplane.live_until if self.engine.outage.available else math.inf

    @property
    def hears(self) -> bool:
        """Whether changes that others make are heard of."""
        return self.engine.outage.available and self.monotonic() < self.engine.backplane.live_until

    def place(self, region: CacheRegion[Any], key: str) -> Place:
        """Where a value belongs, over all workspaces."""
        return self.workspace, region.name, key

    def figures(self, region: CacheRegion[Any]) -> RegionFigures:
        """The region's figures in this process."""
        return region.figures

    # --- memory ---

    def in_memory(self, region: CacheRegion[Any], key: str) -> MemoryEntry | None:
        """What memory has of this value, be it stale."""
        entry = self.share.by_region.get(region, {}).get(key)
        return entry if entry is not None and self.monotonic() < entry.kept_until else None

    def remembered(self, region: CacheRegion[Any], keys: Iterable[str]) -> dict[str, Found]:
        """As `in_memory`, of several."""
        found = {key: self.in_memory(region, key) for key in keys}
        return {key: (entry, "memory") for key, entry in found.items() if entry is not None}

    def trusts(self, entry: MemoryEntry) -> bool:
        """Whether no change of this can have been missed, or nobody can be asked."""
        return self.monotonic() < max(self.trusted_until, entry.trusted_until)

    def may_serve(self, entry: MemoryEntry) -> bool:
        """Whether memory may answer with this without asking."""
        return self.monotonic() < entry.fresh_until and self.trusts(entry)

    def may_serve_stale(self, region: CacheRegion[Any], entry: MemoryEntry) -> bool:
        """Whether a value past its TTL is served at once while it is renewed behind the caller's back."""
        if entry.fresh_until < entry.expires:
            return False  # its time in memory was over before: the store may have a newer one
        until = min(entry.expires + region.stale_while_revalidate, self.trusted_until)
        return entry.expires <= self.monotonic() < until

    def keep(self, region: CacheRegion[Any], entry: MemoryEntry) -> None:
        """Keep a value in memory, if the region wants that and changes to it are heard of."""
        trusted = max(self.trusted_until, entry.trusted_until)
        if region.memory_ttl > 0 and self.monotonic() < trusted:
            self.share.put(entry)

    def keep_unheard(self, region: CacheRegion[Any], entry: MemoryEntry) -> None:
        """Keep what was loaded without the store: while it is known to be away like any value, else for as long as a change may go unheard.

        So an outage costs the loader one call a key and moment, not one a caller.
        """
        if self.engine.outage.available:
            entry.trusted_until = self.monotonic() + LEASE
            entry.fresh_until = min(entry.fresh_until, entry.trusted_until)
        self.keep(region, entry)

    def postpone(self, entry: MemoryEntry, seconds: float) -> None:
        """Serve an entry as it is for a while, and do not try to renew it meanwhile."""
        now = self.monotonic()
        entry.refresh_at = min(now + seconds, entry.kept_until)
        if now >= entry.expires:
            entry.fresh_until = entry.refresh_at
            entry.overdue = True

    # --- the store ---

    async def read(
        self, region: CacheRegion[Any], keys: Sequence[str], tags: Sequence[str], within: float
    ) -> Snapshot | None:
        """One look at the store; None if it may not be asked, or does not answer, which is counted and logged."""
        if self.apart:
            return None
        try:
            snapshot = await self.store.read(region, keys, tags, within)
        except StoreError as error:
            self.store_failed(region, error)
            return None
        if snapshot.corrupt:
            self.corrupt(region, snapshot.corrupt)
        return snapshot

    async def invalidate(self, invalidation: Invalidation, work: Callable[[], Awaitable[None]]) -> None:
        """Change the store, or see to it that it is changed before it is read again.

        Args:
            invalidation: what the change makes invalid.
            work: makes it.

        Raises:
            StoreError: the store did not do it, and it could not be kept for later.
            JournalError: the store is away, and it could not be kept for later.
        """
        invalidations = self.engine.invalidations
        if self.apart:
            await invalidations.keep(invalidation)
            return
        try:
            await work()
        except StoreError as error:
            if not invalidations.can_wait(error):
                raise
            try:
                await invalidations.keep(invalidation)
            except JournalError:
                raise error from None

    def store_failed(self, region: CacheRegion[Any], error: StoreError | JournalError) -> None:
        """The store did not do its part; the cache goes on without it."""
        self.figures(region).store_errors += 1
        _LOG.warning("cache store failed", workspace=self.workspace, region=region.name, error=str(error))

    def corrupt(self, region: CacheRegion[Any], count: int) -> None:
        """Count and log stored values that do not open."""
        self.figures(region).corrupt += count
        _LOG.warning("cache entry does not open", workspace=self.workspace, region=region.name, count=count)

    # --- both ---

    def in_snapshot(
        self, region: CacheRegion[Any], key: str, snapshot: Snapshot | None, tags: Sequence[str]
    ) -> MemoryEntry | None:
        """What the store had of this value, be it stale."""
        stored = snapshot.stored.get(key) if snapshot is not None else None
        return None if stored is None else self.entry_from(region, key, stored, tags)

    def is_news(self, found: MemoryEntry, known: Found | None, *, renew: bool) -> bool:
        """Whether what the store has is to be taken over what was known before.

        Args:
            found: what the store has.
            known: what was known before.
            renew: whether that was served already, so that only another one will do.
        """
        if known is None:
            return True
        entry, _ = known
        if found.created == entry.created:
            return not renew
        # Where a change may have been missed the store is right, whatever the clocks of those who wrote both.
        return found.created > entry.created or not self.trusts(entry)

    def is_gone(self, region: CacheRegion[Any], known: Found) -> bool:
        """Whether a value that the store has not was deleted there, for all that is known here: then it is forgotten here too.

        Else it may be that the store only let it go early, or never had it.
        """
        entry, tier = known
        if tier == "memory" and self.trusts(entry):
            return False
        if self.share.by_region.get(region, {}).get(entry.key) is entry:
            self.share.remove(region, entry.key)
        return True

    # --- entries ---

    def entry_from(
        self, region: CacheRegion[Any], key: str, stored: Stored, tags: Sequence[str]
    ) -> MemoryEntry | None:
        """A memory entry of what the store had; None, counted, if the value does not decode."""
        try:
            value = None if stored.payload is None else region.codec.decode(stored.payload)
        except CodecError:
            self.corrupt(region, 1)
            return None
        return self.entry(region, key, value, stored, tags)

    def entry(
        self, region: CacheRegion[Any], key: str, value: object, stored: Stored, tags: Sequence[str]
    ) -> MemoryEntry:
        """A memory entry of a value and its stored form."""
        envelope = stored.envelope
        now = self.monotonic()
        created = now - max(0.0, self.engine.clock.now() - envelope.created / 1000)
        expires = created + envelope.fresh / 1000
        # XFetch: the longer a load takes, the earlier somebody renews it, with odds that rise towards the TTL.
        early = (
            -math.log(1 - _RANDOM.random()) * envelope.load / 1000 * region.early_refresh
            if envelope.load
            else 0
        )
        payload = stored.payload
        held = 0 if payload is None else len(payload)
        if held and region.shared:
            held = region.weight.of(value, held)
        return MemoryEntry(
            region,
            key,
            value if region.shared else payload,
            entry_size(key, held),
            envelope.created,
            min(expires, now + region.memory_ttl),
            expires,
            created + envelope.kept / 1000,
            expires - early,
            tags,
        )

    def value(self, region: CacheRegion[T], entry: MemoryEntry) -> T | None:
        """The value itself, or a copy of the caller's own where it could be changed."""
        if region.shared or entry.value is None:
            return cast("T | None", entry.value)
        return region.codec.decode(entry.value)

    def take(self, region: CacheRegion[T], found: Found) -> T | None:
        """Count and log a hit, and hand the value out."""
        entry, tier = found
        figures = region.figures
        if self.is_stale(found):
            figures.stale_hits += 1
        elif tier == "store":
            self.engine.regions.add(region)
            figures.store_hits += 1
        elif tier == "memory":
            figures.memory_hits += 1
            entry.frequency = min(entry.frequency + 1, 3)
        if tier != "loader" and lines_wanted(DEBUG):
            _LOG.debug(
                "Redis HIT",
                workspace=self.workspace,
                region=region.name,
                tier=tier,
                stale=self.is_stale(found),
            )
        return self.value(region, entry)

    def hit(self, region: CacheRegion[T], found: Found) -> CacheEntry[T | None]:
        """As `take`, with what is known of the value."""
        entry, tier = found
        age = max(0.0, self.engine.clock.now() - entry.created / 1000)
        return CacheEntry(self.take(region, found), tier, age, self.is_stale(found))

    def is_stale(self, found: Found) -> bool:
        """Whether a value is past its TTL, or is from memory where a change of it may not have been heard of."""
        entry, tier = found
        return self.monotonic() >= entry.expires or (tier == "memory" and not self.hears)

    def miss(self, region: CacheRegion[Any]) -> None:
        """Count and log a miss."""
        self.engine.regions.add(region)
        self.figures(region).misses += 1
        _LOG.debug("Redis MISS", workspace=self.workspace, region=region.name, tier="store")

    def new_envelope(self, region: CacheRegion[Any], ttl: float, created: float, load: float) -> Envelope:
        """The times of a value that was just loaded, its generations not known yet. All in seconds."""
        fresh = region.with_jitter(ttl)
        return Envelope(
            created=int(created * 1000),
            load=int(load * 1000),
            fresh=max(1, int(fresh * 1000)),
            kept=max(1, int((fresh + region.stale_for) * 1000)),
            version=region.version,
            generations=(),
            workspace=self.workspace,
        )
