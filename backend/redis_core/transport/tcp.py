"""Redis or Valkey over TCP, TLS or a unix socket: one multiplexed connection for all callers.

Commands that wait in the server (BLPOP, XREAD BLOCK, ...) get a connection of their own, and subscriptions share another.
One more connection for long replies was tried and left out: see docs/design.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from redis_core.errors import (
    CommandError,
    DeadlineExceeded,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
    TransactionAborted,
)
from redis_core.transport.backoff import Backoff
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.connection import Connection, LinkOptions, open_connection
from redis_core.transport.refused import is_blocking, needs_look, refusal
from redis_core.transport.tcp_subscription import OnPush, SubscriptionLink

if TYPE_CHECKING:
    from redis_core.address import StoreAddress
    from redis_core.config import Settings

__all__ = ["TcpTransport"]

_BLOCK_FOR_EVER: Final = 365 * 86_400.0
"""Seconds a command may wait in the server when it was told to wait for ever: a year."""


class TcpTransport:
    """A transport to one Redis server.

    Args:
        address: where it is.
        options: bounds and timeouts.
        max_blocking: most commands that wait in the server at once.
    """

    script_header = ""

    def __init__(self, address: StoreAddress, options: LinkOptions, *, max_blocking: int = 50) -> None:
        self.mode = "tcp"
        self.target = str(address)
        self.stats = TransportStats()
        self._address = address
        self._host = address.hosts[0] if address.hosts else ("", 0)
        self._options = options
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._backoff = Backoff()
        self._not_before = 0.0
        self._last_error: StoreError | None = None
        self._closed = False
        self._free: list[Connection] = []
        self._busy: set[Connection] = set()
        self._max_blocking = max_blocking
        self._subscriptions = SubscriptionLink(self._open, options, self.stats)

    @classmethod
    def from_settings(cls, address: StoreAddress, settings: Settings) -> TcpTransport:
        """The transport that the settings describe."""
        return cls(
            address, LinkOptions.from_settings(address, settings), max_blocking=settings.redis_max_connections
        )

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands and return one reply for each; see `Transport`."""
        for command in batch:
            if needs_look(command):
                return await self._execute_unusual(batch, timeout)
        connection = self._connection
        if connection is None or connection.closed or not connection.writable or connection.quiet():
            if not batch:
                return []
            return await self._execute_once_ready(batch, timeout)
        return await connection.call(batch, self._options.command_timeout if timeout is None else timeout)

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands between MULTI and EXEC; see `Transport`."""
        for command in batch:
            error = refusal(command)
            if error is not None:
                raise error
        if not batch:
            return []
        seconds = self._options.command_timeout if timeout is None else timeout
        connection, left = await self._ready(seconds)
        replies = await connection.transaction(batch, left)
        results = replies[-1]
        if isinstance(results, list):
            return results
        refused = next((reply for reply in replies if isinstance(reply, StoreError)), None)
        if isinstance(refused, CommandError):
            raise TransactionAborted(f"EXECABORT nothing was done: {refused}")
        raise refused or TransactionAborted("EXECABORT nothing was done")

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns; see `Transport`."""
        return await self._subscriptions.subscribe(channels, patterns)

    async def aclose(self) -> None:
        """Close every connection and fail what is in flight."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._subscriptions.aclose()
        connections = [*self._free, *self._busy, *([self._connection] if self._connection else [])]
        self._free.clear()
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.wait_closed()

    # --- the shared connection ---

    async def _execute_once_ready(self, batch: Sequence[Command], timeout: float | None) -> list[Reply]:
        seconds = self._options.command_timeout if timeout is None else timeout
        connection, left = await self._ready(seconds)
        return await connection.call(batch, left)

    async def _ready(self, seconds: float) -> tuple[Connection, float]:
        """A connection that takes commands, and the seconds that are left of `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    connection = self._connection
                    if connection is None or connection.closed:
                        connection = await self._connect()
                    elif not connection.writable:
                        await connection.until_writable()
                    elif connection.quiet():
                        await self._prove(connection)
                    else:
                        return connection, max(deadline - loop.time(), 0.001)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{self.target} was not ready within {seconds:g} s; nothing was sent"
            ) from None

    async def _connect(self) -> Connection:
        """The shared connection, opened once whoever asks; refused without trying right after failures."""
        if self._closed:
            raise StoreUnavailable(f"{self.target}: the client is closed")
        if self._opening is None:
            loop = asyncio.get_running_loop()
            if loop.time() < self._not_before and self._last_error is not None:
                raise type(self._last_error)(f"{self._last_error} (tried a moment ago)")
            self._opening = loop.create_task(self._open_shared(), name="redis-connect")
        # Shielded: a caller that gives up leaves the attempt to the others.
        return await asyncio.shield(self._opening)

    async def _open_shared(self) -> Connection:
        try:
            connection = await self._open()
        except StoreError as error:
            self.stats.errors += 1
            self._last_error = error
            self._not_before = asyncio.get_running_loop().time() + self._backoff.failed()
            raise
        else:
            self._backoff.succeeded()
            self._connection = connection
            return connection
        finally:
            self._opening = None

    async def _open(self, on_push: OnPush | None = None) -> Connection:
        return await open_connection(self._address, self._host, self._options, self.stats, on_push)

    async def _prove(self, connection: Connection) -> None:
        """Have a connection that was silent for long answer a PING; close it if it does not."""
        try:
            await connection.call([("PING",)], self._options.connect_timeout)
        except StoreUnavailable:
            connection.close()

    # --- what cannot share a connection ---

    async def _execute_unusual(self, batch: Sequence[Command], timeout: float | None) -> list[Reply]:
        """Answer what must be refused, and send what blocks on a connection of its own."""
        if len(batch) == 1 and is_blocking(batch[0]):
            return await self._execute_blocking(batch[0], timeout)
        refused = {place: error for place, command in enumerate(batch) if (error := _unfit(command))}
        replies: list[Reply] = list(refused.values())
        allowed = [command for place, command in enumerate(batch) if place not in refused]
        if allowed:
            seconds = self._options.command_timeout if timeout is None else timeout
            connection, left = await self._ready(seconds)
            answers = iter(await connection.call(allowed, left))
            replies = [refused[place] if place in refused else next(answers) for place in range(len(batch))]
        return replies

    async def _execute_blocking(self, command: Command, timeout: float | None) -> list[Reply]:
        async with self._own_connection() as connection:
            return await connection.call([command], _BLOCK_FOR_EVER if timeout is None else timeout)

    @asynccontextmanager
    async def _own_connection(self) -> AsyncGenerator[Connection]:
        if len(self._busy) >= self._max_blocking:
            raise StoreOverloaded(
                f"{self.target}: {len(self._busy)} commands wait in the server, "
                f"REDIS_MAX_CONNECTIONS is {self._max_blocking}"
            )
        self._free = [connection for connection in self._free if not connection.closed]
        connection = self._free.pop() if self._free else None
        if connection is not None and connection.quiet():
            await self._prove(connection)
        if connection is None or connection.closed:
            connection = await self._open()
        self._busy.add(connection)
        try:
            yield connection
        except BaseException:
            # The server may still wait, and would hand what comes to a caller that has gone.
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
            if not connection.closed:
                self._free.append(connection)


def _unfit(command: Command) -> CommandError | None:
    if is_blocking(command):
        return CommandError(f"ERR {command[0]!r} waits in the server: send it alone, not in a batch")
    return refusal(command)
