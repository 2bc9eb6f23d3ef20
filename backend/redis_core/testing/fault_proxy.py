"""A TCP proxy that breaks the link to a store on demand.

It runs in a thread of its own, so it works whatever the event loop under test is doing::

    with FaultProxy(("127.0.0.1", 6379)) as proxy:
        client = await connect(redis_url=proxy.url)
        proxy.blackhole()
        with pytest.raises(DeadlineExceeded):
            await client.ping()
        proxy.up()
        assert await client.ping()

A fault is in force when its method returns, for the connections that are open and for those to come, until another replaces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeVar

__all__ = ["FaultProxy"]

T = TypeVar("T")

_CHUNK: Final = 64 * 1024
"""Bytes read at once."""

Kind = Literal[
    "up",
    "refuse",
    "reset",
    "stall",
    "blackhole",
    "half_reply",
    "latency",
    "slice",
    "throttle",
    "close_after",
    "banner",
]


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: Kind = "up"
    amount: float = 0.0
    payload: bytes = b""


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection and the one to the store that belongs to it."""

    accepted: socket.socket
    client: asyncio.StreamWriter | None = None
    store: asyncio.StreamWriter | None = None
    replied: int = 0
    lost: bool = False
    """Whether bytes of it were swallowed. TCP never goes on after a hole, so such a link stays silent."""

    def cut(self) -> None:
        """Reset both sides: the peers see ECONNRESET, not an orderly end."""
        for writer in (self.client, self.store):
            if writer is not None:
                link: socket.socket = writer.get_extra_info("socket")
                # The peer may have closed it since.
                if link.fileno() >= 0 and link.family != socket.AF_UNIX:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def close(self) -> None:
        """Close both sides in good order."""
        if self.client is None:
            self.accepted.close()
        for writer in (self.client, self.store):
            if writer is not None:
                writer.close()


