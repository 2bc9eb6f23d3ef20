from __future__ import annotations

import asyncio
import json

import pytest

from tests.unit.gateway.asking import FULL, FakeStore, ask, command, gateway

UNAUTHORIZED = b'{"error":"WRONGPASS invalid or missing auth token"}'


async def test_a_command_comes_as_a_json_array() -> None:
    store = FakeStore(lambda command: b"bar")
    answer = await command(gateway(store), "get", "foo")
    assert (answer.status, answer.json) == (200, {"result": "bar"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert store.batches == [[("GET", "foo")]]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("1", 1),
        ("-5", -5),
        ("9007199254740993", 9007199254740993),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("1e-7", "1e-7"),
        ("1.10", "1.10"),
        ("1E5", "1E5"),
        ("0.1", "0.1"),
        ("true", "true"),
        ("false", "false"),
        ('"x y"', "x y"),
    ],
)
async def test_scalars_keep_the_text_they_were_written_with(written: str, kept: object) -> None:
    store = FakeStore()
    await ask(gateway(store), "POST", "/", b'["SET","k",%b]' % written.encode())
    await ask(gateway(store), "POST", "/pipeline", b'[["SET","k",%b]]' % written.encode())
    assert store.commands == [("SET", "k", kept)] * 2


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"nonsense", b'"GET"', b"[", b'["GET",null]', b'["GET",[1]]', b'["GET",{"a":1}]', b'["\\ud800"]',
        b'["GET","\xff"]', b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_body_that_is_no_command_is_a_syntax_error(body: bytes) -> None:
    store = FakeStore()
    answer = await ask(gateway(store), "POST", "/", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("ERR ")
    assert store.batches == []


@pytest.mark.parametrize("body", [b"[]", b"[[]]", b'["GET","k"]', b"{}", b"x", b'[["GET",null]]'])
@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
async def test_a_body_that_is_no_list_of_commands_is_a_syntax_error(path: str, body: bytes) -> None:
    store = FakeStore()
    answer = await ask(gateway(store), "POST", path, body)
    assert answer.status == 400
    assert answer.json["error"].startswith("ERR ")
    assert (store.batches, store.transactions) == ([], [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
async def test_the_path_form_takes_four_methods(method: str) -> None:
    store = FakeStore(lambda command: b"value")
    answer = await ask(gateway(store), method, "/get/foo")
    assert answer.status == 200
    assert store.commands == [("GET", b"foo")]
    assert answer.headers["content-length"] == str(len(b'{"result":"value"}'))
    assert answer.body == (b"" if method == "HEAD" else b'{"result":"value"}')


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_other_methods_are_not_allowed(method: str) -> None:
    answer = await ask(gateway(FakeStore()), method, "/get/foo")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST, PUT"
    assert "not allowed" in answer.json["error"]


async def test_path_segments_are_percent_decoded_bytes() -> None:
    store = FakeStore()
    await ask(gateway(store), "GET", "/set/a%2Fb%20c/%FF%00+?EX=100&NX")
    assert store.commands == [("SET", b"a/b c", b"\xff\x00+", b"EX", b"100", b"NX")]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_the_body_is_the_last_argument_before_those_of_the_query(method: str) -> None:
    store = FakeStore()
    await ask(gateway(store), method, "/set/foo?EX=100&_token=ignored&NX=", [b"\xffbi", b"nary"])
    assert store.commands == [("SET", b"foo", b"\xffbinary", b"EX", b"100", b"NX")]


async def test_an_empty_body_and_the_body_of_a_get_are_no_arguments() -> None:
    store = FakeStore()
    await ask(gateway(store), "POST", "/get/foo", b"")
    await ask(gateway(store), "GET", "/get/foo", b"ignored")
    assert store.commands == [("GET", b"foo")] * 2


async def test_a_query_is_decoded_as_forms_are() -> None:
    store = FakeStore()
    await ask(gateway(store), "GET", "/set/k/v?a+b=c%2Bd")
    assert store.commands == [("SET", b"k", b"v", b"a b", b"c+d")]


@pytest.mark.parametrize("path", ["/", "//x", "/?a=b"])
async def test_a_path_without_a_command_is_a_syntax_error(path: str) -> None:
    answer = await ask(gateway(FakeStore()), "GET", path)
    assert (answer.status, answer.json) == (400, {"error": "ERR empty command"})


async def test_it_can_be_mounted_below_a_path() -> None:
    store = FakeStore()
    await ask(gateway(store), "GET", "/redis/get/foo", root="/redis")
    await ask(gateway(store), "POST", "/redis/", b'["GET","foo"]', root="/redis")
    assert store.commands == [("GET", b"foo"), ("GET", "foo")]


async def test_a_pipeline_is_one_batch_and_answers_in_order() -> None:
    store = FakeStore(len)
    answer = await ask(
        gateway(store), "POST", "/pipeline", b'[["set","a",1],["GET","a"],["BLPOP","q",0],["PING"]]'
    )
    assert answer.status == 200
    assert answer.json[:2] == [{"result": 3}, {"result": 2}]
    assert "BLPOP is not available over REST" in answer.json[2]["error"]
    assert answer.json[3] == {"result": 1}
    assert store.batches == [[("SET", "a", 1), ("GET", "a"), ("PING",)]]


async def test_a_pipeline_of_refused_commands_asks_the_store_nothing() -> None:
    store = FakeStore()
    answer = await ask(gateway(store), "POST", "/pipeline", b'[["MULTI"],["EXEC"]]')
    assert [set(one) for one in answer.json] == [{"error"}, {"error"}]
    assert store.batches == []


async def test_a_transaction_is_one_transaction() -> None:
    store = FakeStore(lambda command: b"OK")
    answer = await ask(gateway(store), "POST", "/multi-exec", b'[["SET","a",1],["SET","b",2]]')
    assert answer.json == [{"result": "OK"}, {"result": "OK"}]
    assert store.transactions == [[("SET", "a", 1), ("SET", "b", 2)]]
    assert store.batches == []


async def test_a_transaction_with_a_refused_command_is_discarded_as_a_whole() -> None:
    store = FakeStore()
    answer = await ask(gateway(store), "POST", "/multi-exec", b'[["SET","a",1],["WATCH","a"]]')
    assert answer.status == 400
    assert answer.json["error"].startswith("EXECABORT Transaction discarded because of: ERR WATCH")
    assert store.transactions == []


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
async def test_batches_are_posted(path: str) -> None:
    answer = await ask(gateway(FakeStore()), "GET", path)
    assert (answer.status, answer.headers["allow"]) == (405, "POST, PUT")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic full-token", "full-token"]
)
async def test_who_has_no_token_is_told_so(header: str | None) -> None:
    store = FakeStore()
    headers = {} if header is None else {"authorization": header}
    answer = await ask(gateway(store), "POST", "/", b'["GET","k"]', token=None, **headers)
    assert (answer.status, answer.body) == (401, UNAUTHORIZED)
    assert store.batches == []


async def test_the_token_may_stand_in_the_query() -> None:
    store = FakeStore()
    assert (await ask(gateway(store), "GET", f"/get/k?_token={FULL}", token=None)).status == 200
    assert (await ask(gateway(store), "POST", f"/?_token={FULL}", b'["GET","k"]', token=None)).status == 200
    assert store.commands == [("GET", b"k"), ("GET", "k")]
    wrong = await ask(gateway(store), "GET", f"/get/k?_token={FULL}", token="wrong")
    assert wrong.status == 401
    assert (await ask(gateway(store), "GET", "/get/k?_token=no", token=None)).body == UNAUTHORIZED


async def test_the_sync_token_changes_with_every_answer() -> None:
    app = gateway(FakeStore())
    answers = [
        await command(app, "GET", "k"),
        await command(app, "GET", "k", upstash_sync_token="what it was"),
        await ask(app, "POST", "/pipeline", b'[["GET","k"]]'),
        await ask(app, "POST", "/", b"x"),
        await ask(app, "GET", "/get/k", token="wrong"),
        await ask(app, "DELETE", "/get/k"),
    ]
    tokens = {answer.headers["upstash-sync-token"] for answer in answers}
    assert len(tokens) == len(answers)
    assert "" not in tokens


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("path", ["/", "/pipeline", "/multi-exec", "/set/k"])
async def test_a_body_that_is_too_large_is_answered_413_and_read_to_its_end(
    path: str, declared: bool
) -> None:
    store = FakeStore()
    parts = [b"x" * 60] * 4
    headers = {"content_length": "240"} if declared else {}
    answer = await ask(gateway(store, max_body_bytes=100), "POST", path, parts, **headers)
    assert answer.status == 413
    assert answer.json["error"].startswith("ERR max request size exceeded. Limit: 100 bytes, Actual: ")
    assert answer.headers["connection"] == "close"
    assert store.batches == []


async def test_an_endless_body_is_not_read_for_ever() -> None:
    received = 0

    async def endless() -> dict[str, object]:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"",
        "headers": [(b"authorization", b"Bearer full-token")],
    }  # fmt: skip
    await gateway(FakeStore(), max_body_bytes=1000)(scope, endless, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 413
    assert received < 200


async def test_a_pipeline_that_is_too_long_is_answered_413() -> None:
    store = FakeStore()
    answer = await ask(
        gateway(store, max_pipeline=2), "POST", "/pipeline", json.dumps([["PING"]] * 3).encode()
    )
    assert answer.status == 413
    assert answer.json == {"error": "ERR max pipeline length exceeded. Limit: 2 commands, Actual: 3"}
    assert store.batches == []


@pytest.mark.parametrize(
    "words",
    [["GET", "k" * 40_000], ["MSET", "a", "1", "k" * 40_000, "2"], ["EVAL", "return 1", 1, "k" * 40_000]],
)
async def test_a_key_that_is_too_long_is_an_error_of_its_command(words: list[object]) -> None:
    store = FakeStore()
    app = gateway(store)
    error = "ERR max key size exceeded. Limit: 32768 bytes, Actual: 40000 bytes"
    answer = await command(app, *words)
    assert (answer.status, answer.json) == (400, {"error": error})
    answer = await ask(app, "POST", "/pipeline", json.dumps([words, ["PING"]]).encode())
    assert answer.json == [{"error": error}, {"result": "OK"}]
    assert (await ask(app, "GET", f"/get/{'k' * 40_000}")).json == {"error": error}
    assert store.commands == [("PING",)]


async def test_a_value_may_be_longer_than_a_key() -> None:
    store = FakeStore()
    assert (await command(gateway(store), "SET", "k", "v" * 100_000)).status == 200
    assert store.commands == [("SET", "k", "v" * 100_000)]


async def test_a_client_that_hangs_up_gets_no_answer_and_its_command_is_not_sent() -> None:
    store = FakeStore()
    messages: list[dict[str, object]] = [
        {"type": "http.request", "body": b'["SET",', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(message: object) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"",
        "headers": [(b"authorization", b"Bearer full-token")],
    }  # fmt: skip
    await gateway(store)(scope, receive, send)
    assert (store.batches, sent) == ([], [])


async def test_lifespan_is_acknowledged_and_websockets_are_closed() -> None:
    app = gateway(FakeStore())
    sent: list[str] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(str(message["type"]))

    for kind, types in (
        ("lifespan", ["lifespan.startup", "lifespan.shutdown"]),
        ("websocket", ["websocket.connect"]),
    ):

        async def receive(types: list[str] = types) -> dict[str, object]:
            return {"type": types.pop(0)}

        await app({"type": kind}, receive, send)  # type: ignore[arg-type]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


async def test_a_sender_that_stalls_in_a_body_that_is_too_large_is_given_up() -> None:
    sent: list[dict[str, object]] = []
    messages: list[dict[str, object]] = [{"type": "http.request", "body": b"x" * 200, "more_body": True}]

    async def receive() -> dict[str, object]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"",
        "headers": [(b"authorization", b"Bearer full-token")],
    }  # fmt: skip
    app = gateway(FakeStore(), max_body_bytes=100, drain_timeout=0.01)
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert [sent[0]["status"], sent[-1].get("more_body", False)] == [413, False]


async def test_a_server_that_gives_no_raw_path_is_served() -> None:
    store = FakeStore()
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/get/a b",
        "headers": [(b"authorization", b"Bearer full-token")],
    }
    await gateway(store)(scope, receive, send)  # type: ignore[arg-type]
    assert store.commands == [("GET", b"a b")]


async def test_a_command_that_is_a_number_is_an_unknown_command() -> None:
    store = FakeStore()
    await command(gateway(store), 5, "k")
    assert store.commands == [("5", "k")]
