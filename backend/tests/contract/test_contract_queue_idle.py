"""What an idle worker costs, with all that runs beside it: failover's watch over the store and the flushing of metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from redis_core.client import Client, connect
from redis_core.measuring import recorder
from redis_core.metrics import Metrics
from redis_core.queue import task
from redis_core.queueing import doorbell, station
from redis_core.resilience import watchman
from redis_core.transport.base import Command, Reply
from redis_core.transport.failover import FailoverTransport
from redis_core.worker import Worker
from tests.store_users import user_url

WITHIN = 20.0
A_TURN = 10
"""Commands of the turn that an idle worker takes whatever it has heard: PING, itself, and 8 inside of it."""


@task(name="nothing")
async def nothing() -> None: ...


@pytest.fixture
async def watched(client: Client, store: tuple[str, str]) -> AsyncIterator[Client]:
    """A client with failover, which keeps watch over its store."""
    if client.mode != "tcp":
        yield client
        return
    url = user_url("worker", store[1])
    async with await connect(redis_url=url, redis_command_timeout=20, redis_connect_timeout=20) as opened:
        yield opened


def sent_by(client: Client) -> Counter[str]:
    """What a client sends from now on, by the command's name."""
    sent: Counter[str] = Counter()
    store = getattr(client.transport, "store", client.transport)
    execute = store.execute

    async def counted(batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        sent.update(str(command[0]) for command in batch)
        replies: list[Reply] = await execute(batch, timeout=timeout)
        return replies

    store.execute = counted  # type: ignore[method-assign]
    if isinstance(client.transport, FailoverTransport):
        client.transport._send = counted
    return sent


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not what():
            await asyncio.sleep(0.01)


def test_the_looks_of_an_idle_worker_are_less_than_two_commands_a_minute() -> None:
    # A link that was silent for long is asked with a PING first.
    looks, waits, turns = 2 * 60 / station._LOOK_EVERY, 60 / doorbell._BLOCK, 60 / station._TURN_EVERY
    assert looks + waits + A_TURN * turns <= 2


async def test_an_idle_worker_only_looks_and_waits(watched: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client = watched
    if client.mode == "memory":
        pytest.skip("no command of memory is paid for")
    sent = sent_by(client)
    # Two minutes pass in a tenth of a second, and what runs beside the worker has every opportunity.
    monkeypatch.setattr(station, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(station, "_IGNORE_AFTER", 0.02)
    monkeypatch.setattr(doorbell, "_BLOCK", 0.25)
    monkeypatch.setattr(watchman, "_TICK", 0.01)
    monkeypatch.setattr(recorder, "FLUSH_EVERY", 0.02)
    client.service(Metrics).start()
    worker = Worker(client, [nothing])
    working = asyncio.create_task(worker.run())
    job = await client.workspace("acme").queue.enqueue(nothing)
    await job.result(WITHIN)

    if client.mode == "tcp":
        # The first connection has led to a look at which store it is.
        await until(lambda: bool(sent["GET"]))

    # The job is told to the metrics, and its lease is given up.
    async def at_rest() -> None:
        while True:
            before, sent["EXISTS"] = sent.copy(), 0
            await until(lambda: sent["EXISTS"] >= 3)
            if set(sent - before) <= {"EXISTS", "BLPOP"}:
                return

    await asyncio.wait_for(at_rest(), WITHIN)
    sent.clear()
    await until(lambda: sent["EXISTS"] >= 8)
    assert set(sent) <= {"EXISTS", "BLPOP"}
    worker.stop()
    await working
