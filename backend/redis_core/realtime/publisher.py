"""Updates on their way into topics: to the store, or into the journal while it is away."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from redis_core.errors import Outcome, StoreUnavailable, VersionConflict
from redis_core.keys import WorkspaceKeys
from redis_core.quotas import Quotas
from redis_core.realtime.feed import Feeds
from redis_core.realtime.history import Position
from redis_core.resilience.outage import NO_OUTAGE
from redis_core.script import load_script

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.resilience.record import Record
    from redis_core.transport.base import Argument

__all__ = ["KEPT", "Publisher", "Publishing"]

Publishing = Callable[[str], tuple[list[str], "tuple[Argument, ...]"]]
"""Keys and arguments of `topic_publish.lua` for an idempotency key; what is known of the bus is added as it is sent."""

KEPT: Final = Position("", 0)
"""The position of an update that is in the journal: it has none yet."""
_PUBLISH: Final = load_script("topic_publish")
_KIND: Final = "topic"
_PLAIN: Final = 3
"""Words of a reply that names no sequence, as nothing was published now."""
_ENCODE: Final = msgspec.msgpack.Encoder().encode


class Publisher:
    """One a client; see `Client.service`.

    Args:
        client: the store, and what is known of its outage.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._outage = client.outage
        self._outage.replayer(_KIND, self._publish_kept)

    async def publish(
        self, workspace: str, order: str, publishing: Publishing, id: str, *, keep: bool
    ) -> Position:
        """Publish an update; `KEPT` if it follows when the store is back. Budget: 1 script; while the store is away none.

        Args:
            workspace: whose topic it is.
            order: updates of one order are published in the order they came.
            publishing: what the script is told.
            id: idempotency key, or empty.
            keep: whether the update may wait: one that asks for a version may not.

        Raises:
            QuotaExceeded: the workspace publishes more than it may.
            VersionConflict: another version is current.
            StoreUnavailable: the store is away and the update may not wait, or it may have been published and has no id.
            JournalFull, JournalBroken: it could not be kept.
        """
        self._client.service(Quotas).publish(workspace)
        if not keep or (self._outage.available and not self._outage.waiting(order)):
            try:
                return await self._run(workspace, *publishing(id))
            except StoreUnavailable as error:
                certain = error.outcome is Outcome.NOT_SENT or id
                if not keep or not certain or self._outage is NO_OUTAGE:
                    raise
        # It gets a name if it has none: who carries it out may do so twice.
        call = publishing(id or secrets.token_hex(8))
        await self._outage.record(_KIND, order, _ENCODE(call))
        return KEPT

    async def _run(self, workspace: str, keys: Sequence[str], args: Sequence[Argument]) -> Position:
        redis = self._client.primary.confined(WorkspaceKeys(workspace))
        feeds = self._client.service(Feeds)
        known = feeds.sequences.highest(workspace)
        reply = cast("list[Any]", await redis.run(_PUBLISH, keys, (*args, known)))
        if reply[0] == 0:
            raise VersionConflict(int(reply[1]))
        self._client.meter.count("topic_updates_total", str(args[0]))
        if len(reply) > _PLAIN:
            feeds.sequences.know(workspace, int(reply[3]))
        feeds.wake()
        return Position(reply[1].decode(), int(reply[2]))

    async def _publish_kept(self, records: Sequence[Record]) -> None:
        """Publish what was kept. Budget: 1 script for each, 2 commands more than it would have cost."""
        for record in records:
            keys, args = msgspec.msgpack.decode(record.payload, type=tuple[list[str], list[Any]])
            # Who publishes stands at the beginning of what the bus is told.
            await self._run(str(args[3]).partition(" ")[0], keys, args)

    async def aclose(self) -> None:
        """Nothing to end: what is kept stays."""
