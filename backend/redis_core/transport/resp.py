"""RESP: commands to bytes, and RESP3 replies to the one shape that all transports have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, cast

import hiredis

from redis_core.errors import InvalidKey, error_from_reply
from redis_core.transport.base import Command, Reply

__all__ = ["PLAIN", "format_double", "pack", "reply_reader", "to_resp2"]

PLAIN: Final = frozenset({bytes, int, type(None)})
"""Types of a reply that is the same in RESP2 and RESP3."""

_PAIRED: Final = frozenset(
    """
    HRANDFIELD ZDIFF ZINTER ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE ZUNION
    """.split()
)
"""Commands that answer a list of pairs in RESP3 where RESP2 has one flat list."""


def pack(batch: Sequence[Command]) -> bytes:
    """The bytes of these commands, one after the other.

    Raises:
        InvalidKey: an argument is neither text, bytes nor number, or is text that UTF-8 cannot hold.
    """
    try:
        if len(batch) == 1:
            return hiredis.pack_command(batch[0])  # type: ignore[arg-type, no-any-return]
        return b"".join(map(hiredis.pack_command, batch))  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidKey(f"an argument cannot be sent: {error}") from None


def reply_reader() -> hiredis.Reader:
    """A parser of replies: errors become values, `...` means that no whole reply is there yet."""
    return hiredis.Reader(replyError=error_from_reply, protocolError=ValueError, notEnoughData=...)


def format_double(value: float) -> bytes:
    """The shortest decimal form of a double, as Redis writes it: `1`, `0.1`, `inf`."""
    if value.is_integer() and abs(value) < 1e17:  # noqa: PLR2004 - from here on Redis writes an exponent
        return b"%d" % value
    return repr(value).encode()


def to_resp2(name: str, reply: Any) -> Reply:
    """A RESP3 reply in the shape of RESP2: maps and sets as lists, doubles as text, booleans as 0 and 1.

    Args:
        name: the command it answers, in capitals; some answer pairs in RESP3.
        reply: what the parser returned.
    """
    if name in _PAIRED and type(reply) is list and reply and type(reply[0]) is list:
        return [_flatten(item) for pair in reply for item in pair]
    if name in {"XREAD", "XREADGROUP"} and type(reply) is dict:
        return [[_flatten(key), _flatten(entries)] for key, entries in reply.items()]
    return _flatten(reply)


def _flatten(reply: Any) -> Reply:
    kind = type(reply)
    if kind in PLAIN:
        return cast("Reply", reply)
    if kind is list:
        if PLAIN.issuperset(map(type, reply)):
            return cast("Reply", reply)
        return [_flatten(item) for item in reply]
    if kind is dict:
        parts = list(chain.from_iterable(reply.items()))
        return parts if PLAIN.issuperset(map(type, parts)) else [_flatten(part) for part in parts]
    if kind is float:
        return format_double(reply)
    if kind is bool:
        return int(reply)
    return cast("Reply", reply)  # an error, as a value
