"""What went wrong, in terms of what may be done about it: from an error, or from the replies of a batch.

Errors are typed at the transports' boundary (`errors.py`), so this is a table: a store that loads its data, a cluster that is down
and an HTTP 503 are all `unreachable`; a full pool and HTTP 429 are `overloaded`; a rejected password is an alarm and no outage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from redis_core.errors import (
    CredentialsRejected,
    DeadlineExceeded,
    Kind,
    Outcome,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
)

__all__ = ["READ_ONLY", "TROUBLE", "may_answer_elsewhere", "only_reads", "trouble_in"]

TROUBLE: Final[frozenset[type]] = frozenset(
    {
        StoreUnavailable,
        DeadlineExceeded,
        ProtocolError,
        StoreOverloaded,
        StoreReadOnly,
        CredentialsRejected,
    }
)
"""Types of a reply that tell of the store, not of the command. `TROUBLE.isdisjoint(map(type, replies))` is the fast question."""

READ_ONLY: Final[frozenset[str]] = frozenset(
    """
    BITCOUNT BITFIELD_RO BITPOS DBSIZE DUMP ECHO EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO GEODIST GEOHASH GEOPOS
    GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HLEN HMGET HRANDFIELD HSCAN
    HSTRLEN HVALS INFO KEYS LINDEX LLEN LPOS LRANGE MEMORY MGET OBJECT PEXPIRETIME PFCOUNT PING PTTL PUBSUB RANDOMKEY SCAN
    SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR SUNION TIME TTL TYPE
    XINFO XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE
    ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION
    """.split()
)
"""Commands that change nothing."""

_WORST_FIRST: Final = (Kind.CREDENTIALS, Kind.UNREACHABLE, Kind.READ_ONLY, Kind.OVERLOADED)


def only_reads(batch: Sequence[Sequence[object]]) -> bool:
    """Whether no command of a batch changes anything."""
    return all(str(command[0]).upper() in READ_ONLY for command in batch)


def may_answer_elsewhere(batch: Sequence[Sequence[object]], error: StoreError) -> bool:
    """Whether a batch that ended with this error may be answered from another place without being done in two."""
    return error.outcome is Outcome.NOT_SENT or only_reads(batch)


def trouble_in(replies: Iterable[object]) -> StoreError | None:
    """The reply that tells most of the store's state, if one does: `LOADING` of a batch is as good as no connection."""
    found = {
        reply.kind: reply for reply in replies if isinstance(reply, StoreError) and type(reply) in TROUBLE
    }
    return next((found[kind] for kind in _WORST_FIRST if kind in found), None)
