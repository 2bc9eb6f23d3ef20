"""Every route of the service: its headers, how large a body it takes, and what another site's page gets from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from redis_core.api.app import create_app
from redis_core.api.security_headers import SecurityHeadersMiddleware
from redis_core.api.session_cookie import SessionCookie
from redis_core.api.session_middleware import SessionMiddleware
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.session import SessionData, Sessions
from tests.admin_world import asking, bearer, service

CHANGING = ("POST", "PUT", "PATCH", "DELETE")
REALTIME = ("session", "stream", "subscribe", "unsubscribe", "auth", "publish", "presence")


def routes_of(app: FastAPI, methods: tuple[str, ...] = CHANGING) -> list[tuple[str, str]]:
    """Every method and path of an application that may change something, realtime's endpoints among them."""
    found: list[tuple[str, str]] = []

    def walk(routes: list[BaseRoute], prefix: str) -> None:
        for route in routes:
            if isinstance(route, Route | APIRoute):
                path = prefix + route.path
                for name in ("queue", "id", "job", "job_id", "name"):
                    path = path.replace("{" + name + "}", "agents")
                found.extend((method, path) for method in sorted(route.methods or ()) if method in methods)
            elif isinstance(route, Mount):
                walk(list(route.routes or ()), prefix + route.path)
            elif inner := getattr(route, "routes", None):
                walk(list(inner), prefix)

    walk(list(app.routes), "")
    found.extend(("POST", f"/api/v1/realtime/{name}") for name in REALTIME if "POST" in methods)
    return found


def documented(app: FastAPI) -> set[tuple[str, str]]:
    """What OpenAPI tells of the same."""
    paths = app.openapi()["paths"]
    return {
        (method.upper(), path.replace("{queue}", "agents"))
        for path, entry in paths.items()
        for method in entry
        if method.upper() in CHANGING
    }


def all_changing(app: FastAPI) -> list[tuple[str, str]]:
    return sorted(documented(app) | set(routes_of(app)))


async def test_the_routes_that_change_something_are_found(memory: Client) -> None:
    found = all_changing(service(memory))
    assert ("POST", "/api/v1/admin/cache/flush") in found
    assert ("PUT", "/api/v1/admin/mock") in found
    assert not [path for _, path in found if "{" in path]
    assert len(found) >= 16


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/health/redis?probe=live", 200),
        ("/api/v1/admin/redis-metrics", 401),
        ("/admin/performance/", 503),
        ("/nothing", 404),
        ("/openapi.json", 200),
        ("/metrics", 401),
        ("/api/v1/realtime/stream", 405),
    ],
)
async def test_every_answer_has_the_security_headers(memory: Client, path: str, status: int) -> None:
    async with asking(service(memory)) as http:
        answer = await http.get(path)
    assert answer.status_code in {status, 200}
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in answer.headers
    for name in ("content-security-policy", "x-content-type-options", "referrer-policy"):
        assert len(answer.headers.get_list(name)) == 1


async def test_an_answer_to_our_own_mistake_and_one_to_a_body_too_large_have_them_too(memory: Client) -> None:
    router = APIRouter()

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a bug")

    app = create_app(load_settings(mock_redis=True), client=memory, routers=[router])
    async with asking(app, "127.0.0.1") as http:
        answers = [await http.get("/broken"), await http.post("/broken", content=b"x" * 1_048_577)]
    assert [answer.status_code for answer in answers] == [500, 413]
    assert all("content-security-policy" in answer.headers for answer in answers)


@pytest.mark.parametrize(("scheme", "headers"), [("https", {}), ("http", {"X-Forwarded-Proto": "https"})])
async def test_what_came_by_tls_is_told_to_stay_there(
    memory: Client, scheme: str, headers: dict[str, str]
) -> None:
    async with asking(service(memory)) as http:
        answer = await http.get(f"{scheme}://host.example/api/v1/health/redis?probe=live", headers=headers)
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


async def test_an_answers_own_policy_stays() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        response = PlainTextResponse("x", headers={"Content-Security-Policy": "default-src 'self'"})
        await response(scope, receive, send)

    app = FastAPI()
    app.mount("/", SecurityHeadersMiddleware(page))
    async with asking(app) as http:
        answer = await http.get("/")
    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_every_route_that_takes_a_body_refuses_one_that_is_too_large(
    memory: Client, *, chunked: bool
) -> None:
    from redis_core.realtime_token import issue, keys_from_settings

    app = service(memory, environment="test")
    settings = load_settings(mock_redis=True)
    token = issue("acme", "ada", read=("*",), write=("*",), keys=keys_from_settings(settings))
    large = b'{"x": "' + b"x" * 2_000_000 + b'"}'

    async def pieces() -> AsyncGenerator[bytes]:
        for start in range(0, len(large), 100_000):
            yield large[start : start + 100_000]

    async with asking(app) as http:
        for method, path in all_changing(app):
            realtime = "/realtime/" in path and "/admin/" not in path
            if chunked and path.endswith(("/session", "/admin/mock", "/admin/realtime/token")):
                continue  # they read none
            headers = {
                **({"Authorization": f"Bearer {token}"} if realtime else bearer("admin")),
                "Content-Type": "application/json",
            }
            answer = await http.request(method, path, headers=headers, content=pieces() if chunked else large)
            assert answer.status_code == 413, (method, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_route_of_the_applications_own_is_bounded_too(memory: Client) -> None:
    router = APIRouter()

    @router.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    app = create_app(load_settings(mock_redis=True), client=memory, routers=[router])

    async def pieces(size: int) -> AsyncGenerator[bytes]:
        for _ in range(size // 1024):
            yield b"x" * 1024

    async with asking(app, "127.0.0.1") as http:
        assert (await http.post("/upload", content=pieces(1024 * 1024))).json() == 1024 * 1024
        assert (await http.post("/upload", content=pieces(1024 * 1024 + 1024))).status_code == 413
        assert (await http.post("/upload", headers={"Content-Length": "9" * 30})).status_code == 413


async def test_the_bound_can_be_another(memory: Client) -> None:
    router = APIRouter()

    @router.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    app = create_app(load_settings(mock_redis=True), client=memory, routers=[router], max_body=10)
    async with asking(app, "127.0.0.1") as http:
        assert (await http.post("/upload", content=b"x" * 10)).status_code == 200
        assert (await http.post("/upload", content=b"x" * 11)).status_code == 413


@pytest.mark.parametrize(
    "foreign",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=lambda headers: "-".join(headers.values()),
)
async def test_a_cookie_changes_nothing_when_another_sites_page_sends_it(
    memory: Client, foreign: dict[str, str]
) -> None:
    """Every route that may change something, with the cookie of somebody who may: refused from another site, and not from our own."""
    sessions = Sessions.from_settings(memory, load_settings(mock_redis=True, session_peppers="a:" + "p" * 40))
    _, token = await sessions.create("ada", "acme", {"admin_role": "admin"})
    app = service(memory)
    app.add_middleware(SessionMiddleware[SessionData], sessions=sessions, cookie=SessionCookie())
    cookie = {"Cookie": f"{SessionCookie().name}={token}"}
    async with asking(app) as http:
        for method, path in all_changing(app):
            answer = await http.request(method, path, headers={**cookie, **foreign}, json={})
            assert answer.status_code == 403, (method, path, answer.status_code, answer.text)
            assert answer.json()["code"] == "cross-origin"
            own = await http.request(
                method, path, headers={**cookie, "Sec-Fetch-Site": "same-origin"}, json={}
            )
            assert own.status_code != 403, (method, path, own.text)
