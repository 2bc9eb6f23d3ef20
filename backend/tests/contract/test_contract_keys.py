"""Keys, their expiry and their names, on every store."""

from __future__ import annotations

import asyncio
import time

import pytest

from redis_core.client import Client
from redis_core.commands import scan_iter
from redis_core.errors import CommandError


async def until_gone(client: Client, key: str) -> None:
    """Wait for a key to expire, within the test's own time limit."""
    while await client.exists(key):
        await asyncio.sleep(0.01)


async def test_delete_tells_how_many_keys_there_were(client: Client) -> None:
    await client.mset({"a": 1, "b": 2})
    assert await client.delete("a", "b", "missing") == 2
    assert await client.delete("a") == 0


async def test_unlink_tells_how_many_keys_there_were(client: Client) -> None:
    await client.mset({"a": 1, "b": 2})
    assert await client.unlink("a", "missing") == 1
    assert await client.get("a") is None


async def test_exists_counts_a_repeated_key_each_time(client: Client) -> None:
    await client.set("a", 1)
    assert await client.exists("a", "a", "missing") == 2


@pytest.mark.parametrize("command", ["expire", "pexpire", "expireat"])
async def test_expiry_of_a_missing_key_is_not_set(client: Client, command: str) -> None:
    assert await getattr(client, command)("missing", 4_000_000_000) is False
    assert await client.exists("missing") == 0


async def test_expire_sets_the_seconds_that_ttl_shows(client: Client) -> None:
    await client.set("a", 1)
    assert await client.expire("a", 100) is True
    assert 98 <= await client.ttl("a") <= 100


async def test_pexpire_sets_the_milliseconds_that_pttl_shows(client: Client) -> None:
    await client.set("a", 1)
    assert await client.pexpire("a", 100_000) is True
    assert 90_000 < await client.pttl("a") <= 100_000


async def test_expireat_sets_the_time_that_ttl_counts_down_to(client: Client) -> None:
    await client.set("a", 1)
    assert await client.expireat("a", int(time.time()) + 100) is True
    assert 97 <= await client.ttl("a") <= 101


@pytest.mark.parametrize("seconds", [0, -1])
async def test_expiry_that_has_passed_removes_the_key_at_once(client: Client, seconds: int) -> None:
    await client.set("a", 1)
    assert await client.expire("a", seconds) is True
    assert await client.exists("a") == 0


async def test_ttl_tells_a_key_without_expiry_from_no_key(client: Client) -> None:
    await client.set("a", 1)
    assert (await client.ttl("a"), await client.pttl("a")) == (-1, -1)
    assert (await client.ttl("missing"), await client.pttl("missing")) == (-2, -2)


async def test_persist_takes_the_expiry_away(client: Client) -> None:
    await client.set("a", 1, ex=100)
    assert await client.persist("a") is True
    assert await client.persist("a") is False
    assert await client.ttl("a") == -1


async def test_a_key_is_gone_when_its_time_is_over(client: Client) -> None:
    await client.set("a", 1, px=30)
    await until_gone(client, "a")
    assert await client.get("a") is None
    assert await client.ttl("a") == -2
    assert await client.dbsize() == 0


async def test_collections_expire_like_strings(client: Client) -> None:
    await client.hset("h", {"f": 1})
    await client.zadd("z", {"m": 1})
    await client.rpush("l", 1)
    for key in ("h", "z", "l"):
        assert await client.pexpire(key, 30)
    for key in ("h", "z", "l"):
        await until_gone(client, key)
    assert await client.hset("h", {"g": 1}) == 1
    assert await client.hgetall("h") == {b"g": b"1"}


async def test_writing_into_a_collection_keeps_its_expiry_and_set_drops_it(client: Client) -> None:
    await client.hset("h", {"f": 1})
    await client.expire("h", 100)
    await client.hset("h", {"g": 1})
    assert await client.ttl("h") > 0
    await client.set("h", "text")
    assert await client.ttl("h") == -1


@pytest.mark.parametrize("condition", ["NX", "XX", "GT", "LT"])
async def test_expire_takes_conditions(client: Client, condition: str) -> None:
    await client.set("without", 1)
    await client.set("with", 1, ex=100)
    replies = [await client.execute("EXPIRE", key, 50, condition) for key in ("without", "with")]
    assert replies == {"NX": [1, 0], "XX": [0, 1], "GT": [0, 0], "LT": [1, 1]}[condition]


async def test_type_names_what_a_key_holds(client: Client) -> None:
    await client.set("string", 1)
    await client.hset("hash", {"f": 1})
    await client.rpush("list", 1)
    await client.sadd("set", 1)
    await client.zadd("zset", {"m": 1})
    await client.xadd("stream", {"f": 1})
    kinds = ["string", "hash", "list", "set", "zset", "stream"]
    assert [await client.type(kind) for kind in kinds] == kinds
    assert await client.type("missing") == "none"


async def test_rename_moves_value_and_expiry_over_what_is_there(client: Client) -> None:
    await client.set("a", "new", ex=100)
    await client.set("b", "old")
    assert await client.rename("a", "b") is True
    assert (await client.get("a"), await client.get("b")) == (None, b"new")
    assert await client.ttl("b") > 0


async def test_rename_of_a_missing_key_is_an_error(client: Client) -> None:
    with pytest.raises(CommandError, match="no such key"):
        await client.rename("missing", "b")


async def test_scan_finds_every_key_once_or_more(client: Client) -> None:
    keys = {f"k:{number}".encode() for number in range(300)}
    await client.mset({key.decode(): 1 for key in keys})
    assert {key async for key in scan_iter(client, "k:*", count=50)} == keys


async def test_scan_keeps_to_pattern_and_type(client: Client) -> None:
    await client.mset({"a:1": 1, "a:2": 1, "b:1": 1, "a[1]": 1})
    await client.hset("a:h", {"f": 1})
    assert {key async for key in scan_iter(client, "a:?")} == {b"a:1", b"a:2", b"a:h"}
    assert {key async for key in scan_iter(client, r"a\[1\]")} == {b"a[1]"}
    cursor, keys = await client.scan(0, match="a:*", count=1000, type="hash")
    assert (cursor, keys) == (b"0", [b"a:h"])


async def test_scan_of_an_empty_store_ends_at_once(client: Client) -> None:
    assert await client.scan() == (b"0", [])


async def test_flushdb_removes_everything(client: Client) -> None:
    await client.mset({"a": 1, "b": 2})
    assert await client.dbsize() == 2
    assert await client.flushdb() is True
    assert await client.dbsize() == 0
