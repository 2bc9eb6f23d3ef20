"""Typed methods for the commands this project uses; `execute` for any other.

`Commands` knows how a command is written and what its reply means; who inherits from it knows how to send: the client, a
pipeline, a transaction. Keys and values go in as text or bytes; values come back as bytes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from redis_core.errors import Outcome, PermissionDenied, ProtocolError, RedisCoreError
from redis_core.script import Script
from redis_core.transport.base import Argument, Command, Reply

__all__ = ["Commands", "Key", "StreamEntry", "Value", "not_permitted", "wrong_shape"]

Key = str | bytes
Value = str | bytes | int | float
StreamEntry = tuple[bytes, dict[bytes, bytes]]
"""A stream's entry: its id and its fields."""

T = TypeVar("T")
_USER: Final = re.compile(r"[a-z+]+://([^:@/]*):\*\*\*@.*")
"""A store's address as messages show it, if it names a user or has a password."""


class Commands(ABC):
    """Redis commands as methods. Budget: 1 command and 1 trip each, unless a method says otherwise."""

    @abstractmethod
    def _send(self, command: Command, decode: Callable[[Any], T], /) -> Awaitable[T]:
        """Send a command and decode its reply."""

    @abstractmethod
    def run(
        self, script: Script, keys: Sequence[str] = (), args: Sequence[Argument] = ()
    ) -> Awaitable[Reply]:
        """Run a Lua script atomically.

        Budget: 1 trip, 2 the first time a store sees it; 1 command and on Upstash also each inner one.
        """

    def execute(self, *args: Argument) -> Awaitable[Reply]:
        """Send any command, bytes-safe, and return its reply in RESP2's shape.

        Raises:
            CommandError: the store refused it.
        """
        return self._send(args, _as_it_is)

    # --- keys ---

    def delete(self, *keys: Key) -> Awaitable[int]:
        """Remove keys; how many there were."""
        return self._send(("DEL", *keys), int)

    def unlink(self, *keys: Key) -> Awaitable[int]:
        """Remove keys, their memory freed in the background; how many there were."""
        return self._send(("UNLINK", *keys), int)

    def exists(self, *keys: Key) -> Awaitable[int]:
        """How many of these keys there are."""
        return self._send(("EXISTS", *keys), int)

    def expire(self, key: Key, seconds: int) -> Awaitable[bool]:
        """Let a key live this many seconds; False if there is none."""
        return self._send(("EXPIRE", key, seconds), bool)

    def pexpire(self, key: Key, milliseconds: int) -> Awaitable[bool]:
        """Let a key live this many milliseconds; False if there is none."""
        return self._send(("PEXPIRE", key, milliseconds), bool)

    def expireat(self, key: Key, unix_seconds: int) -> Awaitable[bool]:
        """Let a key live until this time; False if there is none."""
        return self._send(("EXPIREAT", key, unix_seconds), bool)

    def persist(self, key: Key) -> Awaitable[bool]:
        """Take a key's expiry away; False if it had none."""
        return self._send(("PERSIST", key), bool)

    def ttl(self, key: Key) -> Awaitable[int]:
        """Seconds a key has left; -1 without expiry, -2 without key."""
        return self._send(("TTL", key), int)

    def pttl(self, key: Key) -> Awaitable[int]:
        """Milliseconds a key has left; -1 without expiry, -2 without key."""
        return self._send(("PTTL", key), int)

    def type(self, key: Key) -> Awaitable[str]:
        """The key's type: `string`, `hash`, ..., `none`."""
        return self._send(("TYPE", key), _text)

    def rename(self, key: Key, new: Key) -> Awaitable[bool]:
        """Give a key another name, over what is there."""
        return self._send(("RENAME", key, new), _ok)

    def scan(
        self,
        cursor: int | bytes = 0,
        *,
        match: str | None = None,
        count: int | None = None,
        type: str | None = None,
    ) -> Awaitable[tuple[bytes, list[bytes]]]:
        """One step over the key space: the next cursor (`b"0"` at the end) and some keys."""
        command: list[Argument] = ["SCAN", cursor]
        if match is not None:
            command += ["MATCH", match]
        if count is not None:
            command += ["COUNT", count]
        if type is not None:
            command += ["TYPE", type]
        return self._send(tuple(command), _scan_step)

    # --- strings ---

    def get(self, key: Key) -> Awaitable[bytes | None]:
        """The value, or None."""
        return self._send(("GET", key), _as_it_is)

    def set(
        self,
        key: Key,
        value: Value,
        *,
        ex: int | None = None,
        px: int | None = None,
        only_if: Literal["absent", "present"] | None = None,
        keep_ttl: bool = False,
    ) -> Awaitable[bool]:
        """Store a value; False if `only_if` did not hold.

        Args:
            key: where.
            value: what.
            ex: seconds to live.
            px: milliseconds to live, instead of `ex`.
            only_if: `absent` (NX) or `present` (XX).
            keep_ttl: leave the key's expiry as it is.
        """
        return self._send(_set_command(key, value, ex, px, only_if, keep_ttl=keep_ttl), _ok)

    def getset(self, key: Key, value: Value, *, ex: int | None = None) -> Awaitable[bytes | None]:
        """Store a value and return the one before."""
        return self._send((*_set_command(key, value, ex, None, None, keep_ttl=False), "GET"), _as_it_is)

    def getdel(self, key: Key) -> Awaitable[bytes | None]:
        """Remove a key and return its value."""
        return self._send(("GETDEL", key), _as_it_is)

    def getex(self, key: Key, *, ex: int | None = None, px: int | None = None) -> Awaitable[bytes | None]:
        """The value, its expiry renewed; a write to the store, so answered by the leader."""
        command: tuple[Argument, ...] = ("GETEX", key)
        if ex is not None:
            command += ("EX", ex)
        elif px is not None:
            command += ("PX", px)
        return self._send(command, _as_it_is)

    def mget(self, *keys: Key) -> Awaitable[list[bytes | None]]:
        """The values, None where there is none."""
        return self._send(("MGET", *keys), _as_it_is)

    def mset(self, values: Mapping[str, Value]) -> Awaitable[bool]:
        """Store several values."""
        return self._send(("MSET", *_pairs(values)), _ok)

    def incr(self, key: Key, by: int = 1) -> Awaitable[int]:
        """Add to a number and return it."""
        return self._send(("INCRBY", key, by), int)

    def incrbyfloat(self, key: Key, by: float) -> Awaitable[float]:
        """Add to a decimal number and return it."""
        return self._send(("INCRBYFLOAT", key, by), float)

    def append(self, key: Key, value: Value) -> Awaitable[int]:
        """Append to a value; its new length in bytes."""
        return self._send(("APPEND", key, value), int)

    def strlen(self, key: Key) -> Awaitable[int]:
        """A value's length in bytes."""
        return self._send(("STRLEN", key), int)

    def getrange(self, key: Key, start: int, end: int) -> Awaitable[bytes]:
        """Part of a value, `end` included."""
        return self._send(("GETRANGE", key, start, end), _as_it_is)

    def setrange(self, key: Key, offset: int, value: Value) -> Awaitable[int]:
        """Overwrite part of a value; its new length in bytes."""
        return self._send(("SETRANGE", key, offset, value), int)

    def bitfield(self, key: Key, *operations: Argument) -> Awaitable[list[int | None]]:
        """Read and change integers packed into a value; one result an operation."""
        return self._send(("BITFIELD", key, *operations), _as_it_is)

    # --- hashes ---

    def hget(self, key: Key, field: Key) -> Awaitable[bytes | None]:
        """One field, or None."""
        return self._send(("HGET", key, field), _as_it_is)

    def hset(self, key: Key, values: Mapping[str, Value]) -> Awaitable[int]:
        """Set fields; how many are new."""
        return self._send(("HSET", key, *_pairs(values)), int)

    def hsetnx(self, key: Key, field: Key, value: Value) -> Awaitable[bool]:
        """Set a field if it is absent."""
        return self._send(("HSETNX", key, field, value), bool)

    def hmget(self, key: Key, *fields: Key) -> Awaitable[list[bytes | None]]:
        """Several fields, None where there is none."""
        return self._send(("HMGET", key, *fields), _as_it_is)

    def hgetall(self, key: Key) -> Awaitable[dict[bytes, bytes]]:
        """All fields; empty if there is no key."""
        return self._send(("HGETALL", key), _mapping)

    def hdel(self, key: Key, *fields: Key) -> Awaitable[int]:
        """Remove fields; how many there were."""
        return self._send(("HDEL", key, *fields), int)

    def hexists(self, key: Key, field: Key) -> Awaitable[bool]:
        """Whether a field is there."""
        return self._send(("HEXISTS", key, field), bool)

    def hincrby(self, key: Key, field: Key, by: int = 1) -> Awaitable[int]:
        """Add to a field's number and return it."""
        return self._send(("HINCRBY", key, field, by), int)

    def hincrbyfloat(self, key: Key, field: Key, by: float) -> Awaitable[float]:
        """Add to a field's decimal number and return it."""
        return self._send(("HINCRBYFLOAT", key, field, by), float)

    def hlen(self, key: Key) -> Awaitable[int]:
        """How many fields there are."""
        return self._send(("HLEN", key), int)

    def hkeys(self, key: Key) -> Awaitable[list[bytes]]:
        """The fields' names."""
        return self._send(("HKEYS", key), _as_it_is)

    # --- lists ---

    def lpush(self, key: Key, *values: Value) -> Awaitable[int]:
        """Put values in front, the last one foremost; the new length."""
        return self._send(("LPUSH", key, *values), int)

    def rpush(self, key: Key, *values: Value) -> Awaitable[int]:
        """Put values at the end; the new length."""
        return self._send(("RPUSH", key, *values), int)

    def lpop(self, key: Key) -> Awaitable[bytes | None]:
        """Take the first value."""
        return self._send(("LPOP", key), _as_it_is)

    def rpop(self, key: Key) -> Awaitable[bytes | None]:
        """Take the last value."""
        return self._send(("RPOP", key), _as_it_is)

    def lrange(self, key: Key, start: int, stop: int) -> Awaitable[list[bytes]]:
        """Values from start to stop, both included; negative counts from the end."""
        return self._send(("LRANGE", key, start, stop), _as_it_is)

    def llen(self, key: Key) -> Awaitable[int]:
        """How many values there are."""
        return self._send(("LLEN", key), int)

    def ltrim(self, key: Key, start: int, stop: int) -> Awaitable[bool]:
        """Keep only the values from start to stop, both included."""
        return self._send(("LTRIM", key, start, stop), _ok)

    def lrem(self, key: Key, count: int, value: Value) -> Awaitable[int]:
        """Remove up to `count` values equal to this one (0: all); how many."""
        return self._send(("LREM", key, count, value), int)

    # --- sets ---

    def sadd(self, key: Key, *members: Value) -> Awaitable[int]:
        """Add members; how many are new."""
        return self._send(("SADD", key, *members), int)

    def srem(self, key: Key, *members: Value) -> Awaitable[int]:
        """Remove members; how many there were."""
        return self._send(("SREM", key, *members), int)

    def smembers(self, key: Key) -> Awaitable[frozenset[bytes]]:
        """All members."""
        return self._send(("SMEMBERS", key), frozenset[bytes])

    def sismember(self, key: Key, member: Value) -> Awaitable[bool]:
        """Whether it is a member."""
        return self._send(("SISMEMBER", key, member), bool)

    def scard(self, key: Key) -> Awaitable[int]:
        """How many members there are."""
        return self._send(("SCARD", key), int)

    # --- sorted sets ---

    def zadd(
        self, key: Key, scores: Mapping[str, float], *, only_if: Literal["absent", "present"] | None = None
    ) -> Awaitable[int]:
        """Add members with scores or change theirs; how many are new."""
        flag: tuple[Argument, ...] = () if only_if is None else ("NX",) if only_if == "absent" else ("XX",)
        return self._send(("ZADD", key, *flag, *(x for m, score in scores.items() for x in (score, m))), int)

    def zincrby(self, key: Key, by: float, member: Value) -> Awaitable[float]:
        """Add to a member's score and return it."""
        return self._send(("ZINCRBY", key, by, member), float)

    def zrem(self, key: Key, *members: Value) -> Awaitable[int]:
        """Remove members; how many there were."""
        return self._send(("ZREM", key, *members), int)

    def zscore(self, key: Key, member: Value) -> Awaitable[float | None]:
        """A member's score, or None."""
        return self._send(("ZSCORE", key, member), _optional_float)

    def zcard(self, key: Key) -> Awaitable[int]:
        """How many members there are."""
        return self._send(("ZCARD", key), int)

    def zcount(self, key: Key, low: float | str, high: float | str) -> Awaitable[int]:
        """How many members have a score from low to high."""
        return self._send(("ZCOUNT", key, low, high), int)

    def zrange(
        self,
        key: Key,
        start: Value,
        stop: Value,
        *,
        by: Literal["rank", "score", "lex"] = "rank",
        reverse: bool = False,
        offset: int = 0,
        count: int | None = None,
    ) -> Awaitable[list[bytes]]:
        """Members from start to stop, both included, by rank, score or name."""
        return self._send(_zrange_command(key, start, stop, by, reverse, offset, count), _as_it_is)

    def zrange_with_scores(
        self,
        key: Key,
        start: Value,
        stop: Value,
        *,
        by: Literal["rank", "score"] = "rank",
        reverse: bool = False,
        offset: int = 0,
        count: int | None = None,
    ) -> Awaitable[list[tuple[bytes, float]]]:
        """As `zrange`, each member with its score."""
        command = (*_zrange_command(key, start, stop, by, reverse, offset, count), "WITHSCORES")
        return self._send(command, _scored)

    def zpopmin(self, key: Key, count: int = 1) -> Awaitable[list[tuple[bytes, float]]]:
        """Take the members of lowest score."""
        return self._send(("ZPOPMIN", key, count), _scored)

    def zremrangebyscore(self, key: Key, low: float | str, high: float | str) -> Awaitable[int]:
        """Remove members with a score from low to high; how many."""
        return self._send(("ZREMRANGEBYSCORE", key, low, high), int)

    def zremrangebyrank(self, key: Key, start: int, stop: int) -> Awaitable[int]:
        """Remove members by rank; how many."""
        return self._send(("ZREMRANGEBYRANK", key, start, stop), int)

    # --- streams and messages ---

    def xadd(
        self, key: Key, fields: Mapping[str, Value], *, id: str = "*", max_length: int | None = None
    ) -> Awaitable[bytes]:
        """Append an entry, the stream cut to about `max_length`; its id."""
        cut: tuple[Argument, ...] = () if max_length is None else ("MAXLEN", "~", max_length)
        return self._send(("XADD", key, *cut, id, *_pairs(fields)), _as_it_is)

    def xrange(
        self, key: Key, start: str = "-", end: str = "+", *, count: int | None = None
    ) -> Awaitable[list[StreamEntry]]:
        """Entries from start to end, both included unless written `(id`."""
        limit: tuple[Argument, ...] = () if count is None else ("COUNT", count)
        return self._send(("XRANGE", key, start, end, *limit), _entries)

    def xrevrange(
        self, key: Key, end: str = "+", start: str = "-", *, count: int | None = None
    ) -> Awaitable[list[StreamEntry]]:
        """As `xrange`, newest first."""
        limit: tuple[Argument, ...] = () if count is None else ("COUNT", count)
        return self._send(("XREVRANGE", key, end, start, *limit), _entries)

    def xlen(self, key: Key) -> Awaitable[int]:
        """How many entries there are."""
        return self._send(("XLEN", key), int)

    def xtrim(self, key: Key, max_length: int) -> Awaitable[int]:
        """Cut a stream to about this many entries; how many went."""
        return self._send(("XTRIM", key, "MAXLEN", "~", max_length), int)

    def xdel(self, key: Key, *ids: str) -> Awaitable[int]:
        """Remove entries; how many there were."""
        return self._send(("XDEL", key, *ids), int)

    def publish(self, channel: Key, payload: Value) -> Awaitable[int]:
        """Send a message to whoever listens now; how many connections that is."""
        return self._send(("PUBLISH", channel, payload), int)

    # --- the server ---

    def ping(self) -> Awaitable[bool]:
        """Whether the store answers."""
        return self._send(("PING",), _pong)

    def echo(self, message: Value) -> Awaitable[bytes]:
        """What was sent, back."""
        return self._send(("ECHO", message), _as_it_is)

    def time(self) -> Awaitable[float]:
        """The store's clock, seconds since the epoch."""
        return self._send(("TIME",), lambda parts: int(parts[0]) + int(parts[1]) / 1e6)

    def dbsize(self) -> Awaitable[int]:
        """How many keys the database holds."""
        return self._send(("DBSIZE",), int)

    def info(self, *sections: str) -> Awaitable[dict[str, str]]:
        """The server's figures by name."""
        return self._send(("INFO", *sections), _info)

    def flushdb(self) -> Awaitable[bool]:
        """Remove every key of the database, all tenants'."""
        return self._send(("FLUSHDB",), _ok)


