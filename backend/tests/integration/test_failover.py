"""The failover transport on real sockets: when it notices, who answers meanwhile, and how it comes back."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import StoreUnavailable
from redis_core.resilience.outage import Change, State
from redis_core.resilience.watchman import FELL_BACK
from redis_core.testing import FaultProxy
from tests.stores import redis7_binary, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    binary = redis7_binary()
    if binary is None:
        pytest.skip("redis-server is not on the PATH")
    with running_server(binary) as path:
        yield path


@pytest.fixture
def proxy(server: str) -> Iterator[FaultProxy]:
    with FaultProxy(server) as proxy:
        yield proxy


def settings_for(url: str, folder: Path, **more: object) -> Settings:
    return Settings(_env_file=None, redis_url=url, journal_path=folder / "journal", **more)  # type: ignore[arg-type, call-arg]


@pytest.fixture
async def client(proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[Client]:
    async with await connect(settings_for(proxy.url, tmp_path)) as client:
        await client.flushdb()
        importlib.import_module("redis_core.transport.memory")  # what an idle second loads
        yield client


async def until(what: Callable[[], bool], seconds: float = 15.0) -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it never came"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def fallbacks(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage() == FELL_BACK for record in caplog.records)


async def test_a_refused_connection_is_an_outage_at_once_and_memory_answers_the_very_call(
    client: Client, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse()
    await asyncio.sleep(0.05)
    began = time.monotonic()
    assert await client.get("k") is None
    assert client.outage.state is State.DEGRADED
    assert time.monotonic() - began < 1.0
    assert client.mode == "degraded"
    assert await client.set("k", "from memory")
    assert await client.get("k") == b"from memory"
    assert client.stats.extra["degraded_commands"] >= 3
    assert fallbacks(caplog) == 1


async def test_a_silent_server_is_noticed(client: Client, proxy: FaultProxy) -> None:
    await client.set("k", "v")
    proxy.stall()
    began = time.monotonic()
    assert await client.get("k") is None
    assert client.outage.state is State.DEGRADED
    assert time.monotonic() - began < 3.0


async def test_a_write_of_unknown_outcome_raises_and_is_not_done_in_memory(
    client: Client, proxy: FaultProxy
) -> None:
    await client.incr("n")
    proxy.blackhole()
    with pytest.raises(StoreUnavailable) as caught:
        await client.incr("n")
    assert caught.value.outcome == "unknown"
    await until(lambda: client.outage.state is State.DEGRADED)
    assert await client.get("n") is None


async def test_the_strict_face_refuses_without_touching_the_socket(client: Client, proxy: FaultProxy) -> None:
    proxy.refuse()
    await client.get("k")
    trips = client.stats.trips
    with pytest.raises(StoreUnavailable) as caught:
        await client.primary.set("k", "v")
    assert caught.value.outcome == "not_sent"
    assert client.stats.trips == trips
    assert client.primary.primary is client.primary
    assert client.primary.outage is client.outage


async def test_it_returns_by_itself_and_forgets_what_memory_was_told(
    client: Client, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "redis_core.outage")
    changes: list[Change] = []
    client.outage.watch(changes.append)
    await client.set("k", "before")
    proxy.refuse()
    await client.get("k")
    await client.set("k", "meanwhile")
    proxy.up()
    await until(lambda: client.outage.state is State.HEALTHY)
    assert await client.get("k") == b"before"
    assert client.mode == "tcp"
    assert fallbacks(caplog) == 1
    assert [record.getMessage() for record in caplog.records].count("Redis is back") == 1
    after = [change.after for change in changes]
    assert after[-3:] == [State.DEGRADED, State.RECOVERING, State.HEALTHY]
    assert not any(change.came_back_empty for change in changes)


async def test_one_lost_connection_is_no_outage(client: Client, proxy: FaultProxy) -> None:
    await client.set("k", "v")
    proxy.reset()
    task = asyncio.ensure_future(client.get("k"))
    await asyncio.sleep(0.002)
    proxy.up()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: client.outage.state is State.HEALTHY)
    assert await client.get("k") == b"v"


async def test_what_was_recorded_is_carried_out_in_order_and_firsts_before_anything_else(
    client: Client, proxy: FaultProxy
) -> None:
    done: list[tuple[str, bytes, bool]] = []

    async def carry_out(records: object) -> None:
        for record in records:  # type: ignore[attr-defined]
            await client.primary.rpush("done", record.payload)
            done.append((record.kind, record.payload, client.outage.available))

    client.outage.replayer("job", carry_out)
    client.outage.replayer("invalidation", carry_out, first=True)
    proxy.refuse()
    await client.get("k")
    for number in range(3):
        await client.outage.record("job", "queue:a", b"job %d" % number)
    await client.outage.record("invalidation", "cache:a", b"invalidation")
    assert client.outage.waiting("queue:a")
    assert not client.outage.waiting("queue:b")
    proxy.up()
    await until(lambda: client.outage.state is State.HEALTHY)
    assert done == [
        ("invalidation", b"invalidation", False),
        ("job", b"job 0", True),
        ("job", b"job 1", True),
        ("job", b"job 2", True),
    ]
    assert await client.lrange("done", 0, -1) == [b"invalidation", b"job 0", b"job 1", b"job 2"]
    assert not client.outage.waiting("queue:a")


async def test_a_record_that_cannot_be_carried_out_does_not_hold_up_the_others(
    client: Client, proxy: FaultProxy
) -> None:
    done: list[bytes] = []

    async def carry_out(records: object) -> None:
        for record in records:  # type: ignore[attr-defined]
            if record.payload == b"bad":
                raise ValueError("not ours")
            if record.payload not in done:
                done.append(record.payload)

    client.outage.replayer("job", carry_out)
    proxy.refuse()
    await client.get("k")
    for payload in (b"one", b"bad", b"two"):
        await client.outage.record("job", "queue:a", payload)
    proxy.up()
    await until(lambda: client.outage.state is State.HEALTHY)
    assert done == [b"one", b"two"]
    assert client.outage.figures.quarantined == 1
    assert client.outage.figures.replayed_total == 2


async def test_mock_mode_is_an_outage_that_ends_when_an_operator_says_so(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await client.set("k", "store")
    client.outage.force(True)
    assert client.mode == "degraded"
    await client.set("k", "memory")
    await asyncio.sleep(0.5)
    assert client.outage.state is State.DEGRADED
    client.outage.force(False)
    await until(lambda: client.outage.state is State.HEALTHY)
    assert await client.get("k") == b"store"
    assert fallbacks(caplog) == 0


async def test_a_rejected_password_is_an_alarm_and_no_outage(
    server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from redis_core.errors import CredentialsRejected

    with FaultProxy(server) as proxy:
        url = proxy.url.replace("redis://", "redis://someone:wrong@")
        async with await connect(settings_for(url, tmp_path)) as client:
            for _ in range(5):
                with pytest.raises(CredentialsRejected):
                    await client.get("k")
            assert client.outage.state is State.HEALTHY
            assert client.outage.figures.credentials_rejected
    alarms = [r for r in caplog.records if r.getMessage() == "the store rejects our credentials"]
    assert len(alarms) == 1
    assert fallbacks(caplog) == 0


async def test_a_store_that_takes_no_writes_goes_on_being_read(
    client: Client, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    from redis_core.errors import StoreReadOnly

    await client.set("k", "v")
    await client.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreReadOnly):
            await client.set("k", "w")
        assert await client.get("k") == b"v"
        assert client.outage.read_only
        assert client.outage.state is State.HEALTHY
        assert client.outage.available
    finally:
        await client.execute("CONFIG", "SET", "maxmemory", "0")


async def test_a_store_that_comes_back_empty_is_noticed(tmp_path: Path) -> None:
    binary = redis7_binary()
    assert binary is not None
    changes: list[Change] = []
    with running_server(binary) as first, FaultProxy(first) as proxy:
        async with await connect(settings_for(proxy.url, tmp_path)) as client:
            client.outage.watch(changes.append)
            await client.set("k", "v")
            await until(lambda: client.outage._probe.knows_store)  # type: ignore[attr-defined]
            proxy.refuse()
            await client.get("k")
            settings = settings_for(f"unix://{first}", tmp_path, redis_failover=False)
            async with await connect(settings) as direct:
                await direct.flushdb()
            proxy.up()
            await until(lambda: client.outage.state is State.HEALTHY)
    lost = [change for change in changes if change.came_back_empty]
    assert [change.after for change in lost] == [State.RECOVERING]


async def test_a_subscription_outlasts_an_outage_and_hears_memory_meanwhile(
    client: Client, proxy: FaultProxy
) -> None:
    heard: list[bytes] = []
    async with await client.subscribe("news") as news:

        async def listen() -> None:
            async for message in news:
                heard.append(b"gap" if message.gap else message.payload)

        listening = asyncio.create_task(listen())
        await client.publish("news", "one")
        await until(lambda: heard == [b"one"])
        proxy.refuse()
        await client.get("k")
        await until(lambda: client.outage.state is State.DEGRADED)
        await asyncio.sleep(0.05)
        await client.publish("news", "two")
        await until(lambda: b"two" in heard)
        proxy.up()
        await until(lambda: client.outage.state is State.HEALTHY)
        await until(lambda: b"gap" in heard)
        await client.publish("news", "three")
        await until(lambda: b"three" in heard)
        listening.cancel()
