"""Any bytes go in and come out, and every store answers in the same shapes."""

from __future__ import annotations

import asyncio

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError, InvalidKey, StoreError
from redis_core.transport.base import Command, Reply

BINARY = [
    b"",
    b"\r\n",
    b"\0",
    b"$3\r\nabc\r\n",
    b"\xff\xfe\x80",
    bytes(range(256)),
    "häß €".encode(),
    b"-ERR no",
    b"OK",
    b" ",
]


@pytest.mark.parametrize("value", BINARY, ids=repr)
async def test_any_bytes_are_a_value(client: Client, value: bytes) -> None:
    await client.set("a", value)
    assert await client.get("a") == value
    await client.execute("HSET", "h", value, value)
    assert await client.hgetall("h") == {value: value}
    await client.rpush("l", value, value)
    assert await client.lrange("l", 0, -1) == [value, value]
    await client.sadd("s", value)
    assert await client.smembers("s") == {value}
    assert await client.echo(value) == value


@pytest.mark.parametrize("key", [value for value in BINARY if value], ids=repr)
async def test_any_bytes_are_a_key(client: Client, key: bytes) -> None:
    await client.set(key, "x")
    assert await client.get(key) == b"x"
    assert await client.scan() == (b"0", [key])
    assert await client.delete(key) == 1


async def test_a_megabyte_goes_in_and_out(client: Client) -> None:
    value = bytes(range(256)) * 4096
    await client.set("a", value)
    assert await client.get("a") == value
    assert await client.strlen("a") == len(value)


async def test_text_is_utf_8(client: Client) -> None:
    await client.set("schlüssel", "wért €")
    assert await client.get("schlüssel".encode()) == "wért €".encode()


@pytest.mark.parametrize("bad", [None, ["a"], {"a": 1}, True, object()], ids=lambda bad: type(bad).__name__)
async def test_what_is_no_word_is_refused_before_it_is_sent(client: Client, bad: object) -> None:
    with pytest.raises(InvalidKey):
        await client.set("a", bad)  # type: ignore[arg-type]
    assert await client.exists("a") == 0


async def test_text_that_utf_8_cannot_hold_is_refused(client: Client) -> None:
    with pytest.raises(InvalidKey):
        await client.set("a", "\ud800")
    assert await client.exists("a") == 0


async def prepare(client: Client) -> None:
    """Keys of every type, for the shapes below."""
    await client.set("string", "text")
    await client.hset("hash", {"f": 1, "g": 2})
    await client.rpush("list", "a", "b")
    await client.sadd("set", "a")
    await client.zadd("zset", {"a": 1, "b": 2.5})
    await client.xadd("stream", {"f": "v"}, id="1-1")


SHAPES: list[tuple[Command, Reply]] = [
    (("PING",), b"PONG"),
    (("PING", "hello"), b"hello"),
    (("SET", "x", 1), b"OK"),
    (("SET", "string", 1, "NX"), None),
    (("GET", "missing"), None),
    (("EXISTS", "string"), 1),
    (("MGET", "string", "missing", "hash"), [b"text", None, None]),
    (("HGETALL", "hash"), [b"f", b"1", b"g", b"2"]),
    (("HGETALL", "missing"), []),
    (("HMGET", "hash", "f", "x"), [b"1", None]),
    (("HSCAN", "hash", 0), [b"0", [b"f", b"1", b"g", b"2"]]),
    (("HRANDFIELD", "missing"), None),
    (("LRANGE", "list", 0, -1), [b"a", b"b"]),
    (("LPOP", "missing"), None),
    (("LPOP", "missing", 2), None),
    (("LPOS", "list", "b"), 1),
    (("SMEMBERS", "set"), [b"a"]),
    (("SMISMEMBER", "set", "a", "x"), [1, 0]),
    (("SSCAN", "set", 0), [b"0", [b"a"]]),
    (("ZRANGE", "zset", 0, -1), [b"a", b"b"]),
    (("ZRANGE", "zset", 0, -1, "WITHSCORES"), [b"a", b"1", b"b", b"2.5"]),
    (("ZREVRANGE", "zset", 0, 0, "WITHSCORES"), [b"b", b"2.5"]),
    (("ZRANGEBYSCORE", "zset", "-inf", "+inf", "WITHSCORES"), [b"a", b"1", b"b", b"2.5"]),
    (("ZSCORE", "zset", "b"), b"2.5"),
    (("ZSCORE", "zset", "x"), None),
    (("ZMSCORE", "zset", "a", "x"), [b"1", None]),
    (("ZINCRBY", "zset", 0.5, "a"), b"1.5"),
    (("ZADD", "zset", "INCR", 1, "a"), b"2"),
    (("ZADD", "zset", "NX", "INCR", 1, "a"), None),
    (("ZRANK", "zset", "b"), 1),
    (("ZPOPMIN", "zset"), [b"a", b"1"]),
    (("ZPOPMAX", "zset", 2), [b"b", b"2.5", b"a", b"1"]),
    (("ZSCAN", "zset", 0), [b"0", [b"a", b"1", b"b", b"2.5"]]),
    (("ZRANDMEMBER", "missing"), None),
    (("INCRBYFLOAT", "f", 10.5), b"10.5"),
    (("INCRBYFLOAT", "f", 3.0), b"3"),
    (("HINCRBYFLOAT", "hash", "f", 0.1), b"1.1"),
    (("XRANGE", "stream", "-", "+"), [[b"1-1", [b"f", b"v"]]]),
    (("XREAD", "STREAMS", "stream", 0), [[b"stream", [[b"1-1", [b"f", b"v"]]]]]),
    (("XREAD", "STREAMS", "stream", "1-1"), None),
    (("XLEN", "missing"), 0),
    (("TYPE", "hash"), b"hash"),
    (("GETSET", "string", "new"), b"text"),
    (("SET", "string", "new", "GET"), b"text"),
    (("SCAN", 0, "MATCH", "str*", "COUNT", 1000), [b"0", [b"string", b"stream"]]),
    (("BITFIELD", "bits", "SET", "u8", 0, 1, "GET", "u8", 0), [0, 1]),
    (("GETBIT", "string", 1), 1),
    (("BITCOUNT", "string"), 16),
    (("PFADD", "hll", "a"), 1),
    (("PFCOUNT", "hll"), 0),
    (("TTL", "missing"), -2),
    (("PUBSUB", "NUMSUB", "nobody"), [b"nobody", 0]),
    (("EVAL", "return {1,'a',{2}}", 0), [1, b"a", [2]]),
    (("EVAL", "return redis.call('HGETALL', 'hash')", 0), [b"f", b"1", b"g", b"2"]),
]


