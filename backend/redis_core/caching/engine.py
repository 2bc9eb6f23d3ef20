"""What one process has of the cache, whatever the workspace: memory, the backplane, the loads under way, the figures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis_core.caching.backplane import Change, open_backplane
from redis_core.caching.envelope import EnvelopeKeys
from redis_core.caching.invalidations import Invalidation, Invalidations
from redis_core.caching.memory import MemoryTier
from redis_core.caching.store import CacheStore
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.keys import WorkspaceKeys
from redis_core.log import get_logger
from redis_core.resilience.outage import State

if TYPE_CHECKING:
    from redis_core.caching.region import CacheRegion
    from redis_core.client import Client
    from redis_core.resilience.outage import Change as OutageChange

__all__ = ["CacheEngine", "Place"]

T = TypeVar("T")

Place = tuple[str, str, str]
"""Workspace, region and key: where a value belongs."""

_FENCES: Final = 4096
"""Counters that changes are noted in. Two keys that share one only cost a value its place in memory now and then."""
_GOODBYE: Final = 0.25
"""Seconds that a closing cache takes to give its leases back, so that others need not wait for their end."""

_LOG: Final = get_logger("redis_core.cache")


class CacheEngine:
    """One a client; see `Client.service`.

    Args:
        client: the store.
        memory: the tier in this process; of the settings' size unless given.
        keys: to encrypt regions that ask for it; the settings' unless given.
        clock: the time.
    """

    def __init__(
        self,
        client: Client,
        *,
        memory: MemoryTier | None = None,
        keys: EnvelopeKeys | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        client = client.primary
        self.client = client
        self.outage = client.outage
        self.memory = memory or MemoryTier(
            client.settings.cache_memory_entries, client.settings.cache_memory_bytes
        )
        self.clock = clock
        self.backplane = open_backplane(client, self._apply, self.forget, clock)
        self.loads: dict[Place, asyncio.Future[Any]] = {}
        """Values that are being fetched, for whoever asks meanwhile; see `board`."""
        self.regions: set[CacheRegion[Any]] = set()
        """Those that were asked for here, for the metrics."""
        self._keys = keys
        self._fences = [0] * _FENCES
        self._flushes = [0] * _FENCES
        self._forgotten = 0
        self._waiters: dict[Place, list[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener: asyncio.Task[None] | None = None
        self._closed = False
        client.meter.watch(self, CacheEngine.totals)
        self.invalidations = Invalidations(self.outage, self._store_of)
        self._stop_watching = self.outage.watch(self._outage_changed)

    def totals(self) -> dict[str, float]:
        """What happened in all regions, by the metrics' names."""
        figures = [region.figures for region in self.regions]
        return {
            "cache_lookups_total|memory": sum(each.memory_hits for each in figures),
            "cache_lookups_total|store": sum(each.store_hits for each in figures),
            "cache_lookups_total|stale": sum(each.stale_hits for each in figures),
            "cache_lookups_total|miss": sum(each.misses for each in figures),
            "cache_loads_total|done": sum(each.loads - each.load_errors for each in figures),
            "cache_loads_total|failed": sum(each.load_errors for each in figures),
            "cache_load_seconds_total": sum(each.load_seconds for each in figures),
            "cache_store_errors_total": sum(each.store_errors for each in figures),
        }

    @cached_property
    def envelope_keys(self) -> EnvelopeKeys:
        """What encrypts the regions that ask for it.

        Raises:
            ConfigError: there is no key, or it is malformed.
        """
        return self._keys or EnvelopeKeys.parse(self.client.settings.cache_keys)

    def _store_of(self, workspace: str) -> CacheStore:
        return CacheStore(
            self.client, WorkspaceKeys(workspace), self.backplane, lambda: self.envelope_keys, self.clock
        )

    def _outage_changed(self, change: OutageChange) -> None:
        """What others change meanwhile is heard of afterwards, or never."""
        if change.after is State.DEGRADED and self.backplane.catches_up:
            self.backplane.live_until = -math.inf
        back = change.after is State.RECOVERING
        if change.came_back_empty or (back and not self.backplane.catches_up):
            self.forget()

    def listen(self) -> None:
        """Start following the backplane, if that has not begun."""
        if self._listener is None and not self._closed:
            self._listener = asyncio.get_running_loop().create_task(
                self.backplane.run(), name="cache-backplane"
            )
            self._listener.add_done_callback(self._stopped_listening)

    def _stopped_listening(self, listener: asyncio.Task[None]) -> None:
        if not listener.cancelled() and (error := listener.exception()) is not None:
            # Memory is out of use until somebody asks again, which starts another.
            _LOG.error("cache backplane failed", error=repr(error))
        if self._listener is listener:
            self._listener = None

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """A task that the cache owns: whoever waits for it may go."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever still waits gets it as well; if nobody does, this line is all there is.
            _LOG.debug("cache task failed", task=task.get_name(), error=repr(error))

    def board(self, place: Place, flight: asyncio.Future[Any]) -> None:
        """Let those who ask for this value wait for this, until it is done or the value is changed."""
        self.loads[place] = flight

        def landed(done: asyncio.Future[Any]) -> None:
            if self.loads.get(place) is done:
                del self.loads[place]
            if not done.cancelled():
                done.exception()  # looked at: nobody may be waiting for it

        flight.add_done_callback(landed)

    # --- changes, of this process and of others ---

    def fence(self, place: Place) -> int:
        """A number that differs once a change to this place was heard of."""
        return self._fences[hash(place) % _FENCES] + self._flushes[hash(place[0]) % _FENCES] + self._forgotten

    def changed(self, workspace: str, region: str, keys: tuple[str, ...]) -> None:
        """Values changed: drop them from memory and let no load that began before answer who comes now."""
        share = self.memory.known(workspace)
        for key in keys:
            place = workspace, region, key
            self._fences[hash(place) % _FENCES] += 1
            self.loads.pop(place, None)
            self.wake(place)
            if share is not None:
                share.remove_named(region, key)

    def flushed(self, workspace: str, region: str = "", tag: str = "") -> None:
        """As `changed`, for a region, a tag or the whole workspace."""
        self._flushes[hash(workspace) % _FENCES] += 1
        for under_way in [p for p in self.loads if p[0] == workspace and region in {"", p[1]}]:
            del self.loads[under_way]
        share = self.memory.known(workspace)
        if share is None:
            return
        if tag:
            share.flush_tag(tag)
        elif region:
            share.flush_named(region)
        else:
            share.flush()

    def forget(self) -> None:
        """Changes may have been missed: trust nothing in memory, and no load under way."""
        self._forgotten += 1
        self.loads.clear()
        self.memory.flush()

    def invalidated(self, what: Invalidation | Change) -> None:
        """As `changed` or `flushed`, whichever it says."""
        if what.keys:
            self.changed(what.workspace, what.region, what.keys)
        else:
            self.flushed(what.workspace, what.region, what.tag)

    def _apply(self, change: Change) -> None:
        self.invalidated(change)

    # --- waiting for another's load ---

    def expect(self, place: Place) -> asyncio.Future[None]:
        """Done when somebody has stored or removed this value, or given its load up. To be handed back to `expected`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(place, []).append(waiter)
        return waiter

    def expected(self, place: Place, waiter: asyncio.Future[None]) -> None:
        """The wait is over, whatever ended it."""
        waiter.cancel()
        waiters = self._waiters.get(place)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[place]

    def wake(self, place: Place) -> None:
        """Let those look again who wait for this value."""
        for waiter in self._waiters.pop(place, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def aclose(self) -> None:
        """End the backplane and the loads under way, their leases given back. The cache goes on without memory."""
        self._closed = True
        self._stop_watching()
        self.invalidations.stop_watching()
        tasks = [*self._tasks, *([self._listener] if self._listener else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.loads.clear()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_GOODBYE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
