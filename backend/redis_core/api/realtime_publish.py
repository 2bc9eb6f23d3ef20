"""What browsers send to topics: updates and presence, where their token allows it and their workspace has some left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, Raw

from redis_core.api.realtime_hub import Hub, Refused
from redis_core.errors import VersionConflict
from redis_core.realtime.registry import topics
from redis_core.realtime_token import allows, is_topic

if TYPE_CHECKING:
    from redis_core.api.realtime_frames import PresenceRequest, PublishRequest
    from redis_core.api.realtime_stream import Stream
    from redis_core.realtime.feed import Kind
    from redis_core.realtime_token import Claims

__all__ = ["Published", "be_present", "publish"]

_NULL: Final = Raw(b"null")


class Published(msgspec.Struct, frozen=True):
    """Where an update stands."""

    epoch: str
    offset: int


async def publish(hub: Hub, claims: Claims, request: PublishRequest, size: int) -> Published:
    """Publish an update. Budget: as the topic's own call.

    Args:
        hub: counts what the workspace uses.
        claims: of who publishes.
        request: what.
        size: its bytes.

    Raises:
        Refused: the token does not allow it, it, or what a patch makes, is not of the topic's registered type, a cap is reached, or the version is not
            the current one.
        StoreError: the store did not take it.
    """
    topic = request.topic
    _check(hub, claims, topic, size)
    workspace = hub.client.workspace(claims.workspace)
    if request.kind == "append":
        text = workspace.text(topic)
        position = await (text.end(request.text) if request.done else text.append(request.text))
    elif request.kind == "events":
        event: Raw = _of_type("events", topic, request.data)
        position = await workspace.topic(topic).publish(event, id=request.id)
    elif request.data is not UNSET:
        position = await workspace.state(topic).set(_of_type("state", topic, request.data))
    else:
        patch = _given(request.patch)

        def check(document: bytes) -> None:
            _of_type("state", topic, Raw(document))

        try:
            position = await workspace.state(topic).patch(patch, version=request.version, check=check)
        except VersionConflict as error:
            raise Refused(
                409, "version-conflict", f"The document is another version by now: {error}."
            ) from error
    return Published(position.epoch, position.offset)


async def be_present(hub: Hub, stream: Stream, claims: Claims, request: PresenceRequest, size: int) -> None:
    """Show or take out a member. Budget: as presence's own call.

    A member is the token's user, or that followed by `:` and more, such as a tab's name: nobody appears as somebody else.

    Raises:
        Refused: the token does not allow it, or a cap is reached.
        StoreError: the store did not take it.
    """
    topic = request.topic
    _check(hub, claims, topic, size)
    member = request.member or claims.user
    if member != claims.user and not member.startswith(f"{claims.user}:"):
        raise Refused(403, "forbidden", "A member is the token's user, or that followed by : and more.")
    if request.leave:
        await hub.leave(stream, topic, member)
        return
    data = _NULL if request.data is UNSET else _of_type("presence", topic, request.data)
    await hub.join(stream, topic, member, data)


def _given(data: Raw | msgspec.UnsetType) -> Raw:
    if data is UNSET:
        raise Refused(400, "invalid-request", "There is no data to publish.")
    return data


def _of_type(kind: Kind, topic: str, data: Raw | msgspec.UnsetType) -> Raw:
    """The data as it came, if it is of the type that the application has registered for such topics.

    Raises:
        Refused: there is none, or it is of another type.
    """
    given = _given(data)
    for shape in topics:
        if shape.kind == kind and allows((shape.pattern,), topic):
            try:
                msgspec.json.decode(given, type=shape.type)
            except msgspec.DecodeError as error:
                raise Refused(400, "invalid-request", f"Not of this topic's type: {error}") from error
    return given


def _check(hub: Hub, claims: Claims, topic: str, size: int) -> None:
    if not is_topic(topic):
        raise Refused(400, "invalid-topic", "A topic is 1 to 200 of visible ASCII without * ? [ ] { } \\.")
    if not claims.may_write(topic):
        raise Refused(403, "forbidden", "The token does not allow to write this topic.")
    code = hub.allowance(claims.workspace).take(size)
    if code is not None:
        raise Refused(429, code, "The workspace publishes more than it may; slow down.", retry_after=1)
