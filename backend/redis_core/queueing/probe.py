"""The HTTP probe of a worker: `/metrics` for Prometheus, and one small answer to anything else, for load balancers and orchestrators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

__all__ = ["probe"]

_PATIENCE: Final = 5.0
_LONGEST_REQUEST: Final = 8192


@asynccontextmanager
async def probe(
    host: str, port: int, report: Callable[[], dict[str, object]], metrics: Callable[[], str]
) -> AsyncGenerator[int]:
    """Answer on this port while the block runs: 200 and the report if it says `healthy`, else 503. The port that it listens on.

    Args:
        host: where to listen.
        port: 0 takes a free one.
        report: what is told.
        metrics: what `/metrics` tells, in Prometheus' text form.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                request = await reader.readuntil(b"\r\n\r\n")
            status, kind = b"200 OK", b"application/json"
            if request.startswith(b"GET /metrics "):
                body, kind = metrics().encode(), b"text/plain; version=0.0.4; charset=utf-8"
            else:
                told = report()
                body = msgspec.json.encode(told)
                status = b"200 OK" if told.get("healthy") else b"503 Service Unavailable"
            head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            writer.write(head % (status, kind, len(body)) + body)
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Whoever asked is gone, or asks what nobody answers.
            return
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=_LONGEST_REQUEST)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
