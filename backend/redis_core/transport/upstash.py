"""Upstash, or whatever speaks its REST protocol: our gateway in front of any store.

Commands of concurrent tasks travel together as one `POST /pipeline` (`rest/batch.py`), in the protocol's own JSON (`rest/wire.py`),
over a bounded pool of kept-alive connections (`rest/session.py`). Subscriptions are event streams (`rest/sse.py`).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from redis_core.errors import (
    CommandError,
    ConfigError,
    CredentialsRejected,
    DeadlineExceeded,
    Outcome,
    StoreError,
)
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.rest.batch import Request, RequestLimits, RequestQueue
from redis_core.transport.rest.binary import BinaryScripts
from redis_core.transport.rest.pieces import Piece, cut, whole
from redis_core.transport.rest.refused import needs_look, rest_refusal
from redis_core.transport.rest.session import RestSession
from redis_core.transport.rest.sse import EventStreams
from redis_core.transport.rest.wire import MAX_REQUEST_BYTES, PIPELINE, TRANSACTION, encode, replies_of
from redis_core.transport.tls import tls_context

if TYPE_CHECKING:
    from redis_core.address import StoreAddress
    from redis_core.config import Settings
    from redis_core.secret import Secret

__all__ = ["RestOptions", "UpstashTransport"]


@dataclass(frozen=True, slots=True)
class RestOptions:
    """How requests of one transport are bounded. Times in seconds."""

    connect_timeout: float = 1.0
    command_timeout: float = 1.0
    max_connections: int = 50
    """Most requests at once, and most event streams at once."""
    max_in_flight: int = 100_000
    max_reply_bytes: int = 64 * 1024 * 1024
    """Largest response of one request, as it is sent: base64 makes values a third longer."""
    tls: ssl.SSLContext | None = None

    @classmethod
    def from_settings(cls, address: StoreAddress, settings: Settings) -> RestOptions:
        """The options that the settings name."""
        return cls(
            connect_timeout=settings.redis_connect_timeout,
            command_timeout=settings.redis_command_timeout,
            max_connections=settings.redis_max_connections,
            max_in_flight=settings.redis_max_in_flight,
            max_reply_bytes=settings.redis_max_reply_bytes,
            tls=tls_context(settings) if address.tls else None,
        )


class UpstashTransport:
    """A transport to one Upstash database over REST.

    Args:
        address: where it is.
        token: its REST token.
        options: bounds and timeouts.
    """

    # Without this line a script locks the whole database on Upstash; with it every key it touches must be among its KEYS.
    script_header = "#!lua flags=allow-key-locking\n"

    def __init__(self, address: StoreAddress, token: Secret, options: RestOptions | None = None) -> None:
        options = options or RestOptions()
        self.mode = "upstash"
        self.target = str(address)
        self.stats = TransportStats()
        self._timeout = options.command_timeout
        self._session = RestSession(
            address.base_url,
            token,
            target=self.target,
            connect_timeout=options.connect_timeout,
            max_reply_bytes=options.max_reply_bytes,
            tls=options.tls,
            stats=self.stats,
        )
        limits = RequestLimits(options.command_timeout, options.max_connections, options.max_in_flight)
        self._requests = RequestQueue(self._exchange, self.target, limits, self.stats)
        self._scripts = BinaryScripts()
        self._streams = EventStreams(
            self._session,
            target=self.target,
            timeout=options.connect_timeout + options.command_timeout,
            max_streams=options.max_connections,
            max_event_bytes=options.max_reply_bytes,
            stats=self.stats,
        )

    @classmethod
    def from_settings(cls, address: StoreAddress, settings: Settings) -> UpstashTransport:
        """The transport that the settings describe.

        Raises:
            ConfigError: there is no token, or it is not one: it has spaces, line breaks or other than ASCII in it.
        """
        token = settings.upstash_redis_token
        if token is None:
            raise ConfigError("UPSTASH_REDIS_TOKEN", None, f"set it to the REST token of {address}")
        if not re.fullmatch(r"[!-~]+", token.reveal()):
            raise ConfigError(
                "UPSTASH_REDIS_TOKEN", str(token), "copy the token alone, without spaces or line breaks"
            )
        return cls(address, token, RestOptions.from_settings(address, settings))

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands and return one reply for each; see `Transport`.

        A batch that one request cannot hold goes as several, one after the other, in order.

        Raises:
            CodecError: bytes that are not UTF-8 where REST cannot carry them; nothing was sent.
        """
        seconds = self._timeout if timeout is None else timeout
        if len(batch) == 1 and not needs_look(batch[0]):
            # The usual call, kept short: one command that a request can hold.
            try:
                body = encode(batch[0])
            except UnicodeDecodeError:
                body = None
            if body is not None and len(body) + 2 <= MAX_REQUEST_BYTES:
                return await self._requests.submit(Piece(PIPELINE, body, 1), seconds)
        refused: dict[int, CommandError] = {}
        for place, command in enumerate(batch):
            error = (rest_refusal(command) if needs_look(command) else None) or self._scripts.unknown(command)
            if error is not None:
                refused[place] = error
        if not refused:
            return await self._execute_pieces(batch, seconds)
        allowed = [command for place, command in enumerate(batch) if place not in refused]
        answers = iter(await self._execute_pieces(allowed, seconds))
        return [refused[place] if place in refused else next(answers) for place in range(len(batch))]

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands as one transaction, in a request of its own; see `Transport`.

        Raises:
            CodecError: bytes that are not UTF-8 where REST cannot carry them; nothing was sent.
        """
        for command in batch:
            error = rest_refusal(command) or self._scripts.unknown(command)
            if error is not None:
                raise error
        if not batch:
            return []
        piece = Piece(TRANSACTION, whole(batch, self._scripts), len(batch))
        return await self._requests.submit(piece, self._timeout if timeout is None else timeout)

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns, one event stream each; see `Transport`.

        Raises:
            StoreOverloaded: more than `max_connections` streams would be open.
        """
        return await self._streams.subscribe(channels, patterns)

    async def rotate(self, secret: Secret) -> None:
        """Use another token from now on; see `RotatingTransport`. Event streams go on until the store ends them."""
        before = self._session.rotate(secret)
        try:
            await self.execute([("PING",)])
        except CredentialsRejected:
            self._session.rotate(before)
            raise

    async def aclose(self) -> None:
        """Fail what is in flight, end every subscription, close every connection."""
        await self._requests.aclose()
        await self._streams.aclose()
        await self._session.aclose()

    async def _exchange(self, request: Request) -> list[Reply]:
        generation = self._session.generation
        status, body = await self._session.exchange(request)
        if status == HTTPStatus.UNAUTHORIZED and generation != self._session.generation:
            # Refused under the token that was replaced while it travelled: nothing was done.
            status, body = await self._session.exchange(request)
        return replies_of(request.path, request.count, status, body, self.target)

    async def _execute_pieces(self, batch: Sequence[Command], seconds: float) -> list[Reply]:
        pieces = cut(batch, self._scripts)
        if len(pieces) == 1:
            return await self._requests.submit(pieces[0], seconds)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        replies: list[Reply] = []
        for piece in pieces:
            try:
                left = deadline - loop.time()
                if left <= 0:
                    raise DeadlineExceeded(f"{self.target} did not answer within {seconds:g} s")
                replies += await self._requests.submit(piece, left)
            except StoreError as error:
                if not replies and error.outcome is Outcome.NOT_SENT:
                    raise
                # Some of the batch was done and some was not: for the batch as a whole, that is not known.
                raise type(error)(
                    f"{error} (after {len(replies)} of {len(batch)} commands)", outcome=Outcome.UNKNOWN
                ) from error
        return replies
