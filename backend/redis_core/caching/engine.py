"""What one process has of the cache, whatever the workspace: memory, the backplane, the loads under way, the figures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis_core.caching.backplane import Change, open_backplane
from redis_core.caching.envelope import EnvelopeKeys
from redis_core.caching.memory import MemoryTier
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.log import get_logger

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["CacheEngine", "Place"]

T = TypeVar("T")

Place = tuple[str, str, str]
"""Workspace, region and key: where a value belongs."""

_FENCES: Final = 4096
"""Counters that changes are noted in. Two keys that share one only cost a value its place in memory now and then."""

_LOG: Final = get_logger("redis_core.cache")


class CacheEngine:
    """One a client; see `Client.service`.

    Args:
        client: the store.
        memory: the tier in this process.
        keys: to encrypt regions that ask for it.
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
        self.client = client
        self.memory = memory or MemoryTier()
        self.envelope_keys = keys
        self.clock = clock
        self.backplane = open_backplane(client, self._apply, self.forget, clock)
        self.loads: dict[Place, asyncio.Task[Any]] = {}
        self._fences = [0] * _FENCES
        self._waiters: dict[Place, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Start following the backplane, if that has not begun."""
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(
                self.backplane.run(), name="cache-backplane"
            )

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

    # --- changes, of this process and of others ---

    def fence(self, place: Place) -> int:
        """A number that differs once a change to this place was heard of."""
        return self._fences[hash(place) % _FENCES]

    def changed(self, workspace: str, region: str, keys: tuple[str, ...]) -> None:
        """Values changed: drop them from memory and let no load that began before answer who comes now."""
        share = self.memory.share(workspace)
        for key in keys:
            place = workspace, region, key
            self._fences[hash(place) % _FENCES] += 1
            self.loads.pop(place, None)
            waiter = self._waiters.pop(place, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            for known in share.by_region:
                if getattr(known, "name", None) == region:
                    share.remove(known, key)

    def flushed(self, workspace: str, region: str = "", tag: str = "") -> None:
        """As `changed`, for a region, a tag or the whole workspace."""
        for place in range(_FENCES):
            self._fences[place] += 1
        share = self.memory.share(workspace)
        if tag:
            share.flush_tag(tag)
        elif region:
            for known in list(share.by_region):
                if getattr(known, "name", None) == region:
                    share.flush(known)
        else:
            share.flush()
        for under_way in [p for p in self.loads if p[0] == workspace and region in {"", p[1]}]:
            del self.loads[under_way]

    def forget(self) -> None:
        """Changes may have been missed: trust nothing in memory."""
        for place in range(_FENCES):
            self._fences[place] += 1
        self.memory.flush()

    def _apply(self, change: Change) -> None:
        if change.keys:
            self.changed(change.workspace, change.region, change.keys)
        else:
            self.flushed(change.workspace, change.region, change.tag)

    def change_of(self, place: Place) -> asyncio.Future[None]:
        """Done when somebody has stored or removed this value; shared by all who wait for it."""
        change = self._waiters.get(place)
        if change is None or change.done():
            change = self._waiters[place] = asyncio.get_running_loop().create_future()
        return change

    async def aclose(self) -> None:
        """End the backplane and the loads under way."""
        tasks = [*self._tasks, *([self._listener] if self._listener else [])]
        self._listener = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.loads.clear()
