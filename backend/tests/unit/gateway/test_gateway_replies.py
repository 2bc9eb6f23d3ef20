from __future__ import annotations

import base64
import json

import pytest

from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    DeadlineExceeded,
    LimitExceeded,
    Outcome,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
    TransactionAborted,
    WrongType,
)
from redis_core.gateway.replies import one_base64, one_json, one_resp2
from redis_core.transport.base import Reply
from tests.unit.gateway.asking import FakeStore, ask, command, gateway

REPLIES: list[tuple[Reply, object, object, bytes]] = [
    (None, None, None, b"$-1\r\n"),
    (7, 7, 7, b":7\r\n"),
    (2**63 - 1, 2**63 - 1, 2**63 - 1, b":9223372036854775807\r\n"),
    (b"OK", "OK", "OK", b"+OK\r\n"),
    (b"", "", "", b"$0\r\n\r\n"),
    (b'a"\\\n', 'a"\\\n', "YSJcCg==", b'$4\r\na"\\\n\r\n'),
    ("é😀".encode(), "é😀", base64.b64encode("é😀".encode()).decode(), b"$6\r\n\xc3\xa9\xf0\x9f\x98\x80\r\n"),
    (b"a\xffb", "a\ufffdb", "Yf9i", b"$3\r\na\xffb\r\n"),
    ([], [], [], b"*0\r\n"),
    (
        [b"x", None, 1, [b"y", []]],
        ["x", None, 1, ["y", []]],
        ["eA==", None, 1, ["eQ==", []]],
        b"*4\r\n$1\r\nx\r\n$-1\r\n:1\r\n*2\r\n$1\r\ny\r\n*0\r\n",
    ),
    (
        [b"x", CommandError("ERR inner")],
        ["x", "ERR inner"],
        ["eA==", base64.b64encode(b"ERR inner").decode()],
        b"*2\r\n$1\r\nx\r\n-ERR inner\r\n",
    ),
]


@pytest.mark.parametrize(("reply", "plain", "encoded", "resp2"), REPLIES)
def test_each_reply_has_three_forms(reply: Reply, plain: object, encoded: object, resp2: bytes) -> None:
    assert json.loads(one_json(reply)) == {"result": plain}
    assert json.loads(one_base64(reply)) == {"result": encoded}
    assert one_resp2(reply) == resp2


def test_an_error_is_never_encoded() -> None:
    error = WrongType('WRONGTYPE a "quoted" value\r\n')
    assert json.loads(one_json(error)) == json.loads(one_base64(error)) == {"error": str(error)}
    assert one_resp2(error) == b'-WRONGTYPE a "quoted" value  \r\n'


async def test_base64_is_asked_for_with_a_header() -> None:
    app = gateway(FakeStore(lambda command: b"bar" if command[0] == "GET" else b"OK"))
    assert (await command(app, "GET", "k", upstash_encoding="base64")).json == {"result": "YmFy"}
    assert (await command(app, "SET", "k", "v", upstash_encoding="base64")).json == {"result": "OK"}
    body = b'[["SET","k","v"],["GET","k"],["WATCH","k"]]'
    results = (await ask(app, "POST", "/pipeline", body, upstash_encoding="base64")).json
    assert results[:2] == [{"result": "OK"}, {"result": "YmFy"}]
    assert results[2]["error"].startswith("ERR WATCH is not available")
    path = await ask(app, "GET", "/get/k", upstash_encoding="base64")
    assert path.json == {"result": "YmFy"}


async def test_resp2_is_asked_for_with_a_header() -> None:
    app = gateway(FakeStore(lambda command: b"bar" if command[0] == "GET" else b"OK"))
    answer = await command(app, "GET", "k", upstash_response_format="resp2")
    assert (answer.status, answer.body) == (200, b"$3\r\nbar\r\n")
    assert answer.headers["content-type"] == "application/octet-stream"
    answer = await ask(
        app, "POST", "/pipeline", b'[["SET","k",1],["GET","k"]]', upstash_response_format="resp2"
    )
    assert answer.body == b"+OK\r\n$3\r\nbar\r\n"
    answer = await command(app, "MULTI", upstash_response_format="resp2")
    assert answer.status == 400
    assert answer.body.startswith(b"-ERR MULTI is not available over REST")


async def test_a_transaction_answers_in_json_whatever_was_asked() -> None:
    app = gateway(FakeStore())
    answer = await ask(app, "POST", "/multi-exec", b'[["PING"]]', upstash_response_format="resp2")
    assert answer.json == [{"result": "OK"}]


@pytest.mark.parametrize(
    "headers",
    [
        {"upstash_response_format": "resp3"},
        {"upstash_response_format": ""},
        {"upstash_response_format": "resp2", "upstash_encoding": "base64"},
    ],
)
async def test_a_format_that_there_is_not_is_a_bad_request(headers: dict[str, str]) -> None:
    store = FakeStore()
    answer = await command(gateway(store), "GET", "k", **headers)
    assert answer.status == 400
    assert "Upstash-Response-Format" in answer.json["error"]
    assert store.batches == []


async def test_json_may_be_asked_for_by_name() -> None:
    answer = await command(gateway(FakeStore()), "SET", "k", 1, upstash_response_format="json")
    assert answer.json == {"result": "OK"}


async def test_an_error_of_the_command_is_a_bad_request_alone_and_a_value_in_a_pipeline() -> None:
    app = gateway(FakeStore(lambda command: WrongType("WRONGTYPE Operation against a key")))
    answer = await command(app, "GET", "k")
    assert (answer.status, answer.json) == (400, {"error": "WRONGTYPE Operation against a key"})
    for path in ("/pipeline", "/multi-exec"):
        answer = await ask(app, "POST", path, b'[["GET","k"]]')
        assert (answer.status, answer.json) == (200, [{"error": "WRONGTYPE Operation against a key"}])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailable("gone"), 503),
        (DeadlineExceeded("late"), 504),
        (StoreOverloaded("full"), 429),
        (ProtocolError("nonsense"), 502),
        (CredentialsRejected("no"), 502),
        (StoreReadOnly("READONLY"), 400),
        (LimitExceeded("large"), 413),
        (LimitExceeded("large reply", outcome=Outcome.APPLIED), 502),
        (TransactionAborted("EXECABORT nothing"), 400),
    ],
)
async def test_a_store_that_fails_shows_in_the_status(error: StoreError, status: int) -> None:
    store = FakeStore()
    store.error = error
    app = gateway(store)
    for path, body in (
        ("/", b'["GET","k"]'),
        ("/pipeline", b'[["GET","k"]]'),
        ("/multi-exec", b'[["GET","k"]]'),
    ):
        answer = await ask(app, "POST", path, body)
        assert (answer.status, answer.json) == (status, {"error": str(error)})
    assert (await ask(app, "GET", "/get/k")).status == status
    head = await ask(app, "HEAD", "/get/k")
    assert (head.status, head.body) == (status, b"")


async def test_a_store_that_answers_that_it_is_loading_is_unavailable() -> None:
    app = gateway(
        FakeStore(lambda command: StoreUnavailable("LOADING Redis is loading the dataset in memory"))
    )
    assert (await command(app, "GET", "k")).status == 503
