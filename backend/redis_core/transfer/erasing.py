"""Removing a workspace's keys, and what names it elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.caching.backplane import Change
from redis_core.commands import scan_iter
from redis_core.keys import CACHE_BUS, WorkspaceKeys
from redis_core.measuring.batch import decode_batch, encode_batch
from redis_core.transfer.selection import keys_of

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["KEPT_FAMILIES", "erase_announcements", "erase_figures", "unlink_all", "unlink_workspace"]

_BATCH: Final = 250
KEPT_FAMILIES: Final = frozenset(
    "session-epoch bus presence cache-lease lock lock-count lock-line lock-waiters".split()
)
"""Families that a replacement leaves: numbers that may not go back, and what belongs to processes that run."""
_CHANGE: Final = msgspec.msgpack.Decoder(Change)


async def unlink_workspace(client: Client, workspace: str, told: Callable[[int], None] | None = None) -> int:
    """Remove every key of a workspace; how many a walk over the key space found.

    Budget: a SCAN of the key space, UNLINK for each 250 keys.
    """
    return await unlink_all(client, keys_of(client, workspace), told)


async def unlink_all(
    client: Client, keys: AsyncIterator[str], told: Callable[[int], None] | None = None
) -> int:
    """Remove keys in bounded batches, their memory freed in the background; how many there were.

    Args:
        client: the store.
        keys: which.
        told: called with how many are gone so far.
    """
    gone = 0
    batch: list[str] = []
    async for key in keys:
        batch.append(key)
        if len(batch) >= _BATCH:
            gone += await client.unlink(*batch)
            batch.clear()
            if told is not None:
                told(gone)
    if batch:
        gone += await client.unlink(*batch)
    return gone


async def erase_announcements(client: Client, workspace: str) -> int:
    """Remove what names the workspace's values from the stream by which processes tell one another what they changed.

    What only names the workspace stays: the flush that stands for all the others, and may not have been read by all yet. The
    stream is cut to about 10,000 changes. Budget: XRANGE for each 500 changes, XDEL for each of them that had some.
    """
    if await client.type(CACHE_BUS) != "stream":
        return 0
    gone, start = 0, "-"
    while entries := await client.xrange(CACHE_BUS, start, count=500):
        names = [
            entry.decode() for entry, fields in entries if _names_values(fields.get(b"m", b""), workspace)
        ]
        if names:
            gone += await client.xdel(CACHE_BUS, *names)
        start = f"({entries[-1][0].decode()}"
    return gone


def _names_values(stored: bytes, workspace: str) -> bool:
    try:
        change = _CHANGE.decode(stored)
    except msgspec.MsgspecError:
        # Another version's, which nobody of this one reads either.
        return False
    return change.workspace == workspace and bool(change.region or change.keys or change.tag)


async def erase_figures(client: Client, workspace: str) -> int:
    """Remove the workspace from what was measured: its usage, the limits that refused it, its slow calls.

    Budget: a SCAN of the key space, an HSCAN for each 50 figures, HSET for each that names it. Figures that a process of this
    minute writes again may name it again; all are gone after 31 days.
    """
    gone, limit = 0, WorkspaceKeys(workspace).prefix
    async for key in scan_iter(client, "sys:metrics:*", count=1_000):
        for field, stored in (await client.hgetall(key)).items():
            if workspace.encode() not in stored:
                continue
            batch = decode_batch(stored)
            slow = [call for call in batch.slow if call.workspace != workspace]
            refused = {name: times for name, times in batch.refused.items() if limit not in name}
            usage = {name: each for name, each in batch.workspaces.items() if name != workspace}
            if (len(slow), len(refused), len(usage)) != (
                len(batch.slow),
                len(batch.refused),
                len(batch.workspaces),
            ):
                cleaned = msgspec.structs.replace(batch, slow=slow, refused=refused, workspaces=usage)
                await client.hset(key, {field.decode(): encode_batch(cleaned)})
                gone += 1
    return gone
