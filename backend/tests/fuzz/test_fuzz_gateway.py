"""Requests to the gateway of any method, path, query, header and body: one answer in its form, and never another tenant's data."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import strategies as st

from redis_core.gateway import Gateway, GatewayLimits, GatewayToken, create_gateway
from redis_core.secret import Secret
from redis_core.transport.memory import MockRedisClient
from tests.fuzz_world import Leak, fuzz, mutated, no_leak

TENANT, READER = "tenant-token", "reader-token"
FOREIGN = "value-of-another-tenant"
STATUSES = {200, 400, 401, 404, 405, 413, 429, 500, 503, 504}

_commands = st.one_of(
    st.sampled_from([
        ["GET", "other:secret"], ["SET", "k", "v"], ["MGET", "k", "other:secret"], ["KEYS", "*"], ["SCAN", "0", "MATCH", "*"],
        ["EVAL", "return redis.call('get','other:secret')", "0"], ["EVAL", "return redis.call('get', KEYS[1])", "1", "other:secret"],
        ["RENAME", "other:secret", "k"], ["COPY", "other:secret", "k"], ["SORT", "k", "BY", "other:*", "GET", "other:*"],
        ["RANDOMKEY"], ["DEBUG", "OBJECT", "other:secret"], ["OBJECT", "ENCODING", "other:secret"], ["FLUSHALL"], ["FLUSHDB"],
        ["DBSIZE"], ["SELECT", "1"], ["MOVE", "other:secret", "1"], ["SWAPDB", "0", "1"], ["CONFIG", "GET", "*"], ["ACL", "LIST"],
        ["CLIENT", "LIST"], ["MULTI"], ["EXEC"], ["WATCH", "other:secret"], ["XREAD", "STREAMS", "other:secret", "0"],
        ["ZUNIONSTORE", "k", "2", "k", "other:secret"], ["BITOP", "OR", "k", "other:secret"], ["SUBSCRIBE", "other"], ["DUMP", "other:secret"],
        ["GEORADIUS", "other:secret", "0", "0", "1", "m", "STORE", "k"], ["MIGRATE", "h", "1", "other:secret", "0", "1"],
    ]),
    st.lists(st.one_of(st.text(max_size=12), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()), max_size=5),
).map(list)  # fmt: skip
_json = st.one_of(
    _commands.map(json.dumps),
    st.lists(_commands, max_size=4).map(json.dumps),
    st.recursive(st.none() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)).map(json.dumps),
).map(str.encode)  # fmt: skip
bodies = st.one_of(st.just(b""), mutated(_json), _json, st.binary(max_size=60))
paths = st.one_of(
    st.sampled_from([b"/", b"/pipeline", b"/multi-exec", b"/get/other:secret", b"/set/k/v", b"/mget/k/other%3Asecret", b"//", b"/%00"]),
    mutated(st.sampled_from([b"/get/other:secret", b"/pipeline", b"/eval/return%201/0", b"/hset/k/f/v"])),
    st.binary(max_size=40).map(lambda tail: b"/" + tail),
).filter(lambda path: not path.lower().startswith((b"/subscribe", b"/psubscribe", b"/monitor")))  # fmt: skip
requests = st.fixed_dictionaries({
    "method": st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "get", "X"]),
    "path": paths,
    "query": st.one_of(st.just(b""), st.binary(max_size=30), st.sampled_from([b"EX=1", b"_token=tenant-token", b"_token=", b"%zz&&="])),
    "token": st.sampled_from([TENANT, READER, TENANT, "unknown", ""]),
    "headers": st.lists(
        st.tuples(
            st.sampled_from([b"content-length", b"upstash-encoding", b"upstash-response-format", b"accept", b"authorization"]),
            st.one_of(st.sampled_from([b"base64", b"resp2", b"json", b"0", b"99999999999", b"-1"]), st.binary(max_size=12)),
        ),
        max_size=2,
    ),
    "body": st.lists(bodies, min_size=1, max_size=3),
})  # fmt: skip


def gateway(store: MockRedisClient) -> Gateway:
    tokens = [
        GatewayToken(Secret(TENANT), prefix="tenant:"),
        GatewayToken(Secret(READER), read_only=True, prefix="tenant:"),
    ]
    return create_gateway(store, tokens, limits=GatewayLimits(max_body_bytes=4096, drain_timeout=0.01))


async def ask(app: Gateway, request: dict[str, Any]) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request and its whole answer."""
    headers = list(request["headers"])
    if request["token"]:
        headers.append((b"authorization", b"Bearer " + request["token"].encode()))
    scope = {
        "type": "http", "method": request["method"], "path": request["path"].decode("latin-1"), "raw_path": request["path"],
        "root_path": "", "query_string": request["query"], "headers": headers, "client": ("203.0.113.7", 1), "scheme": "http",
    }  # fmt: skip
    parts = request["body"]
    messages = [
        {"type": "http.request", "body": part, "more_body": place < len(parts) - 1}
        for place, part in enumerate(parts)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(20):
        await app(scope, receive, send)
    assert [message["type"] for message in sent[:1]] == ["http.response.start"], sent
    body = b"".join(message["body"] for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


@fuzz("gateway requests", share=0.5, batch=st.lists(requests, min_size=1, max_size=4))
async def test_a_request_of_any_form_is_answered_in_ours_and_reaches_no_other_tenant(
    batch: list[dict[str, Any]],
) -> None:
    store = MockRedisClient()
    try:
        await store.execute([("SET", "other:secret", FOREIGN)])
        app = gateway(store)
        for request in batch:
            status, headers, body = await ask(app, request)
            assert status in STATUSES, (status, body)
            no_leak(body, FOREIGN)
            asks_for_resp2 = (b"upstash-response-format", b"resp2") in request["headers"]
            if status != 200 and not asks_for_resp2:
                assert headers[b"content-type"] == b"application/json"
                assert not body or "error" in json.loads(body)
            if request["token"] not in {TENANT, READER} and not any(
                text in request["query"] for text in (b"tenant-token", b"reader-token")
            ):
                assert status in {400, 401, 405}, (status, body)
        found = await store.execute([("GET", "other:secret"), ("KEYS", "*")])
        if found[0] != FOREIGN.encode():
            raise Leak(f"another tenant's value was changed to {found[0]!r}")
        keys = found[1]
        assert isinstance(keys, list)
        if foreign := [key for key in keys if not bytes(key).startswith((b"tenant:", b"other:secret"))]:  # type: ignore[arg-type]
            raise Leak(f"keys without the tenant's prefix: {foreign!r}")
    finally:
        await store.aclose()
