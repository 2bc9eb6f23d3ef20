"""What a shared object weighs in memory: ten times its encoded form and more, where it is made of many small parts."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from typing import Final

import msgspec

__all__ = ["Weight", "held_bytes"]

_LARGE: Final = 4096
"""Encoded bytes from which a value is always measured: that costs less than decoding it did."""
_MEASURED: Final = 32
"""Of so many smaller values of a region one is measured; the others are taken to be like it."""
_SAMPLE: Final = 64
"""Parts of a long collection that are measured; the others are taken to be like them."""


class Weight:
    """What the values of one region weigh, for each byte of their encoded form."""

    __slots__ = ("_factor", "_left")

    def __init__(self) -> None:
        self._factor = 1.0
        self._left = 0

    def of(self, value: object, encoded: int) -> int:
        """Bytes that this value holds, about."""
        if self._left and encoded < _LARGE:
            self._left -= 1
            return int(encoded * self._factor)
        held = held_bytes(value)
        if encoded < _LARGE:
            self._left = _MEASURED - 1
            self._factor = held / max(encoded, 1)
        return held


def held_bytes(value: object) -> int:
    """Bytes of an immutable object and of its parts, about: of a long collection a sample is measured."""
    if value is None or isinstance(value, bool | Enum):
        return 0  # there is one of each
    held = sys.getsizeof(value)
    if isinstance(value, tuple | frozenset):
        held += _parts(value)
    elif isinstance(value, msgspec.Struct):
        held += sum(held_bytes(getattr(value, name)) for name in value.__struct_fields__)
    elif is_dataclass(value):
        held += sys.getsizeof(getattr(value, "__dict__", None))
        held += sum(held_bytes(getattr(value, one.name)) for one in fields(value))
    return held


def _parts(collection: Collection[object]) -> int:
    count = len(collection)
    if count <= _SAMPLE:
        return sum(map(held_bytes, collection))
    step = count // _SAMPLE
    sample = list(islice(collection, 0, None, step))
    return sum(map(held_bytes, sample)) * count // len(sample)
