"""The store in this process' memory: what `MOCK_REDIS=true` asks for, and what serves while the real store is away.

It is fakeredis with what a store needs besides commands: expired keys leave without being read, memory is bounded, scripts
reach nothing of this process, blocking commands wait without blocking the loop, and INFO tells real figures. Everything it
needs is loaded with this module, so that it can be reached at the moment of failure. What it holds ends with the process.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Final

from fakeredis._helpers import compile_pattern

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import CommandError, DeadlineExceeded, StoreError, TransactionAborted
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.in_memory.engine import Engine, MustWait, to_reply, words
from redis_core.transport.refused import command_name, is_blocking, needs_look, refusal
from redis_core.transport.subscription import SubscriptionRouter

__all__ = ["MAX_BYTES", "MockRedisClient"]

MAX_BYTES: Final = 256 * 1024 * 1024
"""Most bytes a memory store holds unless it is told otherwise."""
_AT_ONCE: Final = 100
"""Commands that run before other tasks of the loop have their turn: about a millisecond."""
_EXPIRED_AT_ONCE: Final = 20
"""Most expired keys removed along with a call; the timer removes the others."""
_EXPIRED_BY_TIMER: Final = 1000
_SHORTEST_TIMER: Final = 0.1
"""Seconds; keys that expire close together are removed together."""
_LONGEST_TIMER: Final = 60.0


class MockRedisClient:
    """A transport to the store in this process.

    Its size is an estimate of what keys and values cost in Python, about what INFO calls `used_memory`. Beyond `max_bytes`,
    keys that have an expiry are removed, the soonest to expire first; when that is not enough, commands that may need memory
    are answered with a `StoreReadOnly` value and all others go on.

    It may be used from several event loops and threads, each with subscriptions of its own. `aclose()` ends those of the
    calling loop; the data stays, and the next call works: other holders of the shared instance still need it.

    Args:
        max_bytes: where eviction begins.
        clock: what expiry goes by.
    """

    mode = "memory"
    target = "memory"
    script_header = ""

    _shared: ClassVar[MockRedisClient | None] = None
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, *, max_bytes: int = MAX_BYTES, clock: Clock = SYSTEM_CLOCK) -> None:
        self.stats = TransportStats(connects=1)
        self._clock = clock
        self._engine = Engine(self._publish, max_bytes=max_bytes, clock=clock)
        self._engine.count_listeners = self._listeners
        self._space = self._engine.space
        self._self: weakref.ref[MockRedisClient] = weakref.ref(self)
        self._links: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Link] = weakref.WeakKeyDictionary()

    @classmethod
    def shared(cls, *, max_bytes: int = MAX_BYTES) -> MockRedisClient:
        """The one instance of this process, made at the first call.

        Args:
            max_bytes: where eviction begins; the last caller's counts.
        """
        with cls._sharing:
            if cls._shared is None:
                cls._shared = cls(max_bytes=max_bytes)
            cls._shared._engine.max_bytes = max_bytes  # noqa: SLF001 - its own class
            return cls._shared

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Run commands and return one reply for each; see `Transport`. Only what waits can exceed `timeout`."""
        link = self._link()
        if len(batch) > _AT_ONCE or link.turn.locked() or any(map(needs_look, batch)):
            return await self._execute_unusual(link, batch, timeout)
        replies = self._run(link, batch)
        link.since_yield += len(batch)
        if link.since_yield > _AT_ONCE:
            # Afterwards, not before: what was issued first runs first. A caller that never waits lets the others run too.
            link.since_yield = 0
            await asyncio.sleep(0)
        return replies

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Run commands all or nothing, with no other in between; see `Transport`."""
        for command in batch:
            error = refusal(command)
            if error is not None:
                raise error
        if not batch:
            return []
        link = self._link()
        async with _deadline(timeout), link.turn:
            try:
                with self._engine.lock:
                    return self._engine.run_all(batch)
            except CommandError as error:
                raise TransactionAborted(f"EXECABORT nothing was done: {error}") from None
            finally:
                self._after(link, len(batch))

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns; see `Transport`."""
        return await self._link().router.subscribe(channels, patterns)

    async def aclose(self) -> None:
        """End the calling loop's subscriptions and waiting commands. The data stays, and the next call works."""
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None:
            link.close()
            self._engine.links = len(self._links)

    # --- running ---

    def _run(self, link: _Link, batch: Sequence[Command]) -> list[Reply]:
        with self._engine.lock:
            run = self._engine.run
            replies = [run(command) for command in batch]
        self._after(link, len(batch))
        return replies

    def _after(self, link: _Link, commands: int) -> None:
        """What follows every batch: the totals, a little expiry, and the timer for the rest of it."""
        self.stats.commands += commands
        self.stats.trips += 1
        space = self._space
        due = space.next_expiry
        if due is None:
            return
        if due < space.time:
            with self._engine.lock:
                space.expire_some(_EXPIRED_AT_ONCE)
        if max(due, space.time + _SHORTEST_TIMER) < link.timer_due:
            self._set_timer(link, due)

    async def _execute_unusual(
        self, link: _Link, batch: Sequence[Command], timeout: float | None
    ) -> list[Reply]:
        """What is long, waits for a long one, or holds commands that are refused or wait in the server."""
        if len(batch) == 1 and is_blocking(batch[0]):
            return [await self._execute_blocking(link, batch[0], timeout)]
        replies: list[Reply] = []
        async with _deadline(timeout), link.turn:
            for start in range(0, len(batch), _AT_ONCE):
                part = batch[start : start + _AT_ONCE]
                with self._engine.lock:
                    replies += [_unfit(command) or self._engine.run(command) for command in part]
                self._after(link, len(part))
                await asyncio.sleep(0)
        return replies

    async def _execute_blocking(self, link: _Link, command: Command, timeout: float | None) -> Reply:
        """Run a command that waits: try, sleep until some key has changed, and try again."""
        loop = asyncio.get_running_loop()
        changed, me = asyncio.Event(), object()
        waits_until: float | None = None
        try:
            async with _deadline(timeout):
                while not link.closed:
                    try:
                        return self._run(link, (command,))[0]
                    except MustWait as wait:
                        if me not in self._space.waiting:
                            self._space.waiting[me] = lambda: _call_in(loop, changed.set)
                            link.waiting.add(changed)
                            self._engine.blocked += 1
                            waits_until = loop.time() + wait.seconds if wait.seconds else None
                            command = self._from_here(command)
                        empty = to_reply(wait.empty)
                    try:
                        async with asyncio.timeout_at(waits_until):
                            await changed.wait()
                    except TimeoutError:
                        return empty
                    changed.clear()
        finally:
            if self._space.waiting.pop(me, None) is not None:
                link.waiting.discard(changed)
                self._engine.blocked -= 1
        # The caller's own doing, so no StoreUnavailable, which would be tried again: the store is still there.
        raise StoreError("memory: the client was closed while this command waited")

    def _from_here(self, command: Command) -> Command:
        """XREAD's `$` as the id it means now: it must not move on while the command waits."""
        if command_name(command) != "XREAD":
            return command
        parts = words(command)
        streams = next(place for place, word in enumerate(parts) if word.upper() == b"STREAMS") + 1
        count = (len(parts) - streams) // 2
        for place in range(streams, streams + count):
            if parts[place + count] == b"$":
                item = self._space.get(parts[place])
                parts[place + count] = b"0-0" if item is None else item.value.last_item_key()
        return tuple(parts)

    # --- one loop's side ---

    def _link(self) -> _Link:
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            for gone in [other for other in self._links if other.is_closed()]:
                del self._links[gone]
            link = self._links[loop] = _Link(loop)
            self._engine.links = len(self._links)
            self._engine.links_made += 1
        return link

    def _set_timer(self, link: _Link, due: float) -> None:
        if link.timer is not None:
            link.timer.cancel()
        now = self._clock.now()
        seconds = min(max(due - now, _SHORTEST_TIMER), _LONGEST_TIMER)
        link.timer_due = now + seconds
        link.timer = link.loop.call_later(seconds, _remove_expired, self._self, link)

    def remove_expired(self, link: _Link) -> None:
        """The timer: remove what has expired, and set it again while keys have an expiry."""
        link.timer, link.timer_due = None, float("inf")
        with self._engine.lock:
            self._space.time = self._clock.now()
            self._space.expire_some(_EXPIRED_BY_TIMER)
            due = self._space.next_expiry
        if due is not None:
            self._set_timer(link, due)

    # --- messages ---

    def _publish(self, channel: bytes, payload: bytes) -> int:
        receivers = 0
        for link in tuple(self._links.values()):
            if channel in link.channels:
                receivers += 1
                link.deliver(channel, payload, None)
            for pattern in link.patterns:
                if compile_pattern(pattern).match(channel):
                    receivers += 1
                    link.deliver(channel, payload, pattern)
        return receivers

    def _listeners(self, channel: bytes | None) -> Any:
        """How many links listen to a channel; for None all channels, and the number of patterns."""
        links = tuple(self._links.values())
        if channel is not None:
            return sum(channel in link.channels for link in links)
        channels = sorted(set[bytes]().union(*(link.channels for link in links)))
        return channels, len(set[bytes]().union(*(link.patterns for link in links)))


