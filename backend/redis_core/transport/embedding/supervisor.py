"""The process that keeps the embedded server: one for each state folder, alive while somebody holds it.

A server started by a program outlives that program's death, and two servers on one folder would ruin its data. So each user
process keeps one connection to this supervisor's control socket; when the last one is closed, by `aclose()` or by the death
of the process, the server is shut down with its data saved. A server that dies is started again with its data.

The kernel keeps two promises with two locked files, which also hold the pids:

- `supervisor.lock` is locked by the process that starts a supervisor and inherited by it: one supervisor a folder.
- `server.lock` is locked by the supervisor and inherited by the server: one server a folder, even where the supervisor was
  killed and its server lives on. On Linux the server is told to end with its supervisor; elsewhere the next supervisor ends it.

What a holder reads, in lines: `ready <name> <version>`, `down` (it is being started again) or `failed <why>`.

This file is run as a program by its path and uses the standard library only, so that it starts in 0.1 s and needs nothing of
its parent's environment: `python -I -S supervisor.py FOLDER CONTROL SOCKET BINARY LOCK_FD`.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DOWN",
    "FAILED",
    "READY",
    "SERVER_LOCK",
    "SERVER_LOG",
    "SUPERVISOR_LOCK",
    "SUPERVISOR_LOG",
    "Supervisor",
]

READY: Final = "ready"
DOWN: Final = "down"
FAILED: Final = "failed"

SUPERVISOR_LOCK: Final = "supervisor.lock"
SERVER_LOCK: Final = "server.lock"
SERVER_LOG: Final = "server.log"
SUPERVISOR_LOG: Final = "supervisor.log"

_FIRST_HOLDER_SECONDS: Final = 10.0
"""How long a supervisor that nobody has connected to yet waits for the process that started it."""
_ANSWER_SECONDS: Final = 15.0
"""How long a server may be silent after its start. One that loads its data answers `-LOADING` meanwhile."""
_STOP_SECONDS: Final = 10.0
"""How long a server may take to save and end before it is killed."""
_POLL_SECONDS: Final = 0.01
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 5.0
"""Between one death of the server and its next start; doubled as long as it keeps dying."""
_LOG_BYTES: Final = 1_000_000
_SERVER_ARGUMENTS: Final = (
    *("--port", "0", "--unixsocketperm", "700", "--daemonize", "no"),
    *("--appendonly", "yes", "--appendfsync", "everysec"),
)
_PR_SET_PDEATHSIG: Final = 1


class _NotStarted(Exception):
    """The server ended, or was silent, before it was ready."""


class Supervisor:
    """One embedded server and those who hold it.

    Args:
        folder: where data, logs and locks are.
        control: path of the socket that holders connect to.
        socket: path of the server's socket.
        binary: the server program.
    """

    def __init__(self, folder: Path, control: str, socket: str, binary: str) -> None:
        self._folder = folder
        self._control = control
        self._socket = socket
        self._binary = binary
        self._server: asyncio.subprocess.Process | None = None
        self._holders: set[asyncio.StreamWriter] = set()
        self._joined = asyncio.Event()
        self._state = b""
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Serve until the last holder has gone, a signal says so, or the server cannot be started."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._end.set)
        server_lock = await self._lock_server()
        self._unlink_control()
        listener = await asyncio.start_unix_server(self._hold, self._control)
        loop.call_later(_FIRST_HOLDER_SECONDS, self._end_if_unused)
        keeping = loop.create_task(self._keep(server_lock))
        keeping.add_done_callback(lambda _: self._end.set())
        await self._end.wait()
        # Newcomers find nobody from here on: they wait for the lock and start the next supervisor.
        listener.close()
        self._unlink_control()
        keeping.cancel()
        outcome = await asyncio.gather(keeping, return_exceptions=True)
        await self._stop_server()
        _log(f"ended: {outcome[0]!r}")

    def _unlink_control(self) -> None:
        Path(self._control).unlink(missing_ok=True)

    # --- those who hold it ---

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._end.is_set():
            writer.close()
            return
        self._holders.add(writer)
        writer.write(self._state)
        self._joined.set()
        with suppress(OSError):
            while await reader.read(1024):
                pass
        self._holders.discard(writer)
        writer.close()
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if not self._holders:
            self._end.set()

    def _tell(self, *words: str) -> None:
        message = " ".join(words)
        _log(message)
        self._state = message.encode() + b"\n"
        for holder in self._holders:
            holder.write(self._state)

    # --- the server ---

    async def _keep(self, server_lock: int) -> None:
        """Start the server, and again whenever it dies. Returns when the first start failed and its starter was told why."""
        pause = _FIRST_PAUSE
        was_ready = False
        while True:
            started = time.monotonic()
            try:
                self._server = await self._start_server(server_lock)
                name = await self._until_ready(self._server)
            except (OSError, _NotStarted) as error:
                if not was_ready:
                    self._tell(FAILED, " ".join(str(error).split()))
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._joined.wait(), _FIRST_HOLDER_SECONDS)
                    return
                _log(f"not started: {error}")
                await self._stop_server()
            else:
                was_ready = True
                self._tell(READY, name)
                code = await self._server.wait()
                self._tell(DOWN)
                _log(f"the server ended with code {code}")
            if time.monotonic() - started > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _start_server(self, server_lock: int) -> asyncio.subprocess.Process:
        log = self._folder / SERVER_LOG
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        # Between here and the new pid the file is empty, so that no stranger who got an old pid is ever signalled.
        os.ftruncate(server_lock, 0)
        with log.open("ab") as output:
            server = await asyncio.create_subprocess_exec(
                self._binary,
                *_SERVER_ARGUMENTS,
                *("--save", "", "--unixsocket", self._socket, "--dir", str(data)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(server_lock,),
                preexec_fn=_end_with_parent(),
            )
        os.pwrite(server_lock, str(server.pid).encode(), 0)
        return server

    async def _until_ready(self, server: asyncio.subprocess.Process) -> str:
        """Wait until the server has loaded its data; its name and version."""
        silent_since = time.monotonic()
        while server.returncode is None:
            info = await self._ask_info()
            if info.get("loading") == "0":
                version = info.get("valkey_version")
                return f"valkey {version}" if version else f"redis {info.get('redis_version', 'unknown')}"
            if info:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > _ANSWER_SECONDS:
                raise _NotStarted(f"{self._binary} did not answer within {_ANSWER_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)
        raise _NotStarted(f"{self._binary} ended with code {server.returncode}")

    async def _ask_info(self) -> dict[str, str]:
        """The server's INFO, empty while it does not answer."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return {}
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                writer.write(b"INFO\r\n")
                header = await reader.readline()
                if not header.startswith(b"$"):
                    return {}
                text = (await reader.readexactly(int(header[1:]))).decode(errors="replace")
        except (OSError, asyncio.IncompleteReadError):
            return {}
        else:
            return {name: value for name, _, value in (line.partition(":") for line in text.splitlines())}
        finally:
            writer.close()

    async def _stop_server(self) -> None:
        """Shut the server down, its data saved."""
        server = self._server
        if server is None or server.returncode is not None:
            return
        server.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await server.wait()
        except TimeoutError:
            _log("the server did not end in time and is killed")
            server.kill()
            await server.wait()

    async def _lock_server(self) -> int:
        """The locked file of the server's pid. A server that outlived its supervisor is ended first."""
        lock = os.open(self._folder / SERVER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _STOP_SECONDS
            signalled = False
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    orphan = os.pread(lock, 20, 0)
                    if orphan and not signalled:
                        _log(f"ending server {orphan.decode()}, whose supervisor is gone, with {number.name}")
                        with suppress(ProcessLookupError):
                            os.kill(int(orphan), number)
                        signalled = True
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    return lock
        raise _NotStarted(f"another server still holds {self._folder / SERVER_LOCK}")


def _end_with_parent() -> Callable[[], None] | None:
    """What a child runs before the server's program, so that the server ends when this process does; None where unknown."""
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec nothing may be loaded.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _log(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {os.getpid()} {message}\n")
    sys.stderr.flush()


def main() -> None:
    """Become a process of its own and supervise; the program that started this one goes on at once."""
    folder, control, socket, binary, lock = sys.argv[1:]
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    os.chdir(folder)
    os.set_inheritable(int(lock), False)  # noqa: FBT003 - os.set_inheritable takes no keywords
    os.ftruncate(int(lock), 0)
    os.pwrite(int(lock), str(os.getpid()).encode(), 0)
    asyncio.run(Supervisor(Path(folder), control, socket, binary).run())


if __name__ == "__main__":
    main()
