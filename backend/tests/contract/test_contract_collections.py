"""Hashes, lists, sets and sorted sets, on every store."""

from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError, WrongType

# --- hashes ---


async def test_hset_counts_new_fields_and_hget_reads_them(client: Client) -> None:
    assert await client.hset("h", {"a": 1, "b": "two"}) == 2
    assert await client.hset("h", {"b": 2, "c": 3.5}) == 1
    assert await client.hget("h", "b") == b"2"
    assert await client.hget("h", "missing") is None
    assert await client.hget("missing", "a") is None
    assert await client.hgetall("h") == {b"a": b"1", b"b": b"2", b"c": b"3.5"}
    assert await client.hgetall("missing") == {}


async def test_hsetnx_leaves_what_is_there(client: Client) -> None:
    assert await client.hsetnx("h", "a", 1) is True
    assert await client.hsetnx("h", "a", 2) is False
    assert await client.hget("h", "a") == b"1"


async def test_hmget_keeps_the_order_asked_for(client: Client) -> None:
    await client.hset("h", {"a": 1, "b": 2})
    assert await client.hmget("h", "b", "missing", "a") == [b"2", None, b"1"]
    assert await client.hmget("missing", "a") == [None]


async def test_a_hash_without_fields_is_no_key(client: Client) -> None:
    await client.hset("h", {"a": 1, "b": 2})
    assert await client.hdel("h", "a", "missing") == 1
    assert await client.hdel("h", "b") == 1
    assert await client.exists("h") == 0


async def test_hexists_hlen_and_hkeys(client: Client) -> None:
    await client.hset("h", {"a": 1, "b": 2})
    assert (await client.hexists("h", "a"), await client.hexists("h", "x")) == (True, False)
    assert (await client.hlen("h"), await client.hlen("missing")) == (2, 0)
    assert sorted(await client.hkeys("h")) == [b"a", b"b"]


async def test_hincrby_and_hincrbyfloat(client: Client) -> None:
    assert await client.hincrby("h", "n") == 1
    assert await client.hincrby("h", "n", -5) == -4
    assert await client.hincrbyfloat("h", "f", 0.5) == 0.5
    assert await client.hincrbyfloat("h", "f", 1.25) == 1.75
    await client.hset("h", {"text": "x"})
    with pytest.raises(CommandError, match="not an integer"):
        await client.hincrby("h", "text")
    with pytest.raises(CommandError, match="not a float"):
        await client.hincrbyfloat("h", "text", 1)


# --- lists ---


async def test_pushes_and_pops_at_both_ends(client: Client) -> None:
    assert await client.rpush("l", "a", "b") == 2
    assert await client.lpush("l", "c", "d") == 4
    assert await client.lrange("l", 0, -1) == [b"d", b"c", b"a", b"b"]
    assert (await client.lpop("l"), await client.rpop("l")) == (b"d", b"b")
    assert await client.llen("l") == 2
    assert (await client.lpop("missing"), await client.rpop("missing"), await client.llen("missing")) == (
        None,
        None,
        0,
    )


async def test_an_emptied_list_is_no_key(client: Client) -> None:
    await client.rpush("l", "a")
    await client.lpop("l")
    assert await client.exists("l") == 0


async def test_lrange_and_ltrim_take_negative_and_outer_places(client: Client) -> None:
    await client.rpush("l", *"abcde")
    assert await client.lrange("l", -2, 99) == [b"d", b"e"]
    assert await client.lrange("l", 3, 1) == []
    assert await client.ltrim("l", 1, -2) is True
    assert await client.lrange("l", 0, -1) == [b"b", b"c", b"d"]
    await client.ltrim("l", 5, 9)
    assert await client.exists("l") == 0


async def test_lrem_removes_from_either_end(client: Client) -> None:
    await client.rpush("l", *"abacada")
    assert await client.lrem("l", 1, "a") == 1
    assert await client.lrem("l", -1, "a") == 1
    assert await client.lrange("l", 0, -1) == [b"b", b"a", b"c", b"a", b"d"]
    assert await client.lrem("l", 0, "a") == 2
    assert await client.lrem("l", 0, "x") == 0


# --- sets ---


async def test_sets_hold_each_member_once(client: Client) -> None:
    assert await client.sadd("s", "a", "b", "a") == 2
    assert await client.sadd("s", "b", 3) == 1
    assert await client.smembers("s") == {b"a", b"b", b"3"}
    assert (await client.sismember("s", "a"), await client.sismember("s", "x")) == (True, False)
    assert await client.scard("s") == 3
    assert await client.srem("s", "a", "x") == 1
    assert await client.smembers("missing") == set()
    assert await client.scard("missing") == 0


