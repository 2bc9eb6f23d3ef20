"""What all tests share: servers that are started once a session, and a clean database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from redis_core.client import Client
from redis_core.config import Settings
from redis_core.transport.memory import MockRedisClient
from tests.stores import clean_client, redis7_binary, running_server, valkey_binary


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests must not reach them."""
    for name in (*Settings.model_fields, "UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("RAPTORFLOW_ENV", "test")


@pytest.fixture(scope="session")
def valkey_socket() -> Iterator[str]:
    """The socket of a Valkey 9 that runs for the whole session."""
    with running_server(valkey_binary()) as path:
        yield path


@pytest.fixture(scope="session")
def redis7_socket() -> Iterator[str]:
    """The socket of a redis-server 7.0 that runs for the whole session."""
    binary = redis7_binary()
    if binary is None:
        pytest.skip("redis-server is not on the PATH")
    with running_server(binary) as path:
        yield path


@pytest.fixture
async def valkey(valkey_socket: str) -> AsyncIterator[Client]:
    """A client of Valkey 9, its database empty."""
    async with await clean_client(valkey_socket) as client:
        yield client


@pytest.fixture
async def redis7(redis7_socket: str) -> AsyncIterator[Client]:
    """A client of redis-server 7.0, its database empty."""
    async with await clean_client(redis7_socket) as client:
        yield client


@pytest.fixture
async def memory() -> AsyncIterator[Client]:
    """A client of a memory store of its own."""
    async with Client(MockRedisClient()) as client:
        yield client
