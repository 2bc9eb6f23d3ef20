"""Pipelines, transactions and scripts, on every store."""

from __future__ import annotations

import asyncio

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError, NoScript, TransactionAborted, WrongType
from redis_core.script import Script

ADD = Script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
SHAPES = Script(
    "shapes",
    "return {1, 2.9, 'text', true, false, {redis.status_reply('FINE'), redis.call('GET', 'missing')}, redis.call('MGET', 'k')}",
)

# --- pipelines ---


async def test_each_command_of_a_pipeline_has_its_own_result(client: Client) -> None:
    async with client.pipeline() as batch:
        stored = batch.set("a", 1)
        counted = batch.incr("a", 41)
        read = batch.get("a")
        fields = batch.hgetall("missing")
    assert (await stored, await counted, await read, await fields) == (True, 42, b"42", {})


async def test_an_error_in_the_middle_harms_no_other_command(client: Client) -> None:
    async with client.pipeline() as batch:
        batch.set("a", "text")
        wrong = batch.incr("a")
        unknown = batch.execute("NOSUCHCOMMAND")
        after = batch.set("b", 1)
    assert await after is True
    with pytest.raises(CommandError, match="not an integer"):
        await wrong
    with pytest.raises(CommandError, match="unknown command"):
        await unknown
    assert await client.mget("a", "b") == [b"text", b"1"]


async def test_send_returns_errors_as_values_in_their_places(client: Client) -> None:
    batch = client.pipeline()
    batch.set("a", "text")
    batch.lpush("a", 1)
    batch.get("a")
    first, second, third = await batch.send()
    assert (first, third) == (True, b"text")
    assert isinstance(second, WrongType)


async def test_a_pipeline_of_a_thousand_commands_keeps_their_order(client: Client) -> None:
    batch = client.pipeline()
    for number in range(1000):
        batch.rpush("l", number)
    assert await batch.send() == list(range(1, 1001))
    assert await client.lrange("l", 0, -1) == [b"%d" % number for number in range(1000)]


async def test_an_empty_pipeline_costs_nothing(client: Client) -> None:
    trips = client.stats.trips
    assert await client.pipeline().send() == []
    assert client.stats.trips == trips


# --- transactions ---


async def test_a_transaction_returns_each_result(client: Client) -> None:
    async with client.transaction() as batch:
        batch.set("a", 1)
        counted = batch.incr("a")
        scores = batch.zadd("z", {"m": 1.5})
        ranged = batch.zrange_with_scores("z", 0, -1)
    assert (await counted, await scores, await ranged) == (2, 1, [(b"m", 1.5)])


async def test_a_command_that_fails_in_a_transaction_leaves_the_others_done(client: Client) -> None:
    batch = client.transaction()
    batch.set("a", "text")
    batch.incr("a")
    batch.set("b", 1)
    stored, wrong, after = await batch.send()
    assert (stored, after) == (True, True)
    assert isinstance(wrong, CommandError)
    assert await client.get("b") == b"1"


@pytest.mark.parametrize("refused", [("NOSUCHCOMMAND", "x"), ("GET",), ("SET", "a")])
async def test_a_command_that_cannot_be_queued_discards_the_transaction(
    client: Client, refused: tuple[str, ...]
) -> None:
    batch = client.transaction()
    batch.set("a", 1)
    batch.execute(*refused)
    batch.set("b", 1)
    with pytest.raises(TransactionAborted):
        await batch.send()
    assert await client.exists("a", "b") == 0
    assert await client.ping()


async def test_no_other_command_comes_between_those_of_a_transaction(client: Client) -> None:
    async def counts() -> list[int]:
        batch = client.transaction()
        for _ in range(10):
            batch.incr("n")
        return await batch.send()

    async def disturbs() -> None:
        for _ in range(20):
            await client.incr("n")

    *results, _, _ = await asyncio.gather(*(counts() for _ in range(20)), disturbs(), disturbs())
    for result in results:
        assert result is not None
        assert result == list(range(result[0], result[0] + 10))
    assert await client.get("n") == b"240"


async def test_an_empty_transaction_does_nothing(client: Client) -> None:
    assert await client.transaction().send() == []


# --- scripts ---


async def test_a_script_runs_and_is_known_from_then_on(client: Client) -> None:
    assert await client.run(ADD, ["n"], [5]) == 5
    commands = client.stats.commands
    assert await client.run(ADD, ["n"], [5]) == 10
    assert client.stats.commands == commands + 1


async def test_a_script_that_was_flushed_is_sent_again_once(client: Client) -> None:
    await client.run(ADD, ["n"], [1])
    await client.execute("SCRIPT", "FLUSH")
    commands = client.stats.commands
    assert await client.run(ADD, ["n"], [1]) == 2
    assert client.stats.commands == commands + 2


async def test_an_unknown_sha_is_a_noscript_error(client: Client) -> None:
    with pytest.raises(NoScript):
        await client.execute("EVALSHA", "f" * 40, 0)


