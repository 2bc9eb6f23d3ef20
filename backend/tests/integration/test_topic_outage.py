"""Topics while the store is away: what is published follows in order and once, and who listens misses nothing unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import StoreUnavailable
from redis_core.pubsub import Gap, Position
from redis_core.realtime.feed import Feeds
from redis_core.resilience.outage import State
from redis_core.testing import FaultProxy


@pytest.fixture
async def proxied(valkey_socket: str, tmp_path: Path) -> AsyncIterator[tuple[Client, FaultProxy]]:
    with FaultProxy(valkey_socket) as proxy:
        settings = Settings(_env_file=None, redis_url=proxy.url, journal_path=tmp_path / "journal")  # type: ignore[call-arg]
        async with await connect(settings) as client:
            await client.flushdb()
            yield client, proxy


@pytest.fixture
def client(proxied: tuple[Client, FaultProxy]) -> Client:
    return proxied[0]


async def back(client: Client) -> None:
    if client.outage.forced:
        client.outage.force(False)
    async with asyncio.timeout(30):
        while client.outage.state is not State.HEALTHY or client.outage.figures.waiting:
            await asyncio.sleep(0.01)


async def history(client: Client, topic: str = "t") -> list[object]:
    stored = await client.execute(
        "XRANGE", client.workspace("acme").keys.key("topic", "events", topic), "-", "+"
    )
    entries = cast("list[tuple[bytes, list[bytes]]]", stored)
    return [int(dict(zip(fields[::2], fields[1::2], strict=True))[b"d"]) for _, fields in entries]


async def test_events_published_while_the_store_is_away_follow_in_order(client: Client) -> None:
    topic = client.workspace("acme").topic("t")
    before = await topic.publish(0)
    client.outage.force(True)
    kept = [await topic.publish(number) for number in range(1, 20)]
    assert set(kept) == {Position("", 0)}
    client.outage.force(False)
    last = 20
    while client.outage.state is not State.HEALTHY:
        await topic.publish(last)
        last += 1
        await asyncio.sleep(0.01)
    await back(client)
    assert await history(client) == list(range(last))
    after = await topic.publish(last)
    assert (after.epoch, after.offset) == (before.epoch, last + 1)


async def test_who_listens_hears_them_when_the_store_is_back(client: Client) -> None:
    topic = client.workspace("acme").topic("t")
    position = await topic.publish(0)
    heard: list[bytes] = []

    async def listen() -> None:
        async for item in topic.listen(after=position):
            assert not isinstance(item, Gap)
            heard.append(bytes(item[1].data))
            if len(heard) == 5:
                return

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(0.1)
    client.outage.force(True)
    for number in range(1, 6):
        await topic.publish(number)
    await back(client)
    await asyncio.wait_for(listening, 30)
    assert heard == [b"1", b"2", b"3", b"4", b"5"]


async def test_an_event_with_an_id_is_published_once(client: Client) -> None:
    topic = client.workspace("acme").topic("t")
    await topic.publish(1, id="one")
    client.outage.force(True)
    await topic.publish(1, id="one")
    await topic.publish(2, id="two")
    await topic.publish(2, id="two")
    await back(client)
    assert await history(client) == [1, 2]


async def test_a_lost_reply_is_sent_again_under_its_id_and_else_told(
    proxied: tuple[Client, FaultProxy],
) -> None:
    client, proxy = proxied
    topic = client.workspace("acme").topic("t")
    await topic.publish(0)
    proxy.blackhole()
    named, nameless = await asyncio.gather(
        topic.publish(1, id="one"), topic.publish(2), return_exceptions=True
    )
    assert named == Position("", 0)
    assert isinstance(nameless, StoreUnavailable)
    assert nameless.outcome == "unknown"
    proxy.up()
    await back(client)
    assert await history(client) == [0, 1]


async def test_a_store_that_came_back_empty_begins_the_topic_anew_and_listeners_see_a_gap(
    client: Client,
) -> None:
    topic = client.workspace("acme").topic("t")
    for number in range(3):
        position = await topic.publish(number)
    client.outage.force(True)
    await topic.publish(3)
    await client.transport.guard.store.execute([("FLUSHALL",)])  # type: ignore[attr-defined]
    await back(client)
    assert await history(client) == [3]
    items = topic.listen(after=position)
    first = await anext(items)
    assert isinstance(first, Gap)
    assert first.position.epoch != position.epoch
    second = await anext(items)
    assert not isinstance(second, Gap)
    assert bytes(second[1].data) == b"3"
    await items.aclose()


async def test_what_is_read_is_the_stores_and_who_listens_is_told_nothing_false(client: Client) -> None:
    ws = client.workspace("acme")
    await ws.state("s").set({"n": 1})
    heard: list[object] = []

    async def listen() -> None:
        async for item in ws.state("s").listen():
            heard.append(item)

    listening = asyncio.ensure_future(listen())
    async with asyncio.timeout(20):
        while not heard:
            await asyncio.sleep(0.01)
    client.outage.force(True)
    with pytest.raises(StoreUnavailable):
        await ws.state("s").get()
    with pytest.raises(StoreUnavailable):
        await ws.presence("p").members()
    with pytest.raises(StoreUnavailable):
        await anext(ws.topic("t").listen())
    await client.service(Feeds)._look()
    await back(client)
    await ws.state("s").set({"n": 2})
    async with asyncio.timeout(20):
        while len(heard) < 2:
            await asyncio.sleep(0.01)
    assert [bytes(item[1].data) for item in heard if isinstance(item, tuple)] == [b'{"n":1}', b'{"n":2}']
    listening.cancel()


async def test_text_and_documents_follow_and_what_asks_for_a_version_is_refused(client: Client) -> None:
    ws = client.workspace("acme")
    await ws.text("t").append("a")
    await ws.state("s").set({"n": 1})
    client.outage.force(True)
    await ws.text("t").append("b")
    await ws.text("t").append("c")
    await ws.state("s").set({"n": 2})
    with pytest.raises(StoreUnavailable):
        await ws.state("s").set({"n": 3}, version=1)
    with pytest.raises(StoreUnavailable):
        await ws.presence("p").join("u1")
    await back(client)
    assert (await ws.state("s").get())[1] == {"n": 2}
    assert await client.get(ws.keys.key("topic-text", "append", "t")) == b"abc"
