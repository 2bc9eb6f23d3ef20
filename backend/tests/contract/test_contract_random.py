"""Random sequences of commands answer on memory as on real servers, and leave the same keys behind.

Covered are all commands that `commands.py` writes, and scripts. Left out, each for a reason:

| left out | why |
| --- | --- |
| TIME, INFO, DBSIZE after expiry, PUBLISH | answers differ by nature; the other files of this folder hold them |
| `XADD key *` | the id is the server's clock |
| `XADD ... MAXLEN ~`, `XTRIM ~` | a server cuts whole nodes of 100 entries, memory cuts exactly |
| PTTL, and the last two digits of TTL | time passes between the two stores |
| the order of HGETALL, HKEYS, SMEMBERS, SCAN | unspecified, compared as sets |
| the text of errors after its first word | Redis and Valkey differ too |
| floats that are no multiple of 1/4 | 80-bit `long double` exists on x86-64 servers only |
| the order in which two errors of one command are found (`SET k v EX 0` on a list) | Redis and Valkey differ too |
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.errors import StoreError
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient
from tests.stores import clean_client

FAMILIES = ("string", "hash", "list", "set", "zset", "stream")
KEYS = tuple(f"{family}{number}" for family in FAMILIES for number in (1, 2))
WORDS = (
    "",
    "a",
    "b",
    "c",
    "1",
    "-5",
    "3.5",
    "x" * 70,
    b"\xff\0\r\n",
    "9223372036854775807",
    " 1",
    "1e3",
    "+1",
    "01",
)

word = st.sampled_from(WORDS)
field = st.sampled_from(("f", "g", "", "1", b"\xff"))
place = st.integers(-6, 6)
whole = st.sampled_from((0, 1, -1, 7, 100, 2**62, -(2**63), 2**63 - 1))
quarter = st.sampled_from((0, 0.25, -1.5, 3, 1e6, 0.75))
score = st.sampled_from((0, 1, -1, 2.5, 10, "inf", "-inf"))
bound = st.sampled_from((0, 1, "(1", 2.5, "-inf", "+inf", "(0", "x"))
lex = st.sampled_from(("-", "+", "[a", "(a", "[b", "(c", "a"))
entry = st.sampled_from(("1-1", "1-2", "2-0", "3-5", "0-1", "2", "5-*"))
end = st.sampled_from(("-", "+", "1-1", "(1-1", "2", "(2-0", "x"))
seconds = st.sampled_from((1000, 5000, 0, -1, 100_000))


def key(family: str) -> st.SearchStrategy[str]:
    """A key that mostly holds this type, and now and then another."""
    own = [name for name in KEYS if name.startswith(family)]
    return st.sampled_from(own * 8 + list(KEYS))


def some(strategy: st.SearchStrategy[Any], least: int = 1, most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=least, max_size=most)


def command(name: str, *parts: object) -> st.SearchStrategy[Command]:
    """A command of fixed words and strategies; a strategy of a list or tuple gives several words."""
    strategies = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    return st.tuples(*strategies).map(lambda found: (name, *_flat(found)))


def _flat(parts: Any) -> list[Any]:
    return [word for part in parts for word in (_flat(part) if isinstance(part, list | tuple) else [part])]


s, h, li, se, z, x = map(key, FAMILIES)
any_key = st.sampled_from(KEYS)
pairs = some(st.tuples(field, word))
flags = st.sampled_from(([], ["NX"], ["XX"]))
limit = st.sampled_from(([], ["LIMIT", 0, 2], ["LIMIT", 1, -1], ["LIMIT", 5, 1]))
expiry = st.sampled_from(([], ["EX", 1000], ["PX", 900_000], ["KEEPTTL"]))
bits = st.sampled_from(("u8", "i8", "u4", "u16", "i32", "u63", "i64"))
offset = st.sampled_from((0, 3, 8, 20, "#0", "#1", "#2"))

COMMANDS = st.one_of(
    # keys
    command("DEL", some(any_key)), command("UNLINK", some(any_key)), command("EXISTS", some(any_key)),
    command("EXPIRE", any_key, seconds), command("PEXPIRE", any_key, st.sampled_from((900_000, 0, -5))),
    command("EXPIRE", any_key, st.sampled_from((1000, 5000)), st.sampled_from(("NX", "XX", "GT", "LT"))),
    command("EXPIREAT", any_key, st.sampled_from((4_000_000_000, 1000))), command("PERSIST", any_key),
    command("TTL", any_key), command("TYPE", any_key), command("RENAME", any_key, any_key),
    command("SCAN", 0, "COUNT", 1000), command("SCAN", 0, "MATCH", st.sampled_from(("*1", "s*", "?ash*", "[sl]*")), "COUNT", 1000),
    command("SCAN", 0, "COUNT", 1000, "TYPE", st.sampled_from(("string", "zset", "stream"))),
    # strings
    command("GET", s), command("SET", s, word, expiry, flags), command("SET", s, word, "GET"), command("SET", s, word, "EX", 0),
    command("GETDEL", s), command("GETEX", s), command("GETEX", s, st.sampled_from((["EX", 500], ["PX", 500_000], ["PERSIST"]))),
    command("MGET", some(any_key)), command("MSET", some(st.tuples(s, word))), command("INCRBY", s, whole),
    command("INCRBYFLOAT", s, quarter), command("APPEND", s, word), command("STRLEN", s), command("GETRANGE", s, place, place),
    command("SETRANGE", s, st.integers(-1, 8), word),
    command("BITFIELD", s, "GET", bits, offset), command("BITFIELD", s, "SET", bits, offset, whole),
    command("BITFIELD", s, "OVERFLOW", st.sampled_from(("WRAP", "SAT", "FAIL")), "INCRBY", bits, offset, st.integers(-300, 300)),
    # hashes
    command("HGET", h, field), command("HSET", h, pairs), command("HSETNX", h, field, word), command("HMGET", h, some(field)),
    command("HGETALL", h), command("HDEL", h, some(field)), command("HEXISTS", h, field), command("HINCRBY", h, field, whole),
    command("HINCRBYFLOAT", h, field, quarter), command("HLEN", h), command("HKEYS", h),
    # lists
    command("LPUSH", li, some(word)), command("RPUSH", li, some(word)), command("LPOP", li), command("RPOP", li),
    command("LRANGE", li, place, place), command("LLEN", li), command("LTRIM", li, place, place),
    command("LREM", li, st.integers(-2, 2), word),
    # sets
    command("SADD", se, some(word)), command("SREM", se, some(word)), command("SMEMBERS", se), command("SISMEMBER", se, word),
    command("SCARD", se),
    # sorted sets
    command("ZADD", z, flags, some(st.tuples(score, field))), command("ZINCRBY", z, quarter, field), command("ZREM", z, some(field)),
    command("ZSCORE", z, field), command("ZCARD", z), command("ZCOUNT", z, bound, bound),
    command("ZRANGE", z, place, place, st.sampled_from(([], ["REV"], ["WITHSCORES"], ["REV", "WITHSCORES"]))),
    command("ZRANGE", z, bound, bound, "BYSCORE", st.sampled_from(([], ["REV"])), limit, st.sampled_from(([], ["WITHSCORES"]))),
    command("ZRANGE", z, lex, lex, "BYLEX", st.sampled_from(([], ["REV"])), limit),
    command("ZPOPMIN", z, st.integers(0, 3)), command("ZREMRANGEBYSCORE", z, bound, bound), command("ZREMRANGEBYRANK", z, place, place),
    # streams
    command("XADD", x, entry, pairs), command("XADD", x, "MAXLEN", st.integers(0, 3), entry, pairs),
    command("XRANGE", x, end, end, st.sampled_from(([], ["COUNT", 1], ["COUNT", 0]))), command("XREVRANGE", x, end, end),
    command("XLEN", x), command("XTRIM", x, "MAXLEN", st.integers(0, 3)), command("XDEL", x, some(st.sampled_from(("1-1", "2-0", "7-7")))),
    command("XREAD", "COUNT", 2, "STREAMS", x, st.sampled_from(("0", "1-1", "$"))),
    # the server, and mistakes
    command("ECHO", word), command("PING"), command("GET"), command("HSET", h, field), command("NOSUCH", word),
    # scripts
    command("EVAL", "return redis.call(ARGV[1], KEYS[1])", 1, any_key,
            st.sampled_from(("GET", "TYPE", "HGETALL", "LLEN", "SCARD", "ZCARD", "XLEN", "DEL", "NOSUCH"))),
    command("EVAL", "local n = redis.call('INCRBY', KEYS[1], ARGV[1]) if n > 100 then redis.call('SET', KEYS[1], 0) end return n",
            1, s, whole),
    command("EVAL", "local r = redis.pcall('LPUSH', KEYS[1], ARGV[1]) if type(r) == 'table' then return r.err:sub(1, 5) end return r",
            1, any_key, word),
    command("EVAL", "return {redis.call('HGET', KEYS[1], ARGV[1]), redis.call('ZSCORE', KEYS[2], ARGV[1]), #ARGV[1], ARGV[1]}",
            2, h, z, field),
)  # fmt: skip

ARGUMENTS_FIRST = {
    "ZRANGE",
    "SETRANGE",
    "SET",
    "BITFIELD",
    "INCRBYFLOAT",
    "ZADD",
    "XRANGE",
    "XREVRANGE",
    "XADD",
    "ZCOUNT",
}
"""Commands that may find either their arguments or the key's type wrong first."""


