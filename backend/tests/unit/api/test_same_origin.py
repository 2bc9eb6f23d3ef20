"""What another site's page makes a browser send is refused where it may change something."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.middleware import Middleware

from redis_core.api.app import create_app
from redis_core.api.same_origin import SameOriginMiddleware
from redis_core.client import Client
from redis_core.config import load_settings

HOST = ("host", "app.example.com")


async def ask(
    *headers: tuple[str, str], kind: str = "http", method: str = "POST", origins: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """The messages that a request is answered with; none if the application has it."""
    served: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.clear()

    async def send(message: Any) -> None:
        served.append(message)

    served.append({"type": "not asked"})
    raw = [(name.encode(), value.encode()) for name, value in (HOST, *headers)]
    scope = {"type": kind, "method": method, "path": "/", "headers": raw}
    await SameOriginMiddleware(app, origins=origins)(scope, app, send)  # type: ignore[arg-type]
    return served[1:] if served else []


OTHER = [
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site")],
    # What Sec-Fetch-Site says counts, whatever Origin is.
    [("sec-fetch-site", "cross-site"), ("origin", "https://app.example.com")],
    [("origin", "https://evil.example")],
    [("origin", "https://app.example.com.evil.example")],
    [("origin", "https://app.example.com:8443")],
    [("origin", "null")],
    [("origin", "https://[")],
]
OWN = [
    [],
    [("sec-fetch-site", "same-origin")],
    [("sec-fetch-site", "none")],
    [("origin", "https://app.example.com")],
    [("origin", "HTTPS://APP.example.com")],
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MADE-UP"])
@pytest.mark.parametrize("headers", OTHER)
async def test_a_change_from_another_origin_is_refused(headers: list[tuple[str, str]], method: str) -> None:
    start, _ = await ask(*headers, method=method)
    assert start["status"] == 403
    assert (b"content-type", b"application/problem+json") in start["headers"]


@pytest.mark.parametrize("headers", OTHER)
async def test_reading_from_another_origin_passes(headers: list[tuple[str, str]]) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        assert await ask(*headers, method=method) == []


@pytest.mark.parametrize("headers", OWN)
async def test_a_change_from_our_own_page_or_from_no_browser_passes(headers: list[tuple[str, str]]) -> None:
    assert await ask(*headers) == []
    assert await ask(*headers, kind="websocket") == []


async def test_an_origin_that_is_allowed_passes() -> None:
    headers = [("sec-fetch-site", "cross-site"), ("origin", "https://admin.example.com")]
    assert await ask(*headers, origins=("https://admin.example.com",)) == []
    assert len(await ask(*headers, origins=("https://admin.example.org",))) == 2


@pytest.mark.parametrize("headers", OTHER)
async def test_a_websocket_of_another_origin_is_closed(headers: list[tuple[str, str]]) -> None:
    (closed,) = await ask(*headers, kind="websocket")
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


async def test_what_is_no_request_passes() -> None:
    assert await ask(("origin", "https://evil.example"), kind="lifespan") == []


async def test_the_service_takes_it_as_a_middleware(memory: Client) -> None:
    app = create_app(
        load_settings(mock_redis=True), client=memory, middleware=[Middleware(SameOriginMiddleware)]
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
        path = "/api/v1/health/redis"
        headers = {"origin": "https://evil.example"}
        assert (await web.get(path, headers=headers)).status_code == 200
        assert (await web.post(path, headers=headers)).status_code == 403
        assert (await web.post(path)).status_code == 405