async def test_an_emptied_set_is_no_key(client: Client) -> None:
    await client.sadd("s", "a")
    await client.srem("s", "a")
    assert await client.exists("s") == 0


# --- sorted sets ---


async def test_zadd_counts_new_members_and_keeps_conditions(client: Client) -> None:
    assert await client.zadd("z", {"a": 1, "b": 2}) == 2
    assert await client.zadd("z", {"a": 5, "c": 3}) == 1
    assert await client.zadd("z", {"a": 9, "d": 4}, only_if="absent") == 1
    assert await client.zadd("z", {"a": 7, "e": 4}, only_if="present") == 0
    assert await client.zrange_with_scores("z", 0, -1) == [(b"b", 2), (b"c", 3), (b"d", 4), (b"a", 7)]


async def test_zscore_zcard_and_zrem(client: Client) -> None:
    await client.zadd("z", {"a": 1.5, "b": float("inf")})
    assert (await client.zscore("z", "a"), await client.zscore("z", "b")) == (1.5, float("inf"))
    assert (await client.zscore("z", "x"), await client.zscore("missing", "x")) == (None, None)
    assert (await client.zcard("z"), await client.zcard("missing")) == (2, 0)
    assert await client.zrem("z", "a", "x") == 1
    assert await client.zrem("z", "b") == 1
    assert await client.exists("z") == 0


async def test_zincrby_adds_to_a_score(client: Client) -> None:
    assert await client.zincrby("z", 1.5, "a") == 1.5
    assert await client.zincrby("z", -2, "a") == -0.5


async def test_zcount_takes_open_and_infinite_bounds(client: Client) -> None:
    await client.zadd("z", {"a": 1, "b": 2, "c": 3})
    assert await client.zcount("z", 1, 2) == 2
    assert await client.zcount("z", "(1", "+inf") == 2
    assert await client.zcount("z", "-inf", "(1") == 0


async def test_zrange_by_rank_score_and_name(client: Client) -> None:
    await client.zadd("z", {"a": 1, "b": 2, "c": 3, "d": 4})
    assert await client.zrange("z", 1, -2) == [b"b", b"c"]
    assert await client.zrange("z", 0, 1, reverse=True) == [b"d", b"c"]
    assert await client.zrange("z", 2, "+inf", by="score") == [b"b", b"c", b"d"]
    assert await client.zrange("z", "(2", 4, by="score", offset=1, count=1) == [b"d"]
    assert await client.zrange("z", 3, 1, by="score", reverse=True) == [b"c", b"b", b"a"]
    await client.zadd("names", dict.fromkeys("abcd", 0))
    assert await client.zrange("names", "[b", "(d", by="lex") == [b"b", b"c"]
    assert await client.zrange("names", "+", "-", by="lex", reverse=True, count=2) == [b"d", b"c"]


async def test_members_of_equal_score_are_ordered_by_name(client: Client) -> None:
    await client.zadd("z", {"b": 1, "a": 1, "C": 1, "aa": 1})
    assert await client.zrange("z", 0, -1) == [b"C", b"a", b"aa", b"b"]


async def test_zpopmin_takes_the_lowest(client: Client) -> None:
    await client.zadd("z", {"a": 1, "b": 2, "c": 3})
    assert await client.zpopmin("z") == [(b"a", 1.0)]
    assert await client.zpopmin("z", 5) == [(b"b", 2.0), (b"c", 3.0)]
    assert await client.zpopmin("z") == []


async def test_ranges_are_removed_by_score_and_rank(client: Client) -> None:
    await client.zadd("z", {"a": 1, "b": 2, "c": 3, "d": 4})
    assert await client.zremrangebyscore("z", "-inf", "(2") == 1
    assert await client.zremrangebyrank("z", -1, -1) == 1
    assert await client.zrange("z", 0, -1) == [b"b", b"c"]


async def test_a_score_must_be_a_number(client: Client) -> None:
    with pytest.raises(CommandError, match="not a valid float"):
        await client.execute("ZADD", "z", "one", "a")
    with pytest.raises(CommandError, match="min or max is not a float"):
        await client.zcount("z", "x", 1)


# --- all of them ---


async def test_a_collection_command_refuses_another_type(client: Client) -> None:
    await client.set("s", "text")
    calls = [
        client.hset("s", {"f": 1}), client.hgetall("s"), client.lpush("s", 1), client.lrange("s", 0, 1), client.sadd("s", 1),
        client.smembers("s"), client.zadd("s", {"m": 1}), client.zrange("s", 0, 1), client.xadd("s", {"f": 1}),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(WrongType):
            await call
