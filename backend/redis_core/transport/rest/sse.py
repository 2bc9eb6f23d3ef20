"""Subscriptions over REST: one event stream (SSE) a channel or pattern, as Upstash has them.

`POST /subscribe/<channel>` answers `data: subscribe,<channel>,1` and then `data: message,<channel>,<payload>` for each message;
`/psubscribe/<pattern>` answers `psubscribe` and `pmessage,<pattern>,<channel>,<payload>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol
from urllib.parse import quote

from redis_core.errors import (
    DeadlineExceeded,
    LimitExceeded,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
)
from redis_core.transport.backoff import Backoff
from redis_core.transport.base import Subscription, TransportStats
from redis_core.transport.rest.wire import SINGLE, replies_of
from redis_core.transport.subscription import SubscriptionRouter

__all__ = ["EventReader", "EventStreams", "StreamOpener"]

_STEADY: Final = 5.0
"""Seconds a stream must live for its loss to count as the first one: a server that ends them at once is not hammered."""

_OK: Final = 200
_PAGE: Final = 65_536
"""Bytes of a refusal that are read."""


class EventReader:
    """Takes an event stream's bytes and gives the data of its events.

    An event ends with an empty line, and its data lines are joined by newlines (WHATWG HTML, 9.2.6). Upstash's documentation
    shows streams without the empty lines; there each line is an event. What follows the first event tells which it is. The
    first line tells whether lines end with CR LF; if not, a CR is part of a message.

    Args:
        max_bytes: largest event.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._partial = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._started = False
        self._framed: bool | None = None
        self._end: bytes | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete.

        Raises:
            LimitExceeded: an event is larger than `max_bytes`.
        """
        self._partial += data
        events: list[bytes] = []
        if b"\n" in data:
            *lines, rest = bytes(self._partial).split(b"\n")
            self._partial = bytearray(rest)
            for line in lines:
                self._bound(len(line))
                if self._end is None:
                    self._end = b"\r" if line.endswith(b"\r") else b""
                self._line(line.removesuffix(self._end), events)
        self._bound(len(self._partial))
        return events

    def _bound(self, more: int) -> None:
        if self._size + more > self._max_bytes:
            raise LimitExceeded(f"an event is larger than REDIS_MAX_REPLY_BYTES, {self._max_bytes} bytes")

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._started and self._framed is None:
                self._framed = True
            if self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
                self._size = 0
        elif line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            if not self._started:
                # The confirmation is one line, and whoever waits for it cannot wait for what comes after it.
                self._started = True
                events.append(value)
            elif self._framed:
                self._data.append(value)
                self._size += len(value) + 1
            else:
                self._framed = False
                events.append(value)
        # Comments are heartbeats; ids and event names are not used.


class StreamOpener(Protocol):
    """Opens an event stream: the HTTP session's side of this module."""

    def stream(self, path: str) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        """Status and chunks of the response to `POST path`; raises `StoreError` when the link is lost."""
        ...


