"""Clients that keep a connection and give nothing for it: heads and bodies that never end, answers that nobody reads.

uvicorn bounds none of them: a connection that sends one byte a minute stays for ever, and a thousand of them are all the files a
process may open (slowloris). The rules are those of Apache's mod_reqtimeout (https://httpd.apache.org/docs/2.4/mod/mod_reqtimeout.html):
so long for the head, and for the body so long and a least rate. A server looks at all its connections once a second; a request pays for
no timer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["BoundedProtocol", "ClientLimits"]


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How long a client may take, and how large its head may be."""

    head_seconds: float = 20.0
    """From the connection, or from a request's first byte, to the end of its head; then 408."""
    head_bytes: int = 64 * 1024
    """Largest head, but for what came with its last piece; then 431."""
    body_seconds: float = 20.0
    """For a body of no bytes; then 408."""
    body_rate: int = 500
    """Bytes of the body that earn it one more second."""
    stalled_seconds: float = 60.0
    """How long an answer may wait for a client that does not read; then the connection is cut."""


class _Turn(Enum):
    """What the connection waits for."""

    HEAD = "the client: the head of a request"
    BODY = "the client: its body"
    OURS = "the application, or the next request"


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over httptools, with `ClientLimits`."""

    limits: ClassVar[ClientLimits] = ClientLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._stalled_since: float | None = None
        self._begin(_Turn.HEAD)

    def data_received(self, data: bytes) -> None:
        """Count what comes."""
        if self._turn is _Turn.OURS:
            self._begin(_Turn.HEAD)
        self._received += len(data)
        super().data_received(data)
        if self._turn is _Turn.HEAD and self._received > self.limits.head_bytes:
            self._refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Wait for the body."""
        self._begin(_Turn.BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for nothing: the turn is the application's."""
        self._begin(_Turn.OURS)
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it reads."""
        self._stalled_since = None
        super().resume_writing()

    def judge(self, now: float) -> None:
        """Refuse or cut a connection whose client has had its time.

        Args:
            now: the event loop's time.
        """
        if self.transport.is_closing():
            return
        limits = self.limits
        if self._stalled_since is not None and now - self._stalled_since > limits.stalled_seconds:
            self.transport.abort()
        elif self._turn is _Turn.HEAD:
            if now - self._since > limits.head_seconds:
                self._refuse(_TIMED_OUT)
        elif self._turn is _Turn.BODY:
            if self.flow.read_paused:
                # The application is behind, not the client: its time begins anew.
                self._begin(_Turn.BODY)
            elif now - self._since > limits.body_seconds + self._received / limits.body_rate:
                self._refuse(_TIMED_OUT)

    def _begin(self, turn: _Turn) -> None:
        self._turn = turn
        self._since = self.loop.time()
        self._received = 0

    def _refuse(self, answer: bytes) -> None:
        if self.transport.is_closing():
            return
        # In the middle of an answer, or before one that is still being made, a second one would be taken for it.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(answer)
        self.transport.close()


def _answer(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()


_TIMED_OUT: Final = _answer("408 Request Timeout")
_TOO_LARGE: Final = _answer("431 Request Header Fields Too Large")
