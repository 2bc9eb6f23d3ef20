"""Limits around an application: headers, refusals, streams, WebSockets, templates; and on single endpoints."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.responses import StreamingResponse

from redis_core.api.problems import add_problem_details
from redis_core.api.rate_limit_dependency import limit, limited, limits_of_request
from redis_core.api.rate_limit_middleware import RateLimitMiddleware, subject_of_scope
from redis_core.client import Client
from redis_core.errors import ConfigError, RateLimited
from redis_core.rate_limit import Decision, Endpoint, Penalty, RateLimiter, RateLimits, Rule, Subject
from redis_core.rate_limiting.headers import problem_of, rate_limit_headers
from redis_core.rate_limiting.policy import Policy
from redis_core.transport.memory import MockRedisClient
from tests.contract.rest import rest_client
from tests.rate_world import USER, limits, one_rule, rate_gateway

__all__ = ["rate_gateway"]

# RFC 9651: a list of strings with parameters.
ITEM = r'"[a-z0-9-]+"(?:;[a-z]+=(?:\d+|"[a-z0-9-]+"))*'
STRUCTURED_LIST = re.compile(rf"{ITEM}(?:, {ITEM})*")


def identify(scope: Any) -> Subject:
    headers = dict(scope["headers"])
    user = headers.get(b"x-user", b"").decode() or None
    return Subject(user=user, ip=scope["client"][0] if scope.get("client") else None)


def application() -> FastAPI:
    app = FastAPI()
    inner = APIRouter(prefix="/inner")

    @app.get("/items/{item}")
    async def item(item: str) -> dict[str, str]:
        return {"item": item}

    @inner.get("/things/{thing}")
    async def thing(thing: str) -> str:
        return thing

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for n in range(3):
                yield b"%d" % n

        return StreamingResponse(parts())

    app.include_router(inner)
    mounted = FastAPI()

    @mounted.get("/deep/{id}")
    async def deep(id: str) -> str:
        return id

    app.mount("/mounted", mounted)
    return app


def limiter_on(client: Client, rates: RateLimits, **arguments: Any) -> RateLimiter:
    return RateLimiter(client, rates, plan="exact", timeout=20, **arguments)


def browser(app: Any, ip: str = "203.0.113.7") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(ip, 1)), base_url="http://test")


def limited_app(client: Client, rates: RateLimits, **arguments: Any) -> FastAPI:
    app = application()
    app.add_middleware(RateLimitMiddleware, limiter=limiter_on(client, rates), identify=identify, **arguments)
    return app


async def test_every_response_says_where_the_client_stands(memory: Client) -> None:
    rates = RateLimits(rules=(Rule("burst", "10/sec"), Rule("daily", "1000/day")))
    async with browser(limited_app(memory, rates)) as web:
        response = await web.get("/items/1")
    assert response.status_code == 200
    assert response.headers["ratelimit-policy"] == '"burst";q=10;w=1, "daily";q=1000;w=86400'
    assert response.headers["ratelimit"] == '"burst";r=9, "daily";r=999'
    assert "retry-after" not in response.headers
    assert "x-ratelimit-limit" not in response.headers


async def test_a_refusal_is_a_problem_with_the_policies_it_violates(memory: Client) -> None:
    rates = RateLimits(rules=(Rule("minute", "1/min"), Rule("daily", "1000/day")))
    async with browser(limited_app(memory, rates)) as web:
        await web.get("/items/1")
        response = await web.get("/items/1")
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem = response.json()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["minute"]
    assert problem["status"] == 429
    seconds = int(response.headers["retry-after"])
    assert 1 <= seconds <= 61
    assert f'"minute";r=0;t={seconds}' in response.headers["ratelimit"]
    assert STRUCTURED_LIST.fullmatch(response.headers["ratelimit"])
    assert STRUCTURED_LIST.fullmatch(response.headers["ratelimit-policy"])


async def test_the_path_s_parameters_make_no_budgets_of_their_own(memory: Client) -> None:
    # fastapi-limiter 0.2 counts the raw path: /a/1 and /a/2 are two budgets, so any limit can be walked around.
    async with browser(limited_app(memory, limits("4/min"))) as web:
        statuses = [(await web.get(f"/items/{n}")).status_code for n in range(5)]
        assert statuses == [200] * 4 + [429]
        assert [(await web.get(f"/inner/things/{n}")).status_code for n in range(5)] == statuses
        assert [(await web.get(f"/mounted/deep/{n}")).status_code for n in range(5)] == statuses
        # What no route has is counted together.
        assert [(await web.get(f"/nowhere/{n}")).status_code for n in range(5)] == [404] * 4 + [429]
    keys = await memory.execute("KEYS", "*")
    assert isinstance(keys, list)
    assert {key.decode() for key in keys if isinstance(key, bytes)} == {
        "rate:anonymous=203.0.113.7:/items/<item>",
        "rate:anonymous=203.0.113.7:/inner/things/<thing>",
        "rate:anonymous=203.0.113.7:/mounted/deep/<id>",
        "rate:anonymous=203.0.113.7:unknown",
    }


async def test_a_stream_passes_untouched(memory: Client) -> None:
    # slowapi sends http.response.start again with each chunk: 4 starts for 3 chunks.
    app, seen = limited_app(memory, limits("4/min")), list[dict[str, Any]]()

    async def send(message: Any) -> None:
        seen.append(message)

    async def receive() -> Any:
        await asyncio.sleep(60)

    scope = {"type": "http", "method": "GET", "path": "/stream", "raw_path": b"/stream", "query_string": b"", "headers": [],
             "client": ("203.0.113.7", 1), "server": ("test", 80), "scheme": "http", "root_path": "", "http_version": "1.1"}  # fmt: skip
    await app(scope, receive, send)
    kinds = [message["type"] for message in seen]
    assert kinds.count("http.response.start") == 1
    assert [message["body"] for message in seen[1:]][:3] == [b"0", b"1", b"2"]
    names = [name for name, _ in seen[0]["headers"]]
    assert names.count(b"ratelimit") == names.count(b"ratelimit-policy") == 1


async def test_legacy_headers_are_a_switch(memory: Client) -> None:
    rates = RateLimits(rules=(Rule("r", "2/min"),), legacy_headers=True)
    async with browser(limited_app(memory, rates)) as web:
        responses = [await web.get("/items/1") for _ in range(3)]
    assert [r.headers["x-ratelimit-remaining"] for r in responses] == ["1", "0", "0"]
    assert {r.headers["x-ratelimit-limit"] for r in responses} == {"2"}
    assert responses[2].headers["x-ratelimit-reset"] == responses[2].headers["retry-after"]


async def test_users_are_limited_apart(memory: Client) -> None:
    async with browser(limited_app(memory, limits("1/min"))) as web:
        for user in ("alice", "bob"):
            assert (await web.get("/items/1", headers={"x-user": user})).status_code == 200
            assert (await web.get("/items/1", headers={"x-user": user})).status_code == 429


async def test_a_forged_forwarded_header_changes_nothing_without_proxies(memory: Client) -> None:
    app = application()
    app.add_middleware(RateLimitMiddleware, limiter=limiter_on(memory, limits("1/min")))
    async with browser(app) as web:
        statuses = [
            (await web.get("/items/1", headers={"x-forwarded-for": f"198.51.100.{n}"})).status_code
            for n in range(3)
        ]
    assert statuses == [200, 429, 429]


def test_behind_proxies_the_client_is_who_the_outermost_saw() -> None:
    scope: Any = {"client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", b"6.6.6.6, 198.51.100.1")]}
    assert subject_of_scope(scope, RateLimits(trusted_proxies=1)).ip == "198.51.100.1"
    assert subject_of_scope(scope, RateLimits()).ip == "10.0.0.1"


async def test_an_exempt_endpoint_costs_nothing_and_says_nothing(memory: Client) -> None:
    rates = RateLimits(rules=(Rule("r", "1/min"),), endpoints={"/items/{item}": Endpoint(exempt=True)})
    async with browser(limited_app(memory, rates)) as web:
        before = memory.stats.commands
        responses = [await web.get("/items/1") for _ in range(3)]
    assert {r.status_code for r in responses} == {200}
    assert "ratelimit" not in responses[0].headers
    assert memory.stats.commands == before


async def test_a_place_among_the_concurrent_is_held_until_the_response_has_ended(memory: Client) -> None:
    app = FastAPI()
    go = asyncio.Event()

    @app.get("/slow")
    async def slow() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await go.wait()
            yield b"last"

        return StreamingResponse(parts())

    app.add_middleware(
        RateLimitMiddleware, limiter=limiter_on(memory, one_rule("1 concurrent")), identify=identify
    )
    async with browser(app) as web:
        first = asyncio.create_task(web.get("/slow"))
        while not await memory.execute("KEYS", "rate:*"):
            await asyncio.sleep(0)
        assert (await web.get("/slow")).status_code == 429
        go.set()
        assert (await first).status_code == 200
        assert (await web.get("/slow")).status_code == 200


async def test_what_starts_alongside_shares_the_decision_s_trip(rate_gateway: str) -> None:
    # Over TCP an idle line writes the first command at once and the second right behind it; over REST they are one request.
    rest = await rest_client(rate_gateway)
    read: list[asyncio.Task[Any]] = []

    async def prefetched() -> Any:
        return await rest.get("session")

    def alongside(scope: Any) -> None:
        read.append(asyncio.get_running_loop().create_task(prefetched()))

    async with rest, browser(limited_app(rest, limits("9/min"), alongside=alongside)) as web:
        await web.get("/items/1")
        before = rest.stats.trips
        await web.get("/items/1")
        await asyncio.gather(*read)
        assert rest.stats.trips - before == 1


async def test_a_websocket_is_refused_before_it_is_accepted(memory: Client) -> None:
    app = application()

    @app.websocket("/ws")
    async def talk(websocket: Any) -> None:  # pragma: no cover - never reached
        await websocket.accept()

    app.add_middleware(RateLimitMiddleware, limiter=limiter_on(memory, limits("1/min")), identify=identify)

    async def connect(extensions: dict[str, Any]) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        scope = {"type": "websocket", "path": "/elsewhere", "headers": [], "client": ("203.0.113.7", 1),
                 "extensions": extensions, "query_string": b"", "root_path": "", "scheme": "ws", "subprotocols": []}  # fmt: skip

        async def send(message: Any) -> None:
            seen.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await app(scope, receive, send)
        return seen

    await connect({})
    (close,) = await connect({})
    assert (close["type"], close["code"]) == ("websocket.close", 1013)
    start, body = await connect({"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert json.loads(body["body"])["code"] == "quota-exceeded"


async def test_the_limiter_may_be_made_when_the_first_request_comes(memory: Client) -> None:
    made: list[RateLimiter] = []

    async def make() -> RateLimiter:
        made.append(limiter_on(memory, limits("9/min")))
        return made[-1]

    app = application()
    app.add_middleware(RateLimitMiddleware, limiter=make)
    async with browser(app) as web:
        assert [(await web.get("/items/1")).status_code for _ in range(2)] == [200, 200]
    assert len(made) == 1


# --- single endpoints ---


def endpoints(app: FastAPI) -> None:
    @app.get("/export", dependencies=[Depends(limit("1/min"))])
    async def export() -> str:
        return "done"

    @app.get("/told")
    async def told(decision: Annotated[Decision, Depends(limit("5/min"))]) -> int:
        return decision.remaining

    @app.get("/plain", dependencies=[Depends(limit("5/min"))])
    async def plain() -> PlainTextResponse:
        return PlainTextResponse("plain")

    @app.get("/decorated")
    @limited("1/min")
    async def decorated(request: Request) -> str:
        return "done"


async def test_a_dependency_limits_one_endpoint_and_the_response_shows_both(memory: Client) -> None:
    app = limited_app(memory, limits("100/min"))
    endpoints(app)
    async with browser(app) as web:
        first, second = await web.get("/export"), await web.get("/export")
        assert (first.status_code, second.status_code) == (200, 429)
        assert first.headers.get_list("ratelimit") == ['"100-min";r=99, "1-min";r=0']
        assert second.json()["violated-policies"] == ["1-min"]
        assert (await web.get("/told")).json() == 4
        # slowapi needs a Response among the arguments; here a response made by hand has the lines as well.
        assert '"5-min";r=4' in (await web.get("/plain")).headers["ratelimit"]


async def test_a_dependency_works_without_the_middleware(memory: Client) -> None:
    app = application()
    app.state.rate_limiter = limiter_on(memory, limits("100/min"))
    add_problem_details(app)
    endpoints(app)
    async with browser(app) as web:
        first, second = await web.get("/export"), await web.get("/export")
    assert first.headers["ratelimit"] == '"1-min";r=0'
    assert second.status_code == 429
    assert second.headers["content-type"] == "application/problem+json"
    assert second.json()["code"] == "quota-exceeded"
    assert int(second.headers["retry-after"]) > 0


async def test_a_decorator_limits_a_route_with_the_same_decision(memory: Client) -> None:
    app = limited_app(memory, limits("100/min"))
    endpoints(app)
    async with browser(app) as web:
        assert [(await web.get("/decorated")).status_code for _ in range(2)] == [200, 429]


async def test_a_decorator_limits_any_function(memory: Client) -> None:
    @limited("2/min", limiter=limiter_on(memory, limits("1/min")), subject=lambda user: Subject(user=user))
    async def send_mail(user: str) -> str:
        return f"sent to {user}"

    assert [await send_mail("ann"), await send_mail("ann"), await send_mail("bob")] == [
        "sent to ann", "sent to ann", "sent to bob",
    ]  # fmt: skip
    with pytest.raises(RateLimited, match="2-min"):
        await send_mail("ann")


async def test_a_wrong_rate_is_told_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match="write it as"):
        limit("a lot")
    with pytest.raises(ConfigError, match="write it as"):
        limited("a lot")


async def test_without_a_limiter_the_message_says_what_to_do() -> None:
    with pytest.raises(LookupError, match="RateLimitMiddleware"):
        limits_of_request(Request({"type": "http", "app": FastAPI(), "headers": []}))

    @limited("2/min")
    async def nobody() -> None: ...

    with pytest.raises(TypeError, match="limiter= and subject="):
        await nobody()


# --- what is said ---


async def test_the_kinds_of_refusal_have_types_of_their_own(memory: Client) -> None:
    limiter = limiter_on(memory, RateLimits(rules=(Rule("r", "1/min"),), deny=("mallory",)))
    denied = await limiter.check(Subject(user="mallory"), "/a")
    assert problem_of(denied).type.endswith("#abnormal-usage-detected")
    assert denied.source == "list"
    punishing = limiter_on(memory, one_rule("1/min", penalty=Penalty(after=1)))
    await punishing.check(USER, "/p")
    await punishing.check(USER, "/p")
    punished = await punishing.check(USER, "/p")
    assert problem_of(punished).code == "abnormal-usage-detected"
    assert b"ratelimit" not in dict(rate_limit_headers([punished]))


def test_units_and_concurrency_are_named_as_the_draft_has_them() -> None:
    from redis_core.rate_limiting.decision import decide

    policies = [
        Policy("tokens", "r", 1000, 60, unit="tokens"), Policy("runs", "c", 5), Policy("watched", "r", 9, 1, shadow=True),
    ]  # fmt: skip
    headers = dict(rate_limit_headers([decide(policies, [10, 0, 2, 0, 9, 0])]))
    assert (
        headers[b"ratelimit-policy"]
        == b'"tokens";q=1000;w=60;qu="tokens", "runs";q=5;qu="concurrent-requests"'
    )
    assert headers[b"ratelimit"] == b'"tokens";r=10, "runs";r=2'


async def test_retry_after_is_never_too_early() -> None:
    decision = Decision(allowed=False, policy="r", remaining=0, retry_after=1.0001)
    assert decision.retry_after_seconds == 2
    assert MockRedisClient.mode == "memory"