async def scan_iter(commands: Commands, match: str = "*", *, count: int = 500) -> AsyncIterator[bytes]:
    """Every key that matches. Budget: 1 command for each `count` keys in the whole database."""
    cursor: bytes | int = 0
    while cursor != b"0":
        cursor, keys = await commands.scan(cursor, match=match, count=count)
        for key in keys:
            yield key


def _set_command(
    key: Key,
    value: Value,
    ex: int | None,
    px: int | None,
    only_if: Literal["absent", "present"] | None,
    *,
    keep_ttl: bool,
) -> Command:
    command: Command = ("SET", key, value)
    if ex is not None:
        command += ("EX", ex)
    elif px is not None:
        command += ("PX", px)
    elif keep_ttl:
        command += ("KEEPTTL",)
    if only_if is not None:
        command += ("NX" if only_if == "absent" else "XX",)
    return command


def _zrange_command(
    key: Key, start: Value, stop: Value, by: str, reverse: bool, offset: int, count: int | None
) -> Command:
    command: Command = ("ZRANGE", key, start, stop)
    if by != "rank":
        command += ("BYSCORE" if by == "score" else "BYLEX",)
    if reverse:
        command += ("REV",)
    if offset or count is not None:
        command += ("LIMIT", offset, -1 if count is None else count)
    return command


