"""A store's keys as records: by type and in pages, so that no reply is larger than one page of the collection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from redis_core.errors import CommandError, LimitExceeded, StoreError, TransferError, WrongType
from redis_core.transfer.batches import send, try_send
from redis_core.transfer.records import Group, Piece, Tail

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.transport.base import Command

__all__ = ["PAGE", "STRING_PAGE", "read_keys", "rows_of"]

PAGE: Final = 256
"""Rows of one reply, about; a small hash or set comes whole, whatever it has."""
STRING_PAGE: Final = 64 * 1024
"""Bytes of a string in one reply."""
_PENDING: Final = 256

Row = list[bytes]


async def read_keys(client: Client, keys: Sequence[bytes]) -> AsyncIterator[Piece | Tail | Group]:
    """All that these keys hold.

    Budget: for each key TYPE, PTTL and one read, in 2 trips for all of them; one more for each further page; a stream's
    XINFO STREAM and XINFO GROUPS besides, and for each group XPENDING. Memory: a page a key, and the names of one large set or hash.
    A key that is gone meanwhile is passed over.

    Args:
        client: the store.
        keys: which.
    """
    found = await _kinds(client, keys)
    first = await _first_pages(client, [_page(key, kind, 0) for key, kind, _ in found])
    for (key, kind, expires), reply in zip(found, first, strict=True):
        if isinstance(reply, WrongType):
            # Another key of that name by now.
            async for record in read_keys(client, [key]):
                yield record
            continue
        if isinstance(reply, StoreError):
            raise reply
        if _is_nothing(kind, reply) and not await client.exists(key):
            continue
        async for piece in _pieces(client, key, kind, expires, reply):
            yield piece
        if kind == "stream":
            async for record in _stream_state(client, key, expires):
                yield record


async def _kinds(client: Client, keys: Sequence[bytes]) -> list[tuple[bytes, str, int]]:
    """Those of the keys that are there, with their types and when they end, in Unix milliseconds, or 0."""
    replies = await send(client, [("TIME",), *(c for key in keys for c in (("TYPE", key), ("PTTL", key)))])
    now = int(replies[0][0]) * 1000 + int(replies[0][1]) // 1000
    found: list[tuple[bytes, str, int]] = []
    for key, kind, left in zip(keys, replies[1::2], replies[2::2], strict=True):
        if kind != b"none" and left != -2:  # noqa: PLR2004 - no such key
            found.append((key, kind.decode(), 0 if left < 0 else now + left))
    return found


async def _first_pages(client: Client, commands: list[Command]) -> list[Any]:
    """Replies, in as many trips as it takes: large values together may be more than a reply may have."""
    try:
        return await try_send(client, commands)
    except LimitExceeded:
        if len(commands) == 1:
            raise
        half = len(commands) // 2
        return await _first_pages(client, commands[:half]) + await _first_pages(client, commands[half:])


def _is_nothing(kind: str, reply: Any) -> bool:
    """Whether a first page is one of a key that is gone, or of one that is empty, as a string or stream may be."""
    return not (reply[1] if kind in {"hash", "set"} else reply)


def _page(key: bytes, kind: str, at: int | bytes) -> Command:
    if kind == "string":
        return ("GETRANGE", key, at, cast("int", at) + STRING_PAGE - 1)
    if kind == "list":
        return ("LRANGE", key, at, cast("int", at) + PAGE - 1)
    if kind == "zset":
        return ("ZRANGE", key, at, cast("int", at) + PAGE - 1, "WITHSCORES")
    if kind == "hash":
        return ("HSCAN", key, at, "COUNT", PAGE)
    if kind == "set":
        return ("SSCAN", key, at, "COUNT", PAGE)
    if kind == "stream":
        return ("XRANGE", key, b"(" + at if isinstance(at, bytes) else "-", "+", "COUNT", PAGE)
    raise TransferError(f"the key {key!r:.100} has the type {kind}, which is not carried")


async def _pieces(client: Client, key: bytes, kind: str, expires: int, reply: Any) -> AsyncIterator[Piece]:
    """A key's pieces, from its first page on."""
    at = done = 0
    seen: set[bytes] | None = None
    while True:
        rows = rows_of(kind, reply)
        next_at: int | bytes | None = None
        if kind in {"hash", "set"}:
            next_at = None if reply[0] == b"0" else cast("bytes", reply[0])
            if next_at is not None or seen is not None:
                # What a table that grows or shrinks holds may come twice.
                seen = set() if seen is None else seen
                rows = [row for row in rows if row[0] not in seen]
                seen.update(row[0] for row in rows)
        elif kind == "string":
            at += len(rows[0][0])
            next_at = at if len(rows[0][0]) == STRING_PAGE else None
        elif len(rows) >= PAGE:
            at += len(rows)
            next_at = rows[-1][0] if kind == "stream" else at
        if next_at is not None:
            reply = (await send(client, [_page(key, kind, next_at)]))[0]
        piece = Piece(key, kind, expires, done, rows, next_at is None)
        # A page that brought only what was there already, or a key that went while it was read.
        if rows or piece.last:
            yield piece
        done += piece.size
        if piece.last:
            return


def rows_of(kind: str, reply: Any) -> list[Row]:
    """The rows of a page, in the form in which a file has them."""
    if kind == "string":
        return [[reply]]
    if kind in {"hash", "set"}:
        reply = reply[1]
    if kind in {"list", "set"}:
        return [[value] for value in reply]
    if kind == "stream":
        return [[entry, *fields] for entry, fields in reply]
    if reply and isinstance(reply[0], list):
        # Scores in pairs, as RESP3 has them.
        return [[member, _text(score)] for member, score in reply]
    return [list(pair) for pair in zip(reply[::2], reply[1::2], strict=True)]


def _text(number: Any) -> bytes:
    return number if isinstance(number, bytes) else repr(number).encode()


async def _stream_state(client: Client, key: bytes, expires: int) -> AsyncIterator[Tail | Group]:
    about, groups = await try_send(client, [("XINFO", "STREAM", key), ("XINFO", "GROUPS", key)])
    if isinstance(about, CommandError) or isinstance(groups, CommandError):
        # Gone since its entries were read.
        return
    yield Tail(key, expires, _fields(about)[b"last-generated-id"])
    for each in groups:
        group = _fields(each)
        waiting = [entry async for entry in _pending(client, key, group[b"name"])]
        yield Group(key, expires, group[b"name"], group[b"last-delivered-id"], waiting)


async def _pending(client: Client, key: bytes, group: bytes) -> AsyncIterator[tuple[bytes, bytes, int, int]]:
    start = b"-"
    while True:
        time, page = await send(client, [("TIME",), ("XPENDING", key, group, start, "+", _PENDING)])
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        for entry, consumer, idle, times in page:
            yield entry, consumer, now - idle, times
        if len(page) < _PENDING:
            return
        start = b"(" + page[-1][0]


def _fields(flat: Any) -> dict[bytes, Any]:
    parts = iter(flat)
    return dict(zip(parts, parts, strict=True))
