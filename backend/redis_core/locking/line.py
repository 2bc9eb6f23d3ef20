"""Waiting for locks: one channel a process, on which those who release a lock name who is next."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

from redis_core.errors import StoreError
from redis_core.keys import LOCK_BELL
from redis_core.log import get_logger

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Line"]

_PAUSE: Final = 1.0
"""Seconds between attempts to listen while the store is away."""
_LINGER: Final = 10.0
"""Seconds for which the channel is kept open after the last waiter, so that a busy lock does not open it each time."""
_LOG: Final = get_logger("redis_core.locks")


class Line:
    """The waiters of one process.

    Args:
        client: the store.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = secrets.token_hex(8)
        self._number = 0
        self._waiters: dict[str, asyncio.Event] = {}
        self._listening: asyncio.Task[None] | None = None
        self._open = asyncio.Event()
        self._closing: asyncio.TimerHandle | None = None

    def new_holder(self) -> str:
        """A name that nobody else has: `<process>.<n>`."""
        self._number += 1
        return f"{self._name}.{self._number}"

    @contextlib.contextmanager
    def standing(self, holder: str) -> Generator[asyncio.Event]:
        """Be in line: the event is set when it may be the holder's turn."""
        told = self._waiters[holder] = asyncio.Event()
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="lock bell")
        try:
            yield told
        finally:
            del self._waiters[holder]
            if not self._waiters and self._closing is None:
                self._closing = asyncio.get_running_loop().call_later(_LINGER, self._stop)

    async def open(self) -> None:
        """Until messages are heard; those of before are lost."""
        await self._open.wait()

    async def _listen(self) -> None:
        while True:
            try:
                async with await self._client.subscribe(LOCK_BELL + self._name) as messages:
                    self._open.set()
                    async for message in messages:
                        if message.gap:
                            self._wake_all()
                        elif (
                            told := self._waiters.get(message.payload.decode("utf-8", "replace"))
                        ) is not None:
                            told.set()
            except StoreError as error:
                _LOG.debug("cannot listen for locks", error=str(error))
            self._open.clear()
            self._wake_all()
            await asyncio.sleep(_PAUSE)

    def _wake_all(self) -> None:
        for told in self._waiters.values():
            told.set()

    def _stop(self) -> asyncio.Task[None] | None:
        listening, self._listening = self._listening, None
        self._closing = None
        self._open.clear()
        if listening is not None:
            listening.cancel()
        return listening

    async def aclose(self) -> None:
        """Listen no more. Idempotent."""
        if self._closing is not None:
            self._closing.cancel()
        listening = self._stop()
        if listening is not None:
            await asyncio.gather(listening, return_exceptions=True)
