"""A process' share in an embedded server: starts or joins it, and brings it back when it is lost."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from redis_core.errors import StoreUnavailable
from redis_core.transport.embedding import supervisor

if TYPE_CHECKING:
    from redis_core.transport.embedding.place import EmbeddedPlace

__all__ = ["Hold"]

_START_SECONDS: Final = 30.0
"""How long a server may take to start and load its data, its predecessor's end included."""
_POLL_SECONDS: Final = 0.01
_PAUSE_SECONDS: Final = 1.0
"""Between attempts to get a lost server back."""
_MOST_STARTS: Final = 3
"""Supervisors one attempt starts. A second one is needed only where somebody ended the first."""


class Hold:
    """This process' share in an embedded server: while one is open anywhere on the host, the server runs.

    A server that is lost, with or without its supervisor, is brought back in the background.

    Args:
        place: where the server is.
        binary: the program to start it with, if it does not run yet.
    """

    def __init__(self, place: EmbeddedPlace, binary: str) -> None:
        self.place = place
        self.server = ""
        self._binary = binary
        self._up = asyncio.Event()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._following: asyncio.Task[None] | None = None
        self._trouble = "it has just been lost"

    @property
    def up(self) -> bool:
        """Whether the server takes commands, as far as we have been told."""
        return self._up.is_set()

    async def open(self) -> None:
        """Start the server, or join those who use it; returns when it takes commands.

        Raises:
            StoreUnavailable: it does not start.
        """
        await self._acquire()
        self._following = asyncio.create_task(self._follow(), name="embedded-hold")

    async def until_up(self, seconds: float) -> None:
        """Wait for a server that is being started again.

        Raises:
            StoreUnavailable: it did not come back in time; nothing was sent.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._up.wait()
        except TimeoutError:
            raise StoreUnavailable(
                f"the embedded server at unix://{self.place.socket} is not back yet: {self._trouble}"
            ) from None

    async def aclose(self) -> None:
        """Let go of the server; the last one to do so ends it. Idempotent."""
        self._up.clear()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._let_go()

    async def _follow(self) -> None:
        """Heed what the supervisor says, and replace it when it is gone."""
        while True:
            line = await self._reader.readline() if self._reader is not None else b""
            if line:
                self._heed(line)
                continue
            self._up.clear()
            await self._let_go()
            try:
                await self._acquire()
            except (StoreUnavailable, OSError) as error:
                self._trouble = str(error)
                await asyncio.sleep(_PAUSE_SECONDS)

    def _heed(self, line: bytes) -> None:
        word, _, rest = line.decode().strip().partition(" ")
        if word == supervisor.READY:
            self.server = rest
            self._up.set()
        else:
            self._trouble = rest or "it ended and is being started again"
            self._up.clear()

    async def _acquire(self) -> None:
        """Connect to the supervisor, started first where nobody holds its lock, and wait until the server is ready."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._join()
        except BaseException as error:
            await self._let_go()
            if isinstance(error, TimeoutError):
                raise self._not_started(f"not within {_START_SECONDS:g} s") from None
            raise

    async def _join(self) -> None:
        starts = 0
        while True:
            if await self._connect():
                if await self._ready():
                    return
                await self._let_go()
            elif (lock := self._take_lock()) is not None:
                starts += 1
                if starts > _MOST_STARTS:
                    os.close(lock)
                    raise self._not_started(f"see {self.place.supervisor_log}")
                await asyncio.to_thread(self._start_supervisor, lock)
            await asyncio.sleep(_POLL_SECONDS)

    async def _connect(self) -> bool:
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(self.place.control)
        except (FileNotFoundError, ConnectionError, BlockingIOError):
            return False
        return True

    async def _ready(self) -> bool:
        """Read until the server is ready; False when the supervisor ends instead, as it does when its last user had gone."""
        while self._reader is not None and (line := await self._reader.readline()):
            word, _, rest = line.decode().strip().partition(" ")
            if word == supervisor.FAILED:
                raise self._not_started(rest)
            self._heed(line)
            if self.up:
                return True
        return False

    def _not_started(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"the embedded server did not start: {why}\n{self.place.log_tail()}")

    async def _let_go(self) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _take_lock(self) -> int | None:
        """The supervisor's lock, or None where another process has it: a supervisor, or who is starting one."""
        lock = self.place.open_lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _start_supervisor(self, lock: int) -> None:
        """Start a supervisor that inherits the lock. What is waited for ends at once: it leaves the supervisor behind."""
        try:
            with self.place.supervisor_log.open("wb") as log:
                subprocess.run(  # noqa: S603 - our own program, with paths of our own making
                    [
                        *(sys.executable, "-I", "-S", supervisor.__file__),
                        *(
                            str(self.place.folder),
                            self.place.control,
                            self.place.socket,
                            self._binary,
                            str(lock),
                        ),
                    ],
                    check=False,
                    pass_fds=(lock,),
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        finally:
            os.close(lock)
