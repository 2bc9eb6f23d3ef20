"""The libraries Redis gives to scripts: `cjson`, `cmsgpack`, `bit` and `struct`, for the memory store's interpreter."""

from __future__ import annotations

import importlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

__all__ = ["libraries", "lua"]

lua: Final[Any] = importlib.import_module("lupa.lua51")
"""Lua 5.1, which is Redis'. Imported so because its type stubs know text only, and scripts are bytes."""

_JSON_ESCAPES: Final = {
    **{code: b"\\u%04x" % code for code in (*range(32), 127)},
    **dict(
        zip(b'"\\/\b\f\n\r\t', (b'\\"', b"\\\\", b"\\/", b"\\b", b"\\f", b"\\n", b"\\r", b"\\t"), strict=True)
    ),
}
_DEPTH: Final = 128
"""Deepest nesting that is written; lua-cjson's is 1000."""


def libraries(runtime: Any) -> dict[bytes, dict[bytes, Any]]:
    """Each library's functions by name."""
    null = runtime.eval(b"newproxy(true)")
    pack: Callable[..., bytes] = lambda *values: b"".join(_pack_message(value, 0) for value in values)  # noqa: E731 - table
    return {
        b"cjson": {
            b"null": null,
            b"encode": lambda value: _encode_json(value, null, 0),
            b"decode": lambda text: _to_lua(runtime, _decode_json(text), null),
        },
        b"cmsgpack": {b"pack": pack, b"unpack": lambda data: tuple(_unpack_messages(runtime, data))},
        b"bit": {name: _on_32_bits(operation) for name, operation in _BIT.items()} | {b"tohex": _tohex},
        b"struct": {
            b"pack": _pack,
            b"unpack": _unpack,
            b"size": lambda form: sum(size for _, size, _ in _codes(form)),
        },
    }


# --- cjson ---


def _encode_json(value: Any, null: Any, depth: int) -> bytes:
    if depth > _DEPTH:
        raise ValueError("Cannot serialise, excessive depth")
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, bytes):
        return b'"' + b"".join(_JSON_ESCAPES.get(code) or bytes((code,)) for code in value) + b'"'
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError("Cannot serialise number: must not be NaN or Inf")
        return _number(value)
    if value is None or lua.lua_type(value) == "userdata":
        return b"null"
    if lua.lua_type(value) != "table":
        raise ValueError("Cannot serialise this type")
    length = _array_length(value)
    if length:
        items = (_encode_json(value[place], null, depth + 1) for place in range(1, length + 1))
        return b"[" + b",".join(items) + b"]"
    members = (_json_key(name) + b":" + _encode_json(item, null, depth + 1) for name, item in value.items())
    return b"{" + b",".join(members) + b"}"


def _json_key(name: Any) -> bytes:
    if isinstance(name, bytes):
        return _encode_json(name, None, 0)
    return b'"' + _number(name) + b'"'


def _number(value: float) -> bytes:
    return f"{value:.14g}".encode()


def _array_length(table: Any) -> int:
    """The length of a table that is an array, holes counted as cjson does; 0 for any other."""
    highest, number = 0, 0
    for name in table:
        if type(name) is not int or name < 1:
            return 0
        highest, number = max(highest, name), number + 1
    if highest > 10 and highest > number * 2:  # noqa: PLR2004 - cjson's limits of a sparse array
        raise ValueError("Cannot serialise table: excessively sparse array")
    return highest


def _decode_json(text: Any) -> Any:
    try:
        return json.loads(text if isinstance(text, bytes) else _number(text))
    except ValueError as error:
        raise ValueError(f"Expected value but found invalid token: {error}") from None


