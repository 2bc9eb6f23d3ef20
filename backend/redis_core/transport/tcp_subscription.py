"""The subscriptions of a TCP transport: one connection, opened with the first listener, restored when it is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis_core.errors import DeadlineExceeded, StoreError, StoreUnavailable
from redis_core.transport.backoff import Backoff
from redis_core.transport.base import Subscription, TransportStats
from redis_core.transport.connection import Connection, LinkOptions
from redis_core.transport.subscription import SubscriptionRouter

__all__ = ["OnPush", "SubscriptionLink"]

_PING_EVERY: Final = 15.0
"""Seconds between PINGs: a listener that only waits would never notice a dead link."""

OnPush = Callable[[list[Any]], None]
"""Takes what the server sends unasked."""


class SubscriptionLink:
    """Keeps one connection subscribed to all that a router's feeds listen to.

    Args:
        open_link: opens a connection whose pushed messages go to the callback.
        options: the transport's timeouts.
        stats: the transport's totals.
    """

    def __init__(
        self,
        open_link: Callable[[OnPush], Awaitable[Connection]],
        options: LinkOptions,
        stats: TransportStats,
    ) -> None:
        self._open_link = open_link
        self._options = options
        self._stats = stats
        self._router = SubscriptionRouter(self)
        self._connection: Connection | None = None
        # One for each SUBSCRIBE sent, in order: one that was given up still takes its own confirmation.
        self._confirmations: dict[tuple[bytes, bytes], deque[asyncio.Future[None]]] = {}
        self._closed = False
        self._up = asyncio.Event()
        self._restoring: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str]) -> Subscription:
        """A feed of these channels and patterns, once the server has confirmed them."""
        return await self._router.subscribe(channels, patterns)

    async def aclose(self) -> None:
        """End every feed and close the connection."""
        self._closed = True
        self._router.end(None)
        await self._drop()

    def renew(self) -> None:
        """Close the link; its keeper opens another, and tells the feeds that messages may be missing.

        Two links at once would not do: of a message that comes on both, nobody can tell which is the first.
        """
        if self._connection is not None:
            self._connection.close()

    # --- the router's upstream ---

    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Subscribe to these as well, the link opened if there is none."""
        if self._closed:
            raise StoreUnavailable("the client is closed")
        if self._keeper is None:
            await self._restore()
            if self._has_ended():
                await self._drop()
                raise StoreUnavailable("the client was closed")
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="redis-subscriptions")
            return
        deadline = asyncio.get_running_loop().time() + self._options.command_timeout
        while True:
            connection = await self._link(deadline)
            try:
                await self._ask(connection, channels, patterns)
            except DeadlineExceeded:
                raise
            except StoreUnavailable:
                # Lost meanwhile, and restored by the keeper: asked again, because it may have begun before we came.
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            except BaseException:
                self._forget(connection, channels, patterns)
                raise
            else:
                return

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Unsubscribe from these; close the link when nothing is left to listen to."""
        if not self._router.channels and not self._router.patterns:
            await self._drop()
        elif self._connection is not None:
            self._forget(self._connection, channels, patterns)

    # --- the link ---

    async def _restore(self) -> None:
        """Open the link and subscribe it to everything the feeds listen to."""
        self._confirmations.clear()  # those of a lost link are not coming
        connection = await self._open_link(self._on_push)
        self._restoring = connection
        try:
            await self._ask(connection, self._router.channels, self._router.patterns)
        except BaseException:
            connection.close()
            await connection.wait_closed()
            raise
        finally:
            self._restoring = None
        self._connection = connection

    def _has_ended(self) -> bool:
        """Whether `aclose` was called, also while the asker waited."""
        return self._closed

    async def _link(self, deadline: float) -> Connection:
        """The link, waited for while it is being restored."""
        try:
            async with asyncio.timeout_at(deadline):
                while self._connection is None or self._connection.closed:
                    if self._closed:
                        raise StoreUnavailable("the client was closed")
                    self._up.clear()
                    await self._up.wait()
                return self._connection
        except TimeoutError:
            raise StoreUnavailable("the subscription link is lost and not back yet") from None

    async def _ask(self, connection: Connection, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Subscribe, and wait until every name is confirmed."""
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[None]] = []
        for word, names in (("SUBSCRIBE", channels), ("PSUBSCRIBE", patterns)):
            for name in names:
                future = loop.create_future()
                self._confirmations.setdefault((word.lower().encode(), name.encode()), deque()).append(future)
                waiting.append(future)
            if names:
                connection.push((word, *names))
        lost: asyncio.Future[None] = loop.create_task(connection.wait_closed())
        confirmed: asyncio.Future[list[None]] = asyncio.gather(*waiting)
        try:
            both: set[asyncio.Future[Any]] = {lost, confirmed}
            await asyncio.wait(both, timeout=self._options.command_timeout, return_when="FIRST_COMPLETED")
            if lost.done():
                raise connection.reason()
            if not confirmed.done():
                # The link does not answer: what else it carries is not coming either.
                connection.close()
                raise DeadlineExceeded(f"{connection.target} did not confirm a subscription in time")
        finally:
            lost.cancel()
            confirmed.cancel()
            await asyncio.gather(lost, confirmed, return_exceptions=True)

    def _forget(self, connection: Connection, channels: Sequence[str], patterns: Sequence[str]) -> None:
        for word, names in (("UNSUBSCRIBE", channels), ("PUNSUBSCRIBE", patterns)):
            if names:
                connection.push((word, *names))

    async def _keep(self) -> None:
        """Watch the link; when it is lost, restore it and tell the feeds that messages may be missing."""
        backoff = Backoff()
        while True:
            if self._connection is not None:
                await self._watch(self._connection)
                self._connection = None
            try:
                await self._restore()
            except StoreError:
                self._stats.errors += 1
                await asyncio.sleep(backoff.failed())
            else:
                backoff.succeeded()
                self._router.gap()
                self._up.set()

    async def _watch(self, connection: Connection) -> None:
        """Until the connection is gone, or does not answer a PING."""
        closed = asyncio.get_running_loop().create_task(connection.wait_closed())
        try:
            while not closed.done():
                await asyncio.wait({closed}, timeout=_PING_EVERY)
                if not closed.done() and connection.resp3:
                    await connection.call([("PING",)], self._options.command_timeout)
        except StoreError:
            # No answer: the connection may look open for long yet.
            connection.close()
        finally:
            closed.cancel()

    async def _drop(self) -> None:
        """Let go of the link and its keeper: both at once, so that a cancellation here leaves neither behind."""
        keeper, self._keeper = self._keeper, None
        connection, self._connection = self._connection, None
        if keeper is not None:
            keeper.cancel()
        for link in (connection, self._restoring):
            if link is not None:
                link.close()
        self._up.set()
        if keeper is not None:
            await asyncio.gather(keeper, return_exceptions=True)
        if connection is not None:
            await connection.wait_closed()

    def _on_push(self, push: list[Any]) -> None:
        match push:
            case [b"message", bytes(channel), bytes(payload)]:
                self._router.deliver(channel, payload)
            case [b"pmessage", bytes(pattern), bytes(channel), bytes(payload)]:
                self._router.deliver(channel, payload, pattern)
            case [(b"subscribe" | b"psubscribe") as kind, bytes(name), _]:
                self._confirm(kind, name)
            case _:
                pass  # unsubscribed; or a notice of a kind that nobody asked for

    def _confirm(self, kind: bytes, name: bytes) -> None:
        waiting = self._confirmations.get((kind, name))
        if waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
            if not waiting:
                del self._confirmations[kind, name]
