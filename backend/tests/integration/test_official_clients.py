"""Upstash's own clients, as published, against the gateway under uvicorn, in front of a real Valkey."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import upstash_ratelimit
import upstash_ratelimit.asyncio
import uvicorn
from upstash_redis import AsyncRedis, Redis
from upstash_redis.errors import UpstashError

from redis_core.client import connect
from redis_core.config import Settings
from redis_core.gateway import Gateway, GatewayToken, create_gateway
from redis_core.secret import Secret

TOKEN, READER = "token-of-the-official-clients", "token-that-only-reads"
PROGRAM = Path(__file__).parent / "official_clients"


@dataclass
class Running:
    """A gateway that is being served, in a thread of its own."""

    url: str
    app: Gateway


@pytest.fixture(scope="module")
def gateway(valkey_socket: str) -> Iterator[Running]:
    """The gateway under uvicorn, with its own loop, as the clients here block theirs."""
    # The protocol is named: asyncio sets TCP_NODELAY only where it is, and without it each answer waits for an ACK, 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    started = threading.Event()
    running = Running(f"http://127.0.0.1:{listening.getsockname()[1]}", None)  # type: ignore[arg-type]
    server: list[uvicorn.Server] = []

    async def serve() -> None:
        settings = Settings(_env_file=None, redis_url=f"unix://{valkey_socket}", redis_command_timeout=20)  # type: ignore[call-arg]
        async with await connect(settings) as client:
            tokens = [GatewayToken(Secret(TOKEN)), GatewayToken(Secret(READER), read_only=True)]
            running.app = create_gateway(client.transport, tokens)
            config = uvicorn.Config(running.app, log_level="warning", access_log=False, lifespan="off")
            server.append(uvicorn.Server(config))
            started.set()
            await server[0].serve([listening])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(20)
    yield running
    server[0].should_exit = True
    thread.join(20)
    listening.close()
    assert not thread.is_alive()


@pytest.fixture
def redis(gateway: Running) -> Iterator[Any]:
    """The blocking client of PyPI's `upstash-redis`, its database empty. Its annotations promise other types than it returns."""
    with Redis(gateway.url, TOKEN, rest_retries=0) as client:
        client.flushall()
        yield client


# --- npm: @upstash/redis and @upstash/ratelimit ---


