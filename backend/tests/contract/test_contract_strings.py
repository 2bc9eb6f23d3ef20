"""Strings, on every store."""

from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError, WrongType


async def test_a_value_comes_back_as_bytes(client: Client) -> None:
    assert await client.set("a", "text") is True
    assert await client.get("a") == b"text"
    assert await client.get("missing") is None


@pytest.mark.parametrize(
    ("value", "stored"), [(0, b"0"), (-7, b"-7"), (2**63 - 1, b"9223372036854775807"), (1.5, b"1.5")]
)
async def test_numbers_are_stored_as_their_decimal_form(client: Client, value: float, stored: bytes) -> None:
    await client.set("a", value)
    assert await client.get("a") == stored


async def test_set_only_if_absent_or_present(client: Client) -> None:
    assert await client.set("a", 1, only_if="present") is False
    assert await client.set("a", 1, only_if="absent") is True
    assert await client.set("a", 2, only_if="absent") is False
    assert await client.set("a", 3, only_if="present") is True
    assert await client.get("a") == b"3"


async def test_set_with_expiry_and_keep_ttl(client: Client) -> None:
    await client.set("a", 1, ex=100)
    await client.set("a", 2, keep_ttl=True)
    assert 90 < await client.ttl("a") <= 100
    await client.set("a", 3, px=100_000)
    assert 90_000 < await client.pttl("a") <= 100_000
    await client.set("a", 4)
    assert await client.ttl("a") == -1


@pytest.mark.parametrize("seconds", [0, -1])
async def test_set_refuses_an_expiry_that_is_not_positive(client: Client, seconds: int) -> None:
    with pytest.raises(CommandError, match="invalid expire time"):
        await client.set("a", 1, ex=seconds)
    assert await client.exists("a") == 0


async def test_getset_returns_the_value_before(client: Client) -> None:
    assert await client.getset("a", 1) is None
    assert await client.getset("a", 2, ex=100) == b"1"
    assert await client.ttl("a") > 0


async def test_getdel_takes_the_value(client: Client) -> None:
    await client.set("a", 1)
    assert await client.getdel("a") == b"1"
    assert await client.getdel("a") is None


async def test_getex_renews_the_expiry_and_without_one_keeps_it(client: Client) -> None:
    await client.set("a", 1, ex=10)
    assert await client.getex("a", ex=100) == b"1"
    assert await client.ttl("a") > 90
    assert await client.getex("a", px=200_000) == b"1"
    assert await client.getex("a") == b"1"
    assert await client.ttl("a") > 190
    assert await client.getex("missing", ex=10) is None


async def test_mget_and_mset(client: Client) -> None:
    assert await client.mset({"a": 1, "b": "two"}) is True
    await client.hset("h", {"f": 1})
    assert await client.mget("a", "missing", "b", "h", "a") == [b"1", None, b"two", None, b"1"]


async def test_incr_counts_from_nothing_and_keeps_the_expiry(client: Client) -> None:
    assert await client.incr("a") == 1
    assert await client.incr("a", 41) == 42
    assert await client.incr("a", -50) == -8
    await client.expire("a", 100)
    await client.incr("a")
    assert await client.ttl("a") > 0


async def test_incr_refuses_what_is_no_number_or_would_overflow(client: Client) -> None:
    await client.mset({"text": "x", "float": "1.5", "big": 2**63 - 1})
    for key in ("text", "float"):
        with pytest.raises(CommandError, match="not an integer"):
            await client.incr(key)
    with pytest.raises(CommandError, match="overflow"):
        await client.incr("big")
    assert await client.get("big") == b"9223372036854775807"


async def test_incrbyfloat_adds_decimals(client: Client) -> None:
    assert await client.incrbyfloat("a", 1.5) == 1.5
    assert await client.incrbyfloat("a", -0.25) == 1.25
    assert await client.incrbyfloat("a", 0.75) == 2.0
    assert await client.get("a") == b"2"
    await client.set("text", "x")
    with pytest.raises(CommandError, match="not a valid float"):
        await client.incrbyfloat("text", 1)


async def test_append_strlen_and_ranges(client: Client) -> None:
    assert await client.append("a", "Hello") == 5
    assert await client.append("a", " World") == 11
    assert await client.strlen("a") == 11
    assert await client.strlen("missing") == 0
    assert await client.getrange("a", -5, -1) == b"World"
    assert await client.getrange("a", 0, 4) == b"Hello"
    assert await client.getrange("a", 9, 99) == b"ld"
    assert await client.getrange("a", 5, 2) == b""
    assert await client.getrange("missing", 0, -1) == b""


async def test_setrange_fills_with_zero_bytes(client: Client) -> None:
    assert await client.setrange("a", 3, "x") == 4
    assert await client.get("a") == b"\0\0\0x"
    assert await client.setrange("a", 0, "ab") == 4
    assert await client.get("a") == b"ab\0x"
    assert await client.setrange("missing", 5, "") == 0


async def test_bitfield_reads_and_changes_packed_integers(client: Client) -> None:
    assert await client.bitfield("a", "SET", "u8", 0, 200, "GET", "u8", 0, "GET", "i8", 0) == [0, 200, -56]
    assert await client.bitfield("a", "INCRBY", "u8", 0, 100) == [44]
    assert await client.bitfield("a", "OVERFLOW", "SAT", "INCRBY", "u8", "#0", 300) == [255]
    assert await client.bitfield("a", "OVERFLOW", "FAIL", "INCRBY", "u8", "#0", 1) == [None]
    assert await client.bitfield(
        "a", "INCRBY", "u16", "#1", 7, "INCRBY", "u32", 32, 5, "GET", "u16", "#1"
    ) == [7, 5, 7]
    assert await client.bitfield("a", "OVERFLOW", "WRAP", "INCRBY", "i5", 100, 17) == [-15]
    assert await client.bitfield("missing", "GET", "u63", 0) == [0]


async def test_a_string_command_refuses_another_type(client: Client) -> None:
    await client.hset("h", {"f": 1})
    for call in (
        client.get("h"),
        client.incr("h"),
        client.append("h", "x"),
        client.getdel("h"),
        client.strlen("h"),
    ):
        with pytest.raises(WrongType):
            await call