@pytest.fixture(params=["valkey_socket", "redis7_socket"])
def real_socket(request: pytest.FixtureRequest) -> str:
    """The socket of a real server."""
    return str(request.getfixturevalue(request.param))


@settings(
    max_examples=120,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=st.lists(COMMANDS, min_size=5, max_size=40))
async def test_random_commands_answer_as_on_a_real_server(real_socket: str, batch: list[Command]) -> None:
    async with Client(MockRedisClient()) as memory, await clean_client(real_socket) as real:
        expected, found = [await store.transport.execute(batch) for store in (real, memory)]
        for command, theirs, ours in zip(batch, expected, found, strict=True):
            assert (command, comparable(command, ours)) == (command, comparable(command, theirs))
        assert await contents(memory) == await contents(real)


def comparable(command: Command, reply: Reply) -> object:
    """A reply without what may differ."""
    if isinstance(reply, StoreError):
        code = str(reply).split(" ", 1)[0]
        return "error", "ERR" if code == "WRONGTYPE" and command[0] in ARGUMENTS_FIRST else code
    if isinstance(reply, list):
        parts: list[Any] = list(reply)
        if command[0] in {"HKEYS", "SMEMBERS"}:
            return sorted(parts)
        if command[0] == "SCAN":
            return parts[0], sorted(parts[1])
        if command[0] == "HGETALL" or "HGETALL" in command:
            return dict(zip(parts[::2], parts[1::2], strict=True))
    if command[0] == "TTL" and isinstance(reply, int) and reply > 0:
        return round(reply, -2)
    return reply


async def contents(client: Client) -> dict[bytes, object]:
    """Everything a store holds, with what is left of its life."""
    _, keys = await client.scan(count=1000)
    kept: dict[bytes, object] = {}
    for name in keys:
        kind = await client.type(name)
        value: object
        if kind == "string":
            value = await client.get(name)
        elif kind == "hash":
            value = await client.hgetall(name)
        elif kind == "list":
            value = await client.lrange(name, 0, -1)
        elif kind == "set":
            value = await client.smembers(name)
        elif kind == "zset":
            value = await client.zrange_with_scores(name, 0, -1)
        else:
            value = await client.xrange(name)
        kept[name] = kind, value, round(await client.ttl(name), -2)
    return kept