class _Stream:
    """One channel or pattern: keeps its stream open until it is closed."""

    def __init__(self, streams: EventStreams, name: str, *, pattern: bool) -> None:
        word = "psubscribe" if pattern else "subscribe"
        self.name = name.encode()
        self.pattern = pattern
        self.path = f"/{word}/{quote(name, safe='')}"
        self.confirmation = f"{word},{name},".encode()
        self.prefix = f"{'pmessage' if pattern else 'message'},{name},".encode()
        # Commas of a pattern are commas of the channels it matches, so this is where the channel ends.
        self.commas = name.count(",")
        self._streams = streams
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="redis-stream")

    async def confirmed(self) -> None:
        """Until the store has confirmed it; raises why it did not."""
        await asyncio.shield(self._confirmed)

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._confirmed.done() and not self._confirmed.cancelled():
            self._confirmed.exception()  # seen: whoever waited for it has gone
        self._confirmed.cancel()

    async def _keep(self) -> None:
        """Listen; when the stream is lost, open it again and tell the feeds that messages may be missing."""
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while True:
            opened = loop.time()
            try:
                await self._listen()
            except StoreError as error:
                if not self._confirmed.done():
                    self._confirmed.set_exception(error)
                    return
                self._streams.stats.errors += 1
            if loop.time() - opened >= _STEADY:
                backoff.succeeded()
            await asyncio.sleep(backoff.failed())

    async def _listen(self) -> None:
        streams = self._streams
        reader = EventReader(streams.max_event_bytes)
        try:
            async with (
                asyncio.timeout(streams.timeout) as limit,
                streams.session.stream(self.path) as (status, chunks),
            ):
                if status != _OK:
                    body = await _beginning(chunks)
                    refusal = replies_of(SINGLE, 1, status, body, streams.target)[0]
                    raise (
                        refusal
                        if isinstance(refusal, StoreError)
                        else ProtocolError(f"{self.path}: HTTP {status}")
                    )
                waiting = True
                async for chunk in chunks:
                    streams.stats.received_bytes += len(chunk)
                    for event in reader.feed(chunk):
                        if not waiting:
                            self._deliver(event)
                            continue
                        if not event.startswith(self.confirmation):
                            raise ProtocolError(
                                f"{streams.target}: {self.path} is not confirmed: {event[:80]!r}"
                            )
                        waiting = False
                        limit.reschedule(None)
                        self._stand()
        except TimeoutError:
            raise DeadlineExceeded(f"{streams.target} did not confirm a subscription in time") from None
        raise StoreUnavailable(f"{streams.target}: an event stream ended")

    def _stand(self) -> None:
        """The stream is confirmed: for the first time, or again."""
        if self._confirmed.done():
            self._streams.router.gap()
        else:
            self._confirmed.set_result(None)

    def _deliver(self, event: bytes) -> None:
        if not event.startswith(self.prefix):
            return
        rest = event[len(self.prefix) :]
        if not self.pattern:
            self._streams.router.deliver(self.name, rest)
            return
        parts = rest.split(b",", self.commas + 1)
        if len(parts) == self.commas + 2:
            self._streams.router.deliver(b",".join(parts[:-1]), parts[-1], self.name)


async def _beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """What a refusal says: a body, but never more than a page of it."""
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) > _PAGE:
            break
    return body[:_PAGE]


class EventStreams:
    """All subscriptions of one transport: the upstream of its router.

    Args:
        session: opens streams.
        target: the store, for messages.
        timeout: seconds until a stream must be open and confirmed.
        max_streams: most streams at once.
        max_event_bytes: largest message.
        stats: the transport's totals, added to.
    """

    def __init__(
        self,
        session: StreamOpener,
        *,
        target: str,
        timeout: float,
        max_streams: int,
        max_event_bytes: int,
        stats: TransportStats,
    ) -> None:
        self.session = session
        self.target = target
        self.timeout = timeout
        self.max_event_bytes = max_event_bytes
        self.stats = stats
        self.router = SubscriptionRouter(self)
        self._max_streams = max_streams
        self._streams: dict[tuple[bool, str], _Stream] = {}
        self._closed = False

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str]) -> Subscription:
        """A feed of these channels and patterns, once the store has confirmed all of them."""
        return await self.router.subscribe(channels, patterns)

    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Open a stream for each; all of them or none."""
        wanted = [(False, name) for name in channels] + [(True, name) for name in patterns]
        if self._closed:
            raise StoreUnavailable(f"{self.target}: the client is closed")
        # One whose last listener is just leaving is still open, and stays.
        new = [key for key in wanted if key not in self._streams]
        if len(self._streams) + len(new) > self._max_streams:
            raise StoreOverloaded(
                f"{self.target}: {len(self._streams)} event streams are open, {len(new)} more would pass "
                f"REDIS_MAX_CONNECTIONS, {self._max_streams}"
            )
        for pattern, name in new:
            self._streams[pattern, name] = _Stream(self, name, pattern=pattern)
        try:
            await asyncio.gather(*(self._streams[key].confirmed() for key in wanted))
        except BaseException:
            await self._drop(wanted)
            raise

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Close the streams of these."""
        await self._drop([(False, name) for name in channels] + [(True, name) for name in patterns])

    async def aclose(self) -> None:
        """End every feed and close every stream."""
        self._closed = True
        self.router.end(None)
        await self._drop(list(self._streams))

    async def _drop(self, keys: Sequence[tuple[bool, str]]) -> None:
        gone = [self._streams.pop(key) for key in keys if key in self._streams]
        await asyncio.gather(*(stream.aclose() for stream in gone))
