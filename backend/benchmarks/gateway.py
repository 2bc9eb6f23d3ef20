"""The gateway beside a bare ASGI app that parses the same JSON: what is it that the gateway costs?

Both run under uvicorn (httptools, uvloop), each in a process of its own, and answer `POST /` of `["GET","k"]` with a bearer token,
from one load generator on 50 keep-alive connections. Rounds alternate. The bare app decodes the body with msgspec and answers a
constant; the gateway checks the token, asks Valkey over TCP and answers its reply. The ratio compares CPU of the server process
per request, which other jobs of the machine disturb least; requests a second stand beside it, without a target.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from harness import BACKEND, Row, Server, cpu_seconds, free_port, main, row, running, valkey_server

TOKEN = "benchmark-token-of-32-characters"
BODY = b'["GET","k"]'
CONNECTIONS = 50
TARGET = 0.75

_decode = msgspec.json.Decoder(list[Any]).decode
_ANSWER = b'{"result":"v"}'


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least an app can do with the request."""
    if scope["type"] != "http":
        return
    _decode((await receive())["body"])
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"14")],
        }
    )
    await send({"type": "http.response.body", "body": _ANSWER})


async def serve(kind: str, port: int, store_url: str) -> None:
    """Run one of the two apps; what a server process does."""
    import uvicorn

    from redis_core.client import connect
    from redis_core.gateway import GatewayToken, create_gateway
    from redis_core.secret import Secret

    app: Any = bare
    if kind == "gateway":
        client = await connect(redis_url=store_url, mock_redis=False)
        await client.set("k", "v")
        app = create_gateway(client.transport, [GatewayToken(Secret(TOKEN))])
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        http="httptools",
    )
    await uvicorn.Server(config).serve()


class _Load(asyncio.Protocol):
    """One keep-alive connection that always has one request on its way."""

    def __init__(self, request: bytes, expected: bytes) -> None:
        self._request = request
        self._expected = expected
        self._transport: Any = None
        self._received = b""
        self._end = 0.0
        self.done = 0
        self.stopped = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def start(self, end: float) -> None:
        self._end = end
        self.done = 0
        self.stopped = asyncio.get_running_loop().create_future()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(self._expected):
            if len(self._received) > 4096:
                self.stopped.set_exception(RuntimeError(f"unexpected answer: {self._received[:300]!r}"))
            return
        self._received = b""
        self.done += 1
        if time.perf_counter() < self._end:
            self._transport.write(self._request)
        else:
            self.stopped.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopped.done():
            self.stopped.set_exception(RuntimeError(f"the server hung up: {exc}"))
        self._transport = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass
class Contender:
    """One server process, the connections to it and its rounds."""

    port: int
    pid: int
    load: list[_Load] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    async def connect(self) -> None:
        request = (
            b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        ) % (TOKEN.encode(), len(BODY), BODY)
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, link = await loop.create_connection(lambda: _Load(request, _ANSWER), "127.0.0.1", self.port)
            self.load.append(link)

    async def round(self, seconds: float) -> tuple[float, float]:
        """CPU of the server in microseconds a request, and requests a second."""
        used, began = cpu_seconds(self.pid), time.perf_counter()
        for link in self.load:
            link.start(began + seconds)
        await asyncio.gather(*(link.stopped for link in self.load))
        took, used = time.perf_counter() - began, cpu_seconds(self.pid) - used
        done = sum(link.done for link in self.load)
        return used / done * 1e6, done / took


@contextmanager
def app_process(kind: str, store: Server) -> Generator[Contender]:
    """One of the two apps, in a process of its own."""
    port = free_port()
    command = [sys.executable, __file__, "serve", kind, str(port), store.url]
    with running(command, port, PYTHONPATH=str(BACKEND), RAPTORFLOW_ENV="test") as process:
        yield Contender(port, process.pid)


async def measure(quick: bool) -> list[Row]:
    """Rounds of each in turn, after one to warm up."""
    rounds, seconds = (12, 1.0) if quick else (40, 1.0)
    with (
        valkey_server() as store,
        app_process("gateway", store) as ours,
        app_process("bare", store) as theirs,
    ):
        for app in (ours, theirs):
            await app.connect()
            await app.round(0.5)
        for _ in range(rounds):
            for app in (ours, theirs):
                cpu_us, rate = await app.round(seconds)
                app.cpu_us.append(cpu_us)
                app.rate.append(rate)
        for link in (*ours.load, *theirs.load):
            link.close()
    # The least of the rounds, as disturbance only adds.
    bare_app = "bare ASGI app, msgspec, constant answer"
    return [
        row(
            "single command vs bare", min(ours.cpu_us), "us CPU/op", bare_app, min(theirs.cpu_us), target=TARGET
        ),
        row(
            "single command rate vs bare", max(ours.rate), "op/s", bare_app, max(theirs.rate),
            target=None, higher_is_better=True,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    else:
        main(
            "gateway",
            measure,
            "CPU of the server process alone, a request; store and load generator are processes of their own.",
            "The rate shares the machine's cores with both of them.",
        )
