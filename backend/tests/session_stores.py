"""The stores and write plans that the tests of sessions run on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from redis_core.client import Client
from redis_core.transport.memory import MockRedisClient
from tests.contract.rest import rest_client, running_gateway
from tests.session_world import World
from tests.store_users import clean_client_as

__all__ = ["rest_gateway", "world"]

STORES = {
    "memory": (None, "script"),
    "memory-economy": (None, "economy"),
    "valkey9-app": ("valkey_socket", "script"),
    "redis7-app": ("redis7_socket", "script"),
    "valkey9-app-economy": ("valkey_socket", "economy"),
    "rest": ("rest_gateway", "auto"),
    "rest-script": ("rest_gateway", "script"),
}
"""Where a store is, and the plan: on REST `auto` is the economy plan. On `-app` all is done as the ACL user of that name."""


@pytest.fixture(scope="session")
def rest_gateway(valkey_socket: str) -> Iterator[str]:
    """The URL of a gateway in front of Valkey 9."""
    with running_gateway(valkey_socket) as url:
        yield url


@pytest.fixture(params=STORES)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """An empty store, whichever, and a clock that stands still."""
    place, plan = STORES[request.param]
    if place is None:
        client = Client(MockRedisClient())
    elif place == "rest_gateway":
        client = await rest_client(request.getfixturevalue(place))
        await client.execute("FLUSHDB")
        await client.execute("SCRIPT", "FLUSH")
    else:
        client = await clean_client_as("app", request.getfixturevalue(place))
    async with client:
        yield World(client, plan)
