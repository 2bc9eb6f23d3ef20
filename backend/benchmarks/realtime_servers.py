"""The servers of the realtime benchmark: ours, and the same with sse-starlette. Factories for uvicorn.

`POST /bench/one?STAMP` publishes a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis_core.api.realtime import Realtime
from redis_core.client import Client, connect
from redis_core.config import load_settings
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing

KEYS = PepperRing(Secret("bench:" + "x" * 40))
FILL = "x" * 200
Publish = Callable[[str], Awaitable[object]]


def payload(stamp: str) -> dict[str, str]:
    """About 250 bytes."""
    return {"mark": f"@@{stamp:0>20}", "fill": FILL}


def controlled(app: Any, publish: Publish) -> Any:
    """An application beside the routes that the benchmark publishes by."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/bench/"):
            await app(scope, receive, send)
            return
        await publish(scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return serve


def ours() -> Any:
    """The realtime endpoints, on the store of the environment."""
    client: Client | None = None

    async def source() -> Client:
        nonlocal client
        if client is None:
            client = await connect(load_settings())
        return client

    async def publish(stamp: str) -> None:
        await (await source()).workspace("acme").topic("bench").publish(payload(stamp))

    return controlled(Realtime(source, keys=KEYS), publish)


def sse_starlette() -> Any:
    """As its documentation shows it: a queue for each client, and a generator that reads it."""
    import json

    from sse_starlette.sse import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.routing import Route

    queues: set[asyncio.Queue[str]] = set()

    async def events() -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        try:
            yield {"data": "hello"}
            while True:
                yield {"data": await queue.get()}
        finally:
            queues.discard(queue)

    async def stream(_: Request) -> EventSourceResponse:
        return EventSourceResponse(events(), ping=25)

    async def publish(stamp: str) -> None:
        data = json.dumps(payload(stamp))
        for queue in queues:
            queue.put_nowait(data)

    return controlled(Starlette(routes=[Route("/api/v1/realtime/stream", stream, methods=["POST"])]), publish)
