"""Records as commands.

Doing a frame's commands twice does what doing them once does: that is how a transfer that was killed goes on at the frame it had begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis_core.errors import StoreError
from redis_core.transfer.batches import send, try_send
from redis_core.transfer.records import Group, Piece, Tail

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.transport.base import Argument, Command

__all__ = ["Writing", "commands_of"]

_MOST: Final = 500
"""Commands that leave together; fewer if they are large."""
_BYTES: Final = 512 * 1024
_NOT_NEWER: Final = "equal or smaller"
"""What a store says of an entry whose id is not newer than the stream's last: it has been written by the run before."""
_BUSY_GROUP: Final = "BUSYGROUP"
_VERBS: Final = {"hash": "HSET", "list": "RPUSH", "set": "SADD"}


def commands_of(record: Piece | Tail | Group) -> list[Command]:
    """What writes a record. A key's first piece replaces what is there."""
    key = record.key
    # With each record, so that a key that ends meanwhile is not made anew by the next one.
    ends: list[Command] = [("PEXPIREAT", key, record.expires)] if record.expires else []
    if isinstance(record, Tail):
        # An entry of the last id, and none: the store gives newer ones from then on.
        return [("XADD", key, record.last_id, "-", "-"), ("XDEL", key, record.last_id), *ends]
    if isinstance(record, Group):
        commands: list[Command] = [("XGROUP", "CREATE", key, record.name, record.last_id, "MKSTREAM")]
        for entry, consumer, at, times in record.pending:
            commands.append(
                ("XCLAIM", key, record.name, consumer, 0, entry, "TIME", at, "RETRYCOUNT", times, "FORCE", "JUSTID")
            )  # fmt: skip
        return commands + ends
    return _values(record) + ends


def _values(piece: Piece) -> list[Command]:
    key, rows = piece.key, piece.rows
    if piece.type == "string":
        value = rows[0][0]
        return [("SETRANGE", key, piece.at, value) if piece.at else ("SET", key, value)]
    begin: list[Command] = []
    if not piece.at:
        begin.append(("DEL", key))
    elif piece.type == "list":
        # What a run before wrote of this piece, and of later ones.
        begin.append(("LTRIM", key, 0, piece.at - 1))
    if not rows:
        return begin
    if piece.type == "stream":
        begin.extend(("XADD", key, *row) for row in rows)
        return begin
    words: list[Argument]
    if piece.type == "zset":
        return [*begin, ("ZADD", key, *(word for member, score in rows for word in (score, member)))]
    words = [word for row in rows for word in row]
    return [*begin, (_VERBS[piece.type], key, *words)]


class Writing:
    """Sends records in batches of bounded size.

    Budget: for each key one write (a stream one an entry), DEL unless it is a string, PEXPIREAT if it expires.

    Args:
        client: the store.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._commands: list[Command] = []
        self._bytes = 0

    async def add(self, record: Piece | Tail | Group) -> None:
        """Write a record, at the latest with the next `flush`."""
        if isinstance(record, Tail):
            await self._tail(record)
            return
        for command in commands_of(record):
            size = sum(len(word) if isinstance(word, bytes) else 8 for word in command)
            if self._commands and (len(self._commands) >= _MOST or self._bytes + size > _BYTES):
                await self.flush()
            self._commands.append(command)
            self._bytes += size

    async def flush(self) -> None:
        """Write what was added.

        Raises:
            StoreError: the store refused a command, or is away.
        """
        commands, self._commands, self._bytes = self._commands, [], 0
        for command, reply in zip(commands, await try_send(self._client, commands), strict=True):
            if isinstance(reply, StoreError) and not _done_before(command, str(reply)):
                raise reply

    async def _tail(self, tail: Tail) -> None:
        """Move a stream's last id, unless it is where it should be."""
        await self.flush()
        newest = (await send(self._client, [("XREVRANGE", tail.key, "+", "-", "COUNT", 1)]))[0]
        if newest and newest[0][0] == tail.last_id:
            return
        if tail.last_id == b"0-0":
            # A stream that never had an entry: a group makes it.
            self._commands = [
                ("XGROUP", "CREATE", tail.key, "transfer", "0-0", "MKSTREAM"),
                ("XGROUP", "DESTROY", tail.key, "transfer"),
            ]
        else:
            self._commands = commands_of(tail)
        await self.flush()


def _done_before(command: Command, message: str) -> bool:
    if command[0] == "XADD":
        return _NOT_NEWER in message
    return command[:2] == ("XGROUP", "CREATE") and message.startswith(_BUSY_GROUP)
