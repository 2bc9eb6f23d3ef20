"""Invalidations that the store does not know of yet: kept in the journal, and carried out before anything is read from it again.

They hold in this process from the moment they are accepted. Until the store knows, nothing of that workspace is read from it, so that
no value of before comes back. In an outage that brings very many of one workspace, one flush stands for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.errors import Kind, StoreError
from redis_core.resilience.outage import State

if TYPE_CHECKING:
    from redis_core.caching.store import CacheStore
    from redis_core.resilience.outage import Outage
    from redis_core.resilience.record import Record

__all__ = ["Invalidation", "Invalidations"]

_KIND: Final = "cache"
_MOST: Final = 1_000
"""Invalidations of one workspace in one outage that are kept one by one; then a flush of all of it takes their place."""
_LATER: Final = frozenset({Kind.UNREACHABLE, Kind.OVERLOADED, Kind.READ_ONLY})


class Invalidation(msgspec.Struct, frozen=True, array_like=True):
    """What is no longer to be served."""

    workspace: str
    region: str = ""
    """Empty for the whole workspace."""
    keys: tuple[str, ...] = ()
    """Empty for the whole region, or for what carries the tag."""
    tag: str = ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Invalidation)


class Invalidations:
    """The invalidations of one client.

    Args:
        outage: what is known of the store, and where they are kept.
        store_of: the cache of a workspace in the store.
    """

    def __init__(self, outage: Outage, store_of: Callable[[str], CacheStore]) -> None:
        self._outage = outage
        self._store_of = store_of
        self._kept: dict[str, int] = {}
        outage.replayer(_KIND, self._replay, first=True)
        self.stop_watching = outage.watch(lambda _: self._kept.clear())
        """Lets go of the outage."""

    def pending(self, workspace: str) -> bool:
        """Whether the store may not be read for this workspace: it is away, or does not know yet what was invalidated here."""
        return not self._outage.available or self._outage.waiting(_order(workspace))

    def can_wait(self, error: StoreError) -> bool:
        """Whether what ended so can be carried out later: it is the store's state that stood in the way."""
        return error.kind in _LATER

    async def keep(self, invalidation: Invalidation) -> None:
        """Accept one; it is on the disk when this returns. Budget: no commands; one share of a disk flush.

        Raises:
            JournalError: it cannot be kept, and is not accepted.
        """
        workspace = invalidation.workspace
        # Counted only while none can be carried out.
        count = self._kept.get(workspace, 0) if self._outage.state is State.DEGRADED else 0
        if count > _MOST:
            return  # a flush of everything waits already
        if count == _MOST:
            invalidation = Invalidation(workspace)
        await self._outage.record(_KIND, _order(workspace), _ENCODER.encode(invalidation))
        self._kept[workspace] = count + 1

    async def _replay(self, records: Sequence[Record]) -> None:
        # They may be carried out in any order and more than once: each only makes misses.
        wanted = [_DECODER.decode(record.payload) for record in records]
        await asyncio.gather(*(self._carry_out(one) for one in dict.fromkeys(wanted)))

    async def _carry_out(self, one: Invalidation) -> None:
        store = self._store_of(one.workspace)
        if one.keys:
            await store.delete(one.region, one.keys)
        elif one.tag:
            await store.flush_tag(one.tag)
        else:
            await store.flush(one.region)


def _order(workspace: str) -> str:
    return f"cache:{workspace}"
