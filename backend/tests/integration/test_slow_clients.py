"""Clients that hold a connection and give nothing for it, against the real server on real sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from redis_core import Client
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve
from redis_core.api.slow_clients import BoundedProtocol, ClientLimits
from redis_core.config import load_settings
from tests.admin_world import TOKENS, service

PATIENT = ClientLimits(head_bytes=4096)
QUICK = ClientLimits(
    head_seconds=0.3, head_bytes=4096, body_seconds=0.3, body_rate=1_000, stalled_seconds=0.3
)


class Protocol(BoundedProtocol):
    """Its limits are the usual ones, but for the head's size, until a test sets others."""

    limits = PATIENT


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Protocol, "limits", PATIENT)


def hurry() -> None:
    Protocol.limits = QUICK


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body; `/large` with more than fits between two programs."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"x" * 50_000_000 if scope["path"] == "/large" else str(size).encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(app: object = echo) -> AsyncIterator[Streams]:
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        async with serve([Site(app, listener)], protocol=Protocol), asyncio.timeout(30):  # type: ignore[arg-type]
            reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            yield reader, writer
            writer.close()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes. A reset says as much as an end."""
    data = b""
    try:
        while piece := await reader.read(65_536):
            data += piece
    except ConnectionError:
        pass
    return data


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send a piece again and again, until the server has enough."""
    try:
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass


async def test_who_connects_and_says_nothing_is_sent_away() -> None:
    async with connected() as (reader, _):
        hurry()
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: ", b"b"),
        (b"GET /", b"a"),
        (b"", b"\r\n"),
    ],
    ids=["headers", "one header", "the path", "blank lines"],
)
async def test_a_head_that_never_ends_is_refused_however_busily_it_drips(begin: bytes, piece: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(begin)
        hurry()
        dripping = asyncio.ensure_future(drip(writer, piece))
        answer = await rest_of(reader)
        dripping.cancel()
        assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 431 "))


async def test_a_head_that_is_too_large_is_refused_before_its_time() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for number in range(200):
            writer.write(b"X-%d: %b\r\n" % (number, b"y" * 100))
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 431 ")


async def test_a_body_that_never_ends_is_refused() -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        hurry()
        dripping = asyncio.ensure_future(drip(writer, b"x"))
        answer = await rest_of(reader)
        dripping.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_chunked_body_that_never_ends_is_refused() -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        hurry()
        dripping = asyncio.ensure_future(drip(writer, b"1\r\nx\r\n"))
        answer = await rest_of(reader)
        dripping.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_the_second_request_of_a_connection_is_held_to_the_same() -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(1) == b"3"
        writer.write(b"GET / HT")
        hurry()
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 408 ")


async def test_who_asks_for_much_and_does_not_read_it_is_cut() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        hurry()
        # Its window is full; the server closes, which a paused reader sees as soon as it goes on.
        async with asyncio.timeout(20):
            while not await _ended(writer):
                await asyncio.sleep(0.1)


async def _ended(writer: asyncio.StreamWriter) -> bool:
    """Whether the server is gone: a write to it fails."""
    try:
        writer.write(b" ")
        await writer.drain()
    except ConnectionError:
        return True
    return writer.is_closing()


async def test_an_application_that_is_slow_is_not_taken_for_a_slow_client() -> None:
    taken = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        await taken.wait()
        await echo(scope, receive, send)

    async with connected(slow) as (reader, writer):
        size = 400_000
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * size)
        hurry()
        await asyncio.sleep(
            2.5
        )  # longer than the limits and two looks at all connections: nothing may come of it
        taken.set()
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(6) == b"400000"


async def test_who_hangs_up_in_the_middle_of_a_body_is_no_mistake_of_ours(
    memory: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        async with connected(service(memory)) as (reader, writer):
            writer.write(
                b"POST /api/v1/admin/cache/flush HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer %b\r\nContent-Length: 1000\r\n\r\n{" % TOKENS["admin"].encode()
            )
            hurry()
            assert (await rest_of(reader)).startswith(b"HTTP/1.1 408 ")
    assert not caplog.records


async def test_a_realtime_stream_that_is_open_is_no_slow_client(memory: Client) -> None:
    from redis_core.realtime_token import issue, keys_from_settings

    settings = load_settings(mock_redis=True)
    token = issue("acme", "ada", read=("*",), keys=keys_from_settings(settings))
    async with connected(create_app(settings, client=memory)) as (reader, writer):
        body = b'{"topics":[]}'
        writer.write(
            b"POST /api/v1/realtime/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (token.encode(), len(body), body)
        )
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"\n\n")
        hurry()
        await asyncio.sleep(1.5)  # as above
        assert not reader.at_eof()
        writer.close()
