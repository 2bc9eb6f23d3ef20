"""What a request pays for its session: client CPU of a read, beside starsessions, in the same process on the same server.

Both run as ASGI middleware around the same Starlette application, with a session of three fields; requests go straight into the
application, 50 at once, without an HTTP server. What the application costs without sessions is measured too, and left out.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from harness import Row, callers, closing, compare, main, peer, row, valkey_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from redis_core.api.session_middleware import SessionMiddleware, request_session
from redis_core.client import Client, connect
from redis_core.session import PepperRing, Sessions

App = Callable[[Any, Any, Any], Awaitable[None]]

CALLERS: Final = 50
DATA: Final = {"user": "u1", "cart": ["a", "b", "c"], "theme": "dark"}
LIMIT_US: Final = 70.0
HEADERS: Final = [(b"host", b"localhost"), (b"user-agent", b"bench"), (b"accept", b"*/*")]


async def rows(quick: bool) -> list[Row]:
    """The rows of this subject."""
    each, rounds = (20, 9) if quick else (100, 15)
    with valkey_server() as server:
        settings = {"redis_url": server.url, "mock_redis": False, "redis_command_timeout": 20}
        async with await connect(**settings) as client, closing(_redis_py(server.url)) as link:
            theirs, name = await starsessions_app(link)
            apps = [bare_app(), await our_app(client), theirs]
            # Ours is so much quicker that a round of as many requests would be over before the clock has moved.
            sides = [requests(app, each * times) for app, times in zip(apps, (4, 4, 1), strict=True)]
            without, ours, with_peer = [cost.cpu_us for cost in await compare(*sides, rounds=rounds)]
    mine, others = ours - without, with_peer - without
    return [
        row("session read cpu vs starsessions", mine, "us above the bare app", name, others, target=5),
        row("session read cpu above the bare app", mine, "us", "the limit", LIMIT_US, target=1),
    ]


def requests(app: App, each: int) -> Callable[[], Awaitable[int]]:
    """Rounds of one contestant."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 200) == 200

    async def request() -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/", "raw_path": b"/",
            "root_path": "", "scheme": "https", "query_string": b"", "headers": [], "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 443),
        }  # fmt: skip
        await app(scope, receive, send)

    return lambda: callers(request, concurrent=CALLERS, each=each)


def with_headers(app: App, *more: tuple[bytes, bytes]) -> App:
    """The application as a browser with these headers meets it."""

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [*HEADERS, *more]
        await app(scope, receive, send)

    return asked


def bare_app() -> App:
    """Without sessions."""

    async def endpoint(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("u1")

    return with_headers(Starlette(routes=[Route("/", endpoint)]))


async def our_app(client: Client) -> App:
    """With ours."""
    sessions = Sessions(client, PepperRing.random())
    _, token = await sessions.create("u1", "acme", DATA)

    async def endpoint(request: Request) -> PlainTextResponse:
        session = await request_session(request.scope).load()
        assert session is not None
        return PlainTextResponse(session.data["user"])  # type: ignore[index]

    app = SessionMiddleware(Starlette(routes=[Route("/", endpoint)]), sessions)
    return with_headers(app, (b"cookie", b"__Host-rf_session=" + token.encode()))


async def starsessions_app(link: Any) -> tuple[App, str]:
    """With starsessions, and its name with version."""
    starsessions, name = peer("starsessions", "starsessions")
    stores, _ = peer("starsessions.stores.redis", "starsessions")
    await link.set("starsessions.abc", json.dumps(DATA))

    async def endpoint(request: Request) -> PlainTextResponse:
        await starsessions.load_session(request)
        assert request.session["user"] == DATA["user"]
        return PlainTextResponse(request.session["user"])

    store = stores.RedisStore(connection=link, prefix="starsessions.")
    app = starsessions.SessionMiddleware(
        Starlette(routes=[Route("/", endpoint)]), store, lifetime=86_400, rolling=True
    )
    # It takes whatever id a cookie carries.
    return with_headers(app, (b"cookie", b"session=abc")), name


def _redis_py(url: str) -> Any:
    redis, _ = peer("redis.asyncio", "redis")
    return redis.Redis.from_url(url, max_connections=100)


if __name__ == "__main__":
    main("sessions", rows)
