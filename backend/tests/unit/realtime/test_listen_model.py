"""Whatever is lost, repeated, cut, trimmed or forgotten: a listener hears each update once and in order, or is told of a gap."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.pubsub import Gap, Position, SharedState, SharedText, Topic, merge_patch
from redis_core.realtime.feed import Feeds
from redis_core.transport.memory import MockRedisClient

WITHIN = 20.0
STEPS = st.lists(
    st.sampled_from(
        ["publish", "publish", "publish", "lose", "repeat", "cut", "leave", "trim", "forget", "look", "turn"]
    ),
    max_size=25,
)
UNTRIMMED = st.lists(
    st.sampled_from(["publish", "publish", "publish", "lose", "repeat", "cut", "leave", "look", "turn"]),
    max_size=25,
)


class World:
    """A topic, a bus that loses and repeats, and a listener that comes and goes with its position."""

    def __init__(self, kind: str) -> None:
        self.client = Client(MockRedisClient())
        self.workspace = self.client.workspace("acme")
        topics: dict[str, Any] = {
            "events": self.workspace.topic, "state": self.workspace.state, "append": self.workspace.text
        }  # fmt: skip
        self.kind = kind
        self.topic: Topic | SharedState | SharedText = topics[kind]("t")
        self.feeds = self.client.service(Feeds)
        self.take = self.feeds._take
        self.feeds._take = self.passes  # type: ignore[method-assign]
        self.fault = ""
        self.last: bytes | None = None
        self.published: dict[Position, object] = {}
        self.versions: list[object] = [None]
        self.text = ""
        self.number = 0
        self.now: Position | None = None
        self.heard: list[tuple[Position, Any] | Gap] = []
        self.after: Position | None = None
        self.listening: asyncio.Task[None] | None = None

    def passes(self, payload: bytes) -> None:
        """A message of the bus, on its way to this process."""
        fault, self.fault = self.fault, ""
        self.last = payload
        for _ in range({"lose": 0, "repeat": 2}.get(fault, 1)):
            self.take(payload)

    async def listen(self) -> None:
        async for item in self.topic.listen(after=self.after):
            if isinstance(item, Gap):
                self.after = item.position
                self.heard.append(item)
            else:
                self.after = item[0]
                self.heard.append((item[0], (item[1].type, json.loads(bytes(item[1].data)))))

    async def come(self) -> None:
        self.listening = asyncio.create_task(self.listen())
        feed = self.feeds.feed("acme", "t", self.topic._kind)
        await self.until(lambda: feed._known)

    async def leave(self) -> None:
        assert self.listening is not None
        self.listening.cancel()
        await asyncio.wait([self.listening])

    async def publish(self) -> None:
        self.number += 1
        match self.topic:
            case Topic():
                self.now = await self.topic.publish(self.number, id=f"id{self.number}")
                self.published[self.now] = ("msg", self.number)
            case SharedState():
                patch = {f"k{self.number % 3}": self.number}
                self.now = await self.topic.patch(patch)
                self.versions.append(merge_patch(self.versions[-1], patch))
            case _:
                self.text += f"é{self.number} "
                self.now = await self.topic.append(f"é{self.number} ")

    async def step(self, step: str) -> None:
        key = self.workspace.keys.key
        match step:
            case "publish":
                await self.publish()
            case "lose" | "repeat":
                self.fault = step
                await self.publish()
                await self.turn()
            case "cut":
                # As a link that was lost and is there again.
                self.fault = "lose"
                await self.publish()
                await self.turn()
                self.feeds._heal_all()
            case "leave":
                await self.leave()
                await self.publish()
                await self.come()
            case "trim":
                await self.client.execute("XTRIM", key("topic", self.kind, "t"), "MAXLEN", 1)
            case "forget":
                await self.client.delete(key("topic", self.kind, "t"), key("topic-meta", self.kind, "t"))
                await self.publish()
            case "look":
                await self.feeds._look()
            case _:
                await self.turn()

    async def turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(WITHIN):
            while not holds():
                await asyncio.sleep(0)

    async def run(self, steps: list[str]) -> None:
        async with self.client:
            await self.publish()
            first = self.now
            self.after = first if self.kind == "events" else None
            await self.come()
            for step in steps:
                await self.step(step)
            self.fault = ""
            await self.feeds._look()
            await self.until(lambda: self.after == self.now)
            await self.leave()
            self.holds(first)

    def holds(self, first: Position | None) -> None:
        raise NotImplementedError


class Events(World):
    def __init__(self) -> None:
        super().__init__("events")

    def holds(self, first: Position | None) -> None:
        at = first
        assert at is not None
        for item in self.heard:
            if isinstance(item, Gap):
                assert item.position.epoch != at.epoch or item.position.offset > at.offset
                at = item.position
                continue
            position, event = item
            assert position == Position(at.epoch, at.offset + 1), (
                "one was left out, repeated, or out of order"
            )
            assert self.published[position] == event
            at = position
        gaps = [item for item in self.heard if isinstance(item, Gap)]
        if not gaps:
            assert [item[1] for item in self.heard if not isinstance(item, Gap)] == [
                ("msg", number) for number in range(2, self.number + 1)
            ]


class State(World):
    def __init__(self) -> None:
        super().__init__("state")

    def holds(self, first: Position | None) -> None:
        document: object = None
        seen = -1
        for item in self.heard:
            if isinstance(item, Gap):
                continue
            kind, data = item[1]
            document = data if kind == "snap" else merge_patch(document, data)
            # The listener's copy is always one of the versions, and never an older one than it had.
            assert self.versions.index(document) >= seen
            seen = self.versions.index(document)
        assert document == self.versions[-1]


class Text(World):
    def __init__(self) -> None:
        super().__init__("append")

    def holds(self, first: Position | None) -> None:
        text = b""
        for item in self.heard:
            assert not isinstance(item, Gap)
            _, piece = item[1]
            assert piece["from"] == len(text)
            text += piece["text"].encode()
        assert text.decode() == self.text


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_events_are_heard_once_and_in_order_or_a_gap_is_told(steps: list[str]) -> None:
    asyncio.run(Events().run(steps))


@settings(max_examples=30, deadline=None)
@given(steps=UNTRIMMED)
def test_without_loss_of_history_there_is_no_gap(steps: list[str]) -> None:
    world = Events()
    asyncio.run(world.run(steps))
    assert not any(isinstance(item, Gap) for item in world.heard)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS.map(lambda steps: [step for step in steps if step != "forget"]))
def test_the_listeners_document_is_always_one_of_its_versions(steps: list[str]) -> None:
    asyncio.run(State().run(steps))


@settings(max_examples=40, deadline=None)
@given(steps=UNTRIMMED)
def test_a_text_is_heard_whole(steps: list[str]) -> None:
    asyncio.run(Text().run(steps))
