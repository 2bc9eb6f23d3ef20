"""Commands that a REST request cannot carry, and what to use instead."""

from __future__ import annotations

from typing import Final

from redis_core.errors import CommandError
from redis_core.transport.base import Command
from redis_core.transport.refused import command_name, is_blocking

__all__ = ["needs_look", "rest_refusal"]

_TRANSACTION: Final = "use transaction(), which sends them as one request"
_SUBSCRIBE: Final = "use subscribe(), which opens an event stream"
_SCRIPT: Final = "use a script: a request has no connection that could watch a key"
_USER: Final = "the token says who we are: set UPSTASH_REDIS_TOKEN"
_CONNECTION: Final = "a request has no connection of its own that it could set or ask about"
_BLOCKING: Final = "it waits in the server, which a request may not: ask again later, or connect over TCP"

_REFUSED: Final[dict[str, str]] = {
    "MULTI": _TRANSACTION,
    "EXEC": _TRANSACTION,
    "DISCARD": _TRANSACTION,
    "WATCH": _SCRIPT,
    "UNWATCH": _SCRIPT,
    "SUBSCRIBE": _SUBSCRIBE,
    "UNSUBSCRIBE": _SUBSCRIBE,
    "PSUBSCRIBE": _SUBSCRIBE,
    "PUNSUBSCRIBE": _SUBSCRIBE,
    "SSUBSCRIBE": _SUBSCRIBE,
    "SUNSUBSCRIBE": _SUBSCRIBE,
    "AUTH": _USER,
    "HELLO": _USER,
    "CLIENT": _CONNECTION,
    "READONLY": _CONNECTION,
    "READWRITE": _CONNECTION,
    "ASKING": _CONNECTION,
    "SELECT": "there is one database, 0",
    "MONITOR": "read the endpoint /monitor: the command never stops answering",
    "SYNC": "it is for replicas",
    "PSYNC": "it is for replicas",
    "REPLCONF": "it is for replicas",
    "RESET": "call aclose() to end the client",
    "QUIT": "call aclose() to end the client",
}
# Source: the compatibility table of Upstash's REST API. WAIT and WAITAOF are bounded by their own timeout and are answered.
_ANSWERED: Final = frozenset({"WAIT", "WAITAOF"})
_WAITING: Final = frozenset(
    "BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP XREAD XREADGROUP".split()
)
_UNUSUAL: Final = frozenset({*_REFUSED, *_WAITING})


def needs_look(command: Command) -> bool:
    """Whether `rest_refusal` may have something to say: the cheap question, asked of every command."""
    if not command:
        return True
    name = command[0]
    return type(name) is not str or name in _UNUSUAL or not name.isupper()


def rest_refusal(command: Command) -> CommandError | None:
    """Why a command cannot go over REST and what to use instead, or None if it can."""
    name = command_name(command)
    if not name:
        return CommandError("ERR a command needs a name")
    why = _REFUSED.get(name)
    if why is None and name not in _ANSWERED and is_blocking(command):
        why = _BLOCKING
    if why is None or (name == "SELECT" and command[1:] in {(0,), ("0",), (b"0",)}):
        return None
    return CommandError(f"ERR {name} does not go over REST: {why}")