async def test_a_script_in_a_pipeline_is_sent_again_after_the_others(client: Client) -> None:
    await client.execute("SCRIPT", "FLUSH")
    for expected in (7, 14):
        async with client.pipeline() as batch:
            before = batch.set("x", 1)
            added = batch.run(ADD, ["n"], [7])
            after = batch.get("x")
        assert (await before, await added, await after) == (True, expected, b"1")


async def test_a_script_in_a_transaction_needs_no_second_trip(client: Client) -> None:
    await client.execute("SCRIPT", "FLUSH")
    async with client.transaction() as batch:
        batch.set("n", 1)
        added = batch.run(ADD, ["n"], [4])
    assert await added == 5


async def test_a_script_s_values_become_replies(client: Client) -> None:
    await client.set("k", 1)
    assert await client.run(SHAPES) == [1, 2, b"text", 1, None, [b"FINE", None], [b"1"]]
    assert await client.run(Script("nil", "return {1, nil, 3}")) == [1]
    assert await client.run(Script("nothing", "local x = 1")) is None
    assert (
        await client.run(Script("binary", "return ARGV[1] .. KEYS[1]"), ["k"], [b"\xff\0\r\n"])
        == b"\xff\0\r\nk"
    )
    assert await client.run(Script("big", "return 9007199254740991")) == 9007199254740991


async def test_replies_become_a_script_s_values(client: Client) -> None:
    await client.hset("h", {"f": "v"})
    await client.zadd("z", {"m": 1.5})
    types = Script(
        "types",
        """
        local get, set = redis.call('GET', 'missing'), redis.call('SET', 'a', 'b')
        local all, score = redis.call('HGETALL', 'h'), redis.call('ZSCORE', 'z', 'm')
        return {type(get), set.ok, all[1], all[2], type(score), score, redis.call('EXISTS', 'a')}
        """,
    )
    assert await client.run(types) == [b"boolean", b"OK", b"f", b"v", b"string", b"1.5", 1]


async def test_an_error_of_a_script_is_typed_by_what_it_called(client: Client) -> None:
    await client.set("a", "text")
    with pytest.raises(WrongType):
        await client.run(Script("wrong type", "return redis.call('LPUSH', KEYS[1], 1)"), ["a"])
    with pytest.raises(CommandError, match="boom"):
        await client.run(Script("raises", "error('boom')"))
    with pytest.raises(CommandError, match=r"^MINE because"):
        await client.run(Script("own", "return redis.error_reply('MINE because')"))
    with pytest.raises(CommandError, match="compiling"):
        await client.run(Script("not lua", "this is not Lua"))
    caught = Script("caught", "local r = redis.pcall('LPUSH', KEYS[1], 1) return r.err:sub(1, 9)")
    assert await client.run(caught, ["a"]) == b"WRONGTYPE"


async def test_what_a_script_did_before_its_error_stays_done(client: Client) -> None:
    with pytest.raises(CommandError):
        await client.run(Script("half", "redis.call('SET', KEYS[1], 1) error('boom')"), ["a"])
    assert await client.get("a") == b"1"


async def test_a_script_is_atomic(client: Client) -> None:
    twice = Script("twice", "local n = redis.call('INCR', KEYS[1]) return {n, redis.call('INCR', KEYS[1])}")
    replies = await asyncio.gather(*(client.run(twice, ["n"]) for _ in range(50)))
    for reply in replies:
        assert isinstance(reply, list)
        first, second = reply
        assert isinstance(first, int)
        assert second == first + 1


async def test_scripts_have_redis_libraries(client: Client) -> None:
    text = """
        local data = cjson.decode(ARGV[1])
        local packed = cmsgpack.pack({1, 'two', {three = 3}})
        local unpacked = cmsgpack.unpack(packed)
        return {data.list[2], cjson.encode({'a/b', 1.5, true}), unpacked[2], unpacked[3].three, bit.band(255, 15),
                bit.bnot(0), struct.pack('>I2', 258), struct.unpack('<I4', struct.pack('<I4', 70000)),
                redis.sha1hex(''), cjson.encode({n = cjson.null}), cjson.encode({})}
    """
    assert await client.run(Script("libraries", text), [], ['{"list": [1, "zwei"]}']) == [
        b"zwei", b'["a\\/b",1.5,true]', b"two", 3, 15, -1, b"\x01\x02", 70000,
        b"da39a3ee5e6b4b0d3255bfef95601890afd80709", b'{"n":null}', b"{}",
    ]  # fmt: skip


async def test_a_script_cannot_reach_outside_or_leave_globals(client: Client) -> None:
    for text in (
        "return io.open('/etc/passwd')",
        "leaked = 1",
        "return os.execute('true')",
        "return undefined_name",
    ):
        with pytest.raises(CommandError):
            await client.run(Script("outside", text))


async def test_script_load_and_exists(client: Client) -> None:
    sha = await client.execute("SCRIPT", "LOAD", "return 41 + 1")
    assert isinstance(sha, bytes)
    assert await client.execute("SCRIPT", "EXISTS", sha, "f" * 40) == [1, 0]
    assert await client.execute("EVALSHA", sha, 0) == 42
