"""Scripts on memory: what Redis' interpreter has and does, and nothing of this process."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from redis_core.client import Client
from redis_core.errors import CommandError
from redis_core.transport.in_memory import lua as memory_lua
from redis_core.transport.memory import MockRedisClient


async def run(client: Client, text: str, *args: Any) -> Any:
    return await client.execute("EVAL", text, 0, *args)


@pytest.mark.parametrize(
    "text",
    ["return io", "return python", "return debug", "return require('os')", "return dofile('/etc/passwd')", "return package",
     "return os.execute", "return loadfile('/etc/passwd')", "return getfenv(1)", "return newproxy(true)", "return print('x')"],
)  # fmt: skip
async def test_a_script_reaches_nothing_outside(memory: Client, text: str) -> None:
    with pytest.raises(CommandError, match="nonexistent global variable"):
        await run(memory, f"{text} or undefined_name")


async def test_a_function_of_ours_shows_nothing_of_python(memory: Client) -> None:
    for text in (
        "return redis.sha1hex.__globals__",
        "return tostring(cjson.encode.__self__)",
        "return redis.call.__class__",
    ):
        with pytest.raises(CommandError):
            await run(memory, text)


@pytest.mark.parametrize(
    "text",
    ["x = 1", "_G.x = 1", "rawset(_G, 'x', 1)", "string.format = nil", "rawset(string, 'format', nil)", "redis.call = print",
     "getmetatable('').__index = nil", "setmetatable(_G, nil)", "setmetatable(string, {})", "cjson.encode = nil"],
)  # fmt: skip
async def test_a_script_leaves_nothing_behind_for_the_next(memory: Client, text: str) -> None:
    with pytest.raises(CommandError):
        await run(memory, text)
    assert (
        await run(memory, "return string.format('%d', 1) .. cjson.encode(redis.call('PING'))")
        == b'1{"ok":"PONG"}'
    )


@pytest.mark.parametrize(
    "text",
    ["while true do end", "while true do pcall(function() while true do end end) end",
     "coroutine.wrap(function() while true do end end)()", "local c = coroutine.create(function() while true do end end) error(select(2, coroutine.resume(c)))"],
)  # fmt: skip
async def test_a_script_that_does_not_end_is_ended_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(memory_lua, "_SECONDS", 0.05)
    client = Client(MockRedisClient())
    with pytest.raises(CommandError, match="ran for too long"):
        await run(client, text)
    assert await run(client, "return 1") == 1


async def test_a_script_cannot_take_all_memory(memory: Client) -> None:
    with pytest.raises(CommandError, match="not enough memory"):
        await run(memory, "return string.rep('x', 2^30)")
    assert await run(memory, "return 1") == 1


async def test_bytecode_is_refused(memory: Client) -> None:
    with pytest.raises(CommandError, match="bytecode"):
        await run(memory, "\x1bLua")
    assert (
        await run(memory, r"local f, e = loadstring('\27Lua') return e") == b"attempt to load a binary chunk"
    )
    assert await run(memory, r"local f, e = load(function() return nil end) return type(f)") == b"function"
    assert await run(memory, "return loadstring('return 7')()") == 7


async def test_a_shebang_line_is_read_as_redis_7_reads_it(memory: Client) -> None:
    assert await run(memory, "#!lua\nreturn 1") == 1
    assert await run(memory, "#!lua flags=no-writes,allow-stale\nreturn 1") == 1
    with pytest.raises(CommandError, match="Unexpected flag in script shebang: allow-key-locking"):
        await run(memory, "#!lua flags=allow-key-locking\nreturn 1")
    with pytest.raises(CommandError, match="Unexpected engine"):
        await run(memory, "#!python\nreturn 1")
    with pytest.raises(CommandError, match="user_script:3: boom"):
        await run(memory, "#!lua\n\nerror('boom')")


async def test_errors_are_told_as_redis_tells_them(memory: Client) -> None:
    await memory.set("a", "text")
    for text, message in [
        (
            "return redis.call('LPUSH', 'a', 1)",
            "WRONGTYPE Operation against a key .* script: [0-9a-f]{40}, on @user_script",
        ),
        ("error('boom')", "ERR user_script:1: boom script: [0-9a-f]{40}, on @user_script"),
        ("error({err = 'MINE it is'})", "^MINE it is script:"),
        ("error({})", "^ERR the script raised a value"),
        ("return {err = 'MINE it is'}", "^MINE it is$"),
        ("return redis.error_reply('oops')", "^ERR oops$"),
        ("return redis.error_reply('-MINE oops')", "^MINE oops$"),
        ("return redis.call()", "at least one argument"),
        ("return redis.call({})", "must be strings or integers"),
        ("return redis.call('NOSUCH')", "Unknown Redis command called from script"),
        ("return redis.call('EVAL', 'return 1', 0)", "not allowed from script"),
        ("return redis.call('GET')", "wrong number of arguments"),
        ("return cjson.decode('{')", "invalid token"),
        ("return redis.setresp(3)", "RESP version"),
        ("return cjson.encode({1/0})", "must not be NaN or Inf"),
        ("return cjson.encode(redis.call)", "Cannot serialise"),
        ("return cjson.encode({[1] = 1, [100] = 2})", "excessively sparse"),
        ("local t = {} t[1] = t return cjson.encode(t)", "excessive depth"),
        ("local t = {} t[1] = t return t", "lua stack limit"),
        ("return struct.pack('z', 1)", "invalid format option"),
        ("return struct.unpack('I4', 'ab')", "too short"),
        ("return cmsgpack.unpack('\\217\\9ab')", "Missing bytes"),
    ]:
        with pytest.raises(CommandError, match=message):
            await run(memory, text)


async def test_read_only_scripts_do_not_write(memory: Client) -> None:
    await memory.set("a", 1)
    assert await memory.execute("EVAL_RO", "return redis.call('GET', KEYS[1])", 1, "a") == b"1"
    sha = await memory.execute("SCRIPT", "LOAD", "return redis.call('SET', 'a', 2)")
    assert isinstance(sha, bytes)
    with pytest.raises(CommandError, match="not allowed from read-only scripts"):
        await memory.execute("EVALSHA_RO", sha, 0)
    assert await memory.execute("EVALSHA", sha.upper(), 0) == b"OK"
    with pytest.raises(CommandError, match="NOTBUSY"):
        await memory.execute("SCRIPT", "KILL")
    with pytest.raises(CommandError, match="only support"):
        await memory.execute("SCRIPT", "FLUSH", "LATER")
    for numkeys in (5, -1):
        with pytest.raises(CommandError):
            await memory.execute("EVAL", "return 1", numkeys)


async def test_numbers_are_cut_to_integers(memory: Client) -> None:
    assert await run(memory, "return {2.9, -2.9, 1e15, 2^53}") == [2, -2, 10**15, 2**53]
    assert await run(memory, "return {1e300, 0/0, -1/0}") == [-(2**63)] * 3
    assert await run(memory, "return redis.call('ECHO', 1.5)") == b"1.5"
    assert await run(memory, "return redis.call('ECHO', 10)") == b"10"
    assert await run(memory, "return {function() end, 1}") == [None, 1]


async def test_small_parts_of_redis_module_are_there(memory: Client) -> None:
    text = """
        redis.log(redis.LOG_WARNING, 'x') redis.set_repl(redis.REPL_ALL) redis.breakpoint() redis.debug('x') redis.setresp(2)
        local co = coroutine.wrap(function() coroutine.yield(1) return redis.call('ECHO', 'two') end)
        return {redis.replicate_commands(), redis.sha1hex('a'), server.sha1hex(1), redis.REDIS_VERSION_NUM, co(), co(),
                redis.status_reply('FINE'), type(os.clock())}
    """
    sha_a, sha_1 = b"86f7e437faa5a7fce15d1ddcb9eaeaea377667b8", b"356a192b7913b04c54574d18c28d46e6395428ab"
    assert await run(memory, text) == [1, sha_a, sha_1, 0x70200, 1, b"two", b"FINE", b"number"]


async def test_cjson_writes_as_lua_cjson_does(memory: Client) -> None:
    cases = {
        "{}": b"{}", "{1, 2, 'x'}": b'[1,2,"x"]', "{a = {b = true}}": b'{"a":{"b":true}}', "'a/\"\\n\\0\\127'": b'"a\\/\\"\\n\\u0000\\u007f"',
        "1.5": b"1.5", "100": b"100", "1e20": b"1e+20", "cjson.null": b"null", "{1, nil, 3}": b"[1,null,3]", "{[2.5] = 1}": b'{"2.5":1}',
        "'\\255'": b'"\xff"', "nil": b"null",
    }  # fmt: skip
    for value, text in cases.items():
        assert await run(memory, f"return cjson.encode({value})") == text
    decoded = "local v = cjson.decode(ARGV[1]) return {v.a, v.b[2], tostring(v.c), type(v.d), v.e}"
    document = '{"a": "\\u00e4", "b": [1, 2], "c": null, "d": 9007199254740993, "e": false}'
    found = await run(memory, decoded, document)
    assert (found[0], found[1], found[3]) == ("ä".encode(), 2, b"number")
    assert await run(memory, "return cjson.decode(12)") == 12


async def test_cmsgpack_reads_and_writes_the_format(memory: Client) -> None:
    values: list[Any] = [
        0,
        127,
        128,
        70_000,
        2**40,
        -1,
        -33,
        -300,
        -70_000,
        -(2**40),
        1.5,
        b"",
        b"a" * 40,
        b"b" * 300,
        b"c" * 70_000,
    ]
    packed = msgspec.msgpack.encode(
        [value.decode() if isinstance(value, bytes) else value for value in values]
    )
    assert await run(memory, "return cmsgpack.pack(cmsgpack.unpack(ARGV[1]))", packed) == packed
    assert await run(memory, "return cmsgpack.unpack(ARGV[1])[10] + 2^41", packed) == 2**40
    text = "local a, b, c = cmsgpack.unpack(cmsgpack.pack('x', {k = {true, false}}, nil)) return {a, tostring(b.k[1]), tostring(b.k[2])}"
    assert await run(memory, text) == [b"x", b"true", b"false"]
    long = "local t = {} for i = 1, 70000 do t[i] = i end return #cmsgpack.unpack(cmsgpack.pack(t))"
    assert await run(memory, long) == 70_000
    many = "local t = {} for i = 1, 20 do t['k' .. i] = i end return cmsgpack.unpack(cmsgpack.pack(t)).k20"
    assert await run(memory, many) == 20
    assert await run(memory, "return cmsgpack.unpack(ARGV[1])", msgspec.msgpack.encode(b"bin")) == b"bin"


async def test_bit_works_on_32_signed_bits(memory: Client) -> None:
    text = """return {bit.tobit(2^32 + 5), bit.bnot(0), bit.band(0xff, 0x0f, 3), bit.bor(1, 2, 4), bit.bxor(5, 1), bit.lshift(1, 31),
        bit.rshift(-1, 28), bit.arshift(-16, 2), bit.rol(0x80000001, 1), bit.ror(1, 1), bit.bswap(0x01020304), bit.tohex(255),
        bit.tohex(0xabcd, -4)}"""
    assert await run(memory, text) == [
        5, -1, 3, 7, 4, -(2**31), 15, -4, 3, -(2**31), 0x04030201, b"000000ff", b"ABCD",
    ]  # fmt: skip


async def test_struct_packs_and_unpacks(memory: Client) -> None:
    assert await run(
        memory, "return struct.pack('>bBhHiIlL', -1, 255, -2, 65535, -3, 3, -4, 4)"
    ) == struct.pack(">bBhHiIqQ", -1, 255, -2, 65535, -3, 3, -4, 4)
    assert await run(memory, "return struct.pack('<dfI3sxc0', 1.5, 0.25, 66051, 'ab', 'raw')") == (
        struct.pack("<df", 1.5, 0.25) + b"\x03\x02\x01ab\0\0raw"
    )
    text = "return {struct.unpack('<i2 I3 s c2', struct.pack('<i2I3sc2', -5, 66051, 'text', 'xy'))}"
    assert await run(memory, text) == [-5, 66051, b"text", b"xy", 13]
    assert (
        await run(memory, "return tostring((struct.unpack('>d', 'x' .. struct.pack('>d', 2.5), 2)))")
        == b"2.5"
    )
    assert await run(memory, "return struct.size('>Hd')") == 10
