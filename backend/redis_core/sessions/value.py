"""One value of a session as a hash field, and back: JSON through msgspec.

JSON and not msgpack, because a field must be text: Upstash's REST interface carries no other arguments. An integer of JSON is
also an integer to Redis, which can add to it. What does not decode is an error, never an empty session. No pickle.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec

from redis_core.errors import CodecError, InvalidKey

__all__ = ["check_field_name", "decode_as", "decode_value", "encode_value", "same_value"]

T = TypeVar("T")

MAX_NAME_BYTES: Final = 128
_ENCODER: Final = msgspec.json.Encoder()
_ANYTHING: Final = msgspec.json.Decoder(object)


def check_field_name(name: str) -> str:
    """The name itself, if it may name a field of a session's data.

    Raises:
        InvalidKey: it is empty, longer than 128 bytes, or begins with `_`, as the session's own fields do.
    """
    if not name or name[0] == "_" or not _is_short(name):
        raise InvalidKey(
            f"session field {name[:80]!a} must be 1 to {MAX_NAME_BYTES} bytes of UTF-8 and not begin with _"
        )
    return name


def encode_value(value: object) -> bytes:
    """The value as a hash field.

    Raises:
        CodecError: there is something in it that JSON cannot carry.
    """
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise CodecError("an integer of more than 64 bits cannot be stored in a session")
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(f"a {type(value).__name__} cannot be stored in a session: {error}") from error


def decode_value(raw: bytes) -> object:
    """What a hash field holds, in the types of JSON.

    Raises:
        CodecError: it is not JSON.
    """
    try:
        return _ANYTHING.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(f"{len(raw)} stored bytes of a session are not JSON: {error}") from error


def decode_as(raw: bytes, type_: type[T]) -> T:
    """What a hash field holds, as this type.

    Raises:
        CodecError: it is not JSON, or not of this type; the message never shows the bytes.
    """
    try:
        return cast("T", _decoder(cast("Any", type_)).decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        name = getattr(type_, "__name__", str(type_))
        raise CodecError(f"{len(raw)} stored bytes of a session are not a {name}: {error}") from error


def same_value(raw: bytes, encoded: bytes) -> bool:
    """Whether two fields hold the same value, though an older release may have written the one in another form."""
    return raw == encoded or encode_value(decode_value(raw)) == encoded


@lru_cache(maxsize=1024)
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


@lru_cache(maxsize=1024)
def _is_short(name: str) -> bool:
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False
