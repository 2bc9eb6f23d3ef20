"""Commands that fakeredis answers otherwise than Redis; the contract compares them with real servers, this tells why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError, WrongType


@pytest.mark.parametrize(
    ("start", "more", "total"),
    [("0.1", "0.2", b"0.3"), ("1", "0.1", b"1.1"), ("-1", "1", b"0"), ("5.0e3", "200", b"5200"), ("3", "-0.5", b"2.5"),
     ("10.50", "0.1", b"10.6"), ("9223372036854775807", "0.25", b"9223372036854775807")],
)  # fmt: skip
async def test_decimals_are_added_as_in_a_long_double(
    memory: Client, start: str, more: str, total: bytes
) -> None:
    await memory.hset("h", {"f": start})
    await memory.set("a", start)
    assert await memory.execute("HINCRBYFLOAT", "h", "f", more) == total
    assert await memory.execute("INCRBYFLOAT", "a", more) == total


@pytest.mark.parametrize("amount", ["x", " 1", "1 ", "", "nan", "1_0", "1e400000000", "\u0661"])
async def test_what_is_no_decimal_number_is_refused(memory: Client, amount: str) -> None:
    with pytest.raises(CommandError, match="not a valid float"):
        await memory.execute("HINCRBYFLOAT", "h", "f", amount)
    assert await memory.exists("h") == 0


async def test_an_infinite_sum_is_refused(memory: Client) -> None:
    with pytest.raises(CommandError, match="NaN or Infinity"):
        await memory.execute("HINCRBYFLOAT", "h", "f", "inf")


@pytest.mark.parametrize(
    "wrong",
    [
        ("SET", "u8", 0),
        ("NOSUCH", "u8", 0, 1),
        ("OVERFLOW", "SOMETIMES"),
        ("SET", "u65", 0, 1),
        ("SET", "u8", -1, 1),
    ],
    ids=str,
)
async def test_bitfield_does_all_or_nothing(memory: Client, wrong: tuple[Any, ...]) -> None:
    with pytest.raises(CommandError):
        await memory.bitfield("a", "SET", "u8", 0, 255, *wrong)
    assert await memory.exists("a") == 0


async def test_a_refused_increment_lengthens_the_value_as_in_redis(memory: Client) -> None:
    assert await memory.bitfield("a", "OVERFLOW", "FAIL", "INCRBY", "i8", 8, -203) == [None]
    assert await memory.get("a") == b"\0\0"


async def test_count_0_of_a_stream_is_nil(memory: Client) -> None:
    await memory.xadd("s", {"f": 1}, id="1-1")
    assert await memory.execute("XRANGE", "s", "-", "+", "COUNT", 0) is None
    assert await memory.execute("XREVRANGE", "s", "+", "-", "COUNT", 0) is None
    assert await memory.execute("XRANGE", "missing", "-", "+", "COUNT", 0) == []
    assert await memory.execute("XREVRANGE", "s", "+", "-", "COUNT", 1) == [[b"1-1", [b"f", b"1"]]]


async def test_xread_refuses_another_type(memory: Client) -> None:
    await memory.set("a", 1)
    with pytest.raises(WrongType):
        await memory.execute("XREAD", "STREAMS", "a", "$")


async def test_blmove_waits_checks_and_moves_within_one_list(memory: Client) -> None:
    waiting = asyncio.ensure_future(memory.execute("BLMOVE", "l", "l", "LEFT", "RIGHT", 30))
    await asyncio.sleep(0)
    await memory.rpush("l", "a", "b")
    assert await waiting == b"a"
    assert await memory.lrange("l", 0, -1) == [b"b", b"a"]
    await memory.set("text", 1)
    for source, destination in (("text", "l"), ("l", "text")):
        with pytest.raises(WrongType):
            await memory.execute("BLMOVE", source, destination, "LEFT", "RIGHT", 1)
    with pytest.raises(CommandError, match="syntax error"):
        await memory.execute("BLMOVE", "l", "m", "UP", "DOWN", 1)
    assert await memory.execute("BLMOVE", "missing", "m", "LEFT", "LEFT", 0.01) is None


async def test_a_random_member_comes_alone_or_in_a_list(memory: Client) -> None:
    await memory.zadd("z", {"m": 1})
    assert await memory.execute("ZRANDMEMBER", "z") == b"m"
    assert await memory.execute("ZRANDMEMBER", "z", 1) == [b"m"]
    assert await memory.execute("ZRANDMEMBER", "missing") is None
