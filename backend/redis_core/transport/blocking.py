"""Commands that wait in the server: for how long, and how to undo what one has taken for a caller who has gone."""

from __future__ import annotations

import math
from typing import Final

from redis_core.transport.base import Argument, Command, Reply
from redis_core.transport.refused import block_argument, command_name

__all__ = ["put_back", "wait_seconds"]

_MILLISECONDS: Final = frozenset({"WAIT", "WAITAOF", "XREAD", "XREADGROUP"})


def wait_seconds(command: Command) -> float:
    """How long a blocking command waits in the server at most; infinity for 0, and for what the server will refuse."""
    name = command_name(command)
    word: Argument | None
    if name in {"XREAD", "XREADGROUP"}:
        word = block_argument(command)
    elif name in {"BLMPOP", "BZMPOP"}:
        word = command[1] if len(command) > 1 else None
    else:
        word = command[-1]
    try:
        seconds = float(word) if word is not None else 0.0
    except ValueError:
        return math.inf
    if name in _MILLISECONDS:
        seconds /= 1000
    return seconds if seconds > 0 else math.inf


def put_back(command: Command, reply: Reply) -> Command | None:
    """What returns to its place that which a blocking command took, or None where nothing was taken or lost.

    What BLMOVE moved is in its destination, and what XREADGROUP read is in its group's pending list: neither is lost.
    """
    match command_name(command), reply:
        case "BLPOP", [key, element]:
            return ("LPUSH", _word(key), _word(element))
        case "BRPOP", [key, element]:
            return ("RPUSH", _word(key), _word(element))
        case "BLMPOP", [key, list(elements)]:
            end = "LPUSH" if _from_left(command) else "RPUSH"
            return (end, _word(key), *(_word(element) for element in reversed(elements)))
        case (("BZPOPMIN" | "BZPOPMAX"), [key, member, score]):
            # NX: whoever has added the member since knows better.
            return ("ZADD", _word(key), "NX", _word(score), _word(member))
        case "BZMPOP", [key, list(pairs)]:
            words = [_word(word) for pair in pairs if isinstance(pair, list) for word in reversed(pair)]
            return ("ZADD", _word(key), "NX", *words)
        case _:
            return None


def _from_left(command: Command) -> bool:
    """Whether BLMPOP takes from the left: the word after its keys says so."""
    place = 3 + int(command[2])
    return command_name(command[place : place + 1]) == "LEFT"


def _word(reply: Reply) -> Argument:
    return reply if isinstance(reply, bytes | int) else b""
