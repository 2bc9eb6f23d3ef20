"""Listeners that are slow, whose rejoin fails, or who are many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import StoreUnavailable
from redis_core.pubsub import BEGINNING, Gap, Position, Topic
from redis_core.realtime.feed import Feeds
from redis_core.realtime.history import read
from redis_core.transport.memory import MockRedisClient


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(MockRedisClient()) as opened:
        yield opened


async def until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def hear(topic: Topic, after: Position | None, into: list[Any]) -> None:
    async for item in topic.listen(after=after):
        into.append("gap" if isinstance(item, Gap) else item[1].value)


async def test_who_is_too_slow_goes_on_from_history(client: Client) -> None:
    topic = client.workspace("acme").topic("t")
    first = await topic.publish(0)
    items = topic.listen(after=first)
    await topic.publish(1)
    heard = [await anext(items)]
    queues = [seat.sink.args[0] for one in client.service(Feeds)._feeds.values() for seat in one._seats]  # type: ignore[attr-defined]
    for number in range(2, 1_202):
        await topic.publish(number)
    assert all(queue.qsize() <= 1_000 for queue in queues)
    # History has the last thousand: that the others are gone is told.
    heard += [await anext(items) for _ in range(1_001)]
    values = ["gap" if isinstance(item, Gap) else item[1].value for item in heard]
    assert values == [1, "gap", *range(202, 1_202)]
    await items.aclose()


async def test_who_is_slow_but_covered_by_history_misses_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_core.pubsub._WAITING", 10)
    topic = client.workspace("acme").topic("t")
    first = await topic.publish(0)
    items = topic.listen(after=first)
    await topic.publish(1)
    heard = [await anext(items)]
    for number in range(2, 102):
        await topic.publish(number)
    heard += [await anext(items) for _ in range(100)]
    assert [item[1].value for item in heard if not isinstance(item, Gap)] == list(range(1, 102))
    await items.aclose()


async def test_a_listener_whose_rejoin_fails_hears_on_though_another_came_meanwhile(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = client.workspace("acme")
    topic = workspace.topic("t")
    first = await topic.publish(1)
    heard: dict[str, list[Any]] = {"a": [], "b": []}
    tasks = [asyncio.create_task(hear(topic, first, heard["a"]))]
    await topic.publish(2)
    await until(lambda: heard["a"])
    reads, failed = 0, asyncio.Event()

    async def flaky(*args: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 2:
            # What the feed heals by is read; what the listener comes back by is not.
            failed.set()
            raise StoreUnavailable("away again")
        return await read(*args, **options)

    monkeypatch.setattr("redis_core.realtime.feed.read", flaky)
    key = workspace.keys.key
    await client.delete(key("topic", "events", "t"), key("topic-meta", "events", "t"))
    await topic.publish(3)
    await failed.wait()
    tasks.append(asyncio.create_task(hear(topic, BEGINNING, heard["b"])))
    await until(lambda: heard["b"])
    await until(lambda: 3 in heard["a"])
    for number in (4, 5, 6):
        await topic.publish(number)
    await until(lambda: all(each[-1] == 6 for each in heard.values()))
    assert heard["a"] == [2, "gap", 3, 4, 5, 6]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_history_keeps_a_thousand_updates_and_ends(client: Client) -> None:
    workspace = client.workspace("acme")
    topic = workspace.topic("t")
    for number in range(1_001):
        await topic.publish(number)
    entries: Any = await client.execute("XRANGE", workspace.keys.key("topic", "events", "t"), "-", "+")
    assert (len(entries), entries[0][0], entries[-1][0]) == (1_000, b"2-0", b"1001-0")
    day = 86_400_000
    history = await client.execute("PTTL", workspace.keys.key("topic", "events", "t"))
    meta = await client.execute("PTTL", workspace.keys.key("topic-meta", "events", "t"))
    assert isinstance(history, int)
    assert isinstance(meta, int)
    # The position outlives what it is a position in.
    assert 0 < history <= day < meta <= 2 * day
    await workspace.text("a").append("x")
    text = await client.execute("PTTL", workspace.keys.key("topic-text", "append", "a"))
    assert isinstance(text, int)
    assert 0 < text <= day


async def test_of_a_text_only_what_is_new_is_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    text = client.workspace("acme").text("t")
    await text.append("x" * 100_000)
    at = await text.append("é")
    bodies: list[bytes] = []
    execute = client.transport.execute

    async def noted(*args: Any, **options: Any) -> Any:
        replies: Any = await execute(*args, **options)
        bodies.extend(reply[4] for reply in replies if isinstance(reply, list))
        return replies

    monkeypatch.setattr(client.transport, "execute", noted)
    start = await read(client, text._names, at)
    assert (start.recovered, start.updates, bodies) == (True, [], [b""])
    start = await read(client, text._names, Position(at.epoch, 100_000))
    assert (start.recovered, start.updates[0].value, bodies[1:]) == (
        True,
        {"from": 100_000, "text": "é"},
        ["é".encode()],
    )
    start = await read(client, text._names, Position("another", 100_000))
    assert not start.recovered
    assert len(bodies[2]) == 100_002
    await client.delete(text._names.body)
    assert not (await read(client, text._names, Position(at.epoch, 100_000))).recovered


async def test_many_publishers_at_once_are_heard_in_one_order_by_all(client: Client) -> None:
    names, publishers, each = ("a", "b"), 8, 40
    workspace = client.workspace("acme")
    heard: list[list[Any]] = [[] for _ in range(6)]
    tasks = [
        asyncio.create_task(hear(workspace.topic(names[number % 2]), BEGINNING, into))
        for number, into in enumerate(heard)
    ]

    async def publish(who: int) -> None:
        for number in range(each):
            for name in names:
                await workspace.topic(name).publish([who, number])
            await asyncio.sleep(0)

    await asyncio.gather(*(publish(who) for who in range(publishers)))
    await until(lambda: all(len(into) == publishers * each for into in heard))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for kind in (0, 1):
        order = heard[kind]
        assert all(into == order for into in heard[kind::2])
        for who in range(publishers):
            assert [number for one, number in order if one == who] == list(range(each))
