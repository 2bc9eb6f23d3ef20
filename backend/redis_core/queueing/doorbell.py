"""How an idle worker learns that there is work, without asking again and again.

Where a command may wait in the server it pops a token from a list: one ring wakes one worker. Over REST no command can wait, so
there the ring is a message, and each worker that hears it looks. Cancellations are messages on every store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from redis_core.errors import StoreError
from redis_core.log import get_logger
from redis_core.queueing.shard import Shard

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Doorbell"]

_BLOCK: Final = 300.0
"""Seconds that one command waits in the server. A dead link is noticed sooner, by the connection itself."""
_PAUSE: Final = 1.0
"""Seconds between attempts while the store is away."""
_LOG: Final = get_logger("redis_core.queue")


class Doorbell:
    """Listens at one shard.

    Args:
        client: the store.
        shard: whose bell.
        rung: called when there may be work.
        cancelled: called with the field of a job that is to end.
    """

    def __init__(
        self, client: Client, shard: Shard, rung: Callable[[], None], cancelled: Callable[[bytes], None]
    ) -> None:
        self._client = client
        self._shard = shard
        self._rung = rung
        self._cancelled = cancelled
        self._wanted = asyncio.Event()
        self._waiting: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self.by_message = client.store_mode == "upstash"
        """Whether the ring is a message."""

    def start(self) -> None:
        """Begin; tokens are only taken when `listen` is called, and where they are, messages only heard after `attend`."""
        if self.by_message:
            self.attend()
        else:
            self._waiting = asyncio.get_running_loop().create_task(self._wait(), name="queue-bell")

    def attend(self) -> None:
        """The worker has jobs that may be cancelled: hear of that at once, not only at the next heartbeat."""
        if self._hearing is None:
            self._hearing = asyncio.get_running_loop().create_task(self._hear(), name="queue-messages")

    def ignore(self) -> None:
        """The worker has no jobs: a link that is only kept open costs a command now and then."""
        if self._hearing is not None and not self.by_message:
            self._hearing.cancel()
            self._hearing = None

    def listen(self) -> None:
        """The worker is idle and could take work: take the next token. Until it comes nothing changes by calling this again."""
        self._wanted.set()

    async def _wait(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                token = await self._client.execute("BLPOP", self._shard.bell, _BLOCK)
            except StoreError as error:
                _LOG.debug("cannot wait for work", queue=self._shard.name, error=str(error))
                await asyncio.sleep(_PAUSE)
                # What was rung meanwhile is not known.
                self._rung()
                continue
            if token is not None:
                self._wanted.clear()
                self._rung()
            else:
                # It is sent again, and only that has happened.
                self._client.meter.watching += 1

    async def _hear(self) -> None:
        channels = [self._shard.control, *([self._shard.bell] if self.by_message else [])]
        bell = self._shard.bell.encode()
        while True:
            try:
                async with await self._client.subscribe(*channels) as messages:
                    if self.by_message:
                        self._rung()
                    async for message in messages:
                        if message.gap or message.channel == bell:
                            self._rung()
                        else:
                            self._cancelled(message.payload)
            except StoreError as error:
                _LOG.debug("cannot listen", queue=self._shard.name, error=str(error))
            await asyncio.sleep(_PAUSE)

    async def aclose(self) -> None:
        """Listen no more; a token that comes at the last moment goes back."""
        tasks = [task for task in (self._waiting, self._hearing) if task is not None]
        self._waiting = self._hearing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
