"""The site of the browser tests, a process of its own that a test may kill: realtime, the built client, and a page for each tab.

It also looks through everything that it sends for a text that no browser may see.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from redis_core import realtime_token
from redis_core.api.realtime import Realtime
from redis_core.api.server import Site, bind, serve
from redis_core.client import connect
from redis_core.config import load_settings

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[2]
_SECRET = os.environ.get("TEST_SECRET", "").encode()


class Watched:
    """Everything that leaves is looked through, and streams are counted."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.leaks: list[str] = []
        self.streams: dict[str, int] = {"open": 0, "opened": 0}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_stream = scope["path"].endswith("/stream")

        async def watched(message: Any) -> None:
            sent = message.get("body", b"") + b"".join(
                b":".join(header) for header in message.get("headers", ())
            )
            if _SECRET and _SECRET in sent:
                self.leaks.append(scope["path"])
            await send(message)

        self.streams["open"] += is_stream
        self.streams["opened"] += is_stream
        try:
            await self.app(scope, receive, watched)
        finally:
            self.streams["open"] -= is_stream


def _file(name: str, kind: str) -> Route:
    async def give(_request: Request) -> Response:
        return Response((_HERE / name).read_bytes(), media_type=kind)

    return Route(f"/{name}", give)


async def main(port: int) -> None:
    """Serve until a signal ends it."""
    settings = load_settings()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await connect(settings))

        async def the_client() -> Any:
            return client

        async def token(request: Request) -> Response:
            user = request.query_params["user"]
            topics = ["campaign:*", "doc:*", "answer:*"]
            return PlainTextResponse(
                realtime_token.issue("acme", user, read=topics, write=topics, seconds=600)
            )

        async def figures(_request: Request) -> Response:
            return JSONResponse({"leaks": watched.leaks, **watched.streams})

        realtime = Realtime(the_client, settings=settings)
        watched = Watched(
            Starlette(
                routes=[
                    _file("page.html", "text/html"),
                    _file("page.js", "text/javascript"),
                    Route("/token", token, methods=["POST"]),
                    Route("/figures", figures),
                    Mount("/client", StaticFiles(directory=_ROOT / "frontend" / "client" / "dist")),
                    Mount("/api/v1/realtime", realtime),
                ]
            )
        )
        listener = stack.enter_context(bind("127.0.0.1", port, port_variable="TEST_PORT"))
        stop = await stack.enter_async_context(serve([Site(watched, listener, realtime.drain)]))
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(int(os.environ["TEST_PORT"])))
