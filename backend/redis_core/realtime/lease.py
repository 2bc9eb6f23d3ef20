"""Which process shows which members, and whether it lives."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Final

from redis_core.errors import StoreError
from redis_core.keys import presence_key
from redis_core.log import get_logger
from redis_core.realtime.history import Position

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["PresenceLease"]

_SHOWN_AGAIN: Final = 43_200.0
"""Seconds: members that nobody joins or leaves beside are forgotten after a day, so that none stays where nobody looks."""
_LOG: Final = get_logger("redis_core.realtime")


class PresenceLease:
    """Says that this process lives, for all members it shows. Reached as `client.service(PresenceLease)`.

    Args:
        client: the store.
    """

    seconds: ClassVar[int] = 25
    """How long the lease is: with the listeners' look every 5 s, who dies is gone within 30 s."""
    refresh: ClassVar[float] = 10.0
    """Seconds between refreshes."""

    def __init__(self, client: Client) -> None:
        self.process = secrets.token_hex(8)
        self._key = presence_key(self.process)
        self.members: dict[tuple[str, str], Callable[[], Awaitable[Position]]] = {}
        """What shows each member again, by its topic and name."""
        self._client = client
        self._task: asyncio.Task[None] | None = None

    async def hold(self) -> None:
        """Take the lease, if it is not held. Budget: 1 command, the first time."""
        if self._task is None:
            await self._client.set(self._key, "1", ex=self.seconds)
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        shown = loop.time()
        while True:
            await asyncio.sleep(self.refresh)
            if not self.members:
                continue
            try:
                held = await self._client.execute("SET", self._key, "1", "EX", self.seconds, "GET")
                if held is None or loop.time() - shown > _SHOWN_AGAIN:
                    # The store forgot us, we slept too long, or the members are about to expire: they are shown again.
                    shown = loop.time()
                    for show in list(self.members.values()):
                        await show()
            except StoreError as error:
                _LOG.warning("the presence lease was not refreshed", reason=str(error))

    async def aclose(self) -> None:
        """End its task; the lease ends by itself. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