def _pairs(values: Mapping[str, Value]) -> list[Argument]:
    return [part for item in values.items() for part in item]


# Replies. What does not have the shape that a command answers with is not a Redis server's.


def wrong_shape(command: Command, reply: Reply, error: Exception) -> Exception:
    """What a reply that did not decode is raised as: done, but answered by something that is not a Redis server.

    Args:
        command: what was asked; only its name shows.
        reply: what was answered; only its type shows.
        error: what the decoding raised; ours stay as they are.
    """
    if isinstance(error, RedisCoreError):
        return error
    return ProtocolError(
        f"{command[0]!r} was answered with a {type(reply).__name__} that is no answer to it",
        outcome=Outcome.APPLIED,
    )


def not_permitted(command: Command, reply: PermissionDenied, target: str) -> PermissionDenied:
    """The store's refusal, with what it leaves out: who we are there, what was asked, and what to do.

    Args:
        command: what was asked; only its name shows.
        reply: what the store said; some say neither user nor command.
        target: the store, as its transport names it.
    """
    place = _USER.fullmatch(target)
    user = f"user {place[1] or 'default'!r}" if place else "the user we are"
    said = str(reply).removeprefix("NOPERM ").removeprefix("ERR ")
    error = PermissionDenied(
        f"NOPERM {user} may not {command[0]!s} at {target}: {said}; bring the user up to date with `raptorflow acl apply`, "
        "or do this as a user that may",
        outcome=reply.outcome,
    )
    return error.with_traceback(reply.__traceback__)


def _as_it_is(reply: Any) -> Any:
    return reply


def _ok(reply: Any) -> bool:
    return reply is not None


def _pong(reply: Any) -> bool:
    if reply != b"PONG":
        raise ProtocolError(f"PING was answered with {reply!r:.80}")
    return True


def _text(reply: Any) -> str:
    return str(reply, "utf-8")


def _optional_float(reply: Any) -> float | None:
    return None if reply is None else float(reply)


def _mapping(reply: Any) -> dict[bytes, bytes]:
    parts = iter(reply)
    return dict(zip(parts, parts, strict=True))


def _scored(reply: Any) -> list[tuple[bytes, float]]:
    # RESP3 nests [member, score], RESP2 lists them flat.
    if reply and isinstance(reply[0], list):
        return [(member, float(score)) for member, score in reply]
    parts = iter(reply)
    return [(member, float(score)) for member, score in zip(parts, parts, strict=True)]


def _entries(reply: Any) -> list[StreamEntry]:
    return [(entry_id, _mapping(fields)) for entry_id, fields in reply or ()]


def _scan_step(reply: Any) -> tuple[bytes, list[bytes]]:
    return reply[0], reply[1]


def _info(reply: Any) -> dict[str, str]:
    lines = str(reply, "utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
