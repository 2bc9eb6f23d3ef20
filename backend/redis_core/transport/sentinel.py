"""A master that Redis Sentinel watches: found through the sentinels, and looked for again when it is lost or steps down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from redis_core.errors import (
    CredentialsRejected,
    DeadlineExceeded,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.connection import Connection, LinkOptions
from redis_core.transport.opening import open_connection
from redis_core.transport.tcp import TcpTransport
from redis_core.transport.tcp_subscription import OnPush, SubscriptionLink

if TYPE_CHECKING:
    from redis_core.address import StoreAddress
    from redis_core.config import Settings
    from redis_core.secret import Secret

__all__ = ["SentinelTransport", "open_sentinel"]

_Place = tuple[str, int]


async def open_sentinel(address: StoreAddress, settings: Settings) -> SentinelTransport:
    """The transport to the master that `redis+sentinel://host,host/<master>[/<database>]` names.

    It does not wait for the sentinels: one that cannot be reached shows as `StoreUnavailable` of the first call.
    """
    options = LinkOptions.from_settings(address, settings)
    return SentinelTransport(address, options, max_blocking=settings.redis_max_connections)


class SentinelTransport:
    """A transport to whichever server is the master now.

    The master is looked for, and its ROLE checked, at first use and whenever its connection was lost or it answered
    READONLY; so a demoted master is never read from as if it were still one. The user and password of the address are the
    master's, and the sentinels' too where they ask for one.

    Args:
        address: the sentinels, the master's name, user, password and database.
        options: bounds and timeouts.
        max_blocking: most commands that wait in the server at once.
    """

    script_header = ""

    def __init__(self, address: StoreAddress, options: LinkOptions, *, max_blocking: int = 50) -> None:
        self.mode = "tcp"
        self.target = str(address)
        self.stats = TransportStats()
        self._address = address
        self._options = options
        self._max_blocking = max_blocking
        self._master: TcpTransport | None = None
        self._place: _Place | None = None
        self._doubted = False
        self._looking: asyncio.Task[TcpTransport] | None = None
        self._closed = False
        self._subscriptions = SubscriptionLink(self._open_link, options, self.stats)

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands to the master and return one reply for each; see `Transport`."""
        if not batch:
            return []
        master = await self._found(timeout)
        try:
            replies = await master.execute(batch, timeout=timeout)
        except StoreError as error:
            self._doubt(error)
            raise
        for reply in replies:
            if type(reply) is StoreReadOnly:
                self._doubt(reply)
        return replies

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands between MULTI and EXEC to the master; see `Transport`."""
        if not batch:
            return []
        master = await self._found(timeout)
        try:
            return await master.transaction(batch, timeout=timeout)
        except StoreError as error:
            self._doubt(error)
            raise

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns on the master; see `Transport`."""
        return await self._subscriptions.subscribe(channels, patterns)

    async def rotate(self, secret: Secret) -> None:
        """Use another password from now on; see `RotatingTransport`."""
        before, self._address = self._address, replace(self._address, password=secret)
        try:
            if self._master is not None:
                await self._master.rotate(secret)
        except CredentialsRejected:
            self._address = before
            raise
        self._subscriptions.renew()

    async def aclose(self) -> None:
        """Close the master's connections and fail what is in flight."""
        self._closed = True
        await self._subscriptions.aclose()
        if self._master is not None:
            await self._master.aclose()
        if self._looking is not None:
            # Not cancelled: bounded by its timeouts, and its end is an error that those who wait for it understand.
            await asyncio.gather(self._looking, return_exceptions=True)

    # --- the master ---

    def _doubt(self, error: StoreError) -> None:
        """Look for the master again before the next call, if this error may mean that it is another now."""
        # A deadline alone says nothing of the master: its own connection finds out whether it is dead.
        if isinstance(error, StoreReadOnly) or (
            isinstance(error, StoreUnavailable) and not isinstance(error, DeadlineExceeded)
        ):
            self._doubted = True

    async def _found(self, timeout: float | None) -> TcpTransport:
        """The master, looked for if it has to be."""
        master = self._master
        if master is not None and not self._doubted and master.connected:
            return master
        if self._closed:
            raise StoreUnavailable(f"{self.target}: the client is closed")
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="redis-sentinel")
        seconds = self._options.command_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                # Shielded: a caller that gives up leaves the search to the others.
                return await asyncio.shield(self._looking)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{self.target}: no master within {seconds:g} s; nothing was sent"
            ) from None
        except StoreError as error:
            self.stats.errors += 1
            raise type(error)(str(error)) from None

    async def _look(self) -> TcpTransport:
        """Ask one sentinel after the other; the first master that says itself that it is one."""
        self._doubted = False
        error: StoreError = StoreUnavailable(f"{self.target}: no sentinel")
        try:
            for sentinel in self._address.hosts:
                try:
                    return await self._checked(await self._ask(sentinel))
                except StoreError as failed:
                    error = failed
                if self._closed:
                    break
            self._doubted = True
            raise error
        finally:
            self._looking = None

    async def _ask(self, sentinel: _Place) -> _Place:
        """Where a sentinel says that the master is."""
        anyone = replace(self._address, scheme="redis", username=None, password=None, database=0)
        try:
            link = await open_connection(anyone, sentinel, self._options, self.stats)
        except CredentialsRejected:
            link = await open_connection(
                replace(self._address, scheme="redis", database=0), sentinel, self._options, self.stats
            )
        try:
            question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
            (reply,) = await link.call([question], self._options.command_timeout)
        finally:
            link.close()
            await link.wait_closed()
        match reply:
            case [bytes(host), bytes(port)]:
                return host.decode(), int(port)
            case StoreError():
                raise reply
            case _:
                raise StoreUnavailable(f"{link.target} knows no master named {self._address.service!r}")

    async def _checked(self, place: _Place) -> TcpTransport:
        """The transport to this place, if it is a master; it takes the place of the one before."""
        known = self._master if place == self._place else None
        address = replace(self._address, scheme="redis", hosts=(place,))
        master = known or TcpTransport(
            address, self._options, max_blocking=self._max_blocking, stats=self.stats
        )
        try:
            (role,) = await master.send([("ROLE",)])
            fault = self._fault_of(address, role)
        except BaseException:
            if master is not known:
                await master.aclose()
            raise
        if fault is not None:
            if master is not known:
                await master.aclose()
            raise fault
        if master is not known:
            before, self._master, self._place = self._master, master, place
            if before is not None:
                # Another server, whose links no loss need have preceded.
                self.stats.reconnects += 1
                await before.aclose()
        return master

    def _fault_of(self, address: StoreAddress, role: Reply) -> StoreError | None:
        """Why the server that answered ROLE with this is not to be used."""
        if self._closed:
            return StoreUnavailable(f"{self.target}: the client was closed")
        if isinstance(role, list) and role and role[0] == b"master":
            return None
        return StoreUnavailable(f"{address} is not the master, or not yet: {role!r:.200}")

    async def _open_link(self, on_push: OnPush) -> Connection:
        try:
            return await (await self._found(None)).open_link(on_push)
        except StoreError as error:
            self._doubt(error)
            raise
