"""uvicorn, several apps in one event loop, on sockets that are bound before anything else is started."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvicorn

from redis_core.api.slow_clients import BoundedProtocol
from redis_core.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Site", "bind", "run", "serve", "url_of"]

T = TypeVar("T")

_BACKLOG: Final = 2_048
_KEEP_ALIVE_SECONDS: Final = 75
_TICKS_A_SECOND: Final = 10
"""uvicorn's own."""
_MOST_MESSAGE_BYTES: Final = 1024 * 1024
"""Largest message of a WebSocket; what may be in one is bounded more tightly by who reads it."""
_GRACE_SECONDS: Final = 1
"""How long requests may go on after a signal."""


@dataclass(frozen=True, slots=True)
class Site:
    """One app and where it is served."""

    app: ASGIApp
    socket: socket.socket
    end_streams: Callable[[], None] | None = None
    """Ends the app's event streams, for which a server that shuts down would wait."""


def bind(host: str, port: int, *, port_variable: str) -> socket.socket:
    """A listening socket.

    Args:
        host: name or address.
        port: 0 takes a free one.
        port_variable: the setting that the port is from, for the error.

    Raises:
        ConfigError: the port is taken or not ours to take, or the host is not this one.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(
            "RAPTORFLOW_HOST", host, f"give a name or address of this host ({error.strerror})"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            remedy = f"another program listens there on {host}: stop it, or set another port (0 takes any free one)"
        elif error.errno == errno.EACCES:
            remedy = "this user may not listen there: set a port from 1024 up"
        else:
            raise ConfigError(
                "RAPTORFLOW_HOST", host, f"give a name or address of this host ({error.strerror})"
            ) from None
        raise ConfigError(port_variable, str(port), remedy) from None
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL by which this host reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - it is asked about, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104 - as above
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def serve(
    sites: Sequence[Site], *, protocol: type[BoundedProtocol] = BoundedProtocol
) -> AsyncGenerator[asyncio.Event]:
    """Serve apps for as long as the block runs; gives the event that a signal to end sets.

    SIGINT and SIGTERM set the event, and the block should then end; requests still running get one second more. A second signal
    ends them at once.

    Args:
        sites: the apps.
        protocol: bounds clients; see `slow_clients.py`.

    Raises:
        RuntimeError: an app did not start; the log says why.
    """
    loop = asyncio.get_running_loop()
    servers = [_Server(site.app, protocol) for site in sites]
    stop = asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            for server in servers:
                server.force_exit = True
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    tasks = [
        loop.create_task(server.serve([site.socket])) for server, site in zip(servers, sites, strict=True)
    ]
    try:
        for server, task in zip(servers, tasks, strict=True):
            up = loop.create_task(server.up.wait())
            await asyncio.wait({up, task}, return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                up.cancel()
                await task
                raise RuntimeError("an app ended while it was started")
            task.add_done_callback(lambda _: stop.set())
        yield stop
    finally:
        for server, site in zip(servers, sites, strict=True):
            server.should_exit = True
            if site.end_streams is not None:
                site.end_streams()
        await asyncio.gather(*tasks)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop: uvloop's where it is installed."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - not on every system

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us and says when it listens."""

    def __init__(self, app: ASGIApp, protocol: type[BoundedProtocol]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # One log configuration for the process; and no access log, because paths and queries can carry tokens.
                log_config=None,
                access_log=False,
                # Who the caller is decides about admin routes: nobody may say so in a header.
                proxy_headers=False,
                server_header=False,
                # Longer than clients keep an idle connection: who closes first must not be us, in the middle of a request.
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                http=protocol,
                ws_max_size=_MOST_MESSAGE_BYTES,
            )
        )
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.judge(now)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            raise RuntimeError("an app did not start; the log says why") from None
        self.up.set()
