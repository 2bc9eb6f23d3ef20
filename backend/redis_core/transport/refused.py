"""Commands that must not run on a connection that many callers share, and those that need one of their own."""

from __future__ import annotations

from typing import Final

from redis_core.errors import CommandError
from redis_core.transport.base import Argument, Command

__all__ = ["BLOCKING", "block_argument", "command_name", "is_blocking", "needs_look", "refusal"]

_TRANSACTION: Final = "use transaction(): its commands would mix with other callers' on this connection"
_SUBSCRIBE: Final = "use subscribe(): it would turn this connection, which others share, into a subscription"
_CONNECTION: Final = "set it in the store's URL: it would change this connection for all who share it"

_REFUSED: Final[dict[str, str]] = {
    "MULTI": _TRANSACTION,
    "EXEC": _TRANSACTION,
    "DISCARD": _TRANSACTION,
    "WATCH": "use a script: another caller's command would be watched as well",
    "UNWATCH": "use a script: another caller's command would be watched as well",
    "SUBSCRIBE": _SUBSCRIBE,
    "UNSUBSCRIBE": _SUBSCRIBE,
    "PSUBSCRIBE": _SUBSCRIBE,
    "PUNSUBSCRIBE": _SUBSCRIBE,
    "SSUBSCRIBE": _SUBSCRIBE,
    "SUNSUBSCRIBE": _SUBSCRIBE,
    "MONITOR": "watch the server with redis-cli, or the gateway's /monitor: it would never stop answering",
    "SYNC": "it would make this connection a replica's",
    "PSYNC": "it would make this connection a replica's",
    "REPLCONF": "it would make this connection a replica's",
    "AUTH": _CONNECTION,
    "HELLO": _CONNECTION,
    "SELECT": _CONNECTION,
    "READONLY": _CONNECTION,
    "READWRITE": _CONNECTION,
    "ASKING": _CONNECTION,
    "RESET": "call aclose() to end the client",
    "QUIT": "call aclose() to end the client",
}

_REFUSED_PARTS: Final[dict[str, frozenset[str]]] = {
    "CLIENT": frozenset({"REPLY", "TRACKING", "CACHING", "SETNAME", "NO-EVICT", "NO-TOUCH"}),
    "SCRIPT": frozenset({"DEBUG"}),
}

BLOCKING: Final = frozenset(
    {"BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "WAIT", "WAITAOF"}
)
"""Commands that wait in the server, whatever their arguments."""


_UNUSUAL: Final = frozenset({*_REFUSED, *_REFUSED_PARTS, *BLOCKING, "XREAD", "XREADGROUP"})


def needs_look(command: Command) -> bool:
    """Whether a command may be one that is refused or waits: the cheap question, asked of every command."""
    if not command:
        return True
    name = command[0]
    return type(name) is not str or name in _UNUSUAL or not name.isupper()


def command_name(command: Command) -> str:
    """The command's name, in capitals."""
    name = command[0] if command else ""
    if type(name) is str:
        return name if name.isupper() else name.upper()
    return (name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).upper()


def refusal(command: Command) -> CommandError | None:
    """Why a command may not run on a shared connection, or None if it may."""
    name = command_name(command)
    why = _REFUSED.get(name)
    if why is None:
        part = command_name(command[1:])
        if part in _REFUSED_PARTS.get(name, ()):
            name, why = f"{name} {part}", _CONNECTION
        elif not name:
            return CommandError("ERR a command needs a name")
        else:
            return None
    return CommandError(f"ERR {name} is refused here: {why}")


def is_blocking(command: Command) -> bool:
    """Whether a command may wait in the server, and so needs a connection of its own."""
    name = command_name(command)
    if name in BLOCKING:
        return True
    return name in {"XREAD", "XREADGROUP"} and block_argument(command) is not None


def block_argument(command: Command) -> Argument | None:
    """The milliseconds after BLOCK of an XREAD or XREADGROUP, None without."""
    # The words after GROUP may be anything; those after STREAMS are keys.
    start = 4 if command_name(command) == "XREADGROUP" else 1
    for place, word in enumerate(command[start:-1], start):
        match command_name((word,)):
            case "STREAMS":
                return None
            case "BLOCK":
                return command[place + 1]
            case _:
                pass
    return None
