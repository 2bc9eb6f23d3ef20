"""Removing a workspace's keys, and what names it elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.caching.backplane import Change
from redis_core.commands import scan_iter
from redis_core.errors import CodecError, TransferUnverified
from redis_core.keys import CACHE_BUS, WorkspaceKeys, import_key
from redis_core.measuring.batch import decode_batch, encode_batch
from redis_core.queueing.engine import QueueEngine
from redis_core.transfer.batches import send
from redis_core.transfer.jobs import erase_jobs, shards_of, unfinished_jobs
from redis_core.transfer.outcome import Erased, Progress
from redis_core.transfer.selection import bytes_of, keys_of

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["erase_announcements", "erase_figures", "erase_workspace", "unlink_all"]

_BATCH: Final = 250
_ROUNDS: Final = 20
"""Walks over the key space after which somebody else must be writing."""
_CHANGE: Final = msgspec.msgpack.Decoder(Change)


async def erase_workspace(client: Client, workspace: str, progress: Progress | None) -> Erased:
    """Remove everything of a workspace, until a walk finds nothing; see `Portability.erase`."""
    handle = client.workspace(workspace)
    engine = client.service(QueueEngine)
    for shard in await shards_of(client):
        queue = shard.partition("#")[0]
        if engine.shard(queue, workspace).name == shard:
            # So that no further job of it begins.
            await handle.queue.pause(queue)
    await handle.cache.flush()
    keys = names = 0
    told = None if progress is None else lambda done: progress("keys", keys + done, 0)
    found = 0
    for _ in range(_ROUNDS):
        names += await erase_jobs(client, workspace)
        found = await unlink_all(client, keys_of(client, workspace), told)
        keys += found
        if not found and not await unfinished_jobs(client, workspace):
            break
    else:
        raise TransferUnverified(
            f"{found} keys of {workspace!r} came back after {_ROUNDS} walks: somebody writes for it; stop that and run it again"
        )
    names += await erase_announcements(client, workspace) + await erase_figures(client, workspace)
    # Imports that were cut off: another one begins anew.
    names += await unlink_all(client, _names(client, import_key(f"{workspace}.") + "*"))
    return Erased(workspace, keys, names, found)


async def _names(client: Client, pattern: str) -> AsyncIterator[str]:
    async for key in scan_iter(client, pattern, count=1_000):
        yield key.decode()


async def unlink_all(
    client: Client, keys: AsyncIterator[str], told: Callable[[int], None] | None = None
) -> int:
    """Remove keys in bounded batches, their memory freed in the background; how many there were.

    Budget: for each 250 keys 1 trip, and UNLINK for each hash tag among them, because a cluster takes keys of one slot at a time.

    Args:
        client: the store.
        keys: which.
        told: called with how many are gone so far.
    """
    gone = waiting = 0
    by_tag: dict[str, list[bytes]] = {}
    async for key in keys:
        _, brace, rest = key.partition("{")
        by_tag.setdefault(rest.partition("}")[0] if brace else key, []).append(bytes_of(key))
        waiting += 1
        if waiting >= _BATCH:
            gone += sum(await send(client, [("UNLINK", *names) for names in by_tag.values()]))
            by_tag, waiting = {}, 0
            if told is not None:
                told(gone)
    last: list[int] = await send(client, [("UNLINK", *names) for names in by_tag.values()])
    return gone + sum(last)


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

    Budget: a SCAN of the key space, HGETALL for each hour and day, HSET for each figure that names it. Figures that a process of this
    minute writes again may name it again; all are gone after 31 days.
    """
    gone, limit = 0, WorkspaceKeys(workspace).prefix
    async for key in scan_iter(client, "sys:metrics:*", count=1_000):
        for field, stored in (await client.hgetall(key)).items():
            if workspace.encode() not in stored:
                continue
            try:
                batch = decode_batch(stored)
            except CodecError:
                # Another version's, which can only be removed as a whole.
                gone += await client.hdel(key, field)
                continue
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
