"""Commands about the whole key space: asked of every master of a cluster, and their answers made one."""

from __future__ import annotations

from typing import Final

from redis_core.errors import CommandError
from redis_core.transport.base import Argument, Command, Reply
from redis_core.transport.cluster_slots import first_error
from redis_core.transport.refused import command_name

__all__ = ["gather_replies", "is_for_all", "next_cursor", "split_cursor"]

_FOR_ALL: Final = frozenset({"DBSIZE", "FLUSHALL", "FLUSHDB", "KEYS"})
_PARTS_FOR_ALL: Final[dict[str, frozenset[str]]] = {
    "ACL": frozenset({"DELUSER", "SAVE", "SETUSER"}),
    "CONFIG": frozenset({"RESETSTAT", "SET"}),
    "FUNCTION": frozenset({"DELETE", "FLUSH", "LOAD", "RESTORE"}),
    "SCRIPT": frozenset({"EXISTS", "FLUSH", "LOAD"}),
}

_MASTER_BITS: Final = 14
"""Low bits of a SCAN cursor that say which master it is of: no cluster has more masters than slots."""


def is_for_all(command: Command) -> bool:
    """Whether a command is meant for all masters."""
    name = command_name(command)
    return name in _FOR_ALL or (name in _PARTS_FOR_ALL and command_name(command[1:]) in _PARTS_FOR_ALL[name])


def gather_replies(command: Command, replies: list[Reply]) -> Reply:
    """One reply of those of all masters: the first error, sums of counts, all keys, whether all know a script."""
    error = first_error(replies)
    if error is not None:
        return error
    name = command_name(command)
    if name == "DBSIZE":
        return sum(reply for reply in replies if isinstance(reply, int))
    lists = [reply for reply in replies if isinstance(reply, list)]
    if name == "KEYS":
        return [key for reply in lists for key in reply]
    if name == "SCRIPT" and lists:
        return [int(all(known)) for known in zip(*lists, strict=True)]
    return replies[0]


def split_cursor(cursor: Argument) -> tuple[int, int]:
    """Which master a SCAN cursor is of, in the order of their first slots, and the cursor there.

    Raises:
        CommandError: it is not a number.
    """
    try:
        number = int(cursor)
    except ValueError:
        raise CommandError("ERR invalid cursor") from None
    return number & ((1 << _MASTER_BITS) - 1), number >> _MASTER_BITS


def next_cursor(master: int, cursor: int, masters: int) -> bytes:
    """The cursor after a step: of the same master, of the next one where it has come to its end, or `0`."""
    if cursor == 0:
        master += 1
        if master == masters:
            return b"0"
    return b"%d" % (cursor << _MASTER_BITS | master)
