"""The subscriptions of a TCP transport: one connection, opened with the first listener, restored when it is lost."""

from __future__ import annotations

import asyncio
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
        self._confirmations: dict[tuple[bytes, bytes], asyncio.Future[None]] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str]) -> Subscription:
        """A feed of these channels and patterns, once the server has confirmed them."""
        return await self._router.subscribe(channels, patterns)

    async def aclose(self) -> None:
        """End every feed and close the connection."""
        self._router.end(None)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._drop()

    # --- the router's upstream ---

    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Subscribe to these as well, the link opened if there is none."""
        if self._connection is None or self._connection.closed:
            if self._keeper is not None and not self._keeper.done():
                raise StoreUnavailable("the subscription link is lost and not back yet")
            await self._restore()
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="redis-subscriptions")
        else:
            await self._ask(self._connection, channels, patterns)

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Unsubscribe from these; close the link when nothing is left to listen to."""
        connection = self._connection
        if not self._router.channels and not self._router.patterns:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.gather(self._keeper, return_exceptions=True)
                self._keeper = None
            await self._drop()
        elif connection is not None and not connection.closed:
            for word, names in (("UNSUBSCRIBE", channels), ("PUNSUBSCRIBE", patterns)):
                if names:
                    connection.push((word, *names))

    # --- the link ---

    async def _restore(self) -> None:
        """Open the link and subscribe it to everything the feeds listen to."""
        connection = await self._open_link(self._on_push)
        try:
            await self._ask(connection, self._router.channels, self._router.patterns)
        except BaseException:
            connection.close()
            await connection.wait_closed()
            raise
        self._connection = connection

    async def _ask(self, connection: Connection, channels: Sequence[str], patterns: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[None]] = []
        for word, names in (("SUBSCRIBE", channels), ("PSUBSCRIBE", patterns)):
            for name in names:
                future = loop.create_future()
                self._confirmations[word.lower().encode(), name.encode()] = future
                waiting.append(future)
            if names:
                connection.push((word, *names))
        lost = asyncio.ensure_future(connection.wait_closed())
        confirmed = asyncio.gather(*waiting)
        try:
            await asyncio.wait(
                {lost, confirmed}, timeout=self._options.command_timeout, return_when="FIRST_COMPLETED"
            )
            if confirmed.done():
                confirmed.result()
            elif lost.done():
                raise connection.error or StoreUnavailable(f"{connection.target}: the connection was lost")
            else:
                raise DeadlineExceeded(f"{connection.target} did not confirm a subscription in time")
        finally:
            lost.cancel()
            confirmed.cancel()
            await asyncio.gather(lost, confirmed, return_exceptions=True)
            for kind, names in ((b"subscribe", channels), (b"psubscribe", patterns)):
                for name in names:
                    self._confirmations.pop((kind, name.encode()), None)

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

    async def _watch(self, connection: Connection) -> None:
        """Until the connection is gone, or does not answer a PING."""
        closed = asyncio.ensure_future(connection.wait_closed())
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
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            await connection.wait_closed()

    def _on_push(self, push: list[Any]) -> None:
        kind = push[0] if push else b""
        if kind == b"message" and len(push) == 3:  # noqa: PLR2004 - message, channel, payload
            self._router.deliver(push[1], push[2])
        elif kind == b"pmessage" and len(push) == 4:  # noqa: PLR2004 - pmessage, pattern, channel, payload
            self._router.deliver(push[2], push[3], push[1])
        elif kind in {b"subscribe", b"psubscribe"}:
            future = self._confirmations.get((kind, push[1]))
            if future is not None and not future.done():
                future.set_result(None)
