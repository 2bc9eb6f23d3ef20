"""The tools that are shipped for others' tests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import redis_core
from redis_core.client import Client, connect
from redis_core.errors import StoreUnavailable
from redis_core.testing import FakeClock, FaultProxy
from redis_core.testing.contract import TransportContract
from redis_core.testing.fixtures import fake_clock, fault_proxy, memory_redis  # noqa: F401 - fixtures
from redis_core.transport.base import Transport
from redis_core.transport.memory import MockRedisClient
from tests.contract.rest import rest_client, running_gateway
from tests.stores import clean_client


class TestMemory(TransportContract):
    @pytest.fixture
    async def transport(self) -> AsyncIterator[Transport]:
        transport = MockRedisClient()
        yield transport
        await transport.aclose()


class TestTcp(TransportContract):
    @pytest.fixture
    async def transport(self, valkey_socket: str) -> AsyncIterator[Transport]:
        async with await clean_client(valkey_socket) as client:
            yield client.primary.transport


class TestRest(TransportContract):
    @pytest.fixture
    async def transport(self, valkey_socket: str) -> AsyncIterator[Transport]:
        with running_gateway(valkey_socket) as url:
            async with await rest_client(url) as client:
                yield client.transport


async def test_a_clock_that_nobody_moves_stands_still() -> None:
    clock = FakeClock(now=100)
    assert (clock.now(), clock.now()) == (100, 100)
    sleeper = asyncio.create_task(clock.sleep(5))
    await clock.elapse(4.9)
    assert not sleeper.done()
    assert clock.sleepers == 1
    await clock.elapse(0.2)
    assert sleeper.done()
    assert clock.now() == pytest.approx(105.1)


async def test_sleepers_wake_in_the_order_of_their_times_and_see_theirs() -> None:
    clock = FakeClock()
    began = clock.monotonic()
    woken: list[tuple[str, float]] = []

    async def tick(name: str, every: float) -> None:
        while True:
            await clock.sleep(every)
            woken.append((name, round(clock.monotonic() - began, 3)))

    tasks = [asyncio.create_task(tick("a", 2)), asyncio.create_task(tick("b", 3))]
    await clock.elapse(6.5)
    assert woken == [("a", 2), ("b", 3), ("a", 4), ("b", 6), ("a", 6)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert clock.sleepers == 0


async def test_a_correction_moves_wall_time_alone() -> None:
    clock = FakeClock(now=100)
    before = clock.monotonic()
    clock.set_back(40)
    assert (clock.now(), clock.monotonic()) == (60, before)
    await clock.sleep(0)


async def test_keys_expire_by_the_tests_clock(memory_redis: Client, fake_clock: FakeClock) -> None:  # noqa: F811
    await memory_redis.set("key", "value", ex=60)
    fake_clock.advance(59)
    assert await memory_redis.get("key") == b"value"
    fake_clock.advance(2)
    assert await memory_redis.get("key") is None


async def test_the_proxy_of_the_fixture_breaks_the_link(
    valkey_socket: str,
    fault_proxy: Callable[[tuple[str, int] | str], FaultProxy],  # noqa: F811
) -> None:
    proxy = fault_proxy(valkey_socket)
    async with await connect(redis_url=proxy.url, redis_command_timeout=0.3) as whole:
        client = whole.primary
        assert await client.ping()
        for fault in (proxy.refuse, proxy.reset, proxy.stall, proxy.blackhole, proxy.half_reply):
            fault()
            with pytest.raises(StoreUnavailable):
                await client.incr("n")
            proxy.up()
            for _ in range(100):
                try:
                    assert await client.ping()
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            else:
                pytest.fail("it did not come back")


async def test_the_first_program_of_the_guide_runs(memory_redis: Client, fake_clock: FakeClock) -> None:  # noqa: F811
    guide = Path(redis_core.__file__).parents[2] / "docs" / "testing.md"
    program = re.findall(r"```python\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(compile(program, "testing.md", "exec", dont_inherit=True), names)
    await names["test_the_plan_is_forgotten_after_a_minute"](memory_redis, fake_clock)
