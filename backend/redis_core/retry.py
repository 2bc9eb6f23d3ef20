"""When a command may be sent a second time, how often, and how soon.

A reply that was lost says nothing of the command: sending INCR again counts twice (redis-py, coredis and upstash-redis do).
So a command is repeated only if it never left, or if doing it twice is the same as doing it once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from redis_core.errors import Outcome, StoreError
from redis_core.transport.base import Command

__all__ = ["READ_ONLY", "RetryBudget", "may_repeat"]

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


def may_repeat(batch: Sequence[Command], error: StoreError) -> bool:
    """Whether a batch that ended with this error may be sent again without doing anything twice.

    Args:
        batch: what was sent.
        error: how it ended.
    """
    if not error.retryable:
        return False
    return error.outcome is Outcome.NOT_SENT or all(str(command[0]).upper() in READ_ONLY for command in batch)


class RetryBudget:
    """At most one retry in ten calls, so that a store in trouble is not sent twice the load (AWS SDK, SRE book).

    A token bucket: each call deposits a tenth of a token, a retry withdraws one.
    """

    __slots__ = ("_random", "_tokens")

    CAPACITY: Final = 10.0
    DEPOSIT: Final = 0.1
    MAX_DELAY: Final = 0.05
    """Seconds; the delay is drawn evenly from zero to this (full jitter)."""

    def __init__(self) -> None:
        self._tokens = self.CAPACITY
        self._random = random.Random()  # noqa: S311 - jitter is no secret

    def deposit(self, calls: int = 1) -> None:
        """Count calls.

        Args:
            calls: how many.
        """
        if self._tokens < self.CAPACITY:
            self._tokens = min(self._tokens + self.DEPOSIT * calls, self.CAPACITY)

    def withdraw(self) -> bool:
        """Take a retry, if there is one left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def delay(self) -> float:
        """Seconds to wait before the retry."""
        return self._random.uniform(0, self.MAX_DELAY)
