"""Locks where a stand-in shows more than a real store: Upstash's compare-and-delete, outages, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK
from redis_core.errors import LockLost, LockUnavailable, Outcome, StoreUnavailable
from redis_core.keys import WorkspaceKeys
from redis_core.locking.store import LockStore
from redis_core.locking.token import Token
from redis_core.locks import Lock, LockEngine
from redis_core.resilience.epoch import epoch_micros
from redis_core.testing import FakeClock
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient

KEYS = WorkspaceKeys("acme")


class UpstashInMemory(MockRedisClient):
    """A memory store that calls itself Upstash and knows DELEX."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        super().__init__(clock=clock or SYSTEM_CLOCK)
        self.sent: list[str] = []
        self.away = False

    mode = "upstash"

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        if self.away:
            raise StoreUnavailable("refused", outcome=Outcome.NOT_SENT)
        self.sent += [str(command[0]) for command in batch]
        if batch[0][0] != "DELEX":
            return await super().execute(batch, timeout=timeout)
        _, key, _, expected = batch[0]
        [held] = await super().execute([("GET", key)])
        if held != str(expected).encode():
            return [0]
        return await super().execute([("DEL", key)])


async def test_upstash_gives_back_an_uncontended_lock_in_one_command() -> None:
    transport = UpstashInMemory()
    async with Client(transport) as client:
        async with client.workspace("acme").lock("report"):
            transport.sent.clear()
        assert transport.sent == ["DELEX"]
        assert await client.exists("ws:{acme}:lock:report") == 0


async def test_where_somebody_waits_the_script_tells_them() -> None:
    transport = UpstashInMemory()
    async with Client(transport) as client:
        ws = client.workspace("acme")
        async with ws.lock("report"):
            waiting = asyncio.create_task(ws.lock("report", wait=20).acquire())
            while not await client.zcard("ws:{acme}:lock-line:report"):
                await asyncio.sleep(0.001)
            transport.sent.clear()
        assert transport.sent[:2] == ["DELEX", "EVALSHA"]
        lease = await asyncio.wait_for(waiting, 10)
        await lease.release()


async def test_a_store_that_does_not_know_delex_is_asked_once(memory: Client) -> None:
    store = LockStore(memory)
    store._compares = True
    for _ in range(2):
        token = await store.take(KEYS, "l", "p.1", 5)
        assert isinstance(token, Token)
        await store.leave(KEYS, "l", "p.1", token)
        assert not store._compares


async def passes(clock: FakeClock, seconds: int) -> None:
    """Let time pass in steps, for the client's own retries wait by the real clock."""
    for _ in range(seconds):
        await clock.elapse(1)
        await asyncio.sleep(0.02)


def lock(client: Client, clock: FakeClock) -> Lock:
    return Lock(LockEngine(client, clock), KEYS, "report", ttl=30)


async def test_a_lease_ends_by_this_process_own_clock_while_the_store_is_away() -> None:
    clock = FakeClock()
    transport = UpstashInMemory(clock)
    async with Client(transport) as client:
        lease = await lock(client, clock).acquire()
        transport.away = True
        await clock.elapse(20)
        assert lease.held
        assert not lease.lost.is_set()
        await clock.elapse(9)
        assert lease.lost.is_set(), "before the 30 s of the store are over"
        with pytest.raises(LockLost):
            lease.check()
        with pytest.raises(LockUnavailable):
            await lock(client, clock).acquire()
        transport.away = False
        await lease.release()
        await lease._engine.aclose()


async def test_a_lease_survives_an_outage_that_is_shorter_than_itself() -> None:
    clock = FakeClock()
    transport = UpstashInMemory(clock)
    async with Client(transport) as client:
        lease = await lock(client, clock).acquire()
        transport.away = True
        await passes(clock, 20)
        transport.away = False
        await passes(clock, 60)
        assert lease.held
        await lease.release()
        await lease._engine.aclose()


async def test_the_end_of_a_lost_lease_says_so_and_hides_no_error() -> None:
    clock = FakeClock()
    async with Client(MockRedisClient(clock=clock)) as client:
        with pytest.raises(KeyError):
            async with lock(client, clock) as lease:
                await client.flushdb()
                await clock.elapse(10)
                assert lease.lost.is_set()
                raise KeyError
        await lease._engine.aclose()


@pytest.mark.parametrize(
    ("epoch", "number"),
    [(None, 0), (b"1800000000.5-ab12", 1_800_000_000_500_000), (b"17", 17), (b"nonsense", 0), (b"x-y", 0)],
)
def test_the_stores_epoch_is_read_as_microseconds(epoch: bytes | None, number: int) -> None:
    assert epoch_micros(epoch) == number


def test_tokens_compare_by_epoch_first() -> None:
    assert Token(2, 1) > Token(1, 9) > Token(1, 8)
    assert Token.from_text(str(Token(5, 7))) == Token(5, 7)
