from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.store_info import StoreIdentity, identity_of, memory_of, server_figures_of


@pytest.mark.parametrize(
    ("info", "identity"),
    [
        (
            {"redis_version": "7.2.4", "valkey_version": "9.1.2", "server_name": "valkey", "role": "master"},
            StoreIdentity("valkey", "9.1.2", "master"),
        ),
        ({"redis_version": "7.0.15", "role": "slave"}, StoreIdentity("redis", "7.0.15", "replica")),
        (
            {"upstash_version": "1.19.2", "redis_version": "8.2.0"},
            StoreIdentity("upstash", "1.19.2", None),
        ),
        ({}, StoreIdentity("redis", None, None)),
    ],
)
def test_a_server_is_known_by_its_own_name_and_version(info: dict[str, str], identity: StoreIdentity) -> None:
    assert identity_of(info) == identity


def test_what_a_store_does_not_tell_is_none_and_not_nought() -> None:
    figures = server_figures_of({"connected_clients": "3", "keyspace_hits": "-", "uptime_in_seconds": ""})
    assert figures.connected_clients == 3
    assert figures.keyspace_hits_total is None
    assert figures.uptime_seconds is None
    assert figures.hit_ratio is None
    assert memory_of({"mem_fragmentation_ratio": "n/a"}).fragmentation_ratio is None


def test_the_hit_ratio_is_of_all_look_ups() -> None:
    assert server_figures_of({"keyspace_hits": "3", "keyspace_misses": "1"}).hit_ratio == 0.75


async def test_a_real_server_tells_all_of_it(valkey: Client) -> None:
    info = await valkey.info()
    await valkey.get("nothing")
    figures = server_figures_of(await valkey.info())
    assert identity_of(info).server == "valkey"
    assert None not in [getattr(figures, name) for name in figures.__struct_fields__]
    memory = memory_of(info)
    assert None not in [getattr(memory, name) for name in memory.__struct_fields__]
