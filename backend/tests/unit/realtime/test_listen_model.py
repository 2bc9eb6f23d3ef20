"""Whatever is lost, repeated, cut, trimmed or forgotten: a listener hears each update once and in order, or is told of a gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.pubsub import Gap, Position, SharedState, SharedText, Topic, merge_patch
from redis_core.realtime.feed import Feeds
from redis_core.realtime.history import read
from redis_core.transport.memory import MockRedisClient

WITHIN = 20.0
Step = str | tuple[str, list[str]]
DURING = st.lists(st.sampled_from(["publish", "publish", "lose", "repeat", "cut"]), max_size=4)
COMES = st.tuples(st.sampled_from(["first", "second", "both"]), DURING)
"""Who comes back, and what happens while its start is on the way from the store."""
UNHARMED = ["publish", "publish", "publish", "lose", "repeat", "cut", "leave", "look", "turn"]


def steps_of(*names: str) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.one_of(st.sampled_from(names), COMES), max_size=25)


STEPS = steps_of(*UNHARMED, "trim", "forget", "save", "roll back")
UNTRIMMED = steps_of(*UNHARMED)


class Ear:
    """A listener that comes and goes with its position."""

    def __init__(self, topic: Any) -> None:
        self.topic = topic
        self.heard: list[tuple[Position, Any] | Gap] = []
        self.after: Position | None = None
        self._listening: asyncio.Task[None] | None = None

    async def _listen(self) -> None:
        async for item in self.topic.listen(after=self.after):
            if isinstance(item, Gap):
                self.after = item.position
                self.heard.append(item)
            else:
                self.after = item[0]
                self.heard.append((item[0], (item[1].type, json.loads(bytes(item[1].data)))))

    def come(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())

    async def leave(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait([listening])


class World:
    """A topic, a bus that loses and repeats, and two listeners."""

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
        self.published: dict[int, int] = {}
        self.history: list[int] = []
        """What the store has been told and has not lost."""
        self.follows: dict[int, int | None] = {}
        """Of each event the one before it, in the store's history."""
        self.saved: Any = None
        self.versions: list[object] = [None]
        self.text = ""
        self.number = 0
        self.now: Position | None = None
        self.ears = [Ear(self.topic), Ear(self.topic)]

    def passes(self, payload: bytes) -> None:
        """A message of the bus, on its way to this process."""
        fault, self.fault = self.fault, ""
        for _ in range({"lose": 0, "repeat": 2}.get(fault, 1)):
            self.take(payload)

    @contextmanager
    def answers_on_their_way(self) -> Iterator[asyncio.Event]:
        """What is read from history arrives when the block ends; the event says that something was read."""
        was_read, arrives = asyncio.Event(), asyncio.Event()

        async def slow(*args: Any, **options: Any) -> Any:
            start = await read(*args, **options)
            was_read.set()
            await arrives.wait()
            return start

        with patch("redis_core.realtime.feed.read", slow):
            try:
                yield was_read
            finally:
                arrives.set()

    async def come(self, who: str, during: list[str]) -> None:
        ears = {"first": self.ears[:1], "second": self.ears[1:], "both": self.ears}[who]
        for ear in ears:
            await ear.leave()
        await self.publish()
        with self.answers_on_their_way() as was_read:
            for ear in ears:
                ear.come()
            async with asyncio.timeout(WITHIN):
                await was_read.wait()
            for step in during:
                await self.step(step)

    async def publish(self) -> None:
        self.number += 1
        match self.topic:
            case Topic():
                self.now = await self.topic.publish(self.number, id=f"id{self.number}")
                self.published[self.number] = self.now.offset
                self.follows[self.number] = self.history[-1] if self.history else None
                self.history.append(self.number)
            case SharedState():
                patch = {f"k{self.number % 3}": self.number}
                self.now = await self.topic.patch(patch)
                self.versions.append(merge_patch(self.versions[-1], patch))
            case _:
                self.text += f"é{self.number} "
                self.now = await self.topic.append(f"é{self.number} ")

    async def step(self, step: Step) -> None:
        key = self.workspace.keys.key
        match step:
            case (who, during):
                await self.come(who, during)
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
                await self.ears[0].leave()
                await self.publish()
                self.ears[0].come()
            case "trim":
                await self.client.execute("XTRIM", key("topic", self.kind, "t"), "MAXLEN", 1)
            case "forget":
                await self.client.delete(key("topic", self.kind, "t"), key("topic-meta", self.kind, "t"))
                await self.publish()
            case "save" | "roll back":
                await self.remember(step)
            case "look":
                await self.feeds._look()
            case _:
                await self.turn()

    async def remember(self, step: str) -> None:
        if step == "save":
            self.saved = await self.contents(), list(self.history), self.versions[-1]
        elif self.saved is not None:
            await self.roll_back(*self.saved)
            await self.publish()

    async def contents(self) -> tuple[Any, Any, Any]:
        key = self.workspace.keys.key
        return (
            await self.client.get(key("bus")),
            await self.client.hgetall(key("topic-meta", self.kind, "t")),
            await self.client.execute("XRANGE", key("topic", self.kind, "t"), "-", "+"),
        )

    async def roll_back(self, contents: tuple[Any, Any, Any], history: list[int], version: object) -> None:
        """The store has what it had when it was saved."""
        key = self.workspace.keys.key
        bus, meta, entries = contents
        await self.client.set(key("bus"), bus)
        await self.client.delete(key("topic-meta", self.kind, "t"), key("topic", self.kind, "t"))
        await self.client.hset(key("topic-meta", self.kind, "t"), meta)
        for entry, fields in entries:
            await self.client.execute("XADD", key("topic", self.kind, "t"), entry, *fields)
        self.history = list(history)
        self.versions.append(version)

    async def turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(WITHIN):
            while not holds():
                await asyncio.sleep(0)

    async def run(self, steps: list[Step]) -> None:
        async with self.client:
            await self.publish()
            first = self.now
            for ear in self.ears:
                ear.after = first if self.kind == "events" else None
            self.ears[0].come()
            for step in steps:
                await self.step(step)
            self.fault = ""
            for ear in self.ears:
                ear.come()
            await self.feeds._look()
            await self.until(lambda: all(ear.after == self.now for ear in self.ears))
            for ear in self.ears:
                await ear.leave()
                self.holds(ear, first)

    def holds(self, ear: Ear, first: Position | None) -> None:
        raise NotImplementedError


