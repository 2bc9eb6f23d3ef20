from __future__ import annotations

from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import ConfigError
from redis_core.gateway import GatewayToken, create_gateway, tokens_from_settings
from redis_core.gateway.policy import reads_only, refusal
from redis_core.key_positions import SUBCOMMANDS_WITH_KEY, key_positions
from redis_core.secret import Secret
from redis_core.transport.base import Reply
from tests.unit.gateway.asking import READER, TENANT, FakeStore, ask, command, gateway

REFUSED = """
MULTI|EXEC|DISCARD|WATCH k|UNWATCH|SUBSCRIBE c|UNSUBSCRIBE|PSUBSCRIBE c|PUNSUBSCRIBE|SSUBSCRIBE c|SUNSUBSCRIBE|MONITOR|
BLPOP k 0|BRPOP k 0|BRPOPLPUSH a b 0|BLMOVE a b LEFT LEFT 0|BLMPOP 0 1 k LEFT|BZPOPMIN k 0|BZPOPMAX k 0|BZMPOP 0 1 k MIN|
XREAD BLOCK 0 STREAMS s $|XREAD COUNT 1 block 0 STREAMS s $|XREADGROUP GROUP g c COUNT 1 NOACK BLOCK 5 STREAMS s >|
AUTH x|HELLO 3|SELECT 1|SELECT|SELECT x|QUIT|RESET|READONLY|READWRITE|ASKING|SYNC|PSYNC ? -1|REPLCONF|
CLIENT REPLY OFF|CLIENT KILL x|CLIENT TRACKING ON|CLIENT|CLIENT PAUSE 1|
SHUTDOWN|DEBUG SLEEP 1|CONFIG GET requirepass|REPLICAOF NO ONE|SLAVEOF NO ONE|MODULE LIST|ACL LIST|CLUSTER INFO|FAILOVER|SAVE|
BGSAVE|BGREWRITEAOF|MIGRATE h 1 k 0 1|SWAPDB 0 1|MOVE k 1|WAIT 1 0|WAIT 1 60000|WAITAOF 0 1 0|WAIT
"""


@pytest.mark.parametrize("text", [text.strip() for text in REFUSED.split("|")])
async def test_what_rest_cannot_do_is_refused_with_a_reason(text: str) -> None:
    store = FakeStore()
    app = gateway(store)
    first, *rest = text.split()
    for name in (first, first.lower()):
        answer = await command(app, name, *rest)
        assert answer.status == 400
        assert answer.json["error"].startswith(f"ERR {first}")
        assert "is not available over REST: " in answer.json["error"]
    path = "/" + "/".join(text.replace("?", "%3F").split())
    if first not in {"SUBSCRIBE", "PSUBSCRIBE", "MONITOR"}:
        assert (await ask(app, "GET", path)).status == 400
    assert store.batches == []


@pytest.mark.parametrize(
    "words",
    [
        ["XREAD", "COUNT", "1", "STREAMS", "block", "0"],
        ["XREADGROUP", "GROUP", "block", "BLOCK", "STREAMS", "s", ">"],
        ["XREAD", "STREAMS", "s", "BLOCK"],
        ["SET", "MULTI", "WATCH"],
        ["WAIT", "1", "500"],
    ],
)
async def test_a_word_that_only_looks_like_a_refused_option_passes(words: list[str]) -> None:
    store = FakeStore()
    await command(gateway(store), *words)
    assert store.commands == [tuple(words)]


async def test_what_clients_send_to_introduce_themselves_is_answered_here() -> None:
    store = FakeStore()
    app = gateway(store)
    for words in (["CLIENT", "SETINFO", "LIB-NAME", "x"], ["SELECT", "0"], ["select", 0]):
        assert (await command(app, *words)).json == {"result": "OK"}
    assert store.batches == []


@pytest.mark.parametrize(
    "text",
    "GET k|MGET a b|HGETALL k|ZRANGE k 0 -1|XREAD STREAMS s 0|HSCAN k 0|EVAL_RO x 0|EVALSHA_RO x 0|PING|TTL k|DBSIZE|"
    "MEMORY USAGE k|OBJECT ENCODING k|XINFO STREAM s|JSON.GET k".split("|"),
)
async def test_a_token_that_only_reads_may_read(text: str) -> None:
    store = FakeStore()
    assert (await command(gateway(store), *text.split(), token=READER)).status == 200
    assert store.commands == [tuple(text.split())]


