"""Which words of a command are keys.

Sources: `COMMAND` of Valkey 9 and Redis 7.0 (a test compares), Upstash's command reference for what only Upstash has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from redis_core.transport.base import Argument

__all__ = ["KEYLESS", "ONE_KEY", "ONLY_KEYS", "SUBCOMMANDS_WITH_KEY", "key_positions", "upper"]

# First and last position and step, as COMMAND tells them; a negative last counts from the end.
_SPANS: Final[dict[str, tuple[int, int, int]]] = {
    name: span
    for span, names in {
        (1, 1, 1): """
            APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY DELEX DELIFEQ DIGEST DUMP EXPIRE EXPIREAT EXPIRETIME
            GEOADD GEODIST GEOHASH GEOPOS GEORADIUS_RO GEORADIUSBYMEMBER_RO GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE
            GETSET HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN
            HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL
            HVALS INCR INCRBY INCRBYFLOAT LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM PERSIST
            PEXPIRE PEXPIREAT PEXPIRETIME PFADD PSETEX PTTL RESTORE RPOP RPUSH RPUSHX SADD SCARD SET SETBIT SETEX SETNX
            SETRANGE SISMEMBER SMEMBERS SMISMEMBER SPOP SRANDMEMBER SREM SSCAN STRLEN SUBSTR TTL TYPE XACK XACKDEL XADD
            XAUTOCLAIM XCLAIM XDEL XDELEX XLEN XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT
            ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX
            ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
            JSON.ARRAPPEND JSON.ARRINDEX JSON.ARRINSERT JSON.ARRLEN JSON.ARRPOP JSON.ARRTRIM JSON.CLEAR JSON.DEL
            JSON.FORGET JSON.GET JSON.MERGE JSON.NUMINCRBY JSON.NUMMULTBY JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.SET
            JSON.STRAPPEND JSON.STRLEN JSON.TOGGLE JSON.TYPE
            """,
        (1, 2, 1): "COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE",
        (1, -1, 1): """
            DEL EXISTS MGET PFCOUNT PFMERGE SDIFF SDIFFSTORE SINTER SINTERSTORE SUNION SUNIONSTORE TOUCH UNLINK
            """,
        (1, -1, 2): "MSET MSETNX",
        (2, -1, 1): "BITOP",
        (1, -2, 1): "JSON.MGET",
        (1, -1, 3): "JSON.MSET",
    }.items()
    for name in names.split()
}

ONE_KEY: Final = frozenset(name for name, span in _SPANS.items() if span == (1, 1, 1))
"""Commands whose one key is their first word."""

ONLY_KEYS: Final = frozenset(name for name, span in _SPANS.items() if span == (1, -1, 1))
"""Commands whose words are all keys."""

# Where the number of keys stands, and whether a destination key stands before it.
_COUNTED: Final[dict[str, tuple[int, bool]]] = {
    **dict.fromkeys("LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION".split(), (1, False)),
    **dict.fromkeys("ZDIFFSTORE ZINTERSTORE ZUNIONSTORE".split(), (2, True)),
    **dict.fromkeys("EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO".split(), (2, False)),
}

SUBCOMMANDS_WITH_KEY: Final = frozenset(
    {
        *(("MEMORY", word) for word in ("USAGE",)),
        *(("OBJECT", word) for word in ("ENCODING", "FREQ", "IDLETIME", "REFCOUNT")),
        *(("XGROUP", word) for word in ("CREATE", "CREATECONSUMER", "DELCONSUMER", "DESTROY", "SETID")),
        *(("XINFO", word) for word in ("CONSUMERS", "GROUPS", "STREAM")),
    }
)
"""Commands of two words whose third is a key."""

KEYLESS: Final = frozenset({"ECHO", "PING", "TIME"})
"""Commands that have to do with no key, and tell nothing about any."""


def upper(word: Argument) -> str:
    """A word of a command in capitals, for telling options."""
    if isinstance(word, bytes):
        return word.decode("utf-8", "replace").upper()
    return str(word).upper()


def key_positions(name: str, words: Sequence[Argument]) -> Sequence[int] | None:
    """Where the keys of a command stand, or None where that is not known.

    Args:
        name: the command, in capitals.
        words: all of it, the name included.
    """
    count = len(words)
    span = _SPANS.get(name)
    if span is not None:
        first, last, step = span
        return range(first, min(last if last >= 0 else count + last, count - 1) + 1, step)
    counted = _COUNTED.get(name)
    if counted is not None:
        return _counted(words, *counted)
    if name in {"XREAD", "XREADGROUP"}:
        return _streams(words)
    if name in KEYLESS:
        return ()
    if count > 1 and (name, upper(words[1])) in SUBCOMMANDS_WITH_KEY:
        return (2,) if count > 2 else ()  # noqa: PLR2004 - name, subcommand, key
    return None


def _counted(words: Sequence[Argument], at: int, destination: bool) -> Sequence[int] | None:
    try:
        number = int(words[at])
    except (IndexError, ValueError):
        return None
    keys = range(at + 1, at + 1 + number)
    if number < 0 or keys.stop > len(words):
        return None
    return (1, *keys) if destination else keys


def _streams(words: Sequence[Argument]) -> Sequence[int] | None:
    """The first half of what follows STREAMS."""
    start = 1
    if upper(words[0]) == "XREADGROUP":
        # A group and a consumer may be called STREAMS: they are known by their place.
        if len(words) < 4 or upper(words[1]) != "GROUP":  # noqa: PLR2004 - name, GROUP, group, consumer
            return None
        start = 4
    for place in range(start, len(words)):
        if upper(words[place]) == "STREAMS":
            rest = len(words) - place - 1
            return None if rest % 2 else range(place + 1, place + 1 + rest // 2)
    return None
