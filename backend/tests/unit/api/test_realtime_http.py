"""The realtime endpoints as HTTP: who is refused and how, and what a stream's headers forbid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from redis_core import realtime_token
from redis_core.api import realtime_publish
from redis_core.api.realtime import PREFIX, Allowed, Realtime, RealtimeLimits
from redis_core.api.session_cookie import SessionCookie
from redis_core.api.session_middleware import SessionMiddleware, request_session
from redis_core.client import Client
from redis_core.config import Settings
from redis_core.realtime.registry import Registry
from redis_core.session import Sessions
from redis_core.sessions.pepper import PepperRing
from tests.realtime_world import KEYS, HandClock

ORIGIN = "https://app.example.com"
BASE = "http://localhost/api/v1/realtime"


def bearer(workspace: str = "acme", user: str = "u1", **rights: Any) -> dict[str, str]:
    rights.setdefault("read", ["*"])
    rights.setdefault("write", ["*"])
    return {"Authorization": "Bearer " + realtime_token.issue(workspace, user, keys=KEYS, **rights)}


@pytest.fixture
async def realtime(memory: Client) -> Realtime:
    async def source() -> Client:
        return memory

    limits = RealtimeLimits(max_body=1_000, max_publishes=5)
    return Realtime(
        source, keys=KEYS, origins=[ORIGIN], limits=limits, allow=lambda session: Allowed(read=["campaign:*"])
    )


@pytest.fixture
async def browser(realtime: Realtime, memory: Client) -> AsyncIterator[httpx.AsyncClient]:
    """Asks an application with sessions that has the endpoints mounted."""

    async def login(request: Request) -> Response:
        await request_session(request.scope).login("u7", "acme")
        return Response("in")

    sessions = Sessions(memory, PepperRing.random())
    app = Starlette(
        routes=[Route("/login", login, methods=["POST"]), Mount("/api/v1/realtime", realtime)],
        middleware=[
            Middleware(SessionMiddleware, sessions=sessions, cookie=SessionCookie.insecure_localhost())  # type: ignore[arg-type]
        ],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


async def test_a_login_becomes_a_token_for_what_the_application_allows(browser: httpx.AsyncClient) -> None:
    refused = await browser.post(f"{BASE}/session", json={})
    assert (refused.status_code, refused.json()["code"]) == (401, "login-required")
    await browser.post("/login")
    answer = await browser.post(f"{BASE}/session", json={})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert (told["workspace"], told["user"], told["read"], told["write"]) == (
        "acme",
        "u7",
        ["campaign:*"],
        [],
    )
    claims = realtime_token.read(KEYS, told["token"])
    assert claims is not None
    assert claims.expires == told["expires"]


async def test_a_token_is_given_back_and_cannot_prolong_itself(browser: httpx.AsyncClient) -> None:
    headers = bearer(seconds=30)
    told = (await browser.post(f"{BASE}/session", json={}, headers=headers)).json()
    assert f"Bearer {told['token']}" == headers["Authorization"]


@pytest.mark.parametrize("query", ["token=x", "access_token=x", "a=1&token=x", "Authorization=x"])
async def test_a_token_in_a_url_is_refused(browser: httpx.AsyncClient, query: str) -> None:
    answer = await browser.post(f"{BASE}/session?{query}", json={}, headers=bearer())
    assert (answer.status_code, answer.json()["code"]) == (400, "token-in-url")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "token-missing"),
        ({"Authorization": "Basic eDp5"}, "token-missing"),
        ({"Authorization": "Bearer x"}, "token-invalid"),
        ({"Authorization": "Bearer rt1.k1.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "token-invalid"),
    ],
)
@pytest.mark.parametrize("endpoint", ["stream", "subscribe", "unsubscribe", "auth", "publish", "presence"])
async def test_nothing_is_done_without_a_token(
    browser: httpx.AsyncClient, endpoint: str, header: dict[str, str], code: str
) -> None:
    answer = await browser.post(f"{BASE}/{endpoint}", json={}, headers=header)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_token_that_is_over_says_so(browser: httpx.AsyncClient) -> None:
    long_ago = HandClock(1_000_000.0)
    answer = await browser.post(f"{BASE}/publish", json={}, headers=bearer(clock=long_ago))
    assert answer.json()["code"] == "token-expired"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"{ORIGIN}.evil.example"},
    ],
)
async def test_another_sites_page_gets_nothing(browser: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await browser.post(f"{BASE}/session", json={}, headers={**bearer(), **headers})
    assert (answer.status_code, answer.json()["code"]) == (403, "cross-origin")
    assert "access-control-allow-origin" not in answer.headers


async def test_a_listed_origin_may_and_no_answer_allows_more(browser: httpx.AsyncClient) -> None:
    there = {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}
    flight = await browser.options(f"{BASE}/publish", headers=there)
    assert flight.status_code == 204
    assert flight.headers["access-control-allow-headers"] == "authorization, content-type"
    answer = await browser.post(f"{BASE}/session", json={}, headers={**bearer(), **there})
    for each in (flight, answer):
        assert each.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in each.headers
        assert "origin" in each.headers["vary"].lower()


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("stream", b"[]"),
        ("stream", b'{"topics": [{"topic": "a", "kind": "other"}]}'),
        ("subscribe", b"{}"),
        ("publish", b"\xff"),
        ("publish", b'{"topic": 1}'),
        ("publish", b'{"topic": "a", "kind": "events"}'),
        ("publish", b'{"topic": "a", "kind": "state"}'),
        ("publish", b'{"topic": "a", "kind": "presence"}'),
        ("publish", b'{"topic": "a b", "data": 1}'),
    ],
)
async def test_what_is_not_of_the_protocol_is_refused(
    browser: httpx.AsyncClient, endpoint: str, body: bytes
) -> None:
    answer = await browser.post(f"{BASE}/{endpoint}", content=body, headers=bearer())
    assert answer.status_code == 400
    assert answer.json()["code"] in {"invalid-request", "invalid-topic"}


async def test_a_body_that_is_too_large_is_not_read_to_its_end(browser: httpx.AsyncClient) -> None:
    answer = await browser.post(f"{BASE}/publish", content=b"x" * 2_000, headers=bearer())
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


async def test_publishes_within_the_token_and_the_cap_only(browser: httpx.AsyncClient) -> None:
    event = {"topic": "a", "data": {"x": 1}}
    refused = await browser.post(f"{BASE}/publish", json=event, headers=bearer(write=["b"]))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    answers = [await browser.post(f"{BASE}/publish", json=event, headers=bearer()) for _ in range(8)]
    done = [answer.json() for answer in answers if answer.status_code == 200]
    assert [one["offset"] for one in done][:5] == [1, 2, 3, 4, 5]
    capped = next(answer for answer in answers if answer.status_code != 200)
    assert (capped.status_code, capped.json()["code"]) == (429, "too-many-publishes")
    assert capped.headers["retry-after"] == "1"
    other = await browser.post(f"{BASE}/publish", json=event, headers=bearer("other"))
    assert other.json()["offset"] == 1


async def test_the_same_id_is_published_once(browser: httpx.AsyncClient) -> None:
    event = {"topic": "a", "data": 1, "id": "once"}
    first, again = [
        (await browser.post(f"{BASE}/publish", json=event, headers=bearer())).json() for _ in range(2)
    ]
    assert first == again


async def test_a_patch_of_another_version_is_a_conflict(browser: httpx.AsyncClient) -> None:
    whole = {"topic": "doc", "kind": "state", "data": {"n": 0}}
    at = (await browser.post(f"{BASE}/publish", json=whole, headers=bearer())).json()["offset"]
    patch = {"topic": "doc", "kind": "state", "patch": {"n": 1}, "version": at}
    assert (await browser.post(f"{BASE}/publish", json=patch, headers=bearer())).status_code == 200
    late = await browser.post(f"{BASE}/publish", json=patch, headers=bearer())
    assert (late.status_code, late.json()["code"]) == (409, "version-conflict")


async def test_a_browsers_document_is_of_the_registered_type_however_it_comes(
    browser: httpx.AsyncClient, memory: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Page(msgspec.Struct):
        title: str = ""
        budget: int = 0

    registry = Registry()
    registry.state("doc*")(Page)
    monkeypatch.setattr(realtime_publish, "topics", registry)
    changes: list[dict[str, object]] = [
        {"patch": {"budget": 5}}, {"patch": {"budget": "x"}}, {"patch": "no document"}, {"data": {"budget": "x"}}
    ]  # fmt: skip
    answers = [
        await browser.post(
            f"{BASE}/publish", json={"topic": "doc", "kind": "state"} | change, headers=bearer()
        )
        for change in changes
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 400, 400]
    assert {answer.json()["code"] for answer in answers[1:]} == {"invalid-request"}
    position, document = await memory.workspace("acme").state("doc").get()
    assert (position.offset, document) == (1, {"budget": 5})


async def answered(app: Any, scope: dict[str, Any], *hears: dict[str, Any]) -> list[dict[str, Any]]:
    """What an application sends to one that says this and then goes."""
    sent: list[dict[str, Any]] = []
    said = iter(hears)

    async def receive() -> dict[str, Any]:
        return next(said, {"type": f"{scope['type']}.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_a_stream_is_not_compressed_and_its_first_frame_comes_at_once(realtime: Realtime) -> None:
    headers = [
        (b"accept-encoding", b"gzip"),
        *((k.lower().encode(), v.encode()) for k, v in bearer().items()),
    ]
    scope = {"type": "http", "method": "POST", "path": f"{PREFIX}/stream", "headers": [*headers]}
    body = b'{"topics":[' + b",".join(b'{"topic":"t%d"}' % n for n in range(40)) + b"]}"
    app = GZipMiddleware(realtime, minimum_size=1)
    start, hello, *_ = await answered(app, scope, {"type": "http.request", "body": body})
    assert b"content-encoding" not in dict(start["headers"])
    assert json.loads(hello["body"].removeprefix(b"data: "))["t"] == "hello"
    # The same middleware compresses what is no stream, so that the above is no accident.
    other = await answered(app, scope | {"path": f"{PREFIX}/session", "headers": headers})
    assert dict(other[0]["headers"])[b"content-encoding"] == b"gzip"


async def test_websockets_that_show_no_token_have_a_cap(memory: Client) -> None:
    async def source() -> Client:
        return memory

    realtime = Realtime(source, keys=KEYS, limits=RealtimeLimits(max_unknown=1))
    scope = {"type": "websocket", "path": f"{PREFIX}/ws", "headers": []}
    connect = {"type": "websocket.connect"}
    silent = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not sent:
            return connect
        await silent.wait()
        return {"type": "websocket.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    sent: list[dict[str, Any]] = []
    waiting = asyncio.create_task(realtime(scope, receive, send))  # type: ignore[arg-type]
    while not sent:
        await asyncio.sleep(0)
    (refused,) = await answered(realtime, scope, connect)
    assert (refused["type"], refused["code"]) == ("websocket.close", 1013)
    silent.set()
    await waiting
    assert [message["type"] for message in await answered(realtime, scope, connect)] == ["websocket.accept"]


async def test_production_without_keys_says_so_and_hides_why(memory: Client) -> None:
    async def source() -> Client:
        return memory

    settings = Settings(_env_file=None, raptorflow_env="production", redis_url="redis://x")  # type: ignore[call-arg]
    transport = httpx.ASGITransport(Realtime(source, settings=settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/session", json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "not-configured")
    assert "REALTIME_KEYS" not in answer.text


async def test_other_methods_and_endpoints_are_refused(browser: httpx.AsyncClient) -> None:
    assert (await browser.get(f"{BASE}/stream", headers=bearer())).status_code == 405
    assert (await browser.post(f"{BASE}/other", headers=bearer())).status_code == 404


async def test_a_stream_begins_at_once_and_forbids_to_keep_change_or_buffer_it(realtime: Realtime) -> None:
    sent: list[Any] = []
    gone = asyncio.Event()
    body = json.dumps({"topics": [{"topic": "a"}, {"topic": "no good"}]}).encode()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", bearer()["Authorization"].encode()), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/realtime/stream", "headers": headers}
    serving = asyncio.create_task(realtime(scope, receive, send))
    async with asyncio.timeout(10):
        while b'"t":"sub"' not in b"".join(message.get("body", b"") for message in sent):
            await asyncio.sleep(0.01)
    told = dict(sent[0]["headers"])
    assert told[b"content-type"] == b"text/event-stream"
    assert told[b"cache-control"] == b"no-store, no-transform"
    assert told[b"x-accel-buffering"] == b"no"
    assert b"content-encoding" not in told
    assert sent[1]["body"].startswith(b'data: {"t":"hello"')
    assert any(b'"code":"invalid-topic"' in message.get("body", b"") for message in sent)
    gone.set()
    await serving
    assert (await realtime.hub()).figures.streams == 0
