"""Whether a store has what a file has: each row is asked for, and each key counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from redis_core.errors import StoreError
from redis_core.transfer.batches import try_send
from redis_core.transfer.reading import rows_of
from redis_core.transfer.records import Piece

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.transport.base import Command

__all__ = ["differing"]

_LENGTHS: Final = {
    "string": "STRLEN", "hash": "HLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "stream": "XLEN"
}  # fmt: skip
_SLACK_MS: Final = 1_000
"""A key that ends within this time may be gone already."""


async def differing(client: Client, pieces: Sequence[Piece]) -> list[bytes]:
    """The keys of those pieces that the store has not as they are. Budget: 1 trip; a read a piece, a count and PTTL a key.

    A key whose time is over may be gone.

    Args:
        client: the store.
        pieces: a bounded number of them.
    """
    commands: list[Command] = [("TIME",)]
    for piece in pieces:
        commands += [_question(piece), (_LENGTHS[piece.type], piece.key), ("PTTL", piece.key)]
    replies = await try_send(client, commands)
    if isinstance(replies[0], StoreError):
        raise replies[0]
    now = int(replies[0][0]) * 1000 + int(replies[0][1]) // 1000
    wrong: list[bytes] = []
    for place, piece in enumerate(pieces):
        rows, length, left = replies[1 + 3 * place : 4 + 3 * place]
        for reply in (rows, length, left):
            if isinstance(reply, StoreError) and reply.code != "WRONGTYPE":  # type: ignore[attr-defined]
                raise reply
        if piece.expires and piece.expires <= now + _SLACK_MS:
            continue
        same = (
            _same(piece, rows)
            and (length == piece.at + piece.size if piece.last else length > piece.at)
            and (left >= 0) == bool(piece.expires)
        )
        if not same and (not wrong or wrong[-1] != piece.key):
            wrong.append(piece.key)
    return wrong


def _question(piece: Piece) -> Command:
    key, rows = piece.key, piece.rows
    if piece.type == "string":
        # A range that ends before it begins is nothing, as is the value of an empty one.
        return ("GETRANGE", key, piece.at, piece.at + max(piece.size - 1, 0))
    if piece.type == "list":
        return ("LRANGE", key, piece.at, piece.at + len(rows) - 1)
    if not rows:
        return ("EXISTS", key)
    if piece.type == "stream":
        return ("XRANGE", key, rows[0][0], rows[-1][0])
    verb = {"hash": "HMGET", "set": "SMISMEMBER", "zset": "ZMSCORE"}[piece.type]
    return (verb, key, *(row[0] for row in rows))


def _same(piece: Piece, reply: Any) -> bool:
    if isinstance(reply, StoreError):
        return False
    if piece.type == "string":
        return bool(reply == piece.rows[0][0])
    if not piece.rows:
        return True
    if piece.type == "hash":
        return bool(reply == [value for _, value in piece.rows])
    if piece.type == "set":
        return all(reply)
    if piece.type == "zset":
        return all(
            score is not None and float(score) == float(right)
            for score, (_, right) in zip(reply, piece.rows, strict=True)
        )
    return rows_of(piece.type, reply) == piece.rows
