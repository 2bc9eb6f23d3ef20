"""What travels between browsers and the service: requests as Structs, and frames encoded once for all who get them.

docs/realtime-protocol.md is the specification.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from redis_core.realtime.feed import Kind, Start, Update

__all__ = [
    "LIVE",
    "PING",
    "SOCKET_REQUEST",
    "STALE",
    "AuthRequest",
    "Frame",
    "PresenceRequest",
    "PublishRequest",
    "SocketAuth",
    "SocketPong",
    "SocketPresence",
    "SocketPublish",
    "SocketRequest",
    "SocketSubscribe",
    "SocketUnsubscribe",
    "StreamRequest",
    "SubscribeRequest",
    "Topic",
    "UnsubscribeRequest",
    "Want",
    "auth_frame",
    "bye_frame",
    "error_frame",
    "gap_frame",
    "hello_frame",
    "lag_frame",
    "ok_frame",
    "refused_frame",
    "sub_frame",
    "update_frame",
]

_ENCODE: Final = msgspec.json.Encoder().encode


class Frame:
    """One frame, in the form of each transport; each form is made once."""

    __slots__ = ("_text", "sse")

    def __init__(self, json: bytes) -> None:
        self.sse = b"data: %b\n\n" % json
        """As an event of an event stream."""
        self._text: str | None = None

    @property
    def text(self) -> str:
        """As a message of a WebSocket."""
        if self._text is None:
            self._text = self.sse[6:-2].decode()
        return self._text


# --- requests ---


class Want(Struct, frozen=True):
    """One subscription that a client asks for, from its position on."""

    topic: str
    kind: Kind = "events"
    epoch: str = ""
    offset: int = 0


class Topic(Struct, frozen=True):
    """One topic in one kind."""

    topic: str
    kind: Kind | None = None
    """None is all kinds."""


class StreamRequest(Struct):
    """Body of `/stream`."""

    topics: list[Want] = []


class SubscribeRequest(Struct):
    """Body of `/subscribe`."""

    stream: str
    topics: list[Want]


class UnsubscribeRequest(Struct):
    """Body of `/unsubscribe`."""

    stream: str
    topics: list[str | Topic]


class AuthRequest(Struct):
    """Body of `/auth`."""

    stream: str


class PublishRequest(Struct):
    """Body of `/publish`: which fields count depends on the kind."""

    topic: str
    kind: Literal["events", "state", "append"] = "events"
    data: Raw | UnsetType = UNSET
    patch: Raw | UnsetType = UNSET
    version: int | None = None
    text: str = ""
    done: bool = False
    id: str = ""


class PresenceRequest(Struct):
    """Body of `/presence`."""

    topic: str
    stream: str = ""
    member: str = ""
    data: Raw | UnsetType = UNSET
    leave: bool = False


class SocketAuth(Struct, tag="auth", tag_field="t"):
    """A token, over WebSocket."""

    token: str
    topics: list[Want] = []


class SocketSubscribe(Struct, tag="sub", tag_field="t"):
    """Subscriptions asked for, over WebSocket."""

    topics: list[Want]


class SocketUnsubscribe(Struct, tag="unsub", tag_field="t"):
    """Subscriptions given up, over WebSocket."""

    topics: list[str | Topic]


class SocketPublish(PublishRequest, tag="pub", tag_field="t"):
    """A publish, over WebSocket."""

    ref: int | str | None = None


class SocketPresence(PresenceRequest, tag="pres", tag_field="t"):
    """Presence, over WebSocket."""

    ref: int | str | None = None


class SocketPong(Struct, tag="pong", tag_field="t"):
    """The answer to a ping."""


SocketRequest: TypeAlias = (
    SocketAuth | SocketSubscribe | SocketUnsubscribe | SocketPublish | SocketPresence | SocketPong
)
"""What a client may say over WebSocket."""
SOCKET_REQUEST: Final[msgspec.json.Decoder[SocketRequest]] = msgspec.json.Decoder(SocketRequest)


# --- frames ---


def _frame(**fields: object) -> Frame:
    return Frame(_ENCODE(fields))


PING: Final = _frame(t="ping")
STALE: Final = _frame(t="stale")
LIVE: Final = _frame(t="live")


def hello_frame(stream: str, heartbeat: int, expires: int) -> Frame:
    """The first frame."""
    return _frame(t="hello", stream=stream, heartbeat=heartbeat, expires=expires)


def sub_frame(topic: str, kind: Kind, start: Start) -> Frame:
    """A subscription begins."""
    return _frame(
        t="sub", topic=topic, kind=kind, epoch=start.epoch, offset=start.offset,
        recovered=start.recovered, reached=start.reached,
    )  # fmt: skip


def gap_frame(topic: str, kind: Kind) -> Frame:
    """Updates are missing that history does not have."""
    return _frame(t="gap", topic=topic, kind=kind)


def refused_frame(topic: str, kind: str, code: str) -> Frame:
    """A subscription is not given."""
    return _frame(t="refused", topic=topic, kind=kind, code=code)


def ok_frame(ref: int | str | None, **done: object) -> Frame:
    """A request over WebSocket was done."""
    return _frame(t="ok", ref=ref, **done)


def error_frame(ref: int | str | None, code: str, detail: str) -> Frame:
    """A request over WebSocket was not done."""
    return _frame(t="error", ref=ref, code=code, detail=detail)


def lag_frame(topics: list[str]) -> Frame:
    """Updates of these topics were held back, and follow from history."""
    return _frame(t="lag", topics=topics)


def auth_frame(expires: int) -> Frame:
    """When the token ends."""
    return _frame(t="auth", expires=expires)


def bye_frame(reason: str, retry: int) -> Frame:
    """The last frame; retry in milliseconds."""
    return _frame(t="bye", retry=retry, reason=reason)


def update_frame(topic: str, update: Update) -> Frame:
    """An update of a topic; its data is JSON already, and put in as it is."""
    head = {"t": update.type, "topic": topic, "offset": update.offset}
    if update.type in {"text", "pres"}:
        # An object whose fields are the frame's own.
        return Frame(_ENCODE(head)[:-1] + b"," + bytes(update.data)[1:])
    field = "patch" if update.type == "patch" else "data"
    if update.id:
        return _frame(**head, **{field: update.data}, id=update.id)
    return _frame(**head, **{field: update.data})