@pytest.mark.parametrize(
    "text",
    "SET k v|DEL k|SCAN 0|KEYS *|EVAL x 0|EVALSHA x 0|SCRIPT LOAD x|FLUSHALL|PUBLISH c m|XREADGROUP GROUP g c STREAMS s >|"
    "XGROUP CREATE s g 0|MEMORY DOCTOR|GETDEL k|GETEX k|SORT k|INFO|FUNCTION LIST|NOSUCH k".split("|"),
)
async def test_a_token_that_only_reads_may_not_write_scan_or_run_scripts(text: str) -> None:
    store = FakeStore()
    app = gateway(store)
    name = text.split(maxsplit=1)[0].lower()
    error = f"NOPERM this user has no permissions to run the '{name}' command or its subcommand"
    answer = await command(app, *text.split(), token=READER)
    assert (answer.status, answer.json) == (400, {"error": error})
    body = b'[["GET","k"],["SET","k","v"]]'
    assert (await ask(app, "POST", "/pipeline", body, token=READER)).json[0] == {"result": "OK"}
    assert (await ask(app, "POST", "/multi-exec", body, token=READER)).status == 400
    assert store.commands == [("GET", "k")]
    assert store.transactions == []


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest) -> Client:
    """A client of each of the real servers."""
    client: Client = request.getfixturevalue(request.param)
    return client


SPECIAL = {"KEYS", "SCAN", "CLUSTERSCAN", "LOLWUT"}
ALSO_READS = {"PING", "ECHO", "TIME"}
# Not in the table on purpose: refused, or with keys that a prefix cannot be put before.
WITHOUT_POSITIONS = {
    "CLUSTERSCAN", "GEORADIUS", "GEORADIUSBYMEMBER", "MSETEX", "PFDEBUG", "RESTORE-ASKING", "SORT", "SORT_RO", "SPUBLISH",
}  # fmt: skip


async def _commands(client: Client) -> dict[str, tuple[set[str], tuple[int, ...]]]:
    reply: Any = await client.execute("COMMAND")
    return {one[0].decode().upper(): ({flag.decode() for flag in one[2]}, tuple(one[3:6])) for one in reply}


async def test_reading_commands_are_those_that_the_server_calls_so(server: Client) -> None:
    known = await _commands(server)
    for name, (flags, _) in known.items():
        expected = name in ALSO_READS or ("readonly" in flags and name not in SPECIAL)
        assert reads_only(name, [name, "x"]) is expected, name


async def test_keys_stand_where_the_server_says(server: Client) -> None:
    for name, (flags, (first, last, step)) in (await _commands(server)).items():
        words = [name, *map(str, range(1, 13))]
        if refusal(name, words) is not None or (first == 0 and "movablekeys" not in flags):
            continue
        if name in WITHOUT_POSITIONS:
            assert key_positions(name, words) is None
        elif "movablekeys" not in flags:
            expected = list(range(first, (last if last >= 0 else len(words) + last) + 1, step))
            assert list(key_positions(name, words) or ()) == expected, name


MOVABLE = """
EVAL x 2 a b c|EVALSHA x 0 a|EVAL_RO x 1 a b|EVALSHA_RO x 1 a|FCALL f 2 a b c|FCALL_RO f 1 a|LMPOP 2 a b LEFT|ZMPOP 1 a MIN|
SINTERCARD 2 a b LIMIT 1|ZDIFF 2 a b|ZINTER 2 a b|ZINTERCARD 2 a b|ZUNION 2 a b WEIGHTS 1 2|ZDIFFSTORE d 2 a b|
ZINTERSTORE d 2 a b|ZUNIONSTORE d 2 a b|XREAD COUNT 1 STREAMS a b 0 0|XREADGROUP GROUP g c COUNT 1 STREAMS a b > >|
MEMORY USAGE a|OBJECT ENCODING a|XINFO STREAM a|XGROUP CREATE a g 0|XINFO CONSUMERS a g|XGROUP SETID a g 0
"""


@pytest.mark.parametrize("text", [text.strip() for text in MOVABLE.split("|")])
async def test_keys_that_move_are_found_where_the_server_finds_them(valkey: Client, text: str) -> None:
    words = text.split()
    none = words[:2] == ["EVALSHA", "x"]  # of which the test says that it has no keys
    expected: Reply = [] if none else await valkey.execute("COMMAND", "GETKEYS", *words)
    places = key_positions(words[0], words)
    assert places is not None
    assert [words[place].encode() for place in places] == expected


def test_there_are_no_more_subcommands_with_a_key() -> None:
    assert {name for name, _ in SUBCOMMANDS_WITH_KEY} == {"MEMORY", "OBJECT", "XGROUP", "XINFO"}


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("GET k", ("GET", "t*1:k")),
        ("MSET a 1 b 2", ("MSET", "t*1:a", "1", "t*1:b", "2")),
        (
            "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
            ("ZUNIONSTORE", "t*1:d", "2", "t*1:a", "t*1:b", "WEIGHTS", "1", "2"),
        ),
        ("XREAD STREAMS a b 0 0", ("XREAD", "STREAMS", "t*1:a", "t*1:b", "0", "0")),
        ("KEYS a*", ("KEYS", "t\\*1:a*")),
        ("SCAN 0 MATCH a* COUNT 5", ("SCAN", "0", "MATCH", "t\\*1:a*", "COUNT", "5")),
        ("SCAN 0", ("SCAN", "0", "MATCH", "t\\*1:*")),
        ("PUBLISH c m", ("PUBLISH", "t*1:c", "m")),
        ("PING", ("PING",)),
    ],
)
async def test_the_prefix_of_a_token_stands_before_every_key(text: str, sent: tuple[str, ...]) -> None:
    store = FakeStore(lambda command: None)
    assert (await command(gateway(store), *text.split(), token=TENANT)).status == 200
    assert store.commands == [sent]


