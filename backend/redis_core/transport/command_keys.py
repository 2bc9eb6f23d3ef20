"""Where a command's first key stands: what a cluster routes it by."""

from __future__ import annotations

from typing import Final

from redis_core.transport.base import Argument, Command
from redis_core.transport.refused import command_name

__all__ = ["KEYLESS", "UnknownCommand", "first_key"]

_FIRST: Final = frozenset(
    """
    APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS BLMOVE BLPOP BRPOP BRPOPLPUSH BZPOPMAX BZPOPMIN COPY DECR DECRBY DEL DELIFEQ
    DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO
    GEORADIUS_RO GEOSEARCH GEOSEARCHSTORE GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME
    HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL
    HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS INCR INCRBY INCRBYFLOAT LCS LINDEX LINSERT LLEN LMOVE LPOP LPOS
    LPUSH LPUSHX LRANGE LREM LSET LTRIM MGET MOVE MSET MSETNX PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PFADD PFCOUNT PFMERGE
    PSETEX PTTL RENAME RENAMENX RESTORE RPOP RPOPLPUSH RPUSH RPUSHX SADD SCARD SDIFF SDIFFSTORE SET SETBIT SETEX SETNX
    SETRANGE SINTER SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SORT SORT_RO SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN
    SUBSTR SUNION SUNIONSTORE TOUCH TTL TYPE UNLINK XACK XADD XAUTOCLAIM XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XSETID
    XTRIM ZADD ZCARD ZCOUNT ZDIFFSTORE ZINCRBY ZINTERSTORE ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX
    ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX
    ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNIONSTORE
    """.split()
)
"""Commands whose first argument is a key."""

_SECOND: Final = frozenset({"BITOP", "MEMORY", "OBJECT", "XGROUP", "XINFO"})
"""Commands whose second argument is a key, if there is one."""

_NUMBERED: Final = {
    **dict.fromkeys(("LMPOP", "SINTERCARD", "ZDIFF", "ZINTER", "ZINTERCARD", "ZMPOP", "ZUNION"), 1),
    **dict.fromkeys(("BLMPOP", "BZMPOP", "EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO"), 2),
}
"""Commands that say how many keys follow, and at which argument they say it."""

_AFTER_STREAMS: Final = frozenset({"XREAD", "XREADGROUP"})

KEYLESS: Final = frozenset(
    """
    ACL BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE ECHO FLUSHALL FLUSHDB FUNCTION INFO KEYS LASTSAVE LATENCY
    LOLWUT MODULE PING PUBLISH PUBSUB RANDOMKEY ROLE SAVE SCAN SCRIPT SLOWLOG SWAPDB TIME WAIT WAITAOF
    """.split()
)
"""Commands without a key."""


class UnknownCommand(Exception):
    """No table has this command: the server must be asked for its keys."""


def first_key(command: Command) -> Argument | None:
    """The first key of a command, None if it has none.

    Raises:
        UnknownCommand: ask the server (COMMAND GETKEYS).
    """
    name = command_name(command)
    if name in _FIRST:
        return command[1] if len(command) > 1 else None
    if name in _NUMBERED:
        place = _NUMBERED[name]
        none = len(command) <= place + 1 or str(command[place]) in {"0", "b'0'"}
        return None if none else command[place + 1]
    if name in _SECOND:
        return command[2] if len(command) > 2 else None  # noqa: PLR2004 - the name, an option, the key
    if name in _AFTER_STREAMS:
        words = [command_name((word,)) for word in command]
        # A group or consumer may be called STREAMS.
        place = words.index("STREAMS", 4 if name == "XREADGROUP" else 1) if "STREAMS" in words[1:] else -1
        return command[place + 1] if 0 < place < len(command) - 1 else None
    if name in KEYLESS or not name:
        return None
    raise UnknownCommand(name)