class FaultProxy:
    """A context manager; safe to steer from any thread.

    Args:
        upstream: the store: host and port, or the path of a unix socket.
    """

    def __init__(self, upstream: tuple[str, int] | str) -> None:
        self._upstream = upstream
        self._fault = _Fault()
        self._links: set[_Link] = set()
        self._accepted = 0
        self._port = 0
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- where it is, what it saw ---

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self._port

    @property
    def url(self) -> str:
        """Its address as a setting: `redis://127.0.0.1:port`."""
        return f"redis://127.0.0.1:{self._port}"

    @property
    def accepted(self) -> int:
        """Connections taken since it started."""
        return self._accepted

    @property
    def open_links(self) -> int:
        """Connections open now."""
        return len(self._links)

    # --- faults ---

    def up(self) -> None:
        """Forward everything: no fault. What a stall has held back goes on its way."""
        self._set(_Fault())

    def refuse(self) -> None:
        """Refuse connections, and reset those there are: the store's process is gone."""
        self._set(_Fault("refuse"))

    def reset(self) -> None:
        """Reset each connection as soon as either side sends."""
        self._set(_Fault("reset"))

    def stall(self) -> None:
        """Hold back everything, in both directions, with connections open: a partition that may heal."""
        self._set(_Fault("stall"))

    def blackhole(self) -> None:
        """Take everything and lose it, in both directions, with connections open: a half-open link.

        A link that has lost something stays silent when the fault is over, as TCP would have it; new ones work.
        """
        self._set(_Fault("blackhole"))

    def half_reply(self) -> None:
        """Reset each connection in the middle of its next reply."""
        self._set(_Fault("half_reply"))

    def latency(self, seconds: float) -> None:
        """Delay replies."""
        self._set(_Fault("latency", seconds))

    def slice(self, size: int) -> None:
        """Forward in pieces of this many bytes."""
        self._set(_Fault("slice", size))

    def throttle(self, bytes_per_second: float) -> None:
        """Forward at this rate."""
        self._set(_Fault("throttle", bytes_per_second))

    def close_after(self, size: int) -> None:
        """Close each connection in good order once it has carried this many bytes of replies."""
        self._set(_Fault("close_after", size))

    def banner(self, payload: bytes) -> None:
        """Greet new connections with these bytes and say no more; open ones are reset: another service listens here."""
        self._set(_Fault("banner", payload=payload))

    def cut(self) -> None:
        """Reset the connections that are open, once."""
        self._do(self._cut())

    # --- the thread ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _set(self, fault: _Fault) -> None:
        self._do(self._switch(fault))

    async def _switch(self, fault: _Fault) -> None:
        self._fault = fault
        for link in self._links:
            link.replied = 0
            link.lost = link.lost or fault.kind == "blackhole"
        if fault.kind in {"refuse", "banner"}:
            # Who was connected to the store is not connected to what is here now.
            await self._cut()
        if fault.kind == "refuse":
            self._refuse()
        elif self._listener is None:
            self._listen()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _open(self) -> None:
        self._listen()

    def _listen(self) -> None:
        # Not a server of asyncio's: that one forgets connections which it was about to accept when it is closed.
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=100)
        self._listener.settimeout(0)
        self._port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _refuse(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _cut(self) -> None:
        for link in tuple(self._links):
            link.cut()
        await asyncio.sleep(0)

    async def _shut(self) -> None:
        self._refuse()
        await self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What was closed lets go of its sockets a turn later.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # --- one connection ---

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            # It has gone again.
            return
        link = _Link(accepted)
        self._accepted += 1
        self._links.add(link)
        task = self._loop.create_task(self._serve(link))
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            # Not in the task itself: one that is cancelled before its first step does nothing, and its socket would stay open.
            self._tasks.discard(task)
            self._links.discard(link)
            link.close()

        task.add_done_callback(over)

    async def _serve(self, link: _Link) -> None:
        # A peer that has gone ends the link; that is what this proxy is for.
        with contextlib.suppress(OSError):
            reader, link.client = await asyncio.open_connection(sock=link.accepted, limit=_CHUNK)
            await self._forward(link, reader, link.client)

    async def _forward(self, link: _Link, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._fault.kind == "banner":
            client.write(self._fault.payload)
            link.lost = True
        if isinstance(self._upstream, str):
            store, link.store = await asyncio.open_unix_connection(self._upstream, limit=_CHUNK)
        else:
            store, link.store = await asyncio.open_connection(*self._upstream, limit=_CHUNK)
        pumps = [
            asyncio.ensure_future(self._pump(link, reader, link.store, reply=False)),
            asyncio.ensure_future(self._pump(link, store, client, reply=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, reply: bool
    ) -> None:
        while data := await source.read(_CHUNK):
            while self._fault.kind == "stall":
                await self._changed.wait()
            await self._pass(link, data, sink, reply=reply)

    async def _pass(  # noqa: C901 - one case a fault
        self, link: _Link, data: bytes, sink: asyncio.StreamWriter, *, reply: bool
    ) -> None:
        fault = self._fault
        match fault.kind:
            case _ if link.lost:
                return
            case "blackhole":
                link.lost = True
            case "reset":
                link.cut()
            case "half_reply" if reply:
                await _write(sink, data[: max(1, len(data) // 2)])
                link.cut()
            case "latency" if reply:
                await asyncio.sleep(fault.amount)
                await _write(sink, data)
            case "slice":
                for start in range(0, len(data), int(fault.amount)):
                    await _write(sink, data[start : start + int(fault.amount)])
                    await asyncio.sleep(0)
            case "throttle":
                step = max(1, int(fault.amount / 50))
                for start in range(0, len(data), step):
                    piece = data[start : start + step]
                    await _write(sink, piece)
                    await asyncio.sleep(len(piece) / fault.amount)
            case "close_after" if reply:
                left = int(fault.amount) - link.replied
                link.replied += len(data)
                await _write(sink, data[: max(0, left)])
                if link.replied >= fault.amount:
                    link.close()
            case _:
                await _write(sink, data)


async def _write(sink: asyncio.StreamWriter, data: bytes) -> None:
    sink.write(data)
    await sink.drain()
