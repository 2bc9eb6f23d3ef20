"""Tokens joined to pieces, so that an agent's text costs the same however fast the agent is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from redis_core.errors import Outcome, StoreError, VersionConflict
from redis_core.log import get_logger
from redis_core.realtime.history import Position

__all__ = ["Append", "TextWriter"]

Append = Callable[[str, int, str], Awaitable[Position]]
"""Publish a piece of a text of this length, with `a` if the text begins anew by it and `e` if it ends.

Raises `VersionConflict` if the text has another length.
"""

_MOST: Final = 1 << 18
"""Characters that wait; who writes more waits with them."""
_AGAIN: Final = 0.1
_AGAIN_AT_MOST: Final = 2.0
_LOG: Final = get_logger("redis_core.realtime")


class TextWriter:
    """Writes a text of many small tokens; reached as `async with ws.text(name).writer() as out`.

    The first token is sent at once, what comes after it in pieces. While the store is away pieces wait, and are sent once:
    a piece of which it is not known whether it arrived is compared with the text's length. At the end of the block all is
    written and the text has ended; after an exception all is written and the text goes on.

    Args:
        append: publishes a piece.
        frame: seconds between two pieces; 33 to 50 ms look like writing.
        patience: seconds to go on trying while the store is away.
        anew: the first piece begins the text anew.
    """

    def __init__(self, append: Append, frame: float, patience: float, *, anew: bool = False) -> None:
        self._append = append
        self._frame = frame
        self._patience = patience
        self._anew = anew
        self._waiting: list[str] = []
        self._size = 0
        self._length = 0
        self._error: StoreError | None = None
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def write(self, token: str) -> None:
        """Add to the text. Budget: a script of 6 commands for each piece, at most one in 40 ms; returns before it is sent.

        Raises:
            StoreError: what was written before could not be sent.
            RuntimeError: the block has ended.
        """
        if self._closing.is_set():
            raise RuntimeError("the text's writer is closed")
        if self._error is not None:
            raise self._error
        if not token:
            return
        self._waiting.append(token)
        self._size += len(token)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="text-writer")
        if self._size > _MOST:
            await asyncio.shield(self._task)

    async def aclose(self, *, end: bool = True) -> None:
        """Send what waits. Idempotent. Budget: 1 script, for an end of 7 commands.

        Args:
            end: what is appended later begins anew, and readers know that no more comes.

        Raises:
            StoreError: it could not be sent.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        try:
            if self._task is not None:
                await self._task
        except BaseException:
            self.abandon()
            raise
        if self._error is not None:
            raise self._error
        if self._waiting or end:
            await self._send("".join(self._waiting), end=end)

    def abandon(self) -> None:
        """Send nothing more."""
        self._closing.set()
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(end=kind is None)

    async def _run(self) -> None:
        while self._waiting and not self._closing.is_set():
            piece = "".join(self._waiting)
            self._waiting, self._size = [], 0
            try:
                await self._send(piece, end=False)
            except StoreError as error:
                self._error = error
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._frame)

    async def _send(self, piece: str, *, end: bool) -> None:
        size = len(piece.encode()) + end
        how = "a" * self._anew + "e" * end
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        wait, doubtful = _AGAIN, False
        while True:
            try:
                self._length = (await self._append(piece, self._length, how)).offset
                break
            except VersionConflict as conflict:
                # If it may have arrived it did, in the text that was there or as the first piece of one that began anew by it.
                arrived = doubtful and conflict.version in {self._length + size, size}
                self._length = conflict.version
                if arrived:
                    break
            except StoreError as error:
                doubtful = doubtful or error.outcome is not Outcome.NOT_SENT
                if not error.retryable or loop.time() + wait > until:
                    raise
                _LOG.debug("a piece of text waits for the store", reason=str(error))
                await asyncio.sleep(wait)
                wait = min(wait * 2, _AGAIN_AT_MOST)
        self._anew = False
