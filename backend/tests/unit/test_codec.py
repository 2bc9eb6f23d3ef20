"""Codec: typed on both sides, and errors that never show the bytes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.codec import Codec, codec_for
from redis_core.errors import CodecError

ANY: Codec[Any] = Codec(object)


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@given(plain)
def test_what_goes_in_comes_out(value: object) -> None:
    codec = ANY
    assert codec.decode(codec.encode(value)) == value


@given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
def test_structs(x: int, y: float) -> None:
    codec = codec_for(Point)
    assert codec.decode(codec.encode(Point(x, y))) == Point(x, y)


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_a_codec_error(data: bytes) -> None:
    try:
        value = codec_for(Point).decode(data)
    except CodecError:
        return
    assert isinstance(value, Point)


def test_error_names_type_and_length_but_not_the_content() -> None:
    data = msgspec.msgpack.encode({"x": "hunter2"})
    with pytest.raises(CodecError, match=f"{len(data)} stored bytes are not a Point") as caught:
        codec_for(Point).decode(data)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [object(), 2**70, {1: object()}, "\ud800", lambda: None])
def test_what_cannot_be_stored_is_a_codec_error(value: object) -> None:
    with pytest.raises(CodecError):
        ANY.encode(value)


def test_deep_nesting_is_a_codec_error_not_a_crash() -> None:
    with pytest.raises(CodecError):
        ANY.decode(b"\x91" * 100_000)
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CodecError):
        ANY.encode(value)
    while value:  # taken apart by hand: so deep a list's own destructor is slow
        value = value[0]


def test_codecs_are_made_once_a_type() -> None:
    assert codec_for(Point) is codec_for(Point)
    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    codec = codec_for(dt.datetime)
    assert codec.decode(codec.encode(moment)) == moment
