"""Realtime: frames of a WebSocket and bodies of requests, of any bytes. One answer each, never a mistake of ours, never another workspace's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from hypothesis import strategies as st

from redis_core.api.realtime import Realtime
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.realtime_token import issue, keys_from_settings
from redis_core.transport.memory import MockRedisClient
from tests.fuzz_world import fuzz, mutated, no_leak

FOREIGN = "text-of-another-workspace"
SETTINGS = load_settings(mock_redis=True, raptorflow_env="test")
TOKEN = issue("acme", "ada", read=("*",), write=("*",), keys=keys_from_settings(SETTINGS))
STATUSES = {200, 204, 400, 401, 403, 404, 405, 409, 413, 422, 429}

_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12),
        st.sampled_from(["news", "ws:{other}:topic:news", "*", "events", "state", "append", "", "x" * 300]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
_FIELDS = ("t", "token", "topics", "topic", "kind", "data", "patch", "version", "text", "done", "id", "stream", "member", "leave", "ref", "last", "from", "after", "since")  # fmt: skip
_topics = st.lists(
    st.one_of(st.text(max_size=6), st.fixed_dictionaries({"topic": st.sampled_from(["news", "a", ""]), "kind": st.sampled_from(["events", "state", "append", "x"])}), _values),
    max_size=3,
)  # fmt: skip
_documents = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "t": st.sampled_from(["auth", "sub", "unsub", "pub", "pres", "pong", "x"]),
            "token": st.sampled_from([TOKEN, "", "x"]),
            "topics": _topics,
            "topic": st.sampled_from(["news", "ws:{other}:topic:news", "", "a" * 201]),
            "kind": st.sampled_from(["events", "state", "append", "nothing"]),
            "data": _values,
            "patch": _values,
            "version": st.one_of(st.integers(), st.none()),
            "text": st.text(max_size=10),
            "id": st.text(max_size=10),
            "stream": st.text(max_size=10),
            "member": st.text(max_size=10),
            "done": st.booleans(),
            "leave": st.booleans(),
            "ref": _values,
        },
    ),
    st.dictionaries(st.sampled_from(_FIELDS), _values, max_size=5),
    _values,
)
_frames = _documents.map(lambda document: json.dumps(document).encode())
frames = st.one_of(_frames, mutated(_frames), st.binary(max_size=60))
ENDPOINTS = ("session", "subscribe", "unsubscribe", "auth", "publish", "presence", "nothing", "")


async def world() -> tuple[Client, Realtime]:
    client = Client(MockRedisClient(), SETTINGS)
    await client.workspace("other").topic("news").publish({"text": FOREIGN})

    async def source() -> Client:
        return client

    return client, Realtime(source, settings=SETTINGS)


@fuzz(
    "realtime bodies",
    share=0.5,
    asked=st.lists(st.tuples(st.sampled_from(ENDPOINTS), frames), min_size=1, max_size=4),
    token=st.sampled_from([TOKEN, TOKEN, "x", None]),
)
async def test_a_body_of_any_bytes_is_answered(asked: list[tuple[str, bytes]], token: str | None) -> None:
    client, app = await world()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with client, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        for endpoint, body in asked:
            answer = await http.post(f"/{endpoint}", content=body, headers=headers)
            assert answer.status_code in STATUSES, (endpoint, body, answer.text)
            no_leak(answer.content, FOREIGN)


@fuzz(
    "realtime frames",
    share=0.5,
    said=st.lists(st.one_of(frames, frames.map(lambda frame: frame.decode("latin-1"))), max_size=5),
    signed_in=st.booleans(),
)
async def test_a_socket_takes_frames_of_any_bytes(said: list[bytes | str], *, signed_in: bool) -> None:
    client, app = await world()
    first = json.dumps({"t": "auth", "token": TOKEN, "topics": [{"topic": "news", "kind": "events"}]})
    messages: list[dict[str, Any]] = [{"type": "websocket.connect"}]
    for one in [first, *said] if signed_in else said:
        kind = "text" if isinstance(one, str) else "bytes"
        messages.append({"type": "websocket.receive", kind: one})
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0)
        return messages.pop(0) if messages else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/socket",
        "headers": [],
        "query_string": b"",
        "scheme": "ws",
        "root_path": "",
    }
    async with client, asyncio.timeout(20):
        await app(scope, receive, send)
    assert sent[0]["type"] in {"websocket.accept", "websocket.close"}
    for message in sent:
        no_leak(repr(message), FOREIGN)