def _to_lua(runtime: Any, value: Any, null: Any) -> Any:
    if value is None:
        return null
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return runtime.table_from([_to_lua(runtime, item, null) for item in value])
    if isinstance(value, dict):
        pairs = {_to_lua(runtime, name, null): _to_lua(runtime, item, null) for name, item in value.items()}
        return runtime.table_from(pairs)
    return (
        float(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53
        else value
    )


# --- cmsgpack ---


def _pack_message(value: Any, depth: int) -> bytes:
    if depth > 16 or value is None or isinstance(value, bool):  # noqa: PLR2004 - cmsgpack's greatest depth
        return {None: b"\xc0", True: b"\xc3", False: b"\xc2"}.get(value, b"\xc0")
    if isinstance(value, bytes):
        return _head(len(value), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + value
    if isinstance(value, int | float):
        return msgspec.msgpack.encode(value)
    if lua.lua_type(value) != "table":
        return b"\xc0"
    names = list(value)
    if names and all(type(name) is int and 1 <= name <= len(names) for name in names):
        items = b"".join(_pack_message(value[place], depth + 1) for place in range(1, len(names) + 1))
        return _head(len(names), 0x90, 16, (None, 0xDC, 0xDD)) + items
    items = b"".join(_pack_message(part, depth + 1) for item in value.items() for part in item)
    return _head(len(names), 0x80, 16, (None, 0xDE, 0xDF)) + items


def _head(length: int, fixed: int, below: int, codes: tuple[int | None, int, int]) -> bytes:
    if length < below:
        return bytes((fixed | length,))
    if codes[0] is not None and length < 1 << 8:
        return bytes((codes[0], length))
    if length < 1 << 16:
        return struct.pack(">BH", codes[1], length)
    return struct.pack(">BI", codes[2], length)


def _unpack_messages(runtime: Any, data: bytes) -> Iterator[Any]:
    place = 0
    while place < len(data):
        value, place = _unpack_message(runtime, data, place)
        yield value


# The codes of the format, https://github.com/msgpack/msgpack/blob/master/spec.md
_FIRST_SHORT_ARRAY: Final = 0x90
_FIRST_SHORT_TEXT: Final = 0xA0
_CONSTANTS: Final[dict[int, int | bool | None]] = {
    0xC0: None, 0xC2: False, 0xC3: True, **{code: code for code in range(0x80)}, **{code: code - 256 for code in range(0xE0, 0x100)},
}  # fmt: skip
_FIXED: Final = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZED: Final = {
    0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I",
}  # fmt: skip


def _unpack_message(runtime: Any, data: bytes, place: int) -> tuple[Any, int]:
    code = data[place]
    place += 1
    if code in _FIXED:
        (value,) = struct.unpack_from(_FIXED[code], data, place)
        return value, place + struct.calcsize(_FIXED[code])
    if code in _CONSTANTS:
        return _CONSTANTS[code], place
    if code in _SIZED:
        (length,) = struct.unpack_from(_SIZED[code], data, place)
        place += struct.calcsize(_SIZED[code])
    else:
        length = code & (0x1F if code >= _FIRST_SHORT_TEXT else 0x0F)
    if code in {0xDC, 0xDD, 0xDE, 0xDF} or code < _FIRST_SHORT_TEXT:
        pairs = code in {0xDE, 0xDF} or code < _FIRST_SHORT_ARRAY
        items: list[Any] = []
        for _ in range(length * 2 if pairs else length):
            item, place = _unpack_message(runtime, data, place)
            items.append(item)
        return runtime.table_from(dict(zip(items[::2], items[1::2], strict=True)) if pairs else items), place
    if place + length > len(data):
        raise ValueError("Missing bytes in input.")
    return data[place : place + length], place + length


# --- bit: LuaBitOp, on signed 32-bit integers ---


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _on_32_bits(operation: Callable[..., int]) -> Callable[..., int]:
    return lambda *values: _signed(operation(*(round(value) & 0xFFFFFFFF for value in values)))


def _fold(operation: Callable[[int, int], int]) -> Callable[..., int]:
    def folded(first: int, *others: int) -> int:
        for other in others:
            first = operation(first, other)
        return first

    return folded


_BIT: Final[dict[bytes, Callable[..., int]]] = {
    b"tobit": lambda x: x,
    b"bnot": lambda x: ~x,
    b"band": _fold(lambda x, y: x & y),
    b"bor": _fold(lambda x, y: x | y),
    b"bxor": _fold(lambda x, y: x ^ y),
    b"lshift": lambda x, n: x << (n & 31),
    b"rshift": lambda x, n: x >> (n & 31),
    b"arshift": lambda x, n: _signed(x) >> (n & 31),
    b"rol": lambda x, n: (x << (n & 31)) | (x >> (32 - (n & 31))),
    b"ror": lambda x, n: (x >> (n & 31)) | (x << (32 - (n & 31))),
    b"bswap": lambda x: int.from_bytes(x.to_bytes(4, "little"), "big"),
}


def _tohex(value: float, digits: float = 8) -> bytes:
    text = f"{round(value) & 0xFFFFFFFF:08x}"[-abs(int(digits)) :]
    return (text.upper() if digits < 0 else text).encode()


# --- struct: Roberto Ierusalimschy's, https://www.inf.puc-rio.br/~roberto/struct ---

_SIZES: Final = {"b": 1, "h": 2, "l": 8, "T": 8, "i": 4, "f": 4, "d": 8, "x": 1, "s": 0, "c": 1}


def _codes(form: bytes) -> Iterator[tuple[str, int, str]]:
    """Each item of a format: its letter, size in bytes and byte order. Alignment (`!`) is not kept: Redis' default is none."""
    text, order, place = form.decode("latin-1"), "<", 0
    while place < len(text):
        letter = text[place]
        place += 1
        digits = ""
        while place < len(text) and text[place].isdigit():
            digits += text[place]
            place += 1
        if letter in "<>=!":
            order = {"<": "<", ">": ">"}.get(letter, order)
        elif letter != " ":
            size = _SIZES.get(letter if letter in _SIZES else letter.lower())
            if size is None:
                raise ValueError(f"invalid format option '{letter}'")
            yield letter, int(digits) if digits else size, order


def _pack(form: bytes, *values: Any) -> bytes:
    given, parts = iter(values), list[bytes]()
    for letter, size, order in _codes(form):
        if letter == "x":
            parts.append(b"\0")
            continue
        value = next(given)
        if letter in "fd":
            parts.append(struct.pack(order + letter, value))
        elif letter == "s":
            parts.append(value + b"\0")
        elif letter == "c":
            parts.append(value[:size] if size else value)
        else:
            whole = int(value) & ((1 << 8 * size) - 1)
            parts.append(whole.to_bytes(size, "little" if order == "<" else "big"))
    return b"".join(parts)


def _unpack(form: bytes, data: bytes, start: float = 1) -> tuple[Any, ...]:
    place, values = int(start) - 1, list[Any]()
    for letter, given_size, order in _codes(form):
        size = given_size
        if letter == "s":
            size = data.index(b"\0", place) + 1 - place
        elif letter == "c" and not size:
            size = int(values.pop())
        if place + size > len(data):
            raise ValueError("data string too short")
        piece = data[place : place + size]
        place += size
        if letter in "fd":
            values.extend(struct.unpack(order + letter, piece))
        elif letter == "s":
            values.append(piece[:-1])
        elif letter == "c":
            values.append(piece)
        elif letter != "x":
            byte_order = "little" if order == "<" else "big"
            values.append(int.from_bytes(piece, byte_order, signed=letter.islower()))  # type: ignore[arg-type]
    return (*values, place + 1)
