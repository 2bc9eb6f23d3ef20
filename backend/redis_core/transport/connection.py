"""One connection to a Redis server, shared by any number of callers.

Commands are answered in the order they were sent, so a queue of calls is all the bookkeeping there is. While the line is
idle a call is written at once; while answers are due, everything that tasks issue in one turn of the event loop is written
together at its end. A caller that gives up leaves its place in the queue, so the replies of others never shift.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from hiredis import PushNotification

from redis_core.errors import (
    DeadlineExceeded,
    LimitExceeded,
    Outcome,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
)
from redis_core.transport.base import Command, Reply, TransportStats
from redis_core.transport.refused import command_name
from redis_core.transport.resp import PLAIN, pack, reply_reader, to_resp2
from redis_core.transport.tls import tls_context

if TYPE_CHECKING:
    from redis_core.address import StoreAddress
    from redis_core.config import Settings

__all__ = ["Connection", "LinkOptions"]

_IDLE_BEFORE_PING: Final = 30.0
"""Seconds of silence after which a connection must answer a PING before a command is trusted to it."""

_RETIRED_LOOK: Final = 0.02
"""Seconds between two looks at whether a retired connection has answered everything."""

_WRITE_HIGH_WATER: Final = 1024 * 1024
"""Bytes the socket may be behind before callers wait."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How connections of one transport are opened and bounded. Times in seconds."""

    connect_timeout: float = 1.0
    command_timeout: float = 1.0
    max_in_flight: int = 100_000
    max_reply_bytes: int = 64 * 1024 * 1024
    client_name: str = "raptorflow"
    tls: ssl.SSLContext | None = None

    @classmethod
    def from_settings(cls, address: StoreAddress, settings: Settings) -> LinkOptions:
        """The options that the settings name."""
        return cls(
            connect_timeout=settings.redis_connect_timeout,
            command_timeout=settings.redis_command_timeout,
            max_in_flight=settings.redis_max_in_flight,
            max_reply_bytes=settings.redis_max_reply_bytes,
            client_name=settings.redis_client_name,
            tls=tls_context(settings) if address.tls else None,
        )


class _Call:
    """Commands that were sent together and the future of their replies."""

    __slots__ = ("batch", "deadline", "future", "lost_at", "replies")

    def __init__(
        self, batch: Sequence[Command], future: asyncio.Future[list[Reply]], deadline: float, lost_at: float
    ) -> None:
        self.batch = batch
        self.future = future
        self.replies: list[Reply] = []
        self.deadline = deadline
        # When silence on this call means that the link is dead, not the command slow.
        self.lost_at = lost_at


