"""Subscriptions that outlast an outage: the store's messages while it is there, memory's meanwhile, a gap told in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from redis_core.errors import StoreError
from redis_core.transport.base import Message, Subscription
from redis_core.transport.subscription import Feed, SubscriptionRouter

__all__ = ["FailoverSubscriptions"]

_GAP: Final = Message(b"", b"", gap=True)
_RETRY: Final = 0.2
"""Seconds between tries to listen on a store that has just come back."""

Listen = Callable[[bool, Sequence[str], Sequence[str]], Awaitable[Subscription]]
"""Subscribes in memory (True) or on the store."""


class FailoverSubscriptions:
    """All subscriptions of one failover transport.

    Args:
        listen: subscribes.
        from_memory: whether memory serves now.
    """

    def __init__(self, listen: Listen, from_memory: Callable[[], bool]) -> None:
        self._listen = listen
        self._from_memory = from_memory
        self._relays: set[_Relay] = set()

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str]) -> Subscription:
        """A subscription that moves with the outage."""
        relay = _Relay(self._listen, self._from_memory, channels, patterns, self._relays.discard)
        await relay.open()
        self._relays.add(relay)
        return relay

    def moved(self) -> None:
        """Where calls go may have changed."""
        for relay in self._relays:
            relay.moved.set()

    async def aclose(self) -> None:
        """End all of them."""
        for relay in list(self._relays):
            await relay.aclose()


class _Relay(Feed):
    """One listener: what it hears comes from one place or the other."""

    def __init__(
        self,
        listen: Listen,
        from_memory: Callable[[], bool],
        channels: Sequence[str],
        patterns: Sequence[str],
        gone: Callable[[_Relay], None],
    ) -> None:
        super().__init__(SubscriptionRouter(_NOWHERE), channels, patterns)
        self.moved = asyncio.Event()
        self._listen = listen
        self._from_memory = from_memory
        self._gone = gone
        self._store: Subscription | None = None
        self._memory: Subscription | None = None
        self._pumps: dict[Subscription, asyncio.Task[None]] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen where calls go now."""
        await self._move()
        self._keeper = asyncio.get_running_loop().create_task(
            self._keep(), name="redis-failover-subscription"
        )

    async def aclose(self) -> None:
        """Stop listening; messages already here can still be read."""
        self.end(None)
        self._gone(self)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for source in (self._store, self._memory):
            await self._leave(source)
        self._store = self._memory = None

    async def _keep(self) -> None:
        while True:
            await self.moved.wait()
            self.moved.clear()
            try:
                await self._move()
            except StoreError:
                # The outage is told by whoever failed; its end, or the next try, brings us here again.
                await asyncio.sleep(_RETRY)
                self.moved.set()

    async def _move(self) -> None:
        if self._from_memory():
            if self._memory is None:
                # The store's subscription stays: it restores itself, and tells of the gap.
                self._memory = await self._join(from_memory=True)
                if self._store is None:
                    self.put(_GAP)
            return
        if self._store is None:
            late = self._memory is not None
            self._store = await self._join(from_memory=False)
            if late:
                self.put(_GAP)
        memory, self._memory = self._memory, None
        await self._leave(memory)

    async def _join(self, *, from_memory: bool) -> Subscription:
        source = await self._listen(from_memory, self.channels, self.patterns)
        self._pumps[source] = asyncio.get_running_loop().create_task(self._pump(source), name="redis-relay")
        return source

    async def _leave(self, source: Subscription | None) -> None:
        if source is None:
            return
        pump = self._pumps.pop(source)
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        await source.aclose()

    async def _pump(self, source: Subscription) -> None:
        try:
            async for message in source:
                self.put(message)
        except StoreError as error:
            self.end(error)
        else:
            # Memory's ends when the outage does; the store's only with the store.
            if source is not self._memory and source in self._pumps:
                self.end(None)


class _Nowhere:
    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Nothing: a relay listens itself."""

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Nothing."""


_NOWHERE: Final = _Nowhere()
