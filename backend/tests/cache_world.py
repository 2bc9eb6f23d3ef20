"""What the tests of the cache share: one store, processes that use it, and a clock to move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis_core.cache import Cache
from redis_core.caching.engine import CacheEngine
from redis_core.caching.envelope import EnvelopeKeys
from redis_core.client import Client
from redis_core.config import Settings
from redis_core.keys import WorkspaceKeys
from redis_core.transport.memory import MockRedisClient
from tests.hand_clock import HandClock

__all__ = ["CacheProcess", "CacheWorld"]

SETTINGS = Settings(_env_file=None, mock_redis=True)  # type: ignore[call-arg]  # pydantic-settings' own argument


class DistantStore:
    """A store whose replies take some turns of the loop, while what it publishes does not."""

    def __init__(self, store: MockRedisClient) -> None:
        self._store = store
        self.turns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def execute(self, batch: Any, *, timeout: float | None = None) -> Any:
        replies = await self._store.execute(batch, timeout=timeout)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return replies


class CacheProcess:
    """One process: a client and an engine of its own. While it is `deaf`, changes of others do not reach it."""

    def __init__(self, store: MockRedisClient, clock: HandClock, keys: EnvelopeKeys | None) -> None:
        self.store = DistantStore(store)
        self.client = Client(self.store, SETTINGS)
        self.engine = CacheEngine(self.client, clock=clock, keys=keys)
        self.deaf = False
        self._caches: dict[str, Cache] = {}
        apply: Callable[[Any], None] = self.engine.backplane._apply  # type: ignore[attr-defined]

        def hear(change: Any) -> None:
            if not self.deaf:
                apply(change)

        self.engine.backplane._apply = hear  # type: ignore[attr-defined]

    def cache(self, workspace: str = "acme") -> Cache:
        if workspace not in self._caches:
            self._caches[workspace] = Cache(self.client, WorkspaceKeys(workspace), engine=self.engine)
        return self._caches[workspace]

    async def commands(self, call: Callable[[], Any]) -> int:
        before = self.client.stats.commands
        await call()
        return self.client.stats.commands - before


class CacheWorld:
    """A store in memory and its processes, all by one clock."""

    def __init__(self, processes: int = 2, keys: EnvelopeKeys | None = None) -> None:
        self.clock = HandClock()
        self.store = MockRedisClient(clock=self.clock)
        self._keys = keys
        self.processes: list[CacheProcess] = []
        for _ in range(processes):
            self.add()

    def add(self) -> CacheProcess:
        """One process more."""
        self.processes.append(CacheProcess(self.store, self.clock, self._keys))
        return self.processes[-1]

    async def begin(self) -> None:
        """Until all are heard by all."""
        for process in self.processes:
            process.engine.listen()
            while self.clock.monotonic() >= process.engine.backplane.live_until:
                await asyncio.sleep(0)

    async def heard(self) -> None:
        """Until what was announced has been heard, and what follows from it is done: here, some turns of the loop."""
        for _ in range(20 + 5 * max(process.store.turns for process in self.processes)):
            await asyncio.sleep(0)

    async def end(self) -> None:
        for process in self.processes:
            await process.engine.aclose()
        await self.store.aclose()
