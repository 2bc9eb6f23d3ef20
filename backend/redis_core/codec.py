"""Values to bytes and back: msgpack through msgspec, typed on both sides. Never pickle."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import msgspec

from redis_core.errors import CodecError

__all__ = ["Codec", "codec_for"]

T = TypeVar("T")


class Codec(Generic[T]):
    """Encodes and decodes one type.

    Args:
        type_: any type msgspec knows: a Struct, dataclass, TypedDict, builtin or a union of these.
    """

    __slots__ = ("_decoder", "_encoder", "type")

    def __init__(self, type_: type[T]) -> None:
        self.type = type_
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(type_)

    def encode(self, value: T) -> bytes:
        """The value as msgpack.

        Raises:
            CodecError: the value has something in it that msgpack cannot carry.
        """
        try:
            return self._encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CodecError(f"a {type(value).__name__} cannot be stored: {error}") from error

    def decode(self, data: bytes) -> T:
        """The value these bytes hold.

        Raises:
            CodecError: they are not msgpack, or not of this type; the message never shows the bytes.
        """
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            name = getattr(self.type, "__name__", str(self.type))
            raise CodecError(f"{len(data)} stored bytes are not a {name}: {error}") from error


@lru_cache(maxsize=1024)
def _codec(type_: Hashable) -> Codec[Any]:
    return Codec(cast("type[Any]", type_))


def codec_for(type_: type[T]) -> Codec[T]:
    """The codec of a type, made once."""
    return _codec(cast("Hashable", type_))
