"""How a process hears of topics: by one subscription, or by looks where the store has none; and what it costs while nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import StoreUnavailable
from redis_core.pubsub import Gap
from redis_core.realtime.feed import Feeds
from redis_core.realtime.history import read
from redis_core.testing import FakeClock
from redis_core.transport.memory import MockRedisClient
from tests.unit.transport.rest_stub import rest_stub, upstash

TOPICS = 50


class Unsubscribable(MockRedisClient):
    """A store without subscriptions, until it has them."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = True
        self.asked = 0

    async def subscribe(self, *channels: str, patterns: Any = ()) -> Any:
        self.asked += 1
        if self.refuses:
            raise StoreUnavailable("no subscriptions here")
        return await super().subscribe(*channels, patterns=patterns)


class World:
    """Listeners of 50 topics of one workspace, by a clock that a test moves."""

    def __init__(self, store: MockRedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = Client(store)
        self.clock = FakeClock()
        self.feeds = Feeds(self.client, self.clock)
        self.client._services[Feeds] = self.feeds
        self.workspace = self.client.workspace("acme")
        self.heard: list[tuple[str, Any]] = []
        self.reads = 0

        async def counted(*args: Any, **options: Any) -> Any:
            self.reads += 1
            return await read(*args, **options)

        monkeypatch.setattr("redis_core.realtime.feed.read", counted)

    async def listen(self, name: str) -> None:
        async for item in self.workspace.topic(name).listen():
            self.heard.append((name, "gap" if isinstance(item, Gap) else item[1].value))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.listen(f"t{number}")) for number in range(TOPICS)]
        try:
            await self.until(lambda: self.reads >= TOPICS)
            await self.pass_time(30)
            self.reads = 0
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.client.aclose()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.001)

    async def pass_time(self, seconds: float) -> None:
        """In steps, so that what sleeps again does so within them."""
        for _ in range(int(seconds * 20)):
            await self.clock.elapse(0.05)
            for _ in range(10):
                await asyncio.sleep(0)


async def test_over_rest_a_process_has_one_event_stream() -> None:
    async with rest_stub() as stub, upstash(stub, max_connections=2) as redis:
        feeds = Client(redis).service(Feeds)
        async with asyncio.timeout(20):
            await feeds.listen(feeds.feed("acme", "t", "events"))
            await feeds.listen(feeds.feed("other", "t", "state"))
        assert {name: len(streams) for name, streams in stub.streams.items()} == {"sys:bus:*": 1}
        payload = b"acme events t 1 e 0 1 msg - 7"
        stub.send("sys:bus:*", b"pmessage,sys:bus:*,sys:bus:3," + payload)
        async with asyncio.timeout(20):
            while feeds.feed("acme", "t", "events")._early is None:
                await asyncio.sleep(0.001)
        await feeds.aclose()


async def test_without_subscriptions_nothing_is_lost_and_only_what_changed_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(Unsubscribable(), monkeypatch)
    async with world.listening():
        for number in range(5):
            await world.workspace.topic("t7").publish(number)
            await world.until(lambda number=number: len(world.heard) == number + 1)
        assert world.heard == [("t7", number) for number in range(5)]
        assert world.reads == 5


async def test_what_others_publish_is_found_by_the_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Unsubscribable(), monkeypatch)
    monkeypatch.setattr(world.feeds, "wake", lambda: None)
    async with world.listening():
        await world.workspace.topic("t1").publish("first")
        waited = 0.0
        while not world.heard:
            await world.pass_time(0.5)
            waited += 0.5
        assert world.heard == [("t1", "first")]
        assert waited <= 5.5
        # It looks often again for a while.
        await world.workspace.topic("t2").publish("second")
        await world.pass_time(1)
        assert world.heard[1:] == [("t2", "second")]


async def test_an_idle_poll_stays_slow_and_subscribes_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Unsubscribable()
    world = World(store, monkeypatch)
    async with world.listening():
        await world.pass_time(60)
        commands, asked = world.client.stats.commands, store.asked
        await world.pass_time(600)
        assert world.client.stats.commands - commands <= 600 / 5 + 1
        assert store.asked - asked <= 3
        assert world.reads == 0


async def test_a_store_that_has_subscriptions_again_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Unsubscribable()
    world = World(store, monkeypatch)
    async with world.listening():
        await world.workspace.topic("t0").publish("polled")
        await world.until(lambda: world.heard)
        store.refuses = False
        asked = store.asked
        # The store was away, and answers.
        world.feeds.suspect()
        await world.feeds._look()
        await world.until(lambda: store.asked > asked)
        await world.pass_time(1)
        commands = world.client.stats.commands
        await world.workspace.topic("t1").publish("heard")
        await world.until(lambda: world.heard[1:] == [("t1", "heard")])
        assert world.client.stats.commands - commands == 1


async def test_while_nothing_is_lost_nothing_is_read_however_late_the_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(MockRedisClient(), monkeypatch)
    async with world.listening():
        mget, published = world.feeds.client.mget, list[int]()

        async def late(*keys: Any) -> Any:
            answer = await mget(*keys)
            # Others publish while it is on its way, and are heard.
            for _ in range(3):
                await world.workspace.topic("t0").publish("busy")
            published.append(3)
            await world.until(lambda: len(world.heard) == sum(published))
            return answer

        monkeypatch.setattr(world.feeds.client, "mget", late)
        for _ in range(4):
            assert not await world.feeds._look()
        assert world.reads == 0


async def test_a_message_that_cannot_be_taken_does_not_end_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(MockRedisClient(), monkeypatch)
    async with world.listening():
        take, failures = world.feeds._take, ["once"]

        def fails(payload: bytes) -> None:
            if failures:
                failures.pop()
                raise RuntimeError("a mistake")
            take(payload)

        monkeypatch.setattr(world.feeds, "_take", fails)
        for number in range(3):
            await world.workspace.topic("t1").publish(number)
        await world.until(lambda: len(world.heard) == 3)
        assert world.heard == [("t1", number) for number in range(3)]


async def test_workspaces_that_nobody_listens_to_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(MockRedisClient(), monkeypatch)
    async with world.listening():
        await world.workspace.topic("t1").publish(1)
        await world.feeds._look()
        assert set(world.feeds.sequences._heard) == {"acme"}
    await world.feeds._look()
    assert world.feeds.sequences._heard == {}