@pytest.mark.parametrize(
    "text",
    "FLUSHALL|FLUSHDB|DBSIZE|RANDOMKEY|INFO|SORT k BY x|EVAL x 1 k|EVALSHA x 0|EVAL_RO x 0|FCALL f 0|SCRIPT LOAD x|NOSUCH k|"
    "PUBSUB CHANNELS|OBJECT HELP|EVAL x 9 k|ZUNION x a|ZUNION -1 a|XREAD STREAMS a|XREADGROUP COUNT 1 STREAMS a >".split(
        "|"
    ),
)
async def test_a_token_with_a_prefix_may_not_send_what_reaches_other_keys(text: str) -> None:
    store = FakeStore()
    answer = await command(gateway(store), *text.split(), token=TENANT)
    assert answer.status == 400
    assert answer.json["error"].startswith("NOPERM ")
    assert store.batches == []


async def test_scripts_that_are_trusted_get_prefixed_keys() -> None:
    store = FakeStore(lambda command: 1)
    app = create_gateway(store, [GatewayToken(Secret("x"), prefix="p:", trusted_scripts=True)])
    await command(app, "EVAL", "return 1", 1, "k", "a", token="x")
    await command(app, "SCRIPT", "EXISTS", "abc", token="x")
    assert store.commands == [("EVAL", "return 1", 1, "p:k", "a"), ("SCRIPT", "EXISTS", "abc")]


async def test_a_prefix_is_a_wall_on_a_real_server(valkey: Client) -> None:
    app = create_gateway(
        valkey.transport, [GatewayToken(Secret("x"), prefix="st*1:"), GatewayToken(Secret("all"))]
    )

    async def ask_tenant(*words: Any) -> Any:
        return (await command(app, *words, token="x")).json["result"]

    await command(app, "SET", "st21:foreign", "1", token="all")
    await command(app, "MSET", "string", "1", "other", "2", token="x")
    await command(app, "XADD", "stream", "1-1", "f", "v", token="x")
    await command(app, "RPUSH", "list", "a", "b", token="x")
    assert await ask_tenant("MGET", "string", "foreign") == ["1", None]
    assert sorted(await ask_tenant("KEYS", "*")) == ["list", "other", "stream", "string"]
    cursor, found = await ask_tenant("SCAN", 0, "COUNT", 100)
    assert (cursor, sorted(found)) == ("0", ["list", "other", "stream", "string"])
    cursor, found = await ask_tenant("SCAN", 0, "MATCH", "str*", "COUNT", 100, "WITHTYPE")
    assert dict(zip(found[::2], found[1::2], strict=True)) == {"stream": "stream", "string": "string"}
    assert await ask_tenant("XREAD", "STREAMS", "stream", "none", "0", "0") == [
        ["stream", [["1-1", ["f", "v"]]]]
    ]
    assert await ask_tenant("XREAD", "STREAMS", "none", "0") is None
    assert await ask_tenant("LMPOP", 2, "none", "list", "LEFT") == ["list", ["a"]]
    assert sorted(await valkey.execute("KEYS", "*")) == [  # type: ignore[arg-type, type-var]
        b"st*1:list", b"st*1:other", b"st*1:stream", b"st*1:string", b"st21:foreign",
    ]  # fmt: skip


async def test_scan_can_tell_types(valkey: Client) -> None:
    app = create_gateway(valkey.transport, [GatewayToken(Secret("full-token"))])
    await command(app, "SET", "a", "1")
    assert (await command(app, "SCAN", 0, "withtype", "COUNT", 10)).json == {"result": ["0", ["a", "string"]]}


def test_a_gateway_needs_tokens_that_differ() -> None:
    for tokens in (
        [],
        [GatewayToken(Secret(""))],
        [GatewayToken(Secret("x")), GatewayToken(Secret("x"), read_only=True)],
    ):
        with pytest.raises(ConfigError, match="GATEWAY_TOKEN"):
            create_gateway(FakeStore(), tokens)


def test_tokens_come_from_the_settings() -> None:
    from redis_core.config import load_settings

    settings = load_settings(mock_redis=True, gateway_token="a", gateway_readonly_token="b")
    assert tokens_from_settings(settings) == [
        GatewayToken(Secret("a")),
        GatewayToken(Secret("b"), read_only=True),
    ]
    assert tokens_from_settings(load_settings(mock_redis=True)) == []


def test_tokens_do_not_show() -> None:
    assert "hidden" not in repr(GatewayToken(Secret("hidden")))
