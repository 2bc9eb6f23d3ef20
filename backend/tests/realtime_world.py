"""A hub on scripted feeds and connections that a test holds back: what realtime's unit tests share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec

from redis_core import realtime_token
from redis_core.api.realtime_frames import Want
from redis_core.api.realtime_hub import Hub
from redis_core.api.realtime_limits import RealtimeLimits
from redis_core.api.realtime_stream import Stream
from redis_core.api.realtime_wire import EventStreamWire
from redis_core.client import Client
from redis_core.errors import StoreUnavailable
from redis_core.realtime.feed import Feeds, Position, Restart, Start, Update
from redis_core.realtime.sequences import Sequences
from redis_core.realtime_token import Claims
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing
from redis_core.transport.memory import MockRedisClient
from tests.hand_clock import HandClock

__all__ = [
    "KEYS",
    "Connection",
    "HandClock",
    "ScriptedFeed",
    "ScriptedFeeds",
    "claims_of",
    "opened",
    "scripted_hub",
    "settle",
]

KEYS = PepperRing(Secret("k1:" + "k" * 40))


class ScriptedFeed:
    """One topic: history of the last `kept` updates, and subscribers that are told in order."""

    def __init__(self, feeds: ScriptedFeeds, kept: int = 1_000) -> None:
        self.feeds = feeds
        self.kept = kept
        self.epoch = "e1"
        self.offset = 0
        self.history: list[Update] = []
        self.sinks: dict[Seat, Callable[[Update | Restart], None]] = {}
        self.joins = 0

    async def join(
        self, sink: Callable[[Update | Restart], None], after: Position | None
    ) -> tuple[Start, Seat]:
        await asyncio.sleep(0)
        self.joins += 1
        if not self.feeds.live:
            raise StoreUnavailable("the store is away")
        seat = Seat(self)
        self.sinks[seat] = sink
        if after is None:
            return Start(
                epoch=self.epoch, offset=self.offset, recovered=True, updates=[], reached=self.offset
            ), seat
        same = after.epoch == self.epoch
        first = self.history[0].offset if self.history else self.offset + 1
        recovered = same and after.offset + 1 >= first
        updates = [one for one in self.history if not same or one.offset > after.offset]
        begin = after.offset if recovered else first - 1
        return Start(self.epoch, begin, recovered, updates, self.offset), seat

    def publish(self, data: object) -> None:
        self.offset += 1
        update = Update(offset=self.offset, type="msg", data=msgspec.Raw(msgspec.json.encode(data)))
        self.history = [*self.history, update][-self.kept :]
        for sink in list(self.sinks.values()):
            sink(update)


class Seat:
    def __init__(self, feed: ScriptedFeed) -> None:
        self.feed = feed

    def leave(self) -> None:
        self.feed.sinks.pop(self, None)


class ScriptedFeeds:
    """Stands in for the process' feeds."""

    def __init__(self) -> None:
        self.live = True
        self.made: dict[tuple[str, str, str], ScriptedFeed] = {}
        self.listeners: list[Callable[[bool], None]] = []
        self.sequences = Sequences()

    def feed(self, workspace: str, topic: str, kind: str) -> ScriptedFeed:
        return self.made.setdefault((workspace, topic, kind), ScriptedFeed(self))

    def on_link(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def link(self, live: bool) -> None:
        self.live = live
        for listener in list(self.listeners):
            listener(live)

    def wake(self) -> None:
        """Nothing sleeps here."""

    async def aclose(self) -> None:
        pass


class Connection:
    """A client's end as an ASGI server shows it; `pause` is a buffer that is full."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.ended = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone = asyncio.Event()
        self.aborted = False
        self.broken = False

    @property
    def transport(self) -> Connection:
        return self

    def abort(self) -> None:
        self.aborted = True
        self.writable.set()
        self.gone.set()

    def pause(self) -> None:
        self.writable.clear()

    def resume(self) -> None:
        self.writable.set()

    async def send(self, message: Any) -> None:
        if self.broken:
            raise OSError("broken pipe")
        await self.writable.wait()
        if self.aborted:
            return
        if message["type"] == "http.response.body":
            for event in message["body"].split(b"\n\n"):
                if event:
                    self.frames.append(json.loads(event.removeprefix(b"data: ")))
            if not message.get("more_body"):
                self.ended = True
                self.gone.set()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["t"] == kind]

    @property
    def numbers(self) -> list[Any]:
        """The data of all messages, in order."""
        return [frame["data"] for frame in self.of("msg")]


def scripted_hub(**limits: Any) -> tuple[Hub, ScriptedFeeds, HandClock]:
    """A hub on scripted feeds, by a clock of the test's."""
    client = Client(MockRedisClient())
    feeds = ScriptedFeeds()
    client._services[Feeds] = feeds
    clock = HandClock()
    return Hub(client, RealtimeLimits(**limits), clock), feeds, clock


def claims_of(
    clock: HandClock, workspace: str = "acme", user: str = "u1", seconds: float = 3_600, **rights: Any
) -> Claims:
    """What a token says."""
    rights.setdefault("read", ["*"])
    token = realtime_token.issue(workspace, user, seconds=seconds, keys=KEYS, clock=clock, **rights)
    claims = realtime_token.read(KEYS, token)
    assert claims is not None
    return claims


async def opened(hub: Hub, claims: Claims, *topics: str) -> tuple[Stream, Connection]:
    """A stream of these topics, on a connection that takes all."""
    connection = Connection()
    stream = hub.open(claims, EventStreamWire(), connection.receive, connection.send)
    await hub.greet(stream)
    stream.subscribe([Want(topic) for topic in topics])
    await settle()
    return stream, connection


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)