class _Link:
    """One event loop's side of a store: its subscriptions, its timer and its order of calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weakly: the store must not keep a loop alive that has gone.
        self._loop = weakref.ref(loop)
        self._thread = threading.get_ident()
        self.router = SubscriptionRouter(self)
        self.channels: set[bytes] = set()
        self.patterns: set[bytes] = set()
        self.turn = asyncio.Lock()
        """Held by a batch that lets other tasks run before it is done, so that no later one overtakes it."""
        self.since_yield = 0
        self.timer: asyncio.TimerHandle | None = None
        self.timer_due = float("inf")
        self.waiting: set[asyncio.Event] = set()
        self.closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs."""
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop has gone")
        return loop

    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """See `Upstream`."""
        self.channels.update(channel.encode() for channel in channels)
        self.patterns.update(pattern.encode() for pattern in patterns)

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """See `Upstream`."""
        self.channels.difference_update(channel.encode() for channel in channels)
        self.patterns.difference_update(pattern.encode() for pattern in patterns)

    def deliver(self, channel: bytes, payload: bytes, pattern: bytes | None) -> None:
        """Hand a message to this loop's feeds, from whatever thread."""
        if threading.get_ident() == self._thread:
            self.router.deliver(channel, payload, pattern)
        else:
            loop = self._loop()
            if loop is not None:
                _call_in(loop, lambda: self.router.deliver(channel, payload, pattern))

    def close(self) -> None:
        """End subscriptions, waiting commands and the timer."""
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
        for changed in self.waiting:
            changed.set()
        self.router.end(None)
        self.channels.clear()
        self.patterns.clear()


def _remove_expired(client: weakref.ref[MockRedisClient], link: _Link) -> None:
    # Weakly, so that a timer does not keep a store that nobody holds any more.
    store = client()
    if store is not None:
        store.remove_expired(link)


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


@contextmanager
def _as_deadline(seconds: float | None) -> Generator[None]:
    try:
        yield
    except TimeoutError:
        raise DeadlineExceeded(f"memory did not answer within {seconds:g} s") from None


class _deadline:  # noqa: N801 - reads as the function it is used as
    """`asyncio.timeout` that ends in `DeadlineExceeded`."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _as_deadline(self._seconds):
            await self._timeout.__aexit__(kind, error, trace)


def _unfit(command: Command) -> StoreError | None:
    if is_blocking(command):
        return CommandError(f"ERR {command[0]!r} waits in the server: send it alone, not in a batch")
    return refusal(command)
