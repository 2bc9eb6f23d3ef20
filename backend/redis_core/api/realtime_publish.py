"""What browsers send to topics: updates and presence, where their token allows it and their workspace has some left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from redis_core.api.realtime_hub import Hub, Refused
from redis_core.realtime_token import is_topic

if TYPE_CHECKING:
    from redis_core.api.realtime_frames import PresenceRequest, PublishRequest
    from redis_core.api.realtime_stream import Stream
    from redis_core.realtime_token import Claims

__all__ = ["Published", "be_present", "publish"]


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
        Refused: the token does not allow it, or a cap is reached, or the version is not the current one.
        StoreError: the store did not take it.
    """
    _check(hub, claims, request.topic, size)
    raise NotImplementedError


async def be_present(hub: Hub, stream: Stream, claims: Claims, request: PresenceRequest, size: int) -> None:
    """Show or take out a member. Budget: as presence's own call.

    A member is the token's user, or that followed by `:` and more, such as a tab's name: nobody appears as somebody else.

    Raises:
        Refused: the token does not allow it, or a cap is reached.
        StoreError: the store did not take it.
    """
    _check(hub, claims, request.topic, size)
    member = request.member or claims.user
    if member != claims.user and not member.startswith(f"{claims.user}:"):
        raise Refused(403, "forbidden", "A member is the token's user, or that followed by : and more.")
    if request.leave:
        await hub.leave(stream, request.topic, member)
        return
    data = None if request.data is UNSET else request.data
    await hub.join(stream, request.topic, member, data)


def _check(hub: Hub, claims: Claims, topic: str, size: int) -> None:
    if not is_topic(topic):
        raise Refused(400, "invalid-topic", "A topic is 1 to 200 of visible ASCII without * ? [ ] { } \\.")
    if not claims.may_write(topic):
        raise Refused(403, "forbidden", "The token does not allow to write this topic.")
    code = hub.allowance(claims.workspace).take(size)
    if code is not None:
        raise Refused(429, code, "The workspace publishes more than it may; slow down.", retry_after=1)
