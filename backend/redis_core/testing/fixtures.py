"""Fixtures for tests of applications: `pytest_plugins = ["redis_core.testing.fixtures"]`. Needs pytest and pytest-asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio

from redis_core.client import Client
from redis_core.testing.fake_clock import FakeClock
from redis_core.testing.fault_proxy import FaultProxy
from redis_core.transport.memory import MockRedisClient

__all__ = ["fake_clock", "fault_proxy", "memory_redis"]


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands still until the test moves it."""
    return FakeClock()


@pytest_asyncio.fixture
async def memory_redis(fake_clock: FakeClock) -> AsyncIterator[Client]:
    """A client of an empty memory store of its own; its keys expire by `fake_clock`."""
    async with Client(MockRedisClient(clock=fake_clock)) as client:
        yield client


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[tuple[str, int] | str], FaultProxy]]:
    """Makes proxies in front of a store, given its host and port or its unix socket; they end with the test."""
    with ExitStack() as stack:
        yield lambda upstream: stack.enter_context(FaultProxy(upstream))
