"""HTTP to a REST store: the one module that knows the HTTP library, and maps its failures to ours.

aiohttp by measurement and upkeep; see docs/design.md. Nothing is ever sent twice here: not after an error, not by a redirect.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from yarl import URL

from redis_core.errors import (
    DeadlineExceeded,
    LimitExceeded,
    Outcome,
    ProtocolError,
    StoreError,
    StoreUnavailable,
)
from redis_core.secret import Secret
from redis_core.transport.base import TransportStats
from redis_core.transport.connection import keep_alive
from redis_core.transport.rest.batch import Request
from redis_core.transport.rest.wire import PIPELINE, SINGLE, TRANSACTION

__all__ = ["RestSession"]

_KEEP_ALIVE: Final = 30.0
"""Seconds an idle connection is kept: below the 60 s after which common load balancers drop it without asking."""

_SYNC_TOKEN: Final = "upstash-sync-token"  # noqa: S105 - a header's name
_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"
_NOT_ASKED: Final = ("User-Agent", "Accept", "Accept-Encoding")


class RestSession:
    """Requests and event streams over a pool of kept-alive connections. Opened at first use, in the loop that runs then.

    Args:
        base_url: `https://host:port`, without a path.
        token: sent with every request, shown nowhere.
        target: the store, for messages.
        connect_timeout: seconds for name look-up, connection and TLS together.
        max_reply_bytes: largest response read.
        tls: None for the system's defaults.
        stats: the transport's totals, added to.
    """

    def __init__(
        self,
        base_url: str,
        token: Secret,
        *,
        target: str,
        connect_timeout: float,
        max_reply_bytes: int,
        tls: ssl.SSLContext | None,
        stats: TransportStats,
    ) -> None:
        self._base_url = base_url
        self._urls = {path: URL(base_url + path, encoded=True) for path in (SINGLE, PIPELINE, TRANSACTION)}
        self._token = token
        self.generation = 0
        """How often the token was replaced."""
        self._target = target
        self._connect_timeout = connect_timeout
        self._max_reply_bytes = max_reply_bytes
        self._tls = tls
        self._stats = stats
        self._sync_token: str | None = None
        self._http: aiohttp.ClientSession | None = None

    async def exchange(self, request: Request) -> tuple[int, bytes]:
        """Do one request; status and body of its response. Marks it `sent` as its first byte goes out.

        Raises:
            StoreUnavailable: not reached, or lost; the outcome says which.
            DeadlineExceeded: no whole response until the request's time was over.
            LimitExceeded: the response is larger than `max_reply_bytes`; it was done.
        """
        url = self._urls.get(request.path)
        # The latest one seen: whoever reads next sees what whoever wrote last has written.
        headers = {_SYNC_TOKEN: self._sync_token} if self._sync_token is not None else None
        body = _Body(request, _BYTES if url is None else _JSON)
        try:
            async with (
                asyncio.timeout_at(request.give_up_at),
                self._session().post(
                    url or URL(self._base_url + request.path, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                self._sync_token = response.headers.get(_SYNC_TOKEN, self._sync_token)
                data = await self._read(response)
        except (aiohttp.ClientError, OSError) as error:
            raise self._mapped(error, sent=request.sent) from None
        self._stats.sent_bytes += len(request.body)
        self._stats.received_bytes += len(data)
        return response.status, data

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncGenerator[tuple[int, AsyncIterator[bytes]]]:
        """Open an event stream; its status and its chunks as they come. Leaving the context closes its connection.

        Raises:
            StoreUnavailable: not reached, or lost.
        """
        try:
            async with self._session().post(
                URL(self._base_url + path, encoded=True),
                headers={"Accept": "text/event-stream"},
                allow_redirects=False,
            ) as response:
                if response.connection is not None and response.connection.transport is not None:
                    # A listener sends nothing: the kernel has to find out that the peer is gone.
                    keep_alive(response.connection.transport.get_extra_info("socket"))
                yield response.status, response.content.iter_any()
        except (aiohttp.ClientError, OSError) as error:
            raise self._mapped(error, sent=True) from None

    def rotate(self, token: Secret) -> Secret:
        """Send another token from now on; the one before."""
        before, self._token = self._token, token
        self.generation += 1
        if self._http is not None:
            self._http.headers["Authorization"] = f"Bearer {token.reveal()}"
        return before

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                # Unbounded here: requests are counted by the queue, streams by the subscriptions.
                connector=_Connector(
                    self._stats,
                    limit=0,
                    keepalive_timeout=_KEEP_ALIVE,
                    ssl=self._tls if self._tls is not None else True,
                ),
                headers={
                    "Authorization": f"Bearer {self._token.reveal()}",
                    "Upstash-Encoding": "base64",
                },
                skip_auto_headers=_NOT_ASKED,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=self._connect_timeout, sock_connect=self._connect_timeout
                ),
                auto_decompress=False,
            )
        return self._http

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The response's body, its size watched while it comes."""
        length = response.content_length
        if length is not None and length <= self._max_reply_bytes:
            return await response.read()
        chunks: list[bytes] = []
        size = 0
        if length is None:
            async for chunk in response.content.iter_any():
                chunks.append(chunk)
                size += len(chunk)
                if size > self._max_reply_bytes:
                    break
            else:
                return b"".join(chunks)
        response.close()
        raise LimitExceeded(
            f"{self._target}: a response is larger than REDIS_MAX_REPLY_BYTES, {self._max_reply_bytes} bytes; "
            "what was asked was done",
            outcome=Outcome.APPLIED,
        )

    def _mapped(self, error: aiohttp.ClientError | OSError, *, sent: bool) -> StoreError:
        if isinstance(error, aiohttp.ClientSSLError):
            return StoreUnavailable(f"{self._target}: TLS failed: {error}")
        if isinstance(error, aiohttp.ClientConnectorError):
            return StoreUnavailable(f"{self._target} could not be reached: {error}")
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return StoreUnavailable(f"{self._target} could not be reached within {self._connect_timeout:g} s")
        outcome = _outcome(sent=sent)
        if isinstance(error, TimeoutError):
            detail = "it may have been done" if sent else "nothing was sent"
            return DeadlineExceeded(f"{self._target} did not answer in time; {detail}", outcome=outcome)
        if isinstance(error, aiohttp.ClientResponseError):
            first = error.message.partition("\n")[0]
            return ProtocolError(f"{self._target} does not speak HTTP: {first}", outcome=outcome)
        return StoreUnavailable(f"{self._target}: the connection was lost: {error}", outcome=outcome)


class _Connector(aiohttp.TCPConnector):
    """Counts what it opens. aiohttp's own way to be told, a trace, costs every request 15 % more."""

    def __init__(
        self, stats: TransportStats, *, limit: int, keepalive_timeout: float, ssl: ssl.SSLContext | bool
    ) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, ssl=ssl)
        self._stats = stats

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        self._stats.connects += 1
        return protocol


class _Body(aiohttp.Payload):
    """A request's body, which notes the moment it goes out. aiohttp writes headers and body at once, from here."""

    def __init__(self, request: Request, content_type: str) -> None:
        super().__init__(request.body, content_type=content_type)
        self._size = len(request.body)
        self._request = request

    async def write(self, writer: AbstractStreamWriter) -> None:
        transport = writer.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("a kept-alive connection was found closed")
        self._request.sent = True
        await writer.write(self._request.body)

    async def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002 - always the whole body's
    ) -> None:
        await self.write(writer)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._request.body.decode(encoding, errors)


def _outcome(*, sent: bool) -> Outcome:
    return Outcome.UNKNOWN if sent else Outcome.NOT_SENT