@pytest.fixture(scope="module")
def javascript(gateway: Running) -> dict[str, Any]:
    """What program.mjs saw, by name of its checks."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node is not None, "Node.js 20 or newer is needed, see docs/development.md"
    assert npm is not None, "npm is needed, see docs/development.md"
    if not (PROGRAM / "node_modules" / "@upstash").is_dir():
        subprocess.run(
            [npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=PROGRAM, check=True, timeout=50
        )
    ran = subprocess.run(
        [node, "program.mjs", gateway.url, TOKEN, READER],
        cwd=PROGRAM,
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)  # type: ignore[no-any-return]


_DECISIONS = [[True, 3, 2], [True, 3, 1], [True, 3, 0], [False, 3, 0], [False, 3, 0]]
_LIMITED = {"decisions": _DECISIONS, "remaining": 0, "afterReset": True}
_NOT_INTEGER = "ERR value is not an integer or out of range"
_BLOCKS = "ERR XREAD BLOCK is not available over REST: it waits in the server, which a request may not; ask again later"
_NOPERM = "NOPERM this user has no permissions to run the '{}' command or its subcommand"

EXPECTED: dict[str, Any] = {
    "strings": [
        "OK", "value", None, None, "value", "OK", ["x", {"nested": [1, None, "é"]}, None], 5, 5, "new", 5, "Newer", "OK",
        100, 1, 1, 0, 1, 42, 41, 41.5, 2, "string", 2, "PONG", "hello",
    ],
    "values": [
        True, False, 0, -1.5, 1e-7, 1e21, 9007199254740991, "", 'é😀\n"\\', "OK", [1, "2"], {"a": None}, "T0s=",
        "1e-7", "9007199254740993",
    ],
    "bytes": ["\ufffd", "gQ==", 2, 1],
    "hashes": [
        3, {"d": 3}, {"a": 1, "b": "two", "c": {"d": 3}}, None, {"a": 1, "none": None}, 6, 6.5, 1, ["a", "b", "c"],
        [6.5, "two", {"d": 3}], 3, 0, 3, 1, ["0", ["a", 6.5, "c", {"d": 3}]], [1], [100],
    ],
    "lists": [
        3, 4, ["z", "a", "b", {"c": 1}], 4, "z", 5, "OK", 3, 1, "OK", "first", ["a", "b"], "first", None,
    ],
    "sets": [
        3, 3, ["a", "b", "c"], 1, [1, 0], ["b", "c"], ["a", "b", "c", "d"], ["a"], 2, 1, 1, 2, "0", "string", "string",
    ],
    "sortedSets": [
        3, ["a", 1, "b", 2.5, {"c": 1}, 3], ["a", "b", {"c": 1}], ["b"], 2.5, [1, None], 1, 2, 11, 3, 3, ["b", 2.5],
        ["a", 11], 1, 2, 2,
    ],
    "streams": [
        "1-1", "2-1", 2, {"1-1": {"field": "value", "n": 1}, "2-1": {"field": "other"}}, {"2-1": {"field": "other"}},
        [["x", [["2-1", ["field", "other"]]]]], "OK", [["x", [["1-1", ["field", "value", "n", 1]]]]], 1, [], 1, 1,
        f"Command failed: {_BLOCKS}",
    ],
    "others": [
        1, 13, 1, 2, 0, 1, 1, "OK", "COPIED", 2, 2, 1, ["dumped"], "number", "string", 2, ["0", ["dumped"]],
        ["0", [{"key": "dumped", "type": "string"}]],
    ],
    "autoPipelining": [True, True],
    "pipelines": [
        ["OK", 2, 2, None], f"Command 2 [ incr ] failed: {_NOT_INTEGER}", ["OK", _NOT_INTEGER, "text"],
    ],
    "transactions": [
        ["OK", 2], True, 50, ["OK", _NOT_INTEGER, "text"], f"EXECABORT Transaction discarded because of: {_BLOCKS}", None,
    ],
    "scripts": [
        True, [1, 0], 5, 10, 15, 15, 15, [1, "two", [3, None]], "OK", "Command failed: NOSCRIPT No matching script.",
    ],
    "rateLimits": dict.fromkeys(("fixedWindow", "slidingWindow", "tokenBucket", "cachedFixedWindow"), _LIMITED),
    "messages": [
        [1] * 6,
        [
            '["news","plain, with commas"]', '["news","two\\nlines\\r\\nand three"]', '["news",{"json":[1,"é"]}]',
            '["né ws",5]', '["pat:*","pat:1",{"a":"x\\ny"}]', '["pat:*","pat:2",{"pretty":true}]',
        ],
        0,
    ],
    "errors": [
        "WRONGPASS invalid or missing auth token", _NOT_INTEGER, f"Command failed: {_NOT_INTEGER}", "x",
        _NOPERM.format("set"), _NOPERM.format("keys"), _NOPERM.format("eval"), 1,
    ],
    "syncTokens": [5, True],
    "rest": [
        [200, '{"result":"OK"}'],
        [200, '{"result":"a b"}'],
        [200, '{"result":100}'],
        [200, '{"result":"OK"}'],
        [200, '{"result":"{\\"a\\":1}"}'],
        [200, '{"result":"{\\"a\\":1}"}'],
        [401, '{"error":"WRONGPASS invalid or missing auth token"}'],
        [405, '{"error":"ERR method DELETE is not allowed"}'],
        [200, ""],
        [200, '*2\r\n$7\r\n{"a":1}\r\n$-1\r\n'],
        [400, '{"error":"ERR unknown command \'NOSUCH\', with args beginning with: \'command\' "}'],
        [413, '{"error":"ERR max request size exceeded. Limit: 10485760 bytes, Actual: 11534336 bytes"}'],
    ],
}  # fmt: skip


@pytest.mark.parametrize("check", EXPECTED)
def test_javascript(javascript: dict[str, Any], check: str) -> None:
    assert javascript[check] == EXPECTED[check]


def test_every_javascript_check_is_judged(javascript: dict[str, Any], gateway: Running) -> None:
    assert set(javascript) == set(EXPECTED)
    assert gateway.app.open_streams == 0


def test_the_javascript_packages_are_pinned_without_a_host() -> None:
    lock = (PROGRAM / "package-lock.json").read_text("utf-8")
    assert "://" not in lock
    assert '"integrity"' in lock


# --- PyPI: upstash-redis ---


def test_python_strings_and_keys(redis: Any) -> None:
    assert redis.set("s", "välue") is True
    assert redis.get("s") == "välue"
    assert redis.get("none") is None
    assert redis.set("s", "x", nx=True) is False
    assert redis.set("s", "x", get=True) == "välue"
    assert redis.setex("e", 100, 1.5) is True
    assert (redis.ttl("e"), redis.get("e"), redis.persist("e")) == (100, "1.5", True)
    assert redis.mset({"a": "1", "b": {"json": [True]}}) is True
    assert redis.mget("a", "b", "none") == ["1", '{"json": [true]}', None]
    assert (redis.incr("n"), redis.incrby("n", 2**53), redis.incrbyfloat("f", 1e-7)) == (1, 2**53 + 1, 1e-7)
    assert redis.get("n") == "9007199254740993"
    assert (redis.append("s", "y"), redis.strlen("s"), redis.getrange("s", 0, 0), redis.getdel("s")) == (
        2,
        2,
        "x",
        "xy",
    )
    assert redis.set("ok", "OK") is True
    assert redis.get("ok") == "OK"
    assert (redis.exists("a", "none"), redis.type("a"), redis.rename("a", "c"), redis.delete("c")) == (
        1,
        "string",
        True,
        1,
    )
    assert redis.scan(0, match="o*", count=100) == (0, ["ok"])
    assert sorted(redis.keys("[bo]*")) == ["b", "ok"]
    assert (redis.ping(), redis.echo("hé"), redis.dbsize()) == ("PONG", "hé", 5)


def test_python_collections(redis: Any) -> None:
    assert redis.hset("h", values={"a": 1, "b": "two"}) == 2
    assert redis.hgetall("h") == {"a": "1", "b": "two"}
    assert redis.hmget("h", "a", "none") == ["1", None]
    assert (redis.hincrby("h", "a", 4), redis.hexists("h", "b"), redis.hdel("h", "b")) == (5, True, 1)
    assert redis.rpush("l", "a", "b", "c") == 3
    assert (redis.lrange("l", 0, -1), redis.lpop("l"), redis.lmove("l", "m")) == (["a", "b", "c"], "a", "b")
    assert redis.sadd("s", "a", "b") == 2
    assert (set(redis.smembers("s")), redis.sismember("s", "a"), redis.scard("s")) == ({"a", "b"}, True, 2)
    assert redis.zadd("z", {"a": 1, "b": 2.5}) == 2
    assert redis.zrange("z", 0, -1, withscores=True) == [("a", 1.0), ("b", 2.5)]
    assert (redis.zscore("z", "b"), redis.zincrby("z", 1, "a"), redis.zpopmin("z")) == (
        2.5,
        2.0,
        [("a", 2.0)],
    )
    assert redis.xadd("x", "1-1", {"field": "value"}) == "1-1"
    assert redis.xrange("x", "-", "+") == [["1-1", ["field", "value"]]]
    assert redis.geoadd("g", (13.361389, 38.115556, "Palermo")) == 1
    assert redis.pfadd("p", "a") is True
    assert redis.setbit("bits", 7, 1) == 0
    assert redis.bitfield("bits").get("u8", 0).execute() == [1]


def test_python_pipelines_and_transactions(redis: Any) -> None:
    pipeline = redis.pipeline()
    pipeline.set("a", 1).incr("a").get("a")
    assert pipeline.exec() == [True, 2, "2"]
    transaction = redis.multi()
    transaction.set("b", 1).incr("b").hgetall("none")
    assert transaction.exec() == [True, 2, {}]
    failing = redis.pipeline()
    failing.set("t", "text").incr("t")
    with pytest.raises(UpstashError, match="not an integer"):
        failing.exec()


def test_python_scripts(redis: Any) -> None:
    flagged = "#!lua flags=allow-key-locking\nreturn {KEYS[1], ARGV[1], 3, false}"
    assert redis.eval("return ARGV[1]", args=["é"]) == "é"
    digest = redis.script_load(flagged)
    assert redis.script_exists(digest, "0" * 40) == [True, False]
    assert redis.evalsha(digest, keys=["k"], args=["a"]) == ["k", "a", 3, None]
    assert redis.eval_ro("#!lua flags=no-writes,allow-key-locking\nreturn 1") == 1


def test_python_errors(redis: Any, gateway: Running) -> None:
    redis.set("text", "x")
    with pytest.raises(UpstashError, match="not an integer"):
        redis.incr("text")
    with pytest.raises(UpstashError, match="is not available over REST"):
        redis.execute(["BLPOP", "q", 0])
    with (
        Redis(gateway.url, "wrong", rest_retries=0) as stranger,
        pytest.raises(UpstashError, match="WRONGPASS"),
    ):
        stranger.get("text")
    with Redis(gateway.url, READER, rest_retries=0) as reader:
        assert reader.get("text") == "x"
        with pytest.raises(UpstashError, match="NOPERM"):
            reader.delete("text")


def test_python_without_base64(gateway: Running, redis: Any) -> None:
    redis.set("s", 'é\n"')
    with Redis(gateway.url, TOKEN, rest_encoding=None, rest_retries=0) as plain:
        assert plain.get("s") == 'é\n"'
        assert plain.execute(["SETBIT", "bits", 0, 1]) == 0
        assert plain.get("bits") == "\ufffd"


async def test_python_asyncio(gateway: Running, redis: Any) -> None:
    client: Any
    async with AsyncRedis(gateway.url, TOKEN, rest_retries=0) as client:
        assert await client.set("k", "v") is True
        assert await asyncio.gather(*(client.incr("n") for _ in range(20)))
        assert await client.get("n") == "20"
        transaction = client.multi()
        transaction.incr("n").get("n")
        assert await transaction.exec() == [21, "21"]


async def test_transactions_of_many_clients_never_mix(gateway: Running, redis: Any) -> None:
    async def transact(client: Any) -> bool:
        transaction = client.multi()
        transaction.incr("n").incr("n").get("n")
        first, second, read = await transaction.exec()
        return bool(second == first + 1 and read == str(second))

    async with AsyncRedis(gateway.url, TOKEN, rest_retries=0) as client:
        others = [client.incr("noise") for _ in range(40)]
        outcomes, _ = await asyncio.gather(
            asyncio.gather(*(transact(client) for _ in range(20))), asyncio.gather(*others)
        )
    assert all(outcomes)
    assert redis.get("n") == "40"


# --- PyPI: upstash-ratelimit ---


def _limiters() -> dict[str, Any]:
    return {
        "fixed": upstash_ratelimit.FixedWindow(max_requests=3, window=1, unit="h"),
        "sliding": upstash_ratelimit.SlidingWindow(max_requests=3, window=1, unit="h"),
        "bucket": upstash_ratelimit.TokenBucket(max_tokens=3, refill_rate=1, interval=1, unit="h"),
    }


@pytest.mark.parametrize("kind", ["fixed", "sliding", "bucket"])
def test_python_rate_limits(redis: Any, kind: str) -> None:
    ratelimit = upstash_ratelimit.Ratelimit(redis, _limiters()[kind], prefix=kind)
    decisions = [ratelimit.limit("user") for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True, True, True, False, False]
    assert [decision.remaining for decision in decisions[:3]] == [2, 1, 0]
    assert ratelimit.get_remaining("user") == 0
    assert ratelimit.limit("another").allowed


@pytest.mark.parametrize("kind", ["fixed", "sliding", "bucket"])
async def test_python_rate_limits_asyncio(gateway: Running, redis: Any, kind: str) -> None:
    async with AsyncRedis(gateway.url, TOKEN, rest_retries=0) as client:
        ratelimit = upstash_ratelimit.asyncio.Ratelimit(client, _limiters()[kind], prefix=kind)
        decisions = [await ratelimit.limit("user") for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True, True, True, False, False]


# --- the protocol on a real socket, where the clients do not go ---


def test_binary_goes_in_and_out(gateway: Running, redis: Any) -> None:
    binary = bytes(range(256)) * 3
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        assert http.post("/set/bin?EX=100", content=binary).json() == {"result": "OK"}
        answer = http.get("/get/bin", headers={"upstash-encoding": "base64"})
        assert base64.b64decode(answer.json()["result"]) == binary
        answer = http.get("/get/bin", headers={"upstash-response-format": "resp2"})
        assert answer.content == b"$768\r\n%b\r\n" % binary
    assert redis.ttl("bin") == 100


def test_the_monitor_shows_commands_as_they_come(gateway: Running, redis: Any) -> None:
    with (
        httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=20) as http,
        http.stream("POST", "/monitor", headers={"accept": "text/event-stream"}) as stream,
    ):
        lines = stream.iter_lines()
        assert (next(lines), next(lines)) == ('data: "OK"', "")
        redis.set("watched", "é")
        assert next(lines).endswith(r'"SET" "watched" "\xc3\xa9"')


def test_a_body_that_is_too_large_is_answered_before_the_connection_ends(gateway: Running) -> None:
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=20) as http:
        declared = http.post("/", content=b"x" * (11 * 1024 * 1024))
        chunked = http.post("/pipeline", content=(b"x" * 1024 * 1024 for _ in range(11)))
    for answer in (declared, chunked):
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("ERR max request size exceeded")


async def test_a_listener_that_leaves_is_unsubscribed(gateway: Running, redis: Any) -> None:
    async with (
        httpx.AsyncClient(
            base_url=gateway.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=20
        ) as http,
        http.stream("GET", "/subscribe/leaving") as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "data: subscribe,leaving,1"
        assert await asyncio.to_thread(redis.publish, "leaving", "x") == 1
    for _ in range(500):
        if await asyncio.to_thread(redis.publish, "leaving", "y") == 0:
            return
        await asyncio.sleep(0.01)
    pytest.fail("still subscribed")
