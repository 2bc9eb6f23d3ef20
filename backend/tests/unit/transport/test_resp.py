"""RESP: arguments to bytes, and RESP3 replies in the one shape that all stores have."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.errors import CommandError, InvalidKey, WrongType
from redis_core.transport.resp import format_double, pack, reply_reader, to_resp2

words = st.text(st.characters(codec="utf-8")) | st.binary() | st.integers() | st.floats(allow_nan=False)


def encoded(word: str | bytes | float) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


@given(st.lists(st.lists(words, min_size=1, max_size=5).map(tuple), min_size=1, max_size=4))
def test_packed_commands_are_arrays_of_bulk_strings(
    batch: list[tuple[str | bytes | int | float, ...]],
) -> None:
    expected = b""
    for command in batch:
        expected += b"*%d\r\n" % len(command)
        for word in command:
            expected += b"$%d\r\n%s\r\n" % (len(encoded(word)), encoded(word))
    assert pack(batch) == expected


@pytest.mark.parametrize("word", [None, True, object(), ["a"], bytearray(b"x"), "\ud800"])
def test_what_is_no_argument_is_refused_before_it_is_sent(word: object) -> None:
    with pytest.raises(InvalidKey, match="cannot be sent"):
        pack([("SET", "k", word)])  # type: ignore[list-item]
    with pytest.raises(InvalidKey):
        pack([("PING",), ("SET", "k", word)])  # type: ignore[list-item]


@given(st.binary(max_size=200), st.integers(1, 7))
def test_reader_takes_any_bytes_in_any_pieces_or_says_that_they_are_no_resp(data: bytes, size: int) -> None:
    reader = reply_reader()
    try:
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])
            while reader.gets() is not ...:
                pass
    except (ValueError, TypeError, MemoryError):
        pass  # what the connection turns into a ProtocolError


def test_errors_are_values_of_their_type() -> None:
    reader = reply_reader()
    reader.feed(b"-WRONGTYPE no\r\n*2\r\n:1\r\n-ERR inner\r\n")
    assert isinstance(reader.gets(), WrongType)
    number, inner = reader.gets()
    assert number == 1
    assert isinstance(inner, CommandError)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, b"1"),
        (-2.0, b"-2"),
        (0.1, b"0.1"),
        (3.25, b"3.25"),
        (math.inf, b"inf"),
        (-math.inf, b"-inf"),
        (1e16, b"10000000000000000"),
        (1e17, b"1e+17"),
    ],
)
def test_doubles_are_written_as_redis_does(value: float, expected: bytes) -> None:
    assert format_double(value) == expected


@given(st.floats(allow_nan=False))
def test_doubles_lose_nothing(value: float) -> None:
    assert float(format_double(value)) == value


@pytest.mark.parametrize(
    ("name", "reply", "expected"),
    [
        ("GET", b"x", b"x"),
        ("HGETALL", {b"a": b"1", b"b": b"2"}, [b"a", b"1", b"b", b"2"]),
        ("ZSCORE", 1.5, b"1.5"),
        ("EXISTS", True, 1),
        ("ZRANGE", [[b"m", 1.0], [b"n", 2.5]], [b"m", b"1", b"n", b"2.5"]),
        ("ZRANGE", [b"m", b"n"], [b"m", b"n"]),
        ("ZPOPMIN", [b"m", 1.0], [b"m", b"1"]),
        ("ZMPOP", [b"k", [[b"m", 1.0]]], [b"k", [[b"m", b"1"]]]),
        ("HRANDFIELD", [[b"f", b"v"]], [b"f", b"v"]),
        ("XREAD", {b"s": [[b"1-1", [b"f", b"v"]]]}, [[b"s", [[b"1-1", [b"f", b"v"]]]]]),
        ("XREADGROUP", None, None),
        ("CONFIG", {b"a": {b"b": 1.0}}, [b"a", [b"b", b"1"]]),
        ("LRANGE", [], []),
        ("ZRANGE", [], []),
    ],
)
def test_resp3_replies_become_those_of_resp2(name: str, reply: object, expected: object) -> None:
    assert to_resp2(name, reply) == expected


def test_nesting_deeper_than_the_stack_is_an_error_not_a_crash() -> None:
    deep: list[object] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    with pytest.raises(RecursionError):
        to_resp2("EVAL", deep)
    while deep:
        deep = deep[0]  # type: ignore[assignment]
