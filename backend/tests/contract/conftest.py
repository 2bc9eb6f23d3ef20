"""The stores that every test of this folder runs on, unchanged. A test asks for `client` and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from redis_core.acl import role_user
from redis_core.client import Client
from redis_core.transport.memory import MockRedisClient
from tests.contract.rest import rest_client, running_gateway
from tests.store_users import any_key, clean_client_as
from tests.stores import clean_client
from tests.two_tenants import Tenants

STORES = ("memory", "valkey9", "redis7", "rest")


USERS = {
    "test_contract_cache": role_user("app"),
    "test_contract_locks": role_user("app"),
    "test_contract_topics": role_user("app"),
    "test_contract_queue": role_user("worker"),
    "test_contract_queue_again": role_user("worker"),
    "test_contract_queue_threads": role_user("worker"),
    "test_contract_job_topics": role_user("worker"),
    "test_contract_usage": role_user("worker"),
    "test_contract_presence": role_user("app"),
    "test_contract_key_families": role_user("worker"),
    "test_contract_isolation": role_user("worker"),
    "test_contract_isolation_beyond": role_user("worker"),
    "test_contract_isolation_operators": role_user("admin"),
    "test_contract_portability": role_user("admin"),
    "test_contract_queue_idle": role_user("worker"),
    "test_contract_messages": any_key("app"),
    "test_contract_strings": any_key("app"),
    "test_contract_collections": any_key("app"),
    "test_contract_keys": any_key("app"),
    "test_contract_batches": any_key("app"),
    "test_contract_concurrency": any_key("app"),
}
"""Who the tests of a file are on real servers. The others (bytes, random commands, keys of every fault) are the operator, who may send what no role does;
a worker where jobs have to run, an admin for what only operators do."""


@pytest.fixture(scope="session")
def gateway_url(valkey_socket: str) -> Iterator[str]:
    """A gateway in front of Valkey 9 that runs for the whole session."""
    with running_gateway(valkey_socket) as url:
        yield url


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The name of a store and where it is: its server's socket, or its URL."""
    places = {"memory": None, "valkey9": "valkey_socket", "redis7": "redis7_socket", "rest": "gateway_url"}
    place = places[request.param]
    return request.param, "" if place is None else request.getfixturevalue(place)


@pytest.fixture
async def client(store: tuple[str, str], request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of an empty store."""
    name, place = store
    user = USERS.get(request.module.__name__.rpartition(".")[2])
    if name == "memory":
        opened = Client(MockRedisClient())
    elif name == "rest":
        opened = await rest_client(place)
        await opened.flushdb()
        await opened.execute("SCRIPT", "FLUSH")
    elif user is not None:
        opened = await clean_client_as(user, place)
    else:
        opened = await clean_client(place)
    async with opened:
        yield opened


@pytest.fixture
async def tenants(client: Client) -> AsyncIterator[Tenants]:
    """Two tenants, one of whom has one of everything."""
    both = Tenants(client)
    await both.settle()
    yield both
    await both.leave()
