"""Which commands a request may carry: what REST cannot do, what the store's operator keeps, what only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from redis_core.errors import CommandError, PermissionDenied
from redis_core.key_positions import SUBCOMMANDS_WITH_KEY, key_positions, upper
from redis_core.transport.base import Argument

__all__ = ["UNUSUAL", "key_too_long", "no_permission", "reads_only", "refusal"]

_TRANSACTION: Final = "send the commands to /multi-exec, which runs them as one transaction"
_SUBSCRIBE: Final = "read the event streams /subscribe/<channel> and /psubscribe/<pattern>"
_WATCH: Final = "a request has no connection that could watch a key; use a script"
_BLOCKS: Final = "it waits in the server, which a request may not; ask again later"
_CONNECTION: Final = "a request has no connection of its own"
_OPERATOR: Final = "it belongs to the store's operator, who reaches the store itself"

_REFUSED: Final[dict[str, str]] = {
    **dict.fromkeys("MULTI EXEC DISCARD".split(), _TRANSACTION),
    **dict.fromkeys("WATCH UNWATCH".split(), _WATCH),
    **dict.fromkeys("SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE".split(), _SUBSCRIBE),
    **dict.fromkeys(
        "SSUBSCRIBE SUNSUBSCRIBE".split(), "there are no shard channels here; use /subscribe/<channel>"
    ),
    **dict.fromkeys("BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP".split(), _BLOCKS),
    **dict.fromkeys("AUTH HELLO".split(), "the token of the request says who asks"),
    **dict.fromkeys("ASKING QUIT READONLY READWRITE RESET".split(), _CONNECTION),
    **dict.fromkeys("PSYNC REPLCONF RESTORE-ASKING SYNC".split(), "it is for replicas"),
    "MONITOR": "read the event stream /monitor",
    **dict.fromkeys(
        """
        ACL BGREWRITEAOF BGSAVE CLUSTER CONFIG DEBUG FAILOVER MIGRATE MODULE MOVE PFDEBUG PFSELFTEST REPLICAOF SAVE
        SHUTDOWN SLAVEOF SWAPDB
        """.split(),
        _OPERATOR,
    ),
}

_LOOKED_AT: Final = frozenset({"CLIENT", "SELECT", "WAIT", "WAITAOF", "XREAD", "XREADGROUP"})
_LONGEST_WAIT: Final = 10_000
"""Milliseconds that WAIT may take."""

UNUSUAL: Final = frozenset(
    {
        *_REFUSED,
        *_LOOKED_AT,
        # Rewritten on the way: see scripts.py and admission.py.
        *"EVAL EVALSHA EVAL_RO EVALSHA_RO SCRIPT FUNCTION SCAN".split(),
    }
)
"""Commands that need more than passing on, whoever asks."""

# The flag `readonly` of COMMAND in Redis 7.0 and Valkey 9, without KEYS and SCAN, which Upstash keeps from such tokens, and
# without CLUSTERSCAN and LOLWUT; with the connection's harmless ones and Upstash's own.
_READS: Final = frozenset(
    """
    BITCOUNT BITFIELD_RO BITPOS DBSIZE DIGEST DUMP EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO GEODIST GEOHASH GEOPOS
    GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET
    HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS LCS LINDEX LLEN LPOS LRANGE MGET PEXPIRETIME PFCOUNT PTTL
    RANDOMKEY SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR SUNION
    TOUCH TTL TYPE XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER
    ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION
    ECHO PING TIME
    JSON.ARRINDEX JSON.ARRLEN JSON.GET JSON.MGET JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.STRLEN JSON.TYPE
    """.split()
)


def refusal(name: str, words: Sequence[Argument]) -> CommandError | None:
    """Why no request may carry this command, or None if it may.

    Args:
        name: the command, in capitals.
        words: all of it, the name included.
    """
    why = _REFUSED.get(name)
    if why is None and name in _LOOKED_AT:
        if name == "CLIENT":
            why = _CONNECTION
        elif name == "SELECT":
            why = None if len(words) == 2 and upper(words[1]) == "0" else "there is one database, 0"  # noqa: PLR2004
        elif name in {"WAIT", "WAITAOF"}:
            why = None if _bounded(words[-1]) else f"give it a timeout of 1 to {_LONGEST_WAIT} milliseconds"
        elif _blocks(name, words):
            name, why = f"{name} BLOCK", _BLOCKS
    return None if why is None else CommandError(f"ERR {name} is not available over REST: {why}")


def _bounded(milliseconds: Argument) -> bool:
    text = upper(milliseconds)
    return text.isascii() and text.isdigit() and 0 < int(text[:10]) <= _LONGEST_WAIT


def _blocks(name: str, words: Sequence[Argument]) -> bool:
    """Whether BLOCK stands among the options. `GROUP group consumer` may be called anything."""
    for word in words[4 if name == "XREADGROUP" else 1 :]:
        option = upper(word)
        if option == "STREAMS":
            return False
        if option == "BLOCK":
            return True
    return False


def reads_only(name: str, words: Sequence[Argument]) -> bool:
    """Whether a token that only reads may send this command."""
    if name in _READS:
        return True
    return (
        name in {"MEMORY", "OBJECT", "XINFO"}
        and len(words) > 1
        and (name, upper(words[1])) in SUBCOMMANDS_WITH_KEY
    )


def no_permission(name: str) -> PermissionDenied:
    """The answer to a token that only reads."""
    return PermissionDenied(
        f"NOPERM this user has no permissions to run the '{name.lower()}' command or its subcommand"
    )


def key_too_long(name: str, words: Sequence[Argument], limit: int) -> CommandError | None:
    """The error of a command with a key of more than `limit` bytes, or None."""
    for place in key_positions(name, words) or ():
        word = words[place]
        size = len(word if isinstance(word, bytes) else str(word).encode())
        if size > limit:
            return CommandError(f"ERR max key size exceeded. Limit: {limit} bytes, Actual: {size} bytes")
    return None