@pytest.mark.parametrize(
    ("command", "reply"), SHAPES, ids=lambda part: " ".join(map(str, part)) if type(part) is tuple else ""
)
async def test_replies_have_the_shape_of_resp2(client: Client, command: Command, reply: Reply) -> None:
    await prepare(client)
    found = await client.execute(*command)
    if command[0] == "SCAN":
        assert isinstance(found, list)
        cursor, keys = found
        assert isinstance(keys, list)
        assert (cursor, set(keys)) == (b"0", {b"string", b"stream"})
    else:
        assert found == reply


async def test_an_unknown_command_is_a_command_error(client: Client) -> None:
    with pytest.raises(CommandError, match=r"(?i)unknown command") as caught:
        await client.execute("NOSUCHCOMMAND", "a", "b")
    assert caught.value.code == "ERR"


@pytest.mark.parametrize(
    "command", [("GET",), ("GET", "a", "b"), ("HSET", "h", "f"), ("MSET", "a"), ("EXPIRE", "a"), ("ECHO",)]
)
async def test_a_wrong_number_of_arguments_is_a_command_error(
    client: Client, command: tuple[str, ...]
) -> None:
    with pytest.raises(CommandError, match="wrong number of arguments"):
        await client.execute(*command)
    assert await client.ping()


@pytest.mark.parametrize(
    "command",
    [("MULTI",), ("EXEC",), ("DISCARD",), ("WATCH", "a"), ("UNWATCH",), ("SUBSCRIBE", "a"), ("PSUBSCRIBE", "a"),
     ("UNSUBSCRIBE",), ("MONITOR",), ("HELLO", 3), ("AUTH", "x"), ("SELECT", 1), ("RESET",), ("QUIT",), ("multi",), (b"Multi",),
     ("CLIENT", "REPLY", "OFF"), ("CLIENT", "SETNAME", "x")],
    ids=str,
)  # fmt: skip
async def test_what_would_change_a_shared_connection_is_refused(client: Client, command: Command) -> None:
    with pytest.raises(CommandError):
        await client.execute(*command)
    async with client.pipeline() as batch:
        before = batch.set("a", 1)
        refused = batch.execute(*command)
        after = batch.get("a")
    assert (await before, await after) == (True, b"1")
    with pytest.raises(CommandError):
        await refused
    with pytest.raises(StoreError):
        await client.transport.transaction([("SET", "b", 1), command])
    assert await client.exists("b") == 0


async def test_a_blocking_pop_waits_for_a_value_or_is_refused_over_rest(client: Client) -> None:
    if client.mode == "upstash":
        with pytest.raises(CommandError):
            await client.execute("BLPOP", "l", 1)
        return
    assert await client.execute("BLPOP", "l", 0.02) is None
    waiting = asyncio.ensure_future(client.execute("BLPOP", "l", 30))
    moving = asyncio.ensure_future(client.execute("BLMOVE", "from", "to", "LEFT", "RIGHT", 30))
    reading = asyncio.ensure_future(client.execute("XREAD", "BLOCK", 30_000, "STREAMS", "s", "$"))
    lowest = asyncio.ensure_future(client.execute("BZPOPMIN", "z", 30))
    await asyncio.sleep(0.05)
    assert await client.ping()
    await client.rpush("l", "a")
    await client.rpush("from", "b")
    await client.xadd("s", {"f": "v"}, id="7-1")
    await client.zadd("z", {"m": 1})
    assert await waiting == [b"l", b"a"]
    assert await moving == b"b"
    assert await reading == [[b"s", [[b"7-1", [b"f", b"v"]]]]]
    assert await lowest == [b"z", b"m", b"1"]
    assert await client.lrange("to", 0, -1) == [b"b"]
    assert await client.exists("l", "from", "z") == 0