class Connection(asyncio.Protocol):
    """One open socket and the calls on it.

    Args:
        target: the server's address, for messages.
        options: bounds and timeouts.
        stats: the transport's totals, added to.
        on_push: takes what the server sends unasked: messages of subscriptions.
    """

    def __init__(
        self,
        target: str,
        options: LinkOptions,
        stats: TransportStats,
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self.target = target
        self.closed = False
        self.error: StoreError | None = None
        self.resp3 = True
        self.client_id = 0
        self.last_received = 0.0
        self._options = options
        self._stats = stats
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._socket: asyncio.Transport = cast("asyncio.Transport", None)
        self._reader = reply_reader()
        self._calls: deque[_Call] = deque()
        self._unsent: list[bytes] = []
        self._unsent_calls = 0
        self._partial_bytes = 0
        self._in_flight = 0
        self._writable: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._lost = self._loop.create_future()

    # --- calls ---

    def call(self, batch: Sequence[Command], timeout: float) -> asyncio.Future[list[Reply]]:
        """Send commands; the future of one reply for each. Cancelling it abandons the replies only.

        They are written in one piece: no other caller's command gets in between.

        Args:
            batch: at least one command.
            timeout: seconds until the future ends as `DeadlineExceeded`.

        Raises:
            StoreUnavailable: the connection is closed; nothing was sent.
            StoreOverloaded: too much is in flight; nothing was sent.
        """
        data = pack(batch)
        if self.closed:
            raise self.reason()
        count = len(batch)
        if self._in_flight + count > self._options.max_in_flight and self._in_flight:
            raise StoreOverloaded(
                f"{self.target}: {self._in_flight} commands wait for an answer, REDIS_MAX_IN_FLIGHT is "
                f"{self._options.max_in_flight}"
            )
        now = self._loop.time()
        deadline = now + timeout
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        call = _Call(batch, future, deadline, max(deadline, now + self._options.command_timeout))
        if not self._calls:
            # Answers are due from now on, not since the line fell silent.
            self.last_received = now
            self._partial_bytes = 0
        idle = not self._calls and self._writable is None
        self._calls.append(call)
        self._in_flight += count
        self._stats.commands += count
        self._stats.in_flight += count
        if self._timer is None or deadline < self._timer_at:
            self._set_timer(deadline)
        if idle:
            self._write(data)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(data)
            self._unsent_calls += 1
        return future

    def push(self, command: Command) -> None:
        """Send a command that is answered by a push, not by a reply: SUBSCRIBE and its kin."""
        if not self.closed:
            self._stats.commands += 1
            self._write(pack([command]))

    def quiet(self) -> bool:
        """Whether nothing was asked or answered for so long that the peer may be gone without a word."""
        return not self._calls and self._loop.time() - self.last_received > _IDLE_BEFORE_PING

    def _flush(self) -> None:
        """Write what this turn of the loop has gathered."""
        if self._unsent and self._writable is None and not self.closed:
            data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
            self._unsent.clear()
            self._unsent_calls = 0
            self._write(data)

    def _write(self, data: bytes) -> None:
        self._stats.trips += 1
        self._stats.sent_bytes += len(data)
        self._socket.write(data)

    @property
    def writable(self) -> bool:
        """Whether the socket takes more; if not, `until_writable` waits."""
        return self._writable is None

    async def until_writable(self) -> None:
        """Wait until the server has read enough of what was sent: backpressure."""
        if self._writable is not None:
            await self._writable.wait()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio has opened the socket."""
        self._socket = cast("asyncio.Transport", transport)
        self._socket.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        keep_alive(self._socket.get_extra_info("socket"))
        self._stats.connects += 1
        if self._stats.lost:
            self._stats.lost = False
            self._stats.reconnects += 1
        self.last_received = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Bytes came: hand every whole reply to its call."""
        self.last_received = self._loop.time()
        self._stats.received_bytes += len(data)
        self._partial_bytes += len(data)
        reader = self._reader
        calls = self._calls
        try:
            reader.feed(data)
            reply = reader.gets()
            while reply is not ...:
                self._partial_bytes = 0
                if type(reply) is PushNotification or not calls:
                    self._push(reply)
                else:
                    self._answer(calls, reply)
                reply = reader.gets()
        except (ValueError, TypeError, MemoryError, RecursionError) as error:
            # TypeError: a map whose key is a list.
            self.close(ProtocolError(f"{self.target} does not speak RESP: {error}", outcome=Outcome.UNKNOWN))
            return
        if self._partial_bytes > self._options.max_reply_bytes:
            self._refuse_reply()

    def _answer(self, calls: deque[_Call], reply: Any) -> None:
        call = calls[0]
        batch = call.batch
        replies = call.replies
        if type(reply) not in PLAIN:
            name = command_name(batch[len(replies)])
            if name == "EXEC" and type(reply) is list:
                reply = _exec_to_resp2(batch[len(replies) - len(reply) : len(replies)], reply)
            else:
                reply = to_resp2(name, reply)
        replies.append(reply)
        if len(replies) == len(batch):
            calls.popleft()
            self._in_flight -= len(batch)
            self._stats.in_flight -= len(batch)
            if not call.future.done():
                call.future.set_result(replies)

    def _push(self, reply: Any) -> None:
        if isinstance(reply, StoreError):
            # Said unasked ("max number of clients reached"), or instead of a push (NOPERM of a SUBSCRIBE).
            self.close(reply)
        elif self._on_push is not None and isinstance(reply, list):
            self._on_push(reply)
        elif type(reply) is not PushNotification:
            self.close(ProtocolError(f"{self.target} answered what was not asked", outcome=Outcome.UNKNOWN))

    def _refuse_reply(self) -> None:
        limit = self._options.max_reply_bytes
        message = f"{self.target}: a reply is larger than REDIS_MAX_REPLY_BYTES, {limit} bytes"
        if self._calls and not self._calls[0].future.done():
            self._calls[0].future.set_exception(LimitExceeded(message, outcome=Outcome.APPLIED))
        self.close(StoreUnavailable(f"{message}, of another call", outcome=Outcome.UNKNOWN))

    def eof_received(self) -> bool:
        """The server closes; so do we."""
        return False

    def pause_writing(self) -> None:
        """The socket is behind: callers wait."""
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        """The socket has caught up."""
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, whoever closed it."""
        detail = f": {exc}" if exc else ""
        self.close(
            StoreUnavailable(f"{self.target}: the connection was lost{detail}", outcome=Outcome.UNKNOWN)
        )
        if not self._lost.done():
            self._lost.set_result(None)

    # --- its end ---

    def close(self, error: StoreError | None = None) -> None:
        """Close the socket and fail every call that waits: `not_sent` what never left, with `error` what did."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if error is None:
            error = StoreUnavailable(f"{self.target}: the client was closed", outcome=Outcome.UNKNOWN)
        else:
            self._stats.lost = True
        self.error = error
        unsent = len(self._calls) - self._unsent_calls
        for place, call in enumerate(self._calls):
            if not call.future.done():
                outcome = error.outcome if place < unsent else Outcome.NOT_SENT
                call.future.set_exception(type(error)(str(error), outcome=outcome))
                self._stats.errors += 1
        self._stats.in_flight -= self._in_flight
        self._in_flight = 0
        self._calls.clear()
        self._unsent.clear()
        self.resume_writing()
        # Not close(): that would wait for a peer that does not read.
        self._socket.abort()

    async def retire(self) -> None:
        """Close once every call on it is answered; who retires it gives it no further ones."""
        while self._calls and not self.closed:  # noqa: ASYNC110 - rare and short, and an event would cost every call
            await asyncio.sleep(_RETIRED_LOOK)
        self.close()

    def reason(self) -> StoreError:
        """Why it is closed, as the error of a call that was not sent for it."""
        error = self.error or StoreUnavailable(f"{self.target}: the connection is closed")
        return type(error)(str(error))

    async def wait_closed(self) -> None:
        """Until the socket is gone."""
        await asyncio.shield(self._lost)

    # --- deadlines: one timer a connection, at the earliest one ---

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        soonest = 0.0
        for call in self._calls:
            if not call.future.done():
                if call.deadline <= now:
                    call.future.set_exception(
                        DeadlineExceeded(f"{self.target} did not answer in time", outcome=Outcome.UNKNOWN)
                    )
                    self._stats.errors += 1
                elif not soonest or call.deadline < soonest:
                    soonest = call.deadline
        if not self._calls:
            return
        lost_at = max(self._calls[0].lost_at, self.last_received + self._options.command_timeout)
        if lost_at <= now:
            self.close(
                DeadlineExceeded(
                    f"{self.target} has been silent for {now - self.last_received:.1f} s",
                    outcome=Outcome.UNKNOWN,
                )
            )
        else:
            self._set_timer(min(soonest, lost_at) if soonest else lost_at)


def _exec_to_resp2(batch: Sequence[Command], replies: list[Any]) -> list[Reply]:
    """The replies of a transaction, each in the shape its command has outside of one."""
    return [
        reply if type(reply) in PLAIN else to_resp2(command_name(command), reply)
        for command, reply in zip(batch, replies, strict=True)
    ]


def keep_alive(link: socket.socket | None) -> None:
    """Let the kernel find a dead peer within about 30 s, at no command's cost."""
    if link is None or link.family == socket.AF_UNIX:
        return
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPALIVE", 15),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, option):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # The probes above stop while sent bytes wait for their acknowledgement; this one does not. Milliseconds.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
