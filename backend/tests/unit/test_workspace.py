"""The handle of a tenant."""

from __future__ import annotations

import gc
import weakref

import pytest

from redis_core.client import Client
from redis_core.errors import InvalidKey
from redis_core.keys import WorkspaceKeys
from redis_core.transport.memory import MockRedisClient
from redis_core.workspace import Workspace

_HOSTILE = [
    "", " ", "acme ", "acme\n", "a:b", "a{b}", "*", "ac?me", "ac[m]e", "-acme", "acme-", "_acme", "..", "a/b", "a\x00b",
    "é", "a" * 65, "acme\u200b",
]  # fmt: skip


def test_it_knows_its_id_and_makes_its_keys(memory: Client) -> None:
    acme = memory.workspace("acme")
    assert acme.id == "acme"
    assert isinstance(acme.keys, WorkspaceKeys)
    assert acme.keys.key("app", "a") == "ws:{acme}:app:a"
    assert acme.client is memory


def test_a_client_has_one_handle_a_workspace(memory: Client) -> None:
    assert memory.workspace("acme") is memory.workspace("acme")
    assert memory.workspace("acme") is not memory.workspace("globex")


def test_services_of_a_handle_are_made_once(memory: Client) -> None:
    acme = memory.workspace("acme")
    assert acme.cache is acme.cache
    assert acme.cache is not memory.workspace("globex").cache


@pytest.mark.parametrize("workspace", _HOSTILE, ids=ascii)
def test_a_hostile_id_makes_no_handle_and_sends_nothing(workspace: str, memory: Client) -> None:
    with pytest.raises(InvalidKey):
        memory.workspace(workspace)
    with pytest.raises(InvalidKey):
        Workspace(memory, workspace)
    assert memory.stats.commands == 0


async def test_handles_are_not_kept_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_core.client._KEPT_HANDLES", 10)
    async with Client(MockRedisClient()) as client:
        first = weakref.ref(client.workspace("w0"))
        for number in range(1, 100):
            client.workspace(f"w{number}")
            assert len(client._workspaces) <= 10
        gc.collect()
        assert first() is None
        assert client.workspace("w0").id == "w0"


async def test_one_tenants_handle_reaches_no_key_of_another(memory: Client) -> None:
    acme, globex = memory.workspace("acme"), memory.workspace("globex")
    await acme.client.set(acme.keys.key("app", "plan"), "gold")
    assert await globex.client.get(globex.keys.key("app", "plan")) is None
    assert acme.keys.owns(acme.keys.key("app", "plan"))
    assert not globex.keys.owns(acme.keys.key("app", "plan"))


def test_it_shows_its_id(memory: Client) -> None:
    assert repr(memory.workspace("acme")) == "Workspace('acme')"
