"""Commands in batches: what a transfer's reads and writes are sent with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis_core.errors import StoreError

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.transport.base import Command

__all__ = ["send", "try_send"]


async def try_send(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Replies, an error in the place of a command that the store refused. Budget: 1 trip, none for no commands."""
    if not commands:
        return []
    batch = client.pipeline()
    for command in commands:
        batch.execute(*command)
    return await batch.send()


async def send(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Replies of commands that must all succeed. Budget: 1 trip, none for no commands.

    Raises:
        StoreError: the store refused one, or is away.
    """
    replies = await try_send(client, commands)
    for reply in replies:
        if isinstance(reply, StoreError):
            raise reply
    return replies
