"""Redis or Valkey over TCP, TLS or a unix socket: one multiplexed connection for all callers.

Commands that wait in the server (BLPOP, XREAD BLOCK, ...) get a connection of their own, and subscriptions share another.
One more connection for long replies was tried and left out: see docs/design.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from redis_core.errors import (
    CommandError,
    DeadlineExceeded,
    Outcome,
    StoreError,
    StoreUnavailable,
    TransactionAborted,
)
from redis_core.transport.backoff import Backoff
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.connection import Connection, LinkOptions
from redis_core.transport.opening import open_connection
from redis_core.transport.refused import command_name, is_blocking, needs_look, refusal
from redis_core.transport.tcp_blocking import BlockingLinks
from redis_core.transport.tcp_subscription import OnPush, SubscriptionLink

if TYPE_CHECKING:
    from redis_core.address import StoreAddress
    from redis_core.config import Settings
    from redis_core.secret import Secret

__all__ = ["TcpTransport", "transaction_results"]

_WAIT: Final = frozenset({"WAIT", "WAITAOF"})
"""Commands that wait for what their own connection wrote: of use only at the end of a batch."""


class TcpTransport:
    """A transport to one Redis server.

    Args:
        address: where it is.
        options: bounds and timeouts.
        max_blocking: most commands that wait in the server at once.
        stats: the totals to add to, when it is one of several.
    """

    script_header = ""

    def __init__(
        self,
        address: StoreAddress,
        options: LinkOptions,
        *,
        max_blocking: int = 50,
        stats: TransportStats | None = None,
    ) -> None:
        self.mode = "tcp"
        self.target = str(address)
        self.stats = stats or TransportStats()
        self._address = address
        self._host = address.hosts[0] if address.hosts else ("", 0)
        self._options = options
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._attempts: set[asyncio.Task[Connection]] = set()
        self._backoff = Backoff()
        self._not_before = 0.0
        self._last_error: StoreError | None = None
        self._closed = False
        self._retiring: set[asyncio.Task[None]] = set()
        self._blocking = BlockingLinks(self.target, self.open_link, self.send, options, max_blocking)
        self._subscriptions = SubscriptionLink(self.open_link, options, self.stats)

    @classmethod
    def from_settings(cls, address: StoreAddress, settings: Settings) -> TcpTransport:
        """The transport that the settings describe."""
        return cls(
            address, LinkOptions.from_settings(address, settings), max_blocking=settings.redis_max_connections
        )

    @property
    def connected(self) -> bool:
        """Whether the shared connection stands, as far as is known."""
        return self._connection is not None and not self._connection.closed

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands and return one reply for each; see `Transport`."""
        for command in batch:
            if needs_look(command):
                return await self._execute_unusual(batch, timeout)
        connection = self._connection
        if connection is None or connection.closed or not connection.writable or connection.quiet():
            return await self.send(batch, timeout) if batch else []
        if not batch:
            return []
        return await connection.call(batch, self._options.command_timeout if timeout is None else timeout)

    async def send(self, batch: Sequence[Command], timeout: float | None = None) -> list[Reply]:
        """As `execute`, of commands that were looked at already: at least one, none that waits."""
        connection, left = await self._ready(self._options.command_timeout if timeout is None else timeout)
        return await connection.call(batch, left)

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands between MULTI and EXEC; see `Transport`."""
        for command in batch:
            error = refusal(command)
            if error is not None:
                raise error
        if not batch:
            return []
        replies = await self.send([("MULTI",), *batch, ("EXEC",)], timeout)
        return transaction_results(replies)

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns; see `Transport`."""
        return await self._subscriptions.subscribe(channels, patterns)

    async def rotate(self, secret: Secret) -> None:
        """Use another password from now on; see `RotatingTransport`. A subscription is renewed with a gap notice."""
        before, self._address = self._address, replace(self._address, password=secret)
        try:
            fresh = await self.open_link()
        except BaseException:
            self._address = before
            raise
        retired, self._connection = self._connection, fresh
        if retired is not None and not retired.closed:
            task = asyncio.get_running_loop().create_task(retired.retire(), name="redis-retire")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._blocking.retire()
        self._subscriptions.renew()

    async def aclose(self) -> None:
        """Close every connection and fail what is in flight."""
        self._closed = True
        for retiring in self._retiring:
            retiring.cancel()
        if self._connection is not None:
            self._connection.close()
        for attempt in self._attempts:
            attempt.cancel()
        await self._subscriptions.aclose()
        await self._blocking.aclose()
        await asyncio.gather(
            *self._attempts, *([self._opening] if self._opening else []), return_exceptions=True
        )
        if self._connection is not None:
            await self._connection.wait_closed()

    # --- the shared connection ---

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
                        if connection.closed:
                            # Lost before its first command: no second try within one call, or they would never end.
                            raise connection.reason()
                    if not connection.writable:
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
        if self._opening is None:
            loop = asyncio.get_running_loop()
            if loop.time() < self._not_before and self._last_error is not None and not self._closed:
                self.stats.errors += 1
                raise type(self._last_error)(f"{self._last_error} (tried a moment ago)")
            self._opening = loop.create_task(self._open_shared(), name="redis-connect")
            self._opening.add_done_callback(_seen)
        try:
            # Shielded: a caller that gives up leaves the attempt to the others.
            return await asyncio.shield(self._opening)
        except StoreError as error:
            self.stats.errors += 1
            # Each caller an error of its own: they add tracebacks to it.
            raise type(error)(str(error)) from None

    async def _open_shared(self) -> Connection:
        address = self._address
        try:
            connection = await self.open_link()
            if self._address is not address and self._connection is not None:
                # The password was replaced meanwhile, and a connection of the new one stands.
                connection.close()
                connection = self._connection
        except StoreError as error:
            self._last_error = error
            self._not_before = asyncio.get_running_loop().time() + self._backoff.failed()
            raise
        else:
            self._backoff.succeeded()
            self._connection = connection
            return connection
        finally:
            self._opening = None

    async def open_link(self, on_push: OnPush | None = None) -> Connection:
        """A new connection; given up when the transport is closed meanwhile."""
        if self._closed:
            raise StoreUnavailable(f"{self.target}: the client is closed")
        attempt = asyncio.get_running_loop().create_task(
            open_connection(self._address, self._host, self._options, self.stats, on_push), name="redis-open"
        )
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)
        try:
            connection = await attempt
        except asyncio.CancelledError:
            if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
                attempt.result().close()  # it came in the same turn as the cancellation
            task = asyncio.current_task()
            if self._has_ended() and not (task and task.cancelling()):
                raise StoreUnavailable(f"{self.target}: the client was closed") from None
            raise
        if self._has_ended():
            connection.close()
            raise StoreUnavailable(f"{self.target}: the client was closed")
        return connection

    def _has_ended(self) -> bool:
        """Whether `aclose` was called, also while the asker waited."""
        return self._closed

    async def _prove(self, connection: Connection) -> None:
        """Have a connection that was silent for long answer a PING; close it if it does not."""
        try:
            await connection.call([("PING",)], self._options.connect_timeout)
        except StoreUnavailable as error:
            connection.close(error)

    async def _execute_unusual(self, batch: Sequence[Command], timeout: float | None) -> list[Reply]:
        """Answer what must be refused, and send what waits on a connection of its own."""
        if batch and is_blocking(batch[-1]) and not any(map(_unfit, batch[:-1])):
            alone = len(batch) == 1
            if alone != (command_name(batch[-1]) in _WAIT):
                return await self._blocking.execute(batch, timeout)
        refused = {place: error for place, command in enumerate(batch) if (error := _unfit(command))}
        replies: list[Reply] = list(refused.values())
        allowed = [command for place, command in enumerate(batch) if place not in refused]
        if allowed:
            answers = iter(await self.send(allowed, timeout))
            replies = [refused[place] if place in refused else next(answers) for place in range(len(batch))]
        return replies