class Events(World):
    def __init__(self) -> None:
        super().__init__("events")

    def holds(self, ear: Ear, first: Position | None) -> None:
        at, last = first, None
        assert at is not None
        for item in ear.heard:
            if isinstance(item, Gap):
                assert item.position.epoch != at.epoch or item.position.offset > at.offset
                at, last = item.position, None
                continue
            position, event = item
            assert position == Position(at.epoch, at.offset + 1), (
                "one was left out, repeated, or out of order"
            )
            assert (event[0], self.published[event[1]]) == ("msg", position.offset)
            if last is not None:
                assert self.follows[event[1]] == last, "what was lost by the store was passed over in silence"
            at, last = position, event[1]
        if not any(isinstance(item, Gap) for item in ear.heard):
            assert [item[1] for item in ear.heard if not isinstance(item, Gap)] == [
                ("msg", number) for number in range(2, self.number + 1)
            ]


class State(World):
    def __init__(self) -> None:
        super().__init__("state")

    def holds(self, ear: Ear, first: Position | None) -> None:
        document: object = None
        seen = -1
        for item in ear.heard:
            if isinstance(item, Gap):
                if self.saved is not None:
                    seen = -1
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

    def holds(self, ear: Ear, first: Position | None) -> None:
        text = b""
        for item in ear.heard:
            assert not isinstance(item, Gap)
            _, piece = item[1]
            assert piece["from"] == len(text)
            text += piece["text"].encode()
        assert text.decode() == self.text


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_events_are_heard_once_and_in_order_or_a_gap_is_told(steps: list[Step]) -> None:
    asyncio.run(Events().run(steps))


@settings(max_examples=30, deadline=None)
@example(steps=[("first", ["lose", "publish"])])
@example(steps=[("both", ["publish", "lose", "publish"]), ("first", ["cut"])])
@given(steps=UNTRIMMED)
def test_without_loss_of_history_there_is_no_gap(steps: list[Step]) -> None:
    world = Events()
    asyncio.run(world.run(steps))
    assert not any(isinstance(item, Gap) for ear in world.ears for item in ear.heard)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS.map(lambda steps: [step for step in steps if step != "forget"]))
def test_the_listeners_document_is_always_one_of_its_versions(steps: list[Step]) -> None:
    asyncio.run(State().run(steps))


@settings(max_examples=40, deadline=None)
@given(steps=UNTRIMMED)
def test_a_text_is_heard_whole(steps: list[Step]) -> None:
    asyncio.run(Text().run(steps))
