"""Commands that wait in the server, each on a connection of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from redis_core.errors import DeadlineExceeded, Outcome, StoreError, StoreOverloaded, StoreUnavailable
from redis_core.transport.base import Command, Reply
from redis_core.transport.blocking import put_back, wait_seconds
from redis_core.transport.connection import Connection, LinkOptions

__all__ = ["BlockingLinks"]

_FOR_EVER: Final = 365 * 86_400.0
"""Seconds a command may wait in the server when it was told to wait for ever: a year."""

_UNBLOCK_EVERY: Final = 0.02
"""Seconds between two tries to call a command back: the first may overtake it on its way."""

Calls = list[Reply]


class BlockingLinks:
    """Connections for commands that wait, kept for the next one while they are fresh.

    A caller who gives up (cancelled, or out of time) has its command called back with CLIENT UNBLOCK before the call ends;
    if it has taken an element all the same, that goes back to its place, so a cancelled pop loses nothing.

    Args:
        target: the server, for messages.
        open_link: opens a connection.
        ask: sends commands on the connection that everybody shares.
        options: the transport's timeouts.
        most: how many may wait at once.
    """

    def __init__(
        self,
        target: str,
        open_link: Callable[[], Awaitable[Connection]],
        ask: Callable[[Sequence[Command], float], Awaitable[list[Reply]]],
        options: LinkOptions,
        most: int,
    ) -> None:
        self._target = target
        self._open_link = open_link
        self._ask = ask
        self._options = options
        self._most = most
        self._taken = 0
        self._free: list[Connection] = []
        self._busy: set[Connection] = set()
        self._retired: set[Connection] = set()
        self._recalls: set[asyncio.Task[Calls | None]] = set()

    async def execute(self, batch: Sequence[Command], timeout: float | None) -> list[Reply]:
        """Send a batch whose last command waits, and wait for it.

        Args:
            batch: the commands; only the last one may wait.
            timeout: seconds until it is called back; None is its own waiting time and the command timeout.

        Raises:
            DeadlineExceeded: it was called back, `not_sent` when it certainly took nothing.
            StoreOverloaded: as many as allowed wait already.
        """
        seconds = wait_seconds(batch[-1]) + self._options.command_timeout if timeout is None else timeout
        if self._taken >= self._most:
            raise StoreOverloaded(
                f"{self._target}: {self._taken} commands wait in the server, REDIS_MAX_CONNECTIONS is {self._most}"
            )
        self._taken += 1
        connection: Connection | None = None
        try:
            connection = await self._take()
            self._busy.add(connection)
            call = connection.call(batch, _FOR_EVER)
        except BaseException:
            self._release(connection)
            raise
        try:
            await asyncio.wait({call}, timeout=None if seconds == math.inf else seconds)
        except asyncio.CancelledError:
            await self._recall(connection, call, batch[-1], undo=True)
            raise
        if call.done():
            self._release(connection)
            return call.result()
        replies = await self._recall(connection, call, batch[-1], undo=False)
        if replies is not None and replies[-1] is not None:
            return replies  # it came at the last moment
        raise DeadlineExceeded(
            f"{self._target}: {batch[-1][0]!r} found nothing within {seconds:g} s",
            outcome=Outcome.UNKNOWN if replies is None or len(batch) > 1 else Outcome.NOT_SENT,
        )

    def retire(self) -> None:
        """Keep none of the present connections for further commands; those that wait now wait to their end."""
        for connection in self._free:
            connection.close()
        self._free.clear()
        self._retired |= self._busy

    async def aclose(self) -> None:
        """Close all of them; whoever waits gets `StoreUnavailable`."""
        connections = [*self._free, *self._busy]
        self._free.clear()
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.wait_closed()
        await asyncio.gather(*self._recalls, return_exceptions=True)

    async def _take(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if connection.quiet():
                connection.close()
            elif not connection.closed:
                return connection
        return await self._open_link()

    def _release(self, connection: Connection | None) -> None:
        self._taken -= 1
        if connection is not None:
            self._busy.discard(connection)
            if connection in self._retired:
                self._retired.discard(connection)
                connection.close()
            elif not connection.closed:
                self._free.append(connection)

    async def _recall(
        self, connection: Connection, call: asyncio.Future[Calls], command: Command, *, undo: bool
    ) -> Calls | None:
        """Call a command back; its replies, or None where the connection had to be closed instead."""
        task = asyncio.get_running_loop().create_task(
            self._called_back(connection, call, command, undo=undo), name="redis-recall"
        )
        self._recalls.add(task)
        task.add_done_callback(self._recalls.discard)
        # Shielded: a second cancellation does not keep an element from going back.
        return await asyncio.shield(task)

    async def _called_back(
        self, connection: Connection, call: asyncio.Future[Calls], command: Command, *, undo: bool
    ) -> Calls | None:
        try:
            async with asyncio.timeout(self._options.command_timeout):
                await self._unblock(connection, call)
                replies = call.result()
                back = put_back(command, replies[-1]) if undo else None
                if back is not None:
                    await connection.call([back], self._options.command_timeout)
        except (StoreError, TimeoutError):
            # Not called back: the server finds the connection closed, soon.
            connection.close()
            return None
        else:
            return replies
        finally:
            if call.done() and not call.cancelled():
                call.exception()  # seen: nobody else will look
            self._release(connection)

    async def _unblock(self, connection: Connection, call: asyncio.Future[Calls]) -> None:
        if not connection.client_id and not call.done():
            raise StoreUnavailable(f"{self._target}: the server gave the connection no id to call it back by")
        while not call.done():
            (reply,) = await self._ask(
                [("CLIENT", "UNBLOCK", connection.client_id)], self._options.command_timeout
            )
            if isinstance(reply, StoreError):
                raise reply
            await asyncio.wait({call}, timeout=_UNBLOCK_EVERY)
