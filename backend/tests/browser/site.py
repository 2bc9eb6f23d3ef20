"""The site of the browser tests, a process of its own that a test may kill: realtime, the built client, and a page for each tab.

It also looks through everything that it sends, errors and WebSockets too, for a text that no browser may see.
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
BUILT = {
    "client": _ROOT / "frontend" / "client" / "dist",
    "demo": _ROOT / "frontend" / "demo" / "dist",
    "dashboard": _ROOT / "backend" / "redis_core" / "static" / "dashboard",
}
"""What browsers are given of the project."""
_SECRET = os.environ.get("TEST_SECRET", "").encode()


class Watched:
    """Everything that leaves is looked through, and streams are counted."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.leaks: list[str] = []
        self.looked: dict[str, int] = {}
        """How many messages of each type were looked through."""
        self.streams: dict[str, int] = {"open": 0, "opened": 0}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_stream = scope["type"] == "http" and scope["path"].endswith("/stream")
        tail = b""

        async def watched(message: Any) -> None:
            nonlocal tail
            self.looked[message["type"]] = self.looked.get(message["type"], 0) + 1
            # With the end of the message before: it may be cut anywhere.
            sent = tail + _bytes_of(message)
            tail = sent[-len(_SECRET) :]
            if _SECRET and _SECRET in sent:
                self.leaks.append(scope["path"])
            await send(message)

        self.streams["open"] += is_stream
        self.streams["opened"] += is_stream
        try:
            await self.app(scope, receive, watched)
        finally:
            self.streams["open"] -= is_stream


def _bytes_of(message: Any) -> bytes:
    """All that a message brings to the browser."""
    headers = b"".join(b":".join(header) for header in message.get("headers") or ())
    texts = ((message.get("text") or "") + (message.get("reason") or "")).encode()
    return b"".join([headers, message.get("body") or b"", message.get("bytes") or b"", texts])


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
            return JSONResponse({"leaks": watched.leaks, "looked": watched.looked, **watched.streams})

        async def control(_request: Request) -> Response:
            """A leak on purpose, by which a test knows that it would see one."""
            return PlainTextResponse(_SECRET)

        realtime = Realtime(the_client, settings=settings)
        watched = Watched(
            Starlette(
                routes=[
                    _file("page.html", "text/html"),
                    _file("page.js", "text/javascript"),
                    Route("/token", token, methods=["POST"]),
                    Route("/figures", figures),
                    Route("/control", control),
                    *(
                        Mount(f"/{name}", StaticFiles(directory=folder, check_dir=False))
                        for name, folder in BUILT.items()
                    ),
                    Mount("/api/v1/realtime", realtime),
                ]
            )
        )
        listener = stack.enter_context(bind("127.0.0.1", port, port_variable="TEST_PORT"))
        stop = await stack.enter_async_context(serve([Site(watched, listener, realtime.drain)]))
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(int(os.environ["TEST_PORT"])))
