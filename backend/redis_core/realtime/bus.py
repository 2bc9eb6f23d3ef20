"""One subscription a process, by which it hears of all topics; and when to look where the store has none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreError
from redis_core.keys import BUS_PATTERN
from redis_core.log import get_logger

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Bus"]

_POLL: Final = 0.05
_POLL_SLOWER: Final = 1.5
_PAUSE: Final = 0.1
_AGAIN_AT_MOST: Final = 300.0
"""Seconds between attempts to subscribe, at most: a store without subscriptions will not have them in a minute."""
_LOG: Final = get_logger("redis_core.realtime")


class Bus:
    """Hears messages while the store lets us subscribe. While it does not, looks are 50 ms apart and slow down to `every`.

    Args:
        client: the store.
        hear: called with each message.
        lost: called when messages may have been lost.
        look: compares what is known with the store; tells whether something was new.
        every: seconds between looks while messages are heard.
        clock: tells when to look and when to subscribe again.
    """

    def __init__(
        self,
        client: Client,
        *,
        hear: Callable[[bytes], None],
        lost: Callable[[], None],
        look: Callable[[], Awaitable[bool]],
        every: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._client = client
        self._hear = hear
        self._lost = lost
        self._look = look
        self._every = every
        self._clock = clock
        self._polls = False
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._again = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin, if it has not; until messages arrive or looks are made instead."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._listen()), loop.create_task(self._watch())]
        await self._ready.wait()

    def wake(self) -> None:
        """Something was published here: a poll need not wait."""
        if self._polls:
            self._wake.set()

    def subscribe(self) -> None:
        """The store is back: try at once."""
        self._again.set()

    async def aclose(self) -> None:
        """End its tasks. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _listen(self) -> None:
        wait = self._every
        while True:
            heard = False
            try:
                # A pattern, as over REST each name would be an event stream of its own.
                async with await self._client.subscribe(patterns=(BUS_PATTERN,)) as link:
                    heard, wait = True, self._every
                    self._polls = False
                    self._ready.set()
                    self._lost()
                    async for message in link:
                        self._take(None if message.gap else message.payload)
            except StoreError as error:
                _LOG.warning(
                    "the link to the bus was lost" if heard else "topics are polled", reason=str(error)
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, who listens must not be left in silence
                _LOG.error("the link to the bus failed", error=f"{type(error).__name__}: {error}")
            if heard:
                await self._clock.sleep(_PAUSE)
                continue
            if not self._polls:
                self._polls = True
                self._ready.set()
                self._wake.set()
            came_back = await self._nap(self._again, wait)
            wait = self._every if came_back else min(wait * 2, _AGAIN_AT_MOST)

    def _take(self, payload: bytes | None) -> None:
        try:
            if payload is not None:
                self._hear(payload)
                return
        except Exception as error:  # noqa: BLE001 - one message's mistake is not the others'
            _LOG.error("a message of the bus could not be taken", error=f"{type(error).__name__}: {error}")
        self._lost()

    async def _watch(self) -> None:
        wait = _POLL
        while True:
            woken = await self._nap(self._wake, wait if self._polls else self._every)
            try:
                found = await self._look()
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                _LOG.error("a look for lost messages failed", error=f"{type(error).__name__}: {error}")
                found = False
            wait = _POLL if woken or found else min(wait * _POLL_SLOWER, self._every)

    async def _nap(self, event: asyncio.Event, seconds: float) -> bool:
        """Sleep, unless the event is set; whether it was."""
        if not event.is_set():
            napping = asyncio.ensure_future(self._clock.sleep(seconds))
            waking = asyncio.ensure_future(event.wait())
            try:
                await asyncio.wait({napping, waking}, return_when="FIRST_COMPLETED")
            finally:
                napping.cancel()
                waking.cancel()
                await asyncio.gather(napping, waking, return_exceptions=True)
        woken = event.is_set()
        event.clear()
        return woken
