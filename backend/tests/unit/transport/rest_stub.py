"""A REST server made of raw sockets: it speaks enough of Upstash's protocol, and breaks it byte by byte when told to."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from redis_core.address import StoreAddress
from redis_core.secret import Secret
from redis_core.transport.upstash import RestOptions, UpstashTransport

TOKEN = "stub-token"


@dataclass
class Received:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def http(status: int, body: bytes | str, *headers: str) -> bytes:
    """A whole response."""
    data = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", *headers])
    return head.encode() + b"\r\n\r\n" + data


def says(data: bytes) -> Answer:
    """Answer with these bytes and keep the connection."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


def says_and_closes(data: bytes) -> Answer:
    """Answer with these bytes and close."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return answer


def says_and_resets(data: bytes) -> Answer:
    """Answer with these bytes and reset the connection."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    return answer


async def silence(received: Received, writer: asyncio.StreamWriter) -> None:
    """Never answer."""


@dataclass
class RestStub:
    """What the server knows and has seen."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    """Accepted so far."""
    at_once: int = 0
    most_at_once: int = 0
    """Requests under way together."""
    latency: float = 0.0
    answers: deque[Answer] = field(default_factory=deque)
    """Faults for the next requests; when they are used up the server works again."""
    values: dict[str, bytes] = field(default_factory=dict)
    streams: dict[str, list[asyncio.StreamWriter]] = field(default_factory=dict)
    separator: bytes = b"\n\n"
    """What ends an event."""
    gate: asyncio.Event | None = None
    """When set, answers wait for it."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tokens: int = 0

    @property
    def commands(self) -> list[list[Any]]:
        """Every command received, in order."""
        found: list[list[Any]] = []
        for received in self.requests:
            if received.path == "/":
                found.append(received.json)
            elif received.path in {"/pipeline", "/multi-exec"}:
                found += received.json
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while (received := await self._receive(reader)) is not None:
                self.requests.append(received)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    await self._answer(received, reader, writer)
                finally:
                    self.at_once -= 1
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> Received | None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Received(first.split(" ")[1], headers, body)

    async def _answer(
        self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.answers:
            await self.answers.popleft()(received, writer)
        elif received.headers.get("authorization") != f"Bearer {TOKEN}":
            writer.write(http(401, '{"error":"WRONGPASS invalid or missing auth token"}'))
        elif received.path.startswith(("/subscribe/", "/psubscribe/")):
            await self._stream(received, reader, writer)
        else:
            self._tokens += 1
            status, answer = self._reply(received)
            writer.write(http(status, json.dumps(answer), f"Upstash-Sync-Token: t{self._tokens}"))

    def _reply(self, received: Received) -> tuple[int, Any]:
        if received.path in {"/pipeline", "/multi-exec"}:
            return 200, [self._run(command) for command in received.json]
        if received.path == "/":
            answer = self._run(received.json)
        else:
            path, _, query = received.path[1:].partition("?")
            words: list[Any] = [unquote_to_bytes(part) for part in path.split("/")]
            words.append(received.body)
            words += [word for pair in parse_qsl(query) for word in pair]
            answer = self._run([words[0].decode(), words[1].decode(), *words[2:]])
        return (400 if "error" in answer else 200), answer

    def _run(self, command: list[Any]) -> dict[str, Any]:
        name, *args = command
        if name == "GET":
            value = self.values.get(args[0])
            return {"result": None if value is None else _base64(value)}
        if name == "SET":
            self.values[args[0]] = args[1] if isinstance(args[1], bytes) else args[1].encode()
            return {"result": "OK"}
        if name == "INCR":
            number = int(self.values.get(args[0], b"0")) + 1
            self.values[args[0]] = b"%d" % number
            return {"result": number}
        if name == "ECHO":
            return {"result": _base64(args[0].encode())}
        if name == "PING":
            return {"result": _base64(b"PONG")}
        return {"error": f"ERR unknown command '{name}'"}

    # --- event streams ---

    async def _stream(
        self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        word, name = received.path[1:].split("/")
        channel = unquote_to_bytes(name).decode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.streams.setdefault(channel, []).append(writer)
        self.send(channel, f"{word},{channel},1".encode())
        try:
            # Until the client goes away.
            await reader.read()
        finally:
            self.streams[channel].remove(writer)

    def send(self, channel: str, data: bytes) -> None:
        """One event on the streams of a channel or pattern."""
        lines = b"\n".join(b"data: " + line for line in data.split(b"\n")) + self.separator
        for writer in self.streams.get(channel, ()):
            writer.write(b"%x\r\n%b\r\n" % (len(lines), lines))

    def publish(self, channel: str, payload: bytes) -> None:
        """A message to a channel's streams."""
        self.send(channel, b"message,%b,%b" % (channel.encode(), payload))

    def cut_off(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the other side does."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


@asynccontextmanager
async def rest_stub(*, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncGenerator[RestStub]:
    """A server on loopback; port 0 is a free one."""
    stub = RestStub()
    server = await asyncio.start_server(stub.serve, "127.0.0.1", port, ssl=tls, limit=32 * 1024 * 1024)
    stub.port = server.sockets[0].getsockname()[1]
    try:
        yield stub
    finally:
        server.close()
        if stub.gate is not None:
            stub.gate.set()
        stub.cut_off()
        # The connections' tasks see the reset and end.
        tasks = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "serve"]
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def upstash(
    stub: RestStub | int, *, token: str = TOKEN, scheme: str = "http", host: str = "127.0.0.1", **options: Any
) -> AsyncGenerator[UpstashTransport]:
    """A transport to the stub, closed afterwards; and nothing of it may be left."""
    port = stub if isinstance(stub, int) else stub.port
    before = asyncio.all_tasks()
    transport = UpstashTransport(StoreAddress(scheme, ((host, port),)), Secret(token), RestOptions(**options))
    try:
        yield transport
    finally:
        await transport.aclose()
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in left if name.startswith("redis-")}
        assert transport.stats.in_flight == 0
