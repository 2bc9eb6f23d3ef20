"""The REST store of the contract: our own gateway in front of a real server, spoken to as Upstash is."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.gateway import GatewayToken, create_gateway
from redis_core.secret import Secret
from tests.stores import open_client

__all__ = ["READ_ONLY", "rest_client", "running_gateway"]

TOKEN = "contract"
READ_ONLY = "contract-that-reads"
"""A token that may not write."""


@contextmanager
def running_gateway(server_socket: str) -> Iterator[str]:
    """A gateway in front of the server behind this socket, in a thread of its own; its URL."""
    # asyncio turns Nagle's algorithm off only on sockets that say that they are TCP; with it, each answer is 40 ms late.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(server_socket, listening, stop)))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stop.set()
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


async def _serve(server_socket: str, listening: socket.socket, stop: threading.Event) -> None:
    # It begins whenever its thread does, and what a test has written by then must stay.
    async with await open_client(server_socket) as behind:
        gateway = create_gateway(
            behind.transport, [GatewayToken(Secret(TOKEN)), GatewayToken(Secret(READ_ONLY), read_only=True)]
        )
        server = uvicorn.Server(uvicorn.Config(gateway, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server._serve([listening]))
        await asyncio.to_thread(stop.wait)
        gateway.close_streams()
        server.should_exit = True
        await serving


async def rest_client(url: str, token: str = TOKEN) -> Client:
    """A client over REST of the gateway at this URL."""
    settings = Settings(  # type: ignore[call-arg]  # pydantic-settings' own argument
        _env_file=None,
        upstash_redis_url=url,
        upstash_redis_token=Secret(token),
        redis_command_timeout=20,
        redis_connect_timeout=20,
    )
    return await connect(settings)
