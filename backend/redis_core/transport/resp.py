"""RESP: commands to bytes, and RESP3 replies to the one shape that all transports have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import hiredis

from redis_core.errors import StoreError, error_from_reply
from redis_core.transport.base import Command, Reply

__all__ = ["flatten", "format_double", "pack", "reply_reader"]

_PLAIN = frozenset({bytes, int, type(None)})


def pack(batch: Sequence[Command]) -> bytes:
    """The bytes of these commands, one after the other."""
    if len(batch) == 1:
        return hiredis.pack_command(batch[0])  # type: ignore[arg-type]
    return b"".join(map(hiredis.pack_command, batch))  # type: ignore[arg-type]


def reply_reader() -> hiredis.Reader:
    """A parser of replies: errors become values, `False` means that no whole reply is there yet."""
    return hiredis.Reader(replyError=_error, protocolError=ValueError, notEnoughData=...)


def _error(text: str) -> StoreError:
    return error_from_reply(text)


def format_double(value: float) -> bytes:
    """The shortest decimal form of a double, as Redis writes it: `1`, `0.1`, `inf`."""
    if value.is_integer() and abs(value) < 1e17:  # noqa: PLR2004 - from here on Redis writes an exponent
        return b"%d" % value
    return repr(value).encode()


def flatten(reply: Any) -> Reply:
    """A RESP3 reply in the shape of RESP2: maps and sets as lists, doubles as text, booleans as 0 and 1."""
    kind = type(reply)
    if kind in _PLAIN:
        return cast("Reply", reply)
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        if _PLAIN.issuperset(map(type, reply)):
            return cast("Reply", reply if kind is list else list(reply))
        return [flatten(item) for item in reply]
    if kind is dict:
        return [flatten(part) for item in reply.items() for part in item]
    if kind is bool:
        return int(reply)
    if kind is float:
        return format_double(reply)
    if kind is str:
        return cast("str", reply).encode()
    if isinstance(reply, StoreError):
        return reply
    if isinstance(reply, list):
        return [flatten(item) for item in reply]
    raise TypeError(f"a reply of type {kind.__name__}")
