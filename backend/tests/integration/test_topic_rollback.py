"""A store that comes back without its last writes: who had them is told of a gap, and what is published later is not taken for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import StoreError
from redis_core.pubsub import Gap, Position
from redis_core.realtime import feed
from tests.server_process import ServerProcess
from tests.stores import valkey_binary

WITHIN = 50.0


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    settings = Settings(_env_file=None, redis_url=url, redis_failover=False)  # type: ignore[call-arg]
    async with await connect(settings) as client:
        yield client


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not holds():
            await asyncio.sleep(0.02)


async def surely(publish: Callable[[], Any]) -> Position:
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                found: Position = await publish()
            except StoreError:
                await asyncio.sleep(0.05)
            else:
                return found


async def heard(topic: Any, after: Position | None, into: list[Any]) -> None:
    async for item in topic.listen(after=after):
        into.append("gap" if isinstance(item, Gap) else item[1].value)


async def back_to_the_last_snapshot(server: ServerProcess) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_CHECK", 0.2)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("publisher", ["the same", "another"])
async def test_who_listened_and_who_was_away_are_told_of_a_gap(publisher: str) -> None:
    with ServerProcess(valkey_binary()) as server:
        async with opened(server.url) as ours, opened(server.url) as theirs:
            workspace = ours.workspace("acme")
            events, page, text = workspace.topic("t"), workspace.state("t"), workspace.text("t")
            for number in range(1, 9):
                await events.publish(number)
            await page.set({"a": 1})
            await text.append("kept ")
            await ours.execute("SAVE")
            live: list[Any] = []
            listening = asyncio.create_task(heard(events, await events.publish(9), live))
            away = await events.publish(10)
            await until(lambda: live == [10])
            seen = await page.patch({"lost": 1})
            read = await text.append("lost")
            await back_to_the_last_snapshot(server)
            # As many as were lost, and more: offsets alone would not tell.
            by = (ours if publisher == "the same" else theirs).workspace("acme")
            if publisher == "another":
                # The listener's process notices first: it looks as soon as the store is there.
                await until(lambda: live[1:2] == ["gap"])
            for event in ("9'", "10'", "11'"):
                await surely(partial(by.topic("t").publish, event))
            await surely(lambda: by.state("t").set({"a": 2}))
            await surely(lambda: by.state("t").patch({"b": 2}))
            await surely(lambda: by.text("t").append("then more"))
            await until(lambda: live[-3:] == ["9'", "10'", "11'"])
            assert live[:2] == [10, "gap"]
            again: list[Any] = []
            pages: list[Any] = []
            texts: list[Any] = []
            tasks = [
                listening,
                asyncio.create_task(heard(events, away, again)),
                asyncio.create_task(heard(page, seen, pages)),
                asyncio.create_task(heard(text, read, texts)),
            ]
            await until(lambda: bool(again and again[-1] == "11'" and pages and texts))
            assert again[0] == "gap"
            assert again[-3:] == ["9'", "10'", "11'"]
            assert [one for one in pages if one != "gap"] == [{"a": 2, "b": 2}]
            assert [one for one in texts if one != "gap"] == [{"from": 0, "text": "kept then more"}]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_a_store_that_lost_nothing_goes_on_in_the_same_epoch() -> None:
    with ServerProcess(valkey_binary()) as server:
        async with opened(server.url) as client:
            topic = client.workspace("acme").topic("t")
            before = await topic.publish(1)
            await client.execute("SAVE")
            await back_to_the_last_snapshot(server)
            after = await surely(lambda: topic.publish(2))
            assert after == Position(before.epoch, 2)
