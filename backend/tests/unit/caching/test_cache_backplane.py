"""The backplane as a stream: nothing that was announced goes unheard, and what may have gone unheard is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from redis_core.caching import backplane
from redis_core.caching.backplane import LEASE, Change, StreamBackplane
from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK
from redis_core.errors import StoreUnavailable
from redis_core.keys import CACHE_BUS


class Process:
    """Its backplane, and what it heard."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: list[Change] = []
        self.forgot = 0
        self.backplane = StreamBackplane(client, self.heard.append, self._forget, SYSTEM_CLOCK)
        self.task: asyncio.Task[None] | None = None

    def _forget(self) -> None:
        self.forgot += 1

    async def start(self) -> None:
        self.task = asyncio.create_task(self.backplane.run())
        async with asyncio.timeout(5):
            while not self.live:
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    @property
    def live(self) -> bool:
        return SYSTEM_CLOCK.monotonic() < self.backplane.live_until

    async def tell(self, key: str) -> None:
        change = Change(self.backplane.origin, "acme", "profile", (key,))
        await self.client.execute(*self.backplane.announce(change))

    async def hears(self, *keys: str) -> None:
        async with asyncio.timeout(5):
            while [change.keys[0] for change in self.heard] != list(keys):
                await asyncio.sleep(0.005)


@pytest.fixture
async def process(valkey: Client) -> AsyncIterator[Process]:
    made = Process(valkey)
    yield made
    await made.stop()


@pytest.fixture
async def other(valkey: Client) -> Process:
    return Process(valkey)


async def test_what_others_announce_is_heard_in_order_and_ones_own_is_not(
    process: Process, other: Process
) -> None:
    await other.tell("before it listened")
    await process.start()
    await other.tell("a")
    await process.tell("mine")
    await other.tell("b")
    await process.hears("a", "b")


async def test_what_was_disowned_is_heard_as_well(process: Process, other: Process) -> None:
    await process.start()
    change = Change(process.backplane.origin, "acme", "profile", ("late",))
    process.backplane.disown()
    await other.client.execute(*process.backplane.announce(change))
    await process.hears("late")


async def test_a_message_that_is_not_understood_empties_memory(process: Process, other: Process) -> None:
    await process.start()
    before = process.forgot
    await other.client.xadd(CACHE_BUS, {"m": b"\xc1 of another version"})
    await other.tell("a")
    await process.hears("a")
    assert process.forgot == before + 1


async def test_after_an_outage_it_reads_on_where_it_was(
    process: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process.start()
    await other.tell("a")
    await process.hears("a")
    forgot = process.forgot
    read = process.backplane._read

    async def away(_: str) -> str:
        raise StoreUnavailable("away")

    monkeypatch.setattr(process.backplane, "_read", away)
    for number in range(50):
        await other.tell(str(number))
    await asyncio.sleep(0.01)
    monkeypatch.setattr(process.backplane, "_read", read)
    await process.hears("a", *map(str, range(50)))
    assert process.forgot == forgot, "nothing was missed, so nothing is to be forgotten"


@pytest.mark.parametrize("how", ["trimmed", "gone", "another store"])
async def test_what_cannot_be_replayed_any_more_empties_memory(
    process: Process, other: Process, how: str
) -> None:
    await other.tell("a")
    last = (await other.client.xrevrange(CACHE_BUS, count=1))[0][0].decode()
    if how == "trimmed":
        await other.tell("b")
        await other.tell("c")
        await other.client.execute("XTRIM", CACHE_BUS, "MAXLEN", 1)
    elif how == "gone":
        await other.client.unlink(CACHE_BUS)
    else:
        await other.client.unlink(CACHE_BUS)
        await other.client.execute("XADD", CACHE_BUS, "1-1", "m", "x")
    before = process.forgot
    read_on = await process.backplane._catch_up(last)
    assert process.forgot == before + 1
    assert read_on != last


async def test_more_than_can_be_followed_empties_memory(
    process: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backplane, "_KEPT", 5)
    for number in range(5):
        await other.client.execute("XADD", CACHE_BUS, "*", "m", b"\x80" + str(number).encode())
    before = process.forgot
    await process.backplane._read("0-0")
    assert process.forgot > before
    assert not process.live


async def test_a_sign_of_life_counts_from_when_the_store_gave_it(process: Process) -> None:
    """A process that stood still comes to read it late."""

    class Clock:
        time = 100.0

        def monotonic(self) -> float:
            return self.time

        def now(self) -> float:
            return self.time

        async def sleep(self, seconds: float) -> None:
            raise NotImplementedError

    process.backplane._clock = clock = Clock()
    execute = process.client.transport.execute

    async def slow(batch: Any, *, timeout: float | None = None) -> Any:
        replies = await execute(batch, timeout=timeout)
        clock.time += 60
        return replies

    process.client.transport.execute = slow  # type: ignore[method-assign]
    await process.tell("so that the read need not wait")
    asked = clock.time
    await process.backplane._read("0-0")
    assert process.backplane.live_until == asked + 1 + LEASE
