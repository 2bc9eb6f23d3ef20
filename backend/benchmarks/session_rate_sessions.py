"""What a request pays for its session: client CPU of a read, beside starsessions, in the same process on the same server.

Both run as ASGI middleware around the same Starlette application with a session of three fields; requests go straight into the
application, 50 at once, without an HTTP server. CPU is the process' own, the least of several interleaved rounds, less that of
the application without sessions.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis_core.api.session_middleware import SessionMiddleware, request_session
from redis_core.client import Client, connect
from redis_core.session import PepperRing, Sessions
from redis_core.transport.embedding.place import find_server

Row = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

AT_ONCE = 50
DATA = {"user": "u1", "cart": ["a", "b", "c"], "theme": "dark"}


async def rows(*, quick: bool) -> list[Row]:
    """The rows of this subject."""
    async with running() as url, await connect(redis_url=url, mock_redis=False) as client:
        return await measure(client, url, requests=2_000 if quick else 10_000, rounds=7 if quick else 11)


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """The address of a server of our own, over TCP on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [find_server(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            await asyncio.sleep(0.01)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


async def measure(client: Client, url: str, *, requests: int, rounds: int) -> list[Row]:
    from redis.asyncio import Redis
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starsessions import SessionMiddleware as Peer
    from starsessions import load_session
    from starsessions.stores.redis import RedisStore

    async def bare(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("u1")

    async def ours(request: Request) -> PlainTextResponse:
        session = await request_session(request.scope).load()
        return PlainTextResponse(session.data["user"])  # type: ignore[union-attr,index]

    async def theirs(request: Request) -> PlainTextResponse:
        await load_session(request)
        return PlainTextResponse(request.session["user"])

    def app(endpoint: Any) -> Starlette:
        return Starlette(routes=[Route("/", endpoint)])

    sessions = Sessions(client, PepperRing.random())
    _, token = await sessions.create("u1", "acme", DATA)
    peer_store = Redis.from_url(url, max_connections=100)
    await peer_store.set("starsessions.abc", json.dumps(DATA))
    # Since no cookie of ours may be adopted, theirs is the id itself, which it takes from the cookie as it is.
    cases: dict[str, tuple[App, bytes]] = {
        "bare": (app(bare), b""),
        "ours": (SessionMiddleware(app(ours), sessions), b"__Host-rf_session=" + token.encode()),
        "theirs": (
            Peer(
                app(theirs),
                RedisStore(connection=peer_store, prefix="starsessions."),
                lifetime=86_400,
                rolling=True,
            ),
            b"session=abc",
        ),
    }
    cpu: dict[str, float] = {}
    for _ in range(rounds):
        for name, (application, cookie) in cases.items():
            spent = await one_round(application, cookie, requests if name != "theirs" else requests // 4)
            cpu[name] = min(spent, cpu.get(name, spent))
    await peer_store.aclose()
    mine, peer = cpu["ours"] - cpu["bare"], cpu["theirs"] - cpu["bare"]
    return [
        row("session read cpu vs starsessions", mine, "us above the bare app", "starsessions", peer, 5.0),
        row("session read cpu above the bare app", mine, "us", "limit", 70.0, 1.0),
    ]


def row(what: str, ours: float, unit: str, peer: str, theirs: float, target: float) -> Row:
    ratio = theirs / ours
    return {
        "what": what, "ours": round(ours, 1), "unit": unit, "peer": peer, "theirs": round(theirs, 1),
        "ratio": round(ratio, 2), "target": target, "met": ratio >= target,
    }  # fmt: skip


async def one_round(app: App, cookie: bytes, requests: int) -> float:
    """Client CPU of a request in microseconds."""
    await load(app, cookie, AT_ONCE * 2)
    before = time.process_time()
    await load(app, cookie, requests)
    return (time.process_time() - before) * 1e6 / requests


async def load(app: App, cookie: bytes, requests: int) -> None:
    headers = [(b"host", b"localhost"), (b"user-agent", b"bench"), (b"accept", b"*/*")]
    if cookie:
        headers.append((b"cookie", cookie))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 200) == 200

    async def client() -> None:
        for _ in range(requests // AT_ONCE):
            scope = {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/",
                "raw_path": b"/", "root_path": "", "scheme": "https", "query_string": b"", "headers": list(headers),
                "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 443),
            }  # fmt: skip
            await app(scope, receive, send)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    measured = asyncio.run(rows(quick="--quick" in sys.argv))
    print(json.dumps(measured, indent=1))
