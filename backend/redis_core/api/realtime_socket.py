"""The same frames over WebSocket, and what clients send on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.api.realtime_frames import (
    SOCKET_REQUEST,
    SocketAuth,
    SocketPong,
    SocketPresence,
    SocketPublish,
    SocketRequest,
    SocketSubscribe,
    error_frame,
    ok_frame,
    refused_frame,
)
from redis_core.api.realtime_hub import Hub, Refused
from redis_core.api.realtime_publish import be_present, publish
from redis_core.api.realtime_stream import Stream
from redis_core.api.realtime_wire import SocketWire
from redis_core.api.session_cookie import header
from redis_core.errors import InvalidKey, StoreError
from redis_core.log import get_logger

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from redis_core.api.realtime import Realtime

__all__ = ["serve"]

_log = get_logger(__name__)

PROTOCOL: Final = "raptorflow.v1"
_INVALID: Final = 1007
_POLICY_VIOLATION: Final = 1008
_TOO_BIG: Final = 1009
_TRY_AGAIN_LATER: Final = 1013


class _Closed(Exception):
    """The connection is to be closed.

    Args:
        code: of the close.
        reason: for the client.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def serve(realtime: Realtime, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket until it ends."""
    if (await receive())["type"] != "websocket.connect":
        return
    await realtime.find_keys()
    try:
        realtime.access.check_origin(scope)
    except Refused as refusal:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.code})
        return
    hub = await realtime.hub()
    if hub.unknown >= hub.limits.max_unknown:
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "too-many-connections"})
        return
    offered = header(scope["headers"], b"sec-websocket-protocol") or ""
    protocol = PROTOCOL if PROTOCOL in [one.strip() for one in offered.split(",")] else None
    stream: Stream | None = None
    try:
        hub.unknown += 1
        try:
            await send({"type": "websocket.accept", "subprotocol": protocol})
            async with asyncio.timeout(hub.limits.auth_within):
                first = await _first(receive, hub)
        finally:
            hub.unknown -= 1
        if first is None:
            return
        stream = hub.open(realtime.access.verified(first.token), SocketWire(), receive, send)
        await hub.greet(stream)
        _subscribe(stream, SocketSubscribe(first.topics))
        await _converse(realtime, hub, stream, receive)
    except TimeoutError:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "token-missing"})
    except Refused as refusal:
        code = _POLICY_VIOLATION if refusal.status in {401, 403} else _TRY_AGAIN_LATER
        await send({"type": "websocket.close", "code": code, "reason": refusal.code})
    except _Closed as closed:
        if stream is None or stream.ended is None:
            await send({"type": "websocket.close", "code": closed.code, "reason": closed.reason})
    finally:
        if stream is not None:
            hub.close(stream)


async def _first(receive: Receive, hub: Hub) -> SocketAuth | None:
    """The first message, which must be a token; None if the client is gone."""
    first = await _next(receive, hub)
    if first is not None and not isinstance(first, SocketAuth):
        raise _Closed(_POLICY_VIOLATION, "token-missing")
    return first


async def _converse(realtime: Realtime, hub: Hub, stream: Stream, receive: Receive) -> None:
    """Do what the client says, one message after the other, until it is gone."""
    while (request := await stream.hear(_next(receive, hub))) is not None:
        if isinstance(request, SocketAuth):
            try:
                hub.authorise(stream, realtime.access.verified(request.token))
            except Refused:
                stream.end("expired", 0, code=_POLICY_VIOLATION)
        elif isinstance(request, SocketSubscribe):
            _subscribe(stream, request)
        elif isinstance(request, SocketPublish | SocketPresence):
            await _answer(hub, stream, request)
        elif not isinstance(request, SocketPong):
            stream.unsubscribe(request.topics)


def _subscribe(stream: Stream, request: SocketSubscribe) -> None:
    for want, code in stream.subscribe(request.topics):
        stream.write(refused_frame(want.topic, want.kind, code))


async def _answer(hub: Hub, stream: Stream, request: SocketPublish | SocketPresence) -> None:
    """Publish or be present, and tell how it went."""
    size = len(msgspec.json.encode(request))
    try:
        if isinstance(request, SocketPublish):
            done = await publish(hub, stream.claims, request, size)
            stream.write(ok_frame(request.ref, epoch=done.epoch, offset=done.offset))
        else:
            await be_present(hub, stream, stream.claims, request, size)
            stream.write(ok_frame(request.ref))
    except Refused as refusal:
        stream.write(error_frame(request.ref, refusal.code, refusal.detail))
    except InvalidKey as error:
        stream.write(error_frame(request.ref, "invalid-request", str(error)))
    except StoreError as error:
        _log.warning("a publish failed", topic=request.topic, reason=str(error))
        stream.write(error_frame(request.ref, "store-unavailable", "The store cannot take it now."))


async def _next(receive: Receive, hub: Hub) -> SocketRequest | None:
    """The next message; None when the connection is over.

    Raises:
        _Closed: it is none of the protocol's.
    """
    message = await receive()
    if message["type"] == "websocket.disconnect":
        return None
    data: str | bytes = message.get("text") or message.get("bytes") or b""
    if len(data) > hub.limits.max_body:
        raise _Closed(_TOO_BIG, "too-large")
    try:
        return SOCKET_REQUEST.decode(data)
    except msgspec.DecodeError as error:
        raise _Closed(_INVALID, "invalid-request") from error
