"""Event streams (SSE): `/subscribe`, `/psubscribe` and `/monitor`.

All streams share the transport's one link to the store. An event is one message in Upstash's form, `message,<channel>,<payload>`.
A payload with a line break cannot stand on one `data:` line. The standard (WHATWG HTML, 9.2.6) gives each of its lines a `data:`
line of its own, and so do we; but `@upstash/redis` takes every line for an event, and would lose all but the first. That client
is known by its POST with a body: it gets such a payload as JSON on one line, compacted if it is JSON and as a JSON string if not,
which is what it parses.

A message that was lost on the way (the link broke, or the reader was slow) shows as the comment `: gap`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

import msgspec

from redis_core.errors import DeadlineExceeded, StoreError, StoreOverloaded
from redis_core.gateway.asgi import Header, Receive, Send
from redis_core.gateway.limits import GatewayLimits
from redis_core.gateway.monitor import Monitors
from redis_core.gateway.tokens import GatewayToken, TokenTable
from redis_core.transport.base import Message, Subscription, Transport

__all__ = ["EventStreams", "event", "message_data"]

_HEADERS: Final[list[Header]] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-content-type-options", b"nosniff"),
    # A proxy that collects a response before passing it on would keep the events.
    (b"x-accel-buffering", b"no"),
]
_HEARTBEAT: Final = b": ping\n\n"
_GAP: Final = b": gap\n\n"

_Write: TypeAlias = Callable[[bytes], Awaitable[None]]
_Pump: TypeAlias = Callable[[_Write], Coroutine[object, object, object]]


class EventStreams:
    """The open streams of one gateway.

    Args:
        transport: subscribes.
        monitors: shows commands.
        limits: how many streams, and their heartbeat.
    """

    def __init__(self, transport: Transport, monitors: Monitors, limits: GatewayLimits) -> None:
        self._transport = transport
        self._monitors = monitors
        self._limits = limits
        self._open: dict[asyncio.Event, GatewayToken] = {}

    @property
    def count(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def close(self) -> None:
        """End every stream: a server that shuts down would wait for them."""
        for ended in self._open:
            ended.set()

    def close_others(self, accepted: TokenTable) -> None:
        """End the streams of tokens that are not accepted any more, or not for the same."""
        for ended, token in self._open.items():
            if accepted.find(token.token.reveal().encode()) != token:
                ended.set()

    async def subscribe(
        self,
        names: Sequence[str],
        *,
        pattern: bool,
        token: GatewayToken,
        one_line: bool,
        head: Header,
        receive: Receive,
        send: Send,
    ) -> None:
        """Serve one subscription until its client leaves.

        Args:
            names: channels, or patterns.
            pattern: which of both.
            token: who asks; its prefix is put before the names, and taken off what is delivered.
            one_line: write a payload with line breaks as JSON on one line.
            head: one more header of the answer.
            receive: tells when the client leaves.
            send: takes the answer.

        Raises:
            StoreError: there was no subscription; nothing was sent to the client yet.
        """
        prefix = token.prefix
        with self._place(token) as ended:
            asked = [_escaped(prefix) + name if pattern else prefix + name for name in names]
            subscription = await self._confirmed([] if pattern else asked, asked if pattern else [])
            word = "psubscribe" if pattern else "subscribe"
            first = b"".join(event(f"{word},{name},{count}".encode()) for count, name in enumerate(names, 1))
            given = dict(
                zip((name.encode() for name in asked), (name.encode() for name in names), strict=True)
            )
            cut = len(prefix.encode())

            async def pump(write: _Write) -> None:
                async for message in subscription:
                    if message.gap:
                        await write(_GAP)
                        continue
                    await write(event(message_data(message, given, cut, one_line=one_line)))

            try:
                await self._serve(first, pump, ended, head, receive, send)
            finally:
                await subscription.aclose()

    async def monitor(self, *, token: GatewayToken, head: Header, receive: Receive, send: Send) -> None:
        """Serve one watcher of commands until it leaves."""
        with self._place(token) as ended:
            watcher = self._monitors.watch(token.prefix)

            async def pump(write: _Write) -> None:
                while True:
                    await write(event(await watcher.next()))

            try:
                await self._serve(event(b'"OK"'), pump, ended, head, receive, send)
            finally:
                self._monitors.leave(watcher)

    @contextmanager
    def _place(self, token: GatewayToken) -> Generator[asyncio.Event]:
        if len(self._open) >= self._limits.max_streams:
            raise StoreOverloaded(
                f"ERR max concurrent connections exceeded: {self._limits.max_streams} event streams are open"
            )
        ended = asyncio.Event()
        self._open[ended] = token
        try:
            yield ended
        finally:
            del self._open[ended]

    async def _confirmed(self, channels: Sequence[str], patterns: Sequence[str]) -> Subscription:
        try:
            async with asyncio.timeout(self._limits.subscribe_timeout):
                return await self._transport.subscribe(*channels, patterns=patterns)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{self._transport.target} did not confirm the subscription within {self._limits.subscribe_timeout:g} s"
            ) from None

    async def _serve(
        self, first: bytes, pump: _Pump, ended: asyncio.Event, head: Header, receive: Receive, send: Send
    ) -> None:
        """Send the first event and what the pump writes, until client, store or gateway ends it."""
        loop = asyncio.get_running_loop()
        last = loop.time()

        async def write(data: bytes) -> None:
            nonlocal last
            last = loop.time()
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def beat() -> None:
            while True:
                left = last + self._limits.heartbeat - loop.time()
                if left > 0:
                    await asyncio.sleep(left)
                else:
                    await write(_HEARTBEAT)

        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, head]})
        await write(first)
        tasks: list[asyncio.Task[object]] = [
            loop.create_task(pump(write)),
            loop.create_task(beat()),
            loop.create_task(_until_gone(receive)),
            loop.create_task(ended.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            # A store that is gone for good ends the stream, as the end of the store's own would.
            if isinstance(outcome, Exception) and not isinstance(outcome, StoreError):
                raise outcome
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(data: bytes) -> bytes:
    """An event of these bytes, a `data:` line for each of their lines."""
    if b"\n" in data or b"\r" in data:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return b"".join(b"data: %b\n" % line for line in lines) + b"\n"
    return b"data: %b\n\n" % data


def message_data(message: Message, given: dict[bytes, bytes], cut: int, *, one_line: bool) -> bytes:
    """A message as the data of an event.

    Args:
        message: as the store delivered it.
        given: for each name that the store knows, the one that the client gave.
        cut: length of the token's prefix.
        one_line: write a payload with line breaks as JSON.
    """
    payload = message.payload
    if one_line and (b"\n" in payload or b"\r" in payload):
        payload = _on_one_line(payload)
    if message.pattern is None:
        return b"message,%b,%b" % (given.get(message.channel, message.channel), payload)
    channel = message.channel[cut:]
    if one_line:
        channel = channel.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"pmessage,%b,%b,%b" % (given.get(message.pattern, message.pattern), channel, payload)


def _on_one_line(payload: bytes) -> bytes:
    """JSON without line breaks: the payload's own, compacted, or a string of it."""
    try:
        msgspec.json.decode(payload)
        return msgspec.json.format(payload, indent=-1)
    except (ValueError, RecursionError):
        return msgspec.json.encode(payload.decode("utf-8", "replace"))


def _escaped(prefix: str) -> str:
    """A prefix that stands for itself in a pattern."""
    return "".join("\\" + letter if letter in "*?[]\\" else letter for letter in prefix)
