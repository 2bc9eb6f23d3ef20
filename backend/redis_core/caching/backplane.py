"""How processes tell one another what they changed, and how each knows that it has heard everything.

Where a command may wait in the server (TCP, cluster) the backplane is a stream, read from the last id seen: what a process
missed while its link was cut is replayed, and what was trimmed meanwhile is noticed. Each answer, an empty one included, is
a sign of life; without one for 1.5 s the process stops serving from memory, so a half-open link makes nothing stale for longer.

Over REST a command cannot wait and polling is billed, so the backplane is a subscription; a lost link empties memory.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from redis_core.errors import StoreError
from redis_core.keys import CACHE_BUS
from redis_core.log import get_logger
from redis_core.transport.base import Command

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.clock import Clock

__all__ = ["Backplane", "Change", "PubSubBackplane", "StreamBackplane", "open_backplane"]

LEASE: Final = 1.5
"""Seconds after the last sign of life that memory is still trusted."""
_BLOCK_MS: Final = 1_000
"""How long a read waits in the server: what an idle process costs, one command a second."""
_KEPT: Final = 10_000
"""Changes the stream keeps, about: how much a process may miss and still be told one by one."""
_PAUSE: Final = 0.1
"""Seconds between attempts while the store is away."""

_LOG: Final = get_logger("redis_core.cache")


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What one process tells the others."""

    origin: str
    workspace: str
    region: str = ""
    """Empty for the whole workspace."""
    keys: tuple[str, ...] = ()
    """Empty for the whole region, or for what carries the tag."""
    tag: str = ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Change)

Apply = Callable[[Change], None]


class Backplane(Protocol):
    """The link between processes."""

    origin: str
    """This process' name, by which it knows its own messages."""
    live_until: float
    """Monotonic time until which memory may be trusted."""
    catches_up: bool
    """Whether it hears what was announced while its link was cut."""

    def announce(self, change: Change) -> Command:
        """The command that tells the others. Budget: 1."""
        ...

    def disown(self) -> None:
        """Hear what was announced until now like another's: it is not known whether and when that was done."""
        ...

    async def run(self) -> None:
        """Listen until cancelled."""
        ...


class _Listener:
    """What both kinds share.

    Args:
        client: the store.
        apply: takes each change of another process.
        forget: called when changes may have been missed: nothing in memory is to be trusted.
        clock: the time.
    """

    def __init__(self, client: Client, apply: Apply, forget: Callable[[], None], clock: Clock) -> None:
        self.origin = secrets.token_hex(8)
        self.live_until = -math.inf
        self._client = client
        self._apply = apply
        self._forget = forget
        self._clock = clock
        self._lost = False

    def _failed(self, error: StoreError) -> None:
        """Say that the link is lost, once until it is there again."""
        if not self._lost:
            self._lost = True
            _LOG.warning("cache backplane lost", error=str(error))

    def disown(self) -> None:
        """Hear what was announced until now like another's: it is not known whether and when that was done."""
        self.origin = secrets.token_hex(8)

    def _take(self, payload: bytes) -> None:
        try:
            change = _DECODER.decode(payload)
        except msgspec.DecodeError as error:
            # Another version's message: what it meant to change is not known.
            _LOG.warning("cache change not understood", error=str(error))
            self._forget()
            return
        if change.origin != self.origin:
            self._apply(change)


class StreamBackplane(_Listener):
    """Changes in a stream, read with XREAD BLOCK on a connection of its own."""

    catches_up = True

    def announce(self, change: Change) -> Command:
        """XADD, the stream cut to about 10,000 changes. Budget: 1 command."""
        return ("XADD", CACHE_BUS, "MAXLEN", "~", _KEPT, "*", "m", _ENCODER.encode(change))

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        last: str | None = None
        while True:
            try:
                last = await self._catch_up(last)
                self._lost = False
                while True:
                    last = await self._read(last)
            except StoreError as error:
                self._failed(error)
                await asyncio.sleep(_PAUSE)

    async def _catch_up(self, last: str | None) -> str:
        """Where to read on: what is there now at the start; the last id seen, if the stream still reaches back to it."""
        asked = self._clock.monotonic()
        newest = await self._client.xrevrange(CACHE_BUS, count=1)
        newest_id = newest[0][0].decode() if newest else "0-0"
        if last is None:
            self._forget()
            self.live_until = asked + LEASE
            return newest_id
        oldest = await self._client.xrange(CACHE_BUS, count=1)
        oldest_id = oldest[0][0].decode() if oldest else "0-0"
        if _order(oldest_id) > _order(last) or _order(newest_id) < _order(last):
            # Trimmed past what we saw, or another stream altogether: the store came back empty.
            self._forget()
            return newest_id
        return last

    async def _read(self, last: str) -> str:
        asked = self._clock.monotonic()
        reply: Any = await self._client.within(LEASE).execute(
            "XREAD", "COUNT", _KEPT, "BLOCK", _BLOCK_MS, "STREAMS", CACHE_BUS, last
        )
        taken = 0
        for _, entries in reply or ():
            for entry_id, fields in entries:
                self._take(fields[1])
                last = entry_id.decode()
                taken += 1
        if taken == _KEPT:
            # There may be more, so this is not up to date; and the stream may have been trimmed past what was seen before.
            self._forget()
            return last
        # Of when the store answered, not of when this process came to read it: it may have stood still meanwhile.
        self.live_until = min(self._clock.monotonic(), asked + _BLOCK_MS / 1000) + LEASE
        return last


class PubSubBackplane(_Listener):
    """Changes as messages of a channel: for stores where no command may wait."""

    catches_up = False

    def announce(self, change: Change) -> Command:
        """PUBLISH. Budget: 1 command."""
        return ("PUBLISH", CACHE_BUS, _ENCODER.encode(change))

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                async with await self._client.subscribe(CACHE_BUS) as messages:
                    self._forget()
                    self.live_until = math.inf
                    self._lost = False
                    async for message in messages:
                        if message.gap:
                            self._forget()
                        else:
                            self._take(message.payload)
            except StoreError as error:
                self._failed(error)
            finally:
                self.live_until = -math.inf
            await asyncio.sleep(_PAUSE)


def open_backplane(client: Client, apply: Apply, forget: Callable[[], None], clock: Clock) -> Backplane:
    """The backplane that the client's store can carry."""
    kind = StreamBackplane if client.store_mode in {"tcp", "cluster"} else PubSubBackplane
    return kind(client, apply, forget, clock)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
