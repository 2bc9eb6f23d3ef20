"""The realtime endpoints as one ASGI application, to be mounted in any other: streams of frames to browsers, and what they send.

::

    app.mount("/api/v1/realtime", Realtime(get_redis, allow=lambda session: Allowed(read=["campaign:*"])))

Put `SessionMiddleware` around the application where sessions are to be exchanged for tokens. docs/realtime-protocol.md tells what goes
over the wire. Browsers never reach the store: one process subscribes once to a topic, whatever the number of its clients, and an idle
client costs no command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from starlette.responses import Response

from redis_core.api import realtime_socket
from redis_core.api.context import ClientSource
from redis_core.api.documents import json_response
from redis_core.api.problems import problem_response, store_problem
from redis_core.api.realtime_access import Access, Allow, Allowed, nothing_allowed
from redis_core.api.realtime_frames import (
    AuthRequest,
    PresenceRequest,
    PublishRequest,
    StreamRequest,
    SubscribeRequest,
    UnsubscribeRequest,
    refused_frame,
)
from redis_core.api.realtime_hub import Hub, HubFigures, Refused
from redis_core.api.realtime_hubs import Hubs
from redis_core.api.realtime_limits import RealtimeLimits
from redis_core.api.realtime_publish import Published, be_present, publish
from redis_core.api.realtime_stream import Stream
from redis_core.api.realtime_wire import EventStreamWire
from redis_core.client import get_redis
from redis_core.errors import ConfigError, InvalidKey, StoreError
from redis_core.log import get_logger
from redis_core.realtime_token import RealtimeKeys, keys_from_settings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from redis_core.config import Settings
    from redis_core.realtime_token import Claims
    from redis_core.sessions.pepper import PepperRing

__all__ = ["PREFIX", "Allowed", "HubFigures", "Hubs", "Realtime", "RealtimeLimits"]

_log = get_logger(__name__)

PREFIX: Final = "/api/v1/realtime"
_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    # Neither kept nor changed on the way: a proxy that compresses collects before it passes on, and so does one that buffers.
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
_PREFLIGHT: Final = [
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"600"),
]
_WIRE: Final = EventStreamWire()


class SessionToken(msgspec.Struct, frozen=True):
    """Answer of `/session`."""

    token: str
    expires: int
    workspace: str
    user: str
    read: tuple[str, ...]
    write: tuple[str, ...]


class RefusedTopic(msgspec.Struct, frozen=True):
    """A subscription that is not given."""

    topic: str
    kind: str
    code: str


class Subscribed(msgspec.Struct, frozen=True):
    """Answer of `/subscribe`."""

    refused: list[RefusedTopic]


class Authorised(msgspec.Struct, frozen=True):
    """Answer of `/auth`."""

    expires: int


_Answer: TypeAlias = msgspec.Struct | None
_Handler: TypeAlias = Callable[["Realtime", Hub, "Claims", bytes], Awaitable[_Answer]]


class Realtime:
    """The endpoints `/session`, `/stream`, `/subscribe`, `/unsubscribe`, `/auth`, `/publish`, `/presence` and `/ws`.

    Args:
        client: where it gets the store's client; the process' one unless told otherwise.
        settings: limits and keys; the client's unless given.
        allow: the topics that a session of the app opens; none unless told.
        origins: other origins whose pages may use the endpoints.
        limits: instead of the settings' ones.
        keys: sign and verify tokens, instead of the settings' ones.
    """

    def __init__(
        self,
        client: ClientSource = get_redis,
        *,
        settings: Settings | None = None,
        allow: Allow = nothing_allowed,
        origins: Collection[str] = (),
        limits: RealtimeLimits | None = None,
        keys: PepperRing | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._allow = allow
        self._origins = origins
        self._limits = limits
        self._keys = keys
        self._hub: Hub | None = None
        self._access: Access | None = None

    async def hub(self) -> Hub:
        """The hub that writes to this process' clients, made when the first one comes.

        Raises:
            ConfigError: a setting is wrong.
        """
        client = await self._client()
        if self._hub is None or self._hub.client is not client:
            settings = self._settings or client.settings
            limits = self._limits or RealtimeLimits.from_settings(settings)
            self._hub = Hub(client, limits)
            client.service(Hubs).add(self._hub)
        return self._hub

    @property
    def access(self) -> Access:
        """The rules of who may."""
        if self._access is None:
            settings = self._settings
            if settings is None:
                from redis_core.config import load_settings  # noqa: PLC0415 - as in client.py

                settings = load_settings()
            seconds = self._limits.token_seconds if self._limits else settings.realtime_token_seconds
            self._access = Access(
                self._keys or keys_from_settings(settings),
                allow=self._allow,
                seconds=seconds,
                origins=self._origins,
            )
        return self._access

    async def find_keys(self) -> None:
        """Where `REALTIME_KEYS` is a reference, the client has read what it stands for, and its watch replaces it."""
        if self._keys is None and self._access is None:
            client = await self._client()
            if client.secrets is not None and "REALTIME_KEYS" in client.secrets.variables:
                self._keys = client.service(RealtimeKeys).ring

    def drain(self) -> None:
        """Tell all clients to come back at a random moment, and end their streams. Takes no more; idempotent."""
        if self._hub is not None:
            self._hub.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "http":
            # Few frames stay on the stack of an open stream: each would cost it half a kilobyte.
            stream = await self._http(scope, receive, send)
            if stream is not None:
                try:
                    await stream.until_gone()
                finally:
                    stream.hub.close(stream)
        elif scope["type"] == "websocket":
            await realtime_socket.serve(self, scope, receive, send)
        else:
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Served by itself: nothing to prepare, and the hub to be closed."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._hub is not None:
                    await self._hub.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> Stream | None:
        """Answer a request; the stream if it opened one."""
        cors: list[tuple[bytes, bytes]] = []
        try:
            await self.find_keys()
            cors = self.access.check_origin(scope)
            response = await self._respond(scope, receive, send, cors)
        except Refused as refusal:
            after = refusal.retry_after
            response = problem_response(
                refusal.status,
                refusal.code,
                refusal.detail,
                headers={"Retry-After": str(after)} if after is not None else None,
            )
        except (msgspec.DecodeError, InvalidKey) as error:
            response = problem_response(400, "invalid-request", str(error))
        except ConfigError as error:
            # Not at start-up: a service that nobody asks for realtime needs no keys for it.
            _log.error("realtime is not configured", reason=str(error))
            response = problem_response(
                503, "not-configured", "Realtime is not configured here; the log says what to set."
            )
        except StoreError as error:
            response = store_problem(error, scope["method"], scope["path"])
        if isinstance(response, Stream):
            return response
        response.headers.setdefault("Cache-Control", "no-store")
        response.raw_headers.extend(cors)
        await response(scope, receive, send)
        return None

    async def _respond(
        self, scope: Scope, receive: Receive, send: Send, cors: list[tuple[bytes, bytes]]
    ) -> Response | Stream:
        """The answer, or the stream that is open now."""
        name = endpoint_of(scope)
        if name not in _HANDLERS and name not in {"session", "stream"}:
            raise Refused(404, "not-found", "There is no such realtime endpoint.")
        if scope["method"] == "OPTIONS":
            response = Response(status_code=204)
            response.raw_headers.extend(_PREFLIGHT if cors else [])
            return response
        if scope["method"] != "POST":
            raise Refused(405, "method-not-allowed", "Use POST.")
        if name == "session":
            token, claims = await self.access.session_token(scope)
            return json_response(
                SessionToken(token, claims.expires, claims.workspace, claims.user, claims.read, claims.write)
            )
        claims = self.access.claims(scope)
        hub = await self.hub()
        body = await _body(receive, hub.limits.max_body)
        if name == "stream":
            stream = await self._stream(hub, claims, body, cors, receive, send)
            # A stream lives for hours: neither the token nor a kilobyte of other headers need to.
            scope["headers"].clear()
            return stream
        answer = await _HANDLERS[name](self, hub, claims, body)
        return Response(status_code=204) if answer is None else json_response(answer)

    async def _stream(
        self,
        hub: Hub,
        claims: Claims,
        body: bytes,
        cors: list[tuple[bytes, bytes]],
        receive: Receive,
        send: Send,
    ) -> Stream:
        wants = msgspec.json.decode(body or b"{}", type=StreamRequest).topics
        stream = hub.open(claims, _WIRE, receive, send)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*_STREAM_HEADERS, *cors]})
            await hub.greet(stream)
        except BaseException:
            hub.close(stream)
            raise
        for want, code in stream.subscribe(wants):
            stream.write(refused_frame(want.topic, want.kind, code))
        return stream


def endpoint_of(scope: Scope) -> str:
    """The name of the endpoint that a path names, wherever the application is mounted."""
    path: str = scope["path"]
    path = path.removeprefix(scope.get("root_path", "")).removeprefix(PREFIX)
    return path.strip("/")


async def _body(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "invalid-request", "The request ended before its body did.")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise Refused(413, "too-large", f"The body is larger than {most} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _subscribe(_realtime: Realtime, hub: Hub, claims: Claims, body: bytes) -> Subscribed:
    request = msgspec.json.decode(body, type=SubscribeRequest)
    refused = hub.find(request.stream, claims).subscribe(request.topics)
    return Subscribed([RefusedTopic(want.topic, want.kind, code) for want, code in refused])


async def _unsubscribe(_realtime: Realtime, hub: Hub, claims: Claims, body: bytes) -> None:
    request = msgspec.json.decode(body, type=UnsubscribeRequest)
    hub.find(request.stream, claims).unsubscribe(request.topics)


async def _auth(_realtime: Realtime, hub: Hub, claims: Claims, body: bytes) -> Authorised:
    request = msgspec.json.decode(body, type=AuthRequest)
    hub.authorise(hub.find(request.stream, claims), claims)
    return Authorised(claims.expires)


async def _publish(_realtime: Realtime, hub: Hub, claims: Claims, body: bytes) -> Published:
    return await publish(hub, claims, msgspec.json.decode(body, type=PublishRequest), len(body))


async def _presence(_realtime: Realtime, hub: Hub, claims: Claims, body: bytes) -> None:
    request = msgspec.json.decode(body, type=PresenceRequest)
    await be_present(hub, hub.find(request.stream, claims), claims, request, len(body))


_HANDLERS: Final[dict[str, _Handler]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "auth": _auth,
    "publish": _publish,
    "presence": _presence,
}
