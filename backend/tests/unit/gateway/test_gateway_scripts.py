from __future__ import annotations

from hashlib import sha1
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.gateway import GatewayToken, create_gateway
from redis_core.gateway.scripts import Scripts, plain_function, plain_script
from redis_core.secret import Secret
from tests.unit.gateway.asking import FakeStore, command, gateway

FLAGGED = "#!lua flags=allow-key-locking\nreturn redis.call('GET', KEYS[1])"


def _sha(text: str) -> str:
    return sha1(text.encode()).hexdigest()


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest) -> Client:
    """A client of each of the real servers."""
    client: Client = request.getfixturevalue(request.param)
    return client


@pytest.mark.parametrize(
    ("script", "plain"),
    [
        ("return 1", "return 1"),
        ("#!lua flags=allow-key-locking\nreturn 1", "\nreturn 1"),
        ("#!lua flags=allow-key-locking", ""),
        ("#!lua flags=allow-key-locking\r\nreturn 1", "\nreturn 1"),
        ("#!lua flags=no-writes,allow-key-locking\nreturn 1", "#!lua flags=no-writes\nreturn 1"),
        ("#!lua flags=allow-key-locking,no-writes,allow-oom\nx", "#!lua flags=no-writes,allow-oom\nx"),
        ("#!lua\nreturn 'allow-key-locking'", "#!lua\nreturn 'allow-key-locking'"),
        ("#!lua flags=no-writes\nx", "#!lua flags=no-writes\nx"),
        ("-- allow-key-locking\nx", "-- allow-key-locking\nx"),
    ],
)
def test_the_flag_is_taken_out_of_the_first_line(script: str, plain: str) -> None:
    assert plain_script(script) == plain


@pytest.mark.parametrize(
    ("flags", "plain"),
    [
        ("flags={'allow-key-locking'}", "flags={}"),
        ('flags = { "allow-key-locking", }', "flags = {  }"),
        ("flags={'no-writes', 'allow-key-locking'}", "flags={'no-writes'}"),
        ("flags={'allow-key-locking', 'no-writes'}", "flags={ 'no-writes'}"),
        ("['flags'] = {'allow-key-locking'}", "['flags'] = {}"),
        ("flags={'no-writes'} -- 'allow-key-locking'", "flags={'no-writes'} -- 'allow-key-locking'"),
    ],
)
def test_the_flag_is_taken_out_of_functions(flags: str, plain: str) -> None:
    text = "#!lua name=lib\nredis.register_function{function_name='f', callback=f, %s}"
    assert plain_function(text % flags) == text % plain


async def test_scripts_and_their_digests_are_rewritten() -> None:
    store = FakeStore(
        lambda command: _sha(str(command[2])).encode() if command[:2] == ("SCRIPT", "LOAD") else 1
    )
    app = gateway(store)
    plain = plain_script(FLAGGED)
    loaded = await command(app, "SCRIPT", "LOAD", FLAGGED)
    assert loaded.json == {"result": _sha(FLAGGED)}
    await command(app, "EVALSHA", _sha(FLAGGED).upper(), 1, "k")
    await command(app, "EVALSHA_RO", _sha(FLAGGED), 1, "k")
    await command(app, "script", "exists", _sha(FLAGGED), "other")
    await command(app, "EVAL", FLAGGED, 1, "k")
    await command(app, "EVAL_RO", FLAGGED, 1, "k")
    assert store.commands == [
        ("SCRIPT", "LOAD", plain),
        ("EVALSHA", _sha(plain), 1, "k"),
        ("EVALSHA_RO", _sha(plain), 1, "k"),
        ("SCRIPT", "exists", _sha(plain), "other"),
        ("EVAL", plain, 1, "k"),
        ("EVAL_RO", plain, 1, "k"),
    ]


async def test_other_scripts_pass_as_they_are() -> None:
    store = FakeStore(lambda command: b"digest")
    app = gateway(store)
    sent: list[tuple[Any, ...]] = [
        ("EVAL", "return 1", 0),
        ("EVALSHA", _sha("return 1"), 0),
        ("SCRIPT", "LOAD", "return 1"),
        ("SCRIPT", "FLUSH"),
        ("SCRIPT",),
        ("EVAL",),
        ("FUNCTION", "LIST"),
    ]
    for words in sent:
        assert (await command(app, *words)).json == {"result": "digest"}
    assert store.commands == sent


async def test_a_store_that_knows_the_flag_gets_the_script_as_it_is() -> None:
    store = FakeStore(script_header="#!lua flags=allow-key-locking\n")
    await command(gateway(store), "EVAL", FLAGGED, 0)
    assert store.commands == [("EVAL", FLAGGED, 0)]


def test_the_map_of_digests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_core.gateway.scripts._REMEMBERED", 2)
    scripts = Scripts(rewrite=True)
    texts = [f"{FLAGGED} -- {number}" for number in range(3)]
    for text in texts:
        scripts.prepare("EVAL", ["EVAL", text.encode(), 0])
    for text, known in zip(texts, (False, True, True), strict=True):
        words: list[Any] = ["EVALSHA", _sha(text), 0]
        scripts.prepare("EVALSHA", words)
        assert words[1] == (_sha(plain_script(text)) if known else _sha(text))


async def test_a_flagged_script_runs_on_a_server_that_does_not_know_the_flag(server: Client) -> None:
    app = create_gateway(server.transport, [GatewayToken(Secret("full-token"))])
    await server.set("k", "v")
    assert (await command(app, "EVALSHA", _sha(FLAGGED), 1, "k")).json["error"].startswith("NOSCRIPT")
    assert (await command(app, "EVAL_RO", FLAGGED, 1, "k")).json == {"result": "v"}
    assert (await command(app, "EVALSHA", _sha(FLAGGED), 1, "k")).json == {"result": "v"}
    library = (
        "#!lua name=locks\nredis.register_function{function_name='answer', "
        "callback=function(keys, args) return 42 end, flags={'no-writes', 'allow-key-locking'}}"
    )
    assert (await command(app, "FUNCTION", "LOAD", "REPLACE", library)).json == {"result": "locks"}
    assert (await command(app, "FCALL_RO", "answer", 0)).json == {"result": 42}
    await command(app, "FUNCTION", "FLUSH")
