"""What a session holds, and the difference that is written."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.errors import CodecError, InvalidKey
from redis_core.sessions.data import MappingForm, SessionData, StructForm
from redis_core.sessions.value import check_field_name, decode_as, decode_value, encode_value

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="_"), min_size=1, max_size=20)


def stored(**values: object) -> dict[str, bytes]:
    return {name: encode_value(value) for name, value in values.items()}


@given(JSON)
def test_a_value_comes_back_and_is_text(value: object) -> None:
    raw = encode_value(value)
    raw.decode()
    assert decode_value(raw) == value


@given(st.binary(max_size=40))
def test_bytes_that_are_not_ours_are_an_error_or_a_value_never_silence(raw: bytes) -> None:
    try:
        value: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        with pytest.raises(CodecError, match=f"^{len(raw)} stored bytes"):
            decode_value(raw)
    else:
        assert decode_value(raw) == value


def test_a_pickle_is_never_loaded() -> None:
    import pickle

    with pytest.raises(CodecError):
        decode_value(pickle.dumps({"a": 1}))


@pytest.mark.parametrize("value", [object(), {1: {2, object()}}, 2**63, -(2**63) - 1, "\ud800"])
def test_what_cannot_be_stored_is_an_error(value: object) -> None:
    with pytest.raises(CodecError):
        encode_value(value)


@pytest.mark.parametrize("name", ["", "_c", "_", "x" * 129, "é" * 65, "\ud800"])
def test_a_name_of_our_own_or_of_no_use_is_refused(name: str) -> None:
    with pytest.raises(InvalidKey):
        check_field_name(name)


def test_a_field_that_was_only_read_is_not_written() -> None:
    data = SessionData(stored(a=[1, {"b": 2}], n=3, s="x"))
    assert (data["a"], data["n"], data["s"], len(data)) == ([1, {"b": 2}], 3, "x", 3)
    assert not data.changes()


def test_a_change_inside_a_nested_value_is_found() -> None:
    data = SessionData(stored(cart={"items": [1]}, other=1))
    data["cart"]["items"].append(2)  # type: ignore[index]
    assert data.changes() == ({"cart": encode_value({"items": [1, 2]})}, [])


def test_only_what_differs_is_written_and_removed() -> None:
    data = SessionData(stored(a=1, b=2, c=3))
    data["a"] = 1
    data["b"] = 5
    del data["c"]
    data["d"] = None
    assert data.changes() == ({"b": b"5", "d": b"null"}, ["c"])
    assert sorted(data) == ["a", "b", "d"]
    assert "c" not in data
    with pytest.raises(KeyError):
        del data["c"]
    data["c"] = 3
    assert data.changes() == ({"b": b"5", "d": b"null"}, [])


def test_a_value_that_an_older_release_wrote_in_another_form_is_not_written_for_being_read() -> None:
    data = SessionData({"a": b'{ "b" : [1 , 2] }'})
    assert data["a"] == {"b": [1, 2]}
    assert not data.changes()


def test_a_number_and_a_truth_are_told_apart() -> None:
    data = SessionData(stored(a=1))
    data["a"] = True
    assert data.changes().written == {"a": b"true"}


@given(st.dictionaries(NAMES, JSON, max_size=5), st.dictionaries(NAMES, JSON, max_size=5))
def test_applying_the_changes_gives_the_data(before: dict[str, Any], after: dict[str, Any]) -> None:
    raw = MappingForm().encode(before)
    data = MappingForm().load(raw)
    data.clear()
    data.update(after)
    changes = data.changes()
    result = {name: value for name, value in raw.items() if name not in changes.removed} | changes.written
    assert {name: decode_value(value) for name, value in result.items()} == after
    data.settle(result)
    assert not data.changes()
    assert dict(data) == after


def test_a_typed_field_comes_back_as_its_type_and_is_followed() -> None:
    when = dt.datetime(2030, 1, 2, tzinfo=dt.UTC)
    data = SessionData(stored(when=when, raw=b"\xff\x00", tags={"a"}))
    assert data.typed("when", dt.datetime) == when
    assert data.typed("raw", bytes) == b"\xff\x00"
    tags = data.typed("tags", set[str])
    tags.add("b")
    assert decode_as(data.changes().written["tags"], set[str]) == {"a", "b"}
    with pytest.raises(CodecError):
        data.typed("when", int)
    with pytest.raises(KeyError):
        data.typed("nothing", int)


def test_the_data_shows_names_only() -> None:
    assert repr(SessionData(stored(card="4111"))) == "SessionData(card)"


class Cart(msgspec.Struct):
    items: list[str] = []
    total: int = 0
    note: str | None = None
    renamed: int = msgspec.field(default=1, name="other")


class Strict(msgspec.Struct):
    plan: str


def test_a_struct_is_one_field_each_and_only_differences_are_written() -> None:
    form = StructForm(Cart)
    raw = form.encode(Cart(items=["a"]))
    assert raw == {"items": b'["a"]', "total": b"0", "note": b"null", "other": b"1"}
    cart = form.load(raw)
    assert isinstance(cart, Cart)
    assert not form.changes(cart, raw)
    cart.items.append("b")
    cart.renamed = 2
    assert form.changes(cart, raw).written == {"items": b'["a","b"]', "other": b"2"}


def test_a_struct_takes_defaults_and_leaves_a_newer_releases_fields_alone() -> None:
    form = StructForm(Cart)
    raw = {"total": b"5", "from_the_future": b"[]"}
    cart = form.load(raw)
    assert cart == Cart(total=5)
    assert not form.changes(cart, raw)


@pytest.mark.parametrize("raw", [{}, {"plan": b"5"}, {"plan": b"\x80\x04."}])
def test_a_struct_that_does_not_decode_is_an_error(raw: dict[str, bytes]) -> None:
    with pytest.raises(CodecError):
        StructForm(Strict).load(raw)


def test_a_struct_is_made_of_a_mapping_only_if_it_fits() -> None:
    assert StructForm(Strict).encode({"plan": "free"}) == {"plan": b'"free"'}
    with pytest.raises(CodecError):
        StructForm(Strict).encode({})


class Reserved(msgspec.Struct):
    user: str = msgspec.field(default="", name="_u")


def test_a_struct_cannot_take_the_sessions_own_names() -> None:
    with pytest.raises(InvalidKey):
        StructForm(Reserved)
