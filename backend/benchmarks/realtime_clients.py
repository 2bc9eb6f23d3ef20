"""The browsers of the realtime benchmark, a process of its own: opens streams and counts what arrives.

Reads commands as lines of JSON and answers each with one: open, burst, paced, told.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

MARK = b"@@"
"""Once in every message's payload."""
PING = b'"t":"ping"'


class Browser(asyncio.Protocol):
    """One open stream."""

    def __init__(self, crowd: Crowd, request: bytes) -> None:
        self.crowd = crowd
        self.request = request
        self.tail = b""
        self.greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self.transport: Any = transport
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.greeted and b"data:" in self.tail + data:
            self.greeted = True
            self.crowd.greeted += 1
        self.crowd.pings += data.count(PING)
        marks = (self.tail[-1:] + data if self.tail[-1:] == MARK[:1] else data).count(MARK)
        self.tail = data[-200:] if self.greeted else self.tail + data
        if marks:
            self.crowd.arrived(marks, data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.crowd.lost += 1


class Crowd:
    """All browsers."""

    def __init__(self) -> None:
        self.browsers: list[Browser] = []
        self.greeted = self.lost = self.count = self.pings = 0
        self.wanted = 0
        self.done = asyncio.Event()
        self.delays: list[float] | None = None

    def arrived(self, marks: int, data: bytes) -> None:
        self.count += marks
        if self.delays is not None:
            now = time.monotonic_ns()
            for piece in data.split(b"@@")[1:]:
                self.delays.append((now - int(piece[:20])) / 1e6)
        if self.count >= self.wanted:
            self.done.set()

    async def open(self, port: int, count: int, request: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        already = self.greeted
        for start in range(0, count, 100):
            size = min(100, count - start)
            made = await asyncio.gather(
                *(
                    loop.create_connection(lambda: Browser(self, request.encode()), "127.0.0.1", port)
                    for _ in range(size)
                )
            )
            self.browsers += [protocol for _, protocol in made]
            async with asyncio.timeout(60):
                while self.greeted < already + start + size:
                    await asyncio.sleep(0.005)
        return {"open": self.greeted, "seconds": time.perf_counter() - began}

    async def burst(self, port: int, messages: int) -> dict[str, Any]:
        """So many messages, each when the last browser has the one before."""
        self.count = self.wanted = 0
        began = time.perf_counter()
        for _ in range(messages):
            self.wanted += len(self.browsers)
            self.done.clear()
            await post(port, "/bench/one?0")
            async with asyncio.timeout(120):
                await self.done.wait()
        return {"deliveries": self.count, "seconds": time.perf_counter() - began, "lost": self.lost}

    async def told(self) -> dict[str, Any]:
        """How many pings have come to all of them."""
        return {"pings": self.pings}

    async def paced(self, port: int, messages: int, rate: float) -> dict[str, Any]:
        """Messages at a rate, each with the moment it was sent; how long they took to the browsers."""
        self.count, self.wanted, self.delays = 0, messages * len(self.browsers), []
        self.done.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        loop = asyncio.get_running_loop()
        at = loop.time()
        for _ in range(messages):
            at += 1 / rate
            await asyncio.sleep(max(0.0, at - loop.time()))
            stamp = f"{time.monotonic_ns():020d}"
            writer.write(f"POST /bench/one?{stamp} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        async with asyncio.timeout(120):
            await self.done.wait()
        writer.close()
        delays = sorted(self.delays)
        self.delays = None
        return {"p50": delays[len(delays) // 2], "p99": delays[int(len(delays) * 0.99)], "count": len(delays)}


async def post(port: int, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    )
    await reader.read()
    writer.close()


async def main() -> None:
    crowd = Crowd()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        call = command.pop("do")
        print(json.dumps(await getattr(crowd, call)(**command)), flush=True)


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
