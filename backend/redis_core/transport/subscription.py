"""Subscriptions of one transport: many listeners, one link, one upstream subscription a channel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Protocol, Self

from redis_core.errors import InvalidKey
from redis_core.transport.base import Message

__all__ = ["BUFFERED_MESSAGES", "Feed", "SubscriptionRouter", "Upstream"]

BUFFERED_MESSAGES: Final = 10_000
"""Messages a slow reader may be behind before it loses the oldest."""

_GAP: Final = Message(b"", b"", gap=True)


class Upstream(Protocol):
    """The store's side of a router."""

    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Subscribe the link to these too; returns when the store has confirmed them."""
        ...

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Unsubscribe the link from these; nobody listens to them any more."""
        ...


class Feed:
    """One listener: the `Subscription` that a caller holds."""

    def __init__(self, router: SubscriptionRouter, channels: Sequence[str], patterns: Sequence[str]) -> None:
        self.channels = tuple(dict.fromkeys(channels))
        self.patterns = tuple(dict.fromkeys(patterns))
        self._router = router
        self._messages: deque[Message] = deque()
        self._ready = asyncio.Event()
        self._closed = False
        self._error: Exception | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._messages.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop listening; messages already here can still be read."""
        if not self._closed:
            self.end(None)
            await self._router.remove(self)

    def put(self, message: Message) -> None:
        """Hand over a message; never waits."""
        if len(self._messages) >= BUFFERED_MESSAGES:
            # The oldest half goes, not one by one: a reader that is this far behind needs a fresh start.
            for _ in range(BUFFERED_MESSAGES // 2):
                self._messages.popleft()
            self._messages.appendleft(_GAP)
        self._messages.append(message)
        self._ready.set()

    def end(self, error: Exception | None) -> None:
        """No more messages will come, because it was closed or because of an error."""
        self._closed = True
        self._error = error
        self._ready.set()


class SubscriptionRouter:
    """Which feeds listen to what. A transport calls `deliver`, `gap` and `end`; callers hold the feeds.

    Args:
        upstream: told when the first listener of a channel comes and when the last one leaves.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._by_channel: dict[bytes, list[Feed]] = {}
        self._by_pattern: dict[bytes, list[Feed]] = {}
        # Listening and ignoring go upstream one at a time, in order: or a late UNSUBSCRIBE ends a new listener's channel.
        self._turn = asyncio.Lock()

    @property
    def channels(self) -> list[str]:
        """What the link must be subscribed to, for subscribing again after it was lost."""
        return [channel.decode() for channel in self._by_channel]

    @property
    def patterns(self) -> list[str]:
        """As `channels`, the patterns."""
        return [pattern.decode() for pattern in self._by_pattern]

    async def subscribe(self, channels: Sequence[str], patterns: Sequence[str]) -> Feed:
        """A new feed, once the store has confirmed all it listens to.

        Raises:
            InvalidKey: a name that UTF-8 cannot hold.
        """
        try:
            "".join((*channels, *patterns)).encode()
        except UnicodeEncodeError as error:
            raise InvalidKey(f"a channel cannot be sent: {error}") from None
        feed = Feed(self, channels, patterns)
        async with self._turn:
            new_channels = _join(self._by_channel, feed.channels, feed)
            new_patterns = _join(self._by_pattern, feed.patterns, feed)
            try:
                if new_channels or new_patterns:
                    await self._upstream.listen(new_channels, new_patterns)
            except BaseException:
                _leave(self._by_channel, feed.channels, feed)
                _leave(self._by_pattern, feed.patterns, feed)
                raise
        return feed

    async def remove(self, feed: Feed) -> None:
        """Forget a feed; what nobody else listens to is unsubscribed."""
        # Out of the tables at once, whatever becomes of the wait below; upstream in turn, but for what has been joined since.
        channels = _leave(self._by_channel, feed.channels, feed)
        patterns = _leave(self._by_pattern, feed.patterns, feed)
        if not channels and not patterns:
            return
        async with self._turn:
            channels = [name for name in channels if name.encode() not in self._by_channel]
            patterns = [name for name in patterns if name.encode() not in self._by_pattern]
            if channels or patterns:
                await self._upstream.ignore(channels, patterns)

    def deliver(self, channel: bytes, payload: bytes, pattern: bytes | None = None) -> None:
        """Hand one message of the link to everybody who listens to it."""
        feeds = self._by_channel.get(channel) if pattern is None else self._by_pattern.get(pattern)
        if feeds:
            message = Message(channel, payload, pattern)
            for feed in feeds:
                feed.put(message)

    def gap(self) -> None:
        """Tell every feed that messages may be missing: the link was lost and is back."""
        for feed in self._feeds():
            feed.put(_GAP)

    def end(self, error: Exception | None) -> None:
        """End every feed: the transport is closed, or will not come back."""
        for feed in self._feeds():
            feed.end(error)
        self._by_channel.clear()
        self._by_pattern.clear()

    def _feeds(self) -> set[Feed]:
        return {
            feed
            for table in (self._by_channel, self._by_pattern)
            for feeds in table.values()
            for feed in feeds
        }


def _join(table: dict[bytes, list[Feed]], names: Iterable[str], feed: Feed) -> list[str]:
    """Add a feed; the names that are new to the table."""
    new: list[str] = []
    for name in names:
        feeds = table.setdefault(name.encode(), [])
        if not feeds:
            new.append(name)
        feeds.append(feed)
    return new


def _leave(table: dict[bytes, list[Feed]], names: Iterable[str], feed: Feed) -> list[str]:
    """Take a feed out; the names that nobody listens to now."""
    gone: list[str] = []
    for name in names:
        feeds = table.get(name.encode())
        if feeds is None or feed not in feeds:
            continue
        feeds.remove(feed)
        if not feeds:
            del table[name.encode()]
            gone.append(name)
    return gone
