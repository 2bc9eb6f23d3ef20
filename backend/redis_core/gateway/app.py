"""The ASGI app: one request, one answer.

| request | what it is |
| --- | --- |
| `POST /` | a command, as a JSON array |
| `GET /set/foo/bar`, `POST /set/foo?EX=100` with a body | a command: path, then body, then query |
| `POST /pipeline` | commands, in order; the answer has a result or an error for each |
| `POST /multi-exec` | the same as a transaction |
| `/subscribe/<channel>`, `/psubscribe/<pattern>`, `/monitor` | event streams |

Source of the protocol: Upstash's documentation of its REST API and what its own clients send. What it leaves open is told where
it was decided: arguments in `requests`, statuses in `replies`, line breaks and MONITOR in `stream` and `monitor`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import count
from typing import Final
from urllib.parse import quote

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreError
from redis_core.gateway.admission import Admission, Admitted
from redis_core.gateway.asgi import Header, Message, Receive, Scope, Send
from redis_core.gateway.limits import GatewayLimits
from redis_core.gateway.monitor import Monitors
from redis_core.gateway.policy import UNUSUAL, no_permission
from redis_core.gateway.replies import (
    error_json,
    many_json,
    many_resp2,
    one_base64,
    one_json,
    one_resp2,
    status_of,
)
from redis_core.gateway.requests import (
    ClientGone,
    Refused,
    command_from_json,
    command_from_path,
    commands_from_json,
    drain,
    names_from_path,
    read_body,
    token_from_query,
    too_large,
)
from redis_core.gateway.scripts import Scripts
from redis_core.gateway.stream import EventStreams
from redis_core.gateway.tokens import GatewayToken, TokenTable
from redis_core.key_positions import upper
from redis_core.transport.base import Argument, Command, Reply, Transport

__all__ = ["Gateway", "create_gateway"]

_JSON: Final[Header] = (b"content-type", b"application/json")
# Values are nobody's to keep or to guess the type of: a browser that was given a token in a URL is a client, too.
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_NOSNIFF: Final[Header] = (b"x-content-type-options", b"nosniff")
_BINARY: Final[Header] = (b"content-type", b"application/octet-stream")
_CLOSE: Final[Header] = (b"connection", b"close")
_FORMAT: Final = b"upstash-response-format"
_UNAUTHORIZED: Final = b'{"error":"WRONGPASS invalid or missing auth token"}'
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT"})
_WITH_BODY: Final = frozenset({"POST", "PUT"})
_STREAMS: Final = frozenset({b"subscribe", b"psubscribe", b"monitor"})
_BATCHES: Final = frozenset({b"pipeline", b"multi-exec"})
_TOO_LARGE: Final = 413
_DRAINED_AT_MOST: Final = 8
"""How many times the largest body is read and dropped so that its sender reads the answer."""


class _Exchange:
    """One request, and how its answer is written.

    Raises:
        Refused: 400, it asks for a format that there is not.
    """

    __slots__ = ("body_size", "head_only", "json", "receive", "resp2", "scope", "send", "token")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, token: GatewayToken, headers: dict[bytes, bytes]
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.token = token
        self.head_only: bool = scope["method"] == "HEAD"
        self.body_size = 0
        encoded = headers.get(b"upstash-encoding") == b"base64"
        self.json = one_base64 if encoded else one_json
        chosen = headers.get(_FORMAT, b"json")
        self.resp2 = chosen == b"resp2"
        if chosen not in {b"json", b"resp2"}:
            raise Refused(400, "ERR Upstash-Response-Format is json or resp2")
        if self.resp2 and encoded:
            raise Refused(400, "ERR Upstash-Encoding: base64 does not go with Upstash-Response-Format: resp2")


class Gateway:
    """See `create_gateway`."""

    def __init__(
        self, transport: Transport, tokens: Sequence[GatewayToken], limits: GatewayLimits, clock: Clock
    ) -> None:
        self._transport = transport
        self._tokens = TokenTable(tokens)
        self._limits = limits
        self._monitors = Monitors(clock)
        self._streams = EventStreams(transport, self._monitors, limits)
        self._admission = Admission(limits, Scripts(rewrite=not transport.script_header))
        # Opaque, and never the same twice, in this process or another.
        self._sync_prefix = secrets.token_urlsafe(9).encode()
        self._sync_count = count(1)

    @property
    def open_streams(self) -> int:
        """How many event streams are open."""
        return self._streams.count

    def accept(self, tokens: Sequence[GatewayToken]) -> None:
        """Accept these tokens, and no others, from now on. Event streams of others end.

        Raises:
            ConfigError: there is none, one is empty, or two are the same; the present ones stay.
        """
        self._tokens = TokenTable(tokens)
        self._streams.close_others(self._tokens)

    def close_streams(self) -> None:
        """End every event stream; call it before a server waits for its connections to end."""
        self._streams.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _not_http(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        authorization = headers.get(b"authorization")
        token = self._token_of_query(scope) if authorization is None else self._tokens.bearer(authorization)
        try:
            if (
                token is not None
                and token.unrestricted
                and scope["method"] == "POST"
                and scope.get("raw_path") == b"/"
                and _FORMAT not in headers
                and not self._monitors
            ):
                message = await receive()
                if await self._usual(message, headers, send):
                    return
                receive = _again(message, receive)
            await self._judge(scope, receive, send, token, headers)
        except Refused as refused:
            await self._refuse(scope, receive, send, refused)
        except StoreError as error:
            body = b"" if scope["method"] == "HEAD" else error_json(str(error))
            await self._answer(send, status_of(error), body, _JSON)
        except ClientGone:
            return

    def _token_of_query(self, scope: Scope) -> GatewayToken | None:
        presented = token_from_query(scope.get("query_string", b""))
        return self._tokens.find(presented) if presented is not None else None

    async def _usual(self, message: Message, headers: dict[bytes, bytes], send: Send) -> bool:
        """Answer, by the shortest way, a command in JSON of which nothing has to be judged; False if it is another.

        Args:
            message: the beginning of the body.
            headers: of the request.
            send: takes the answer.
        """
        body: bytes = message.get("body", b"")
        if message.get("more_body", False) or len(body) > self._limits.max_key_bytes or not body:
            return False
        words = command_from_json(body)
        words[0] = name = words[0].upper()  # type: ignore[union-attr]  # it is text
        if name in UNUSUAL:
            return False
        (reply,) = await self._transport.execute((tuple(words),))
        body = one_base64(reply) if headers.get(b"upstash-encoding") == b"base64" else one_json(reply)
        await send(
            {
                "type": "http.response.start",
                "status": status_of(reply) if isinstance(reply, StoreError) else 200,
                "headers": [
                    _JSON,
                    _NO_STORE,
                    _NOSNIFF,
                    (b"content-length", b"%d" % len(body)),
                    (b"upstash-sync-token", b"%b%x" % (self._sync_prefix, next(self._sync_count))),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})
        return True

    async def _judge(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        token: GatewayToken | None,
        headers: dict[bytes, bytes],
    ) -> None:
        """Answer any request."""
        method: str = scope["method"]
        if method not in _METHODS:
            allow = (b"allow", b"GET, HEAD, POST, PUT")
            await self._answer(send, 405, error_json(f"ERR method {method} is not allowed"), _JSON, allow)
        elif token is None:
            body = b"" if method == "HEAD" else _UNAUTHORIZED
            await self._answer(send, 401, body, _JSON, (b"www-authenticate", b"Bearer"))
        else:
            exchange = _Exchange(scope, receive, send, token, headers)
            size = headers.get(b"content-length")
            if size is not None and size.isdigit() and int(size) > self._limits.max_body_bytes:
                raise too_large(self._limits.max_body_bytes, int(size))
            await self._route(exchange, _path(scope))

    # --- routes ---

    async def _route(self, exchange: _Exchange, path: bytes) -> None:
        method = exchange.scope["method"]
        if path in {b"/", b""} and method in _WITH_BODY:
            body = await read_body(exchange.receive, self._limits.max_body_bytes)
            exchange.body_size = len(body)
            await self._single(exchange, command_from_json(body))
            return
        path = path[1:]
        first, _, rest = path.partition(b"/")
        route = first.lower()
        if route in _STREAMS:
            await self._stream(exchange, route, rest)
        elif route in _BATCHES and not rest:
            if method not in _WITH_BODY:
                raise Refused(405, f"ERR /{route.decode()} takes POST")
            await self._batch(exchange, transaction=route == b"multi-exec")
        else:
            body = b""
            if method in _WITH_BODY:
                body = await read_body(exchange.receive, self._limits.max_body_bytes)
            exchange.body_size = len(body) + len(path)
            await self._single(
                exchange, command_from_path(path, exchange.scope.get("query_string", b""), body)
            )

    async def _single(self, exchange: _Exchange, words: list[Argument]) -> None:
        name = upper(words[0])
        token = exchange.token
        finish = None
        if name not in UNUSUAL and token.unrestricted and exchange.body_size <= self._limits.max_key_bytes:
            # The usual case: nothing to judge, nothing to rewrite.
            words[0] = name
            command: Command | None = tuple(words)
            reply: Reply = None
        else:
            admitted = self._admission.admit(token, name, words)
            command, reply, finish = admitted.command, admitted.answer, admitted.finish
        if command is not None:
            if self._monitors:
                self._monitors.show((command,), token.prefix, exchange.scope.get("client"))
            (reply,) = await self._transport.execute((command,))
            if finish is not None:
                reply = finish(reply)
        status = status_of(reply) if isinstance(reply, StoreError) else 200
        if exchange.resp2:
            await self._reply(exchange, status, one_resp2(reply), _BINARY)
        else:
            await self._reply(exchange, status, exchange.json(reply), _JSON)

    async def _batch(self, exchange: _Exchange, *, transaction: bool) -> None:
        body = await read_body(exchange.receive, self._limits.max_body_bytes)
        exchange.body_size = len(body)
        admitted = [
            self._admit(exchange, words) for words in commands_from_json(body, self._limits.max_pipeline)
        ]
        batch = [one.command for one in admitted if one.command is not None]
        if transaction:
            refused = next((one.answer for one in admitted if isinstance(one.answer, StoreError)), None)
            if refused is not None:
                raise Refused(400, f"EXECABORT Transaction discarded because of: {refused}")
        if self._monitors:
            self._monitors.show(batch, exchange.token.prefix, exchange.scope.get("client"))
        send = self._transport.transaction if transaction else self._transport.execute
        answers = iter(await send(batch) if batch else ())
        replies: list[Reply] = []
        for one in admitted:
            reply = one.answer if one.command is None else next(answers)
            replies.append(one.finish(reply) if one.finish is not None else reply)
        if exchange.resp2 and not transaction:
            await self._reply(exchange, 200, many_resp2(replies), _BINARY)
        else:
            await self._reply(exchange, 200, many_json(replies, exchange.json), _JSON)

    def _admit(self, exchange: _Exchange, words: list[Argument]) -> Admitted:
        name = upper(words[0])
        if (
            name not in UNUSUAL
            and exchange.token.unrestricted
            and exchange.body_size <= self._limits.max_key_bytes
        ):
            words[0] = name
            return Admitted(tuple(words))
        return self._admission.admit(exchange.token, name, words)

    async def _stream(self, exchange: _Exchange, route: bytes, rest: bytes) -> None:
        if exchange.head_only:
            raise Refused(405, f"ERR /{route.decode()} takes GET and POST")
        body = b""
        if exchange.scope["method"] in _WITH_BODY:
            body = await read_body(exchange.receive, self._limits.max_body_bytes)
        token = exchange.token
        if self._tokens.find(token.token.reveal().encode()) != token:
            # It was taken away while its body came; a stream of it would not be among those that ended then.
            raise Refused(401, "WRONGPASS invalid or missing auth token")
        head = self._sync_token()
        if route == b"monitor":
            if token.read_only:
                raise Refused(400, str(no_permission("MONITOR")))
            await self._streams.monitor(token=token, head=head, receive=exchange.receive, send=exchange.send)
            return
        await self._streams.subscribe(
            names_from_path(rest),
            pattern=route == b"psubscribe",
            token=token,
            one_line=bool(body),
            head=head,
            receive=exchange.receive,
            send=exchange.send,
        )

    # --- answers ---

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refused: Refused) -> None:
        body = error_json(refused.text)
        if refused.status != _TOO_LARGE:
            allow = ((b"allow", b"POST, PUT"),) if refused.status == 405 else ()  # noqa: PLR2004 - method not allowed
            await self._answer(
                send, refused.status, b"" if scope["method"] == "HEAD" else body, _JSON, *allow
            )
            return
        # The answer first, for a client that reads while it writes; then the rest of its body, for one that does not.
        await send(self._start(413, len(body), _JSON, _CLOSE))
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await drain(receive, self._limits.drain_timeout, _DRAINED_AT_MOST * self._limits.max_body_bytes)
        await send({"type": "http.response.body", "body": b""})

    async def _reply(self, exchange: _Exchange, status: int, body: bytes, kind: Header) -> None:
        await exchange.send(self._start(status, len(body), kind))
        await exchange.send({"type": "http.response.body", "body": b"" if exchange.head_only else body})

    async def _answer(self, send: Send, status: int, body: bytes, *headers: Header) -> None:
        await send(self._start(status, len(body), *headers))
        await send({"type": "http.response.body", "body": body})

    def _start(self, status: int, size: int, *headers: Header) -> Message:
        return {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, _NO_STORE, _NOSNIFF, (b"content-length", b"%d" % size), self._sync_token()],
        }

    def _sync_token(self) -> Header:
        return b"upstash-sync-token", b"%b%x" % (self._sync_prefix, next(self._sync_count))


def create_gateway(
    transport: Transport,
    tokens: Sequence[GatewayToken],
    *,
    limits: GatewayLimits | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Gateway:
    """An ASGI app that answers as Upstash's REST API does, from any store.

    It runs by itself under an ASGI server, or mounted in another app. Each command is one command of the store; a pipeline is one
    batch, and commands of concurrent requests travel together as the transport batches them.

    Args:
        transport: the store; the caller closes it, after the server has stopped.
        tokens: who may ask, and for what.
        limits: how much one request may ask.
        clock: the time that `/monitor` shows.

    Raises:
        ConfigError: there is no token, or two are the same.
    """
    return Gateway(transport, tokens, limits or GatewayLimits(), clock)


def _again(message: Message, receive: Receive) -> Receive:
    """A `receive` that gives this message first."""
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _path(scope: Scope) -> bytes:
    """The path as it was sent, still percent-encoded, below where the app is mounted."""
    path: bytes | None = scope.get("raw_path")
    if path is None:
        path = quote(scope["path"]).encode()
    root: str = scope.get("root_path", "")
    if root:
        path = path.removeprefix(quote(root).encode())
    return path


async def _not_http(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})