def _seen(opening: asyncio.Task[Connection]) -> None:
    """Take note of an attempt's error, though everybody who waited for it may have given up."""
    if not opening.cancelled():
        opening.exception()


def transaction_results(replies: list[Reply]) -> list[Reply]:
    """The results of the commands between MULTI and EXEC.

    Args:
        replies: MULTI's, one for each command (`QUEUED`, or the error that it is refused with), EXEC's.

    Raises:
        TransactionAborted: the store discarded it; nothing was done.
        StoreError: as the store said, if it refused MULTI; the commands may then have been done one by one.
    """
    begun, results = replies[0], replies[-1]
    if isinstance(begun, StoreError):
        raise type(begun)(f"{begun} (of MULTI)", outcome=Outcome.UNKNOWN)
    if isinstance(results, list):
        return results
    refused = next((reply for reply in replies if isinstance(reply, StoreError)), None)
    if isinstance(refused, CommandError):
        raise TransactionAborted(f"EXECABORT nothing was done: {refused}")
    raise refused or TransactionAborted("EXECABORT nothing was done")


def _unfit(command: Command) -> CommandError | None:
    if not is_blocking(command):
        return refusal(command)
    if command_name(command) in _WAIT:
        return CommandError(
            f"ERR {command[0]!r} waits for what its own connection wrote: put it last in a pipeline, after the writes"
        )
    return CommandError(f"ERR {command[0]!r} waits in the server: send it alone, not in a batch")
