"""A workspace's part of the queues. A shard's keys hold many tenants' jobs, so jobs are carried as jobs, and taken in as new ones are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from redis_core.commands import scan_iter
from redis_core.errors import CodecError
from redis_core.keys import queue_key
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.job import unpack
from redis_core.queueing.shard import EnqueueRow, Shard, queue_script
from redis_core.transfer.batches import send
from redis_core.transfer.records import Job, JobLimits
from redis_core.transfer.selection import queue_key_parts, text_of

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.transport.base import Command

__all__ = ["enqueue_jobs", "erase_jobs", "read_jobs", "set_limits", "shards_of", "unfinished_jobs"]

_PAGE: Final = 200
_HASHES: Final = ("jobs", "blocked", "after", "tries", "unique")
"""Hashes of a shard whose fields begin with the workspace's id."""
_NO_LIMIT: Final = 10**9
"""Jobs that were accepted once are not refused for their number."""


async def shards_of(client: Client) -> dict[str, list[str]]:
    """All shards by name, each with its keys of families that are named by worker or task. Budget: a SCAN of the key space."""
    shards: dict[str, list[str]] = {}
    async for key in scan_iter(client, "queue-*:{*", count=1_000):
        name = text_of(key)
        parts = queue_key_parts(name)
        if parts is not None:
            keys = shards.setdefault(parts[1], [])
            if parts[0] in {"queue-run", "queue-held"}:
                keys.append(name)
    return shards


async def read_jobs(client: Client, workspace: str | None) -> AsyncIterator[Job | JobLimits]:
    """Unfinished jobs, those others wait for first, and the workspaces' limits.

    Budget: a SCAN of the key space; an HSCAN for each 200 jobs and 3 commands a job. Memory: the jobs that wait for others.

    Args:
        client: the store.
        workspace: whose; None for all.
    """
    for shard in await shards_of(client):
        queue = shard.partition("#")[0]
        parents = await _parents(client, shard, workspace)
        running = await _running(client, shard, workspace)
        blocked: dict[str, Job] = {}
        async for page in _scan(client, queue_key("queue-jobs", shard), workspace):
            fields = list(page)
            later, tries = queue_key("queue-later", shard), queue_key("queue-tries", shard)
            replies = await send(
                client, [c for field in fields for c in (("ZSCORE", later, field), ("HGET", tries, field))]
            )
            for place, field in enumerate(fields):
                if not page[field]:
                    # Cancelled; its name waits to be taken from a list.
                    continue
                due, tried = replies[2 * place], replies[2 * place + 1]
                name = field.decode()
                owner, _, id_ = name.partition(":")
                after = tuple(parents.get(name, ()))
                job = Job(
                    queue, owner, id_, page[field], 0 if due is None else int(float(due)),
                    running.get(field) or tried or b"", after,
                )  # fmt: skip
                if after:
                    blocked[name] = job
                else:
                    yield job
        for job in _in_order(blocked):
            yield job
        async for page in _scan(client, queue_key("queue-limits", shard), workspace, whole=True):
            for field, value in page.items():
                yield JobLimits(queue, field.decode(), value)


async def enqueue_jobs(client: Client, jobs: Iterable[Job]) -> tuple[int, int]:
    """Take jobs in; how many were, and how many could not be because another job holds their unique key, or one before them failed.

    A job that is there, or is over, is left as it is. Budget: 1 script for each 100 jobs of a workspace and queue, 1 command for one that ran.
    """
    engine = client.service(QueueEngine)
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.queue, job.workspace), []).append(job)
    taken = refused = 0
    now = int((await client.time()) * 1000)
    for (queue, workspace), group in groups.items():
        shard = engine.shard(queue, workspace)
        for begin in range(0, len(group), 100):
            part = group[begin : begin + 100]
            done, why = await shard.enqueue(
                workspace, [_row(job, now) for job in part], most=_NO_LIMIT, check_results=True
            )
            taken += done
            refused += sum(reason != "known" for reason in why.values())
            tries = queue_key("queue-tries", shard.name)
            ran: list[Command] = [
                ("HSETNX", tries, f"{workspace}:{job.id}", job.tries)
                for place, job in enumerate(part)
                if job.tries and place not in why
            ]
            await send(client, ran)
    return taken, refused


async def set_limits(client: Client, limits: JobLimits) -> None:
    """Set a workspace's weight, limit and pause in a queue. Budget: 2 scripts."""
    shard = client.service(QueueEngine).shard(limits.queue, limits.workspace)
    weight, most, paused = limits.value.decode().split(",")
    await shard.limit(
        "workspace", limits.workspace, "limit", int(most) if most else None, float(weight) if weight else None
    )
    if paused == "1":
        await shard.limit("workspace", limits.workspace, "pause")


async def unfinished_jobs(client: Client, workspace: str) -> int:
    """How many unfinished jobs a workspace has in all queues. Budget: a SCAN of the key space, HGET for each shard."""
    depths: list[Command] = [
        ("HGET", queue_key("queue-depth", shard), workspace) for shard in await shards_of(client)
    ]
    return sum(int(count or 0) for count in await send(client, depths))


async def erase_jobs(client: Client, workspace: str) -> int:
    """Remove what the queues hold of a workspace outside its own keys; how many names there were.

    Budget: a SCAN of the key space; of each shard its hashes, and 1 script for each 200 jobs.
    """
    gone = 0
    for name, keys in (await shards_of(client)).items():
        shard = Shard(client, name)
        jobs = queue_key("queue-jobs", name)
        async for page in _scan(client, jobs, workspace):
            ids = [field.decode().partition(":")[2] for field in page]
            gone += cast("int", await client.run(queue_script("erase"), (jobs,), ("-", workspace, *ids)))
        # What has no job any more: of a transfer or an outage that was cut short.
        for key in [
            *(queue_key(f"queue-{kind}", name) for kind in _HASHES[1:]),
            *(key for key in keys if key.startswith("queue-run:")),
        ]:
            async for page in _scan(client, key, workspace):
                gone += await client.execute("HDEL", key, *page)  # type: ignore[operator]
        gone += await _erase_ordered(client, shard, keys, workspace)
        gone += cast("int", await client.run(queue_script("erase"), (jobs,), ("-", workspace)))
    return gone


async def _erase_ordered(client: Client, shard: Shard, keys: list[str], workspace: str) -> int:
    """What names the workspace's jobs in the sorted set of later ones and in the lists of held ones."""
    gone = 0
    later = queue_key("queue-later", shard.name)
    cursor: Any = b"0"
    while True:
        cursor, flat = cast(
            "list[Any]", await client.execute("ZSCAN", later, cursor, "MATCH", f"{workspace}:*", "COUNT", _PAGE)
        )  # fmt: skip
        if flat:
            gone += await client.zrem(later, *flat[::2])
        if cursor == b"0":
            break
    mine = f"{workspace}:".encode()
    for key in keys:
        if key.startswith("queue-held:"):
            at = 0
            while page := await client.lrange(key, at, at + _PAGE - 1):
                found = {each for each in page if each.startswith(mine)}
                for field in found:
                    gone += await client.lrem(key, 0, field)
                at += len(page) - sum(each in found for each in page)
    return gone


async def _scan(
    client: Client, key: str, workspace: str | None, *, whole: bool = False
) -> AsyncIterator[dict[bytes, bytes]]:
    """A hash's fields that are the workspace's, page by page. `whole`: a field is an id, not the begin of one."""
    cursor: Any = b"0"
    pattern = "*" if workspace is None else workspace if whole else f"{workspace}:*"
    while True:
        cursor, flat = cast(
            "list[Any]", await client.execute("HSCAN", key, cursor, "MATCH", pattern, "COUNT", _PAGE)
        )
        for begin in range(0, len(flat), 2 * _PAGE):
            part = flat[begin : begin + 2 * _PAGE]
            yield dict(zip(part[::2], part[1::2], strict=True))
        if cursor == b"0":
            return


async def _parents(client: Client, shard: str, workspace: str | None) -> dict[str, list[str]]:
    """For each job that waits for others to succeed, their ids."""
    parents: dict[str, list[str]] = {}
    async for page in _scan(client, queue_key("queue-after", shard), workspace):
        for field, value in page.items():
            owner, _, id_ = field.decode().partition(":")
            for entry in value.decode().splitlines():
                if entry.startswith("-"):
                    parents.setdefault(f"{owner}:{entry[1:]}", []).append(id_)
    return parents


async def _running(client: Client, shard: str, workspace: str | None) -> dict[bytes, bytes]:
    """Runs, failures and deaths of jobs that run."""
    running: dict[bytes, bytes] = {}
    for worker in await client.zrange(queue_key("queue-leases", shard), 0, -1):
        async for page in _scan(client, queue_key("queue-run", shard, worker.decode()), workspace):
            running |= {field: b",".join(value.split(b",", 3)[:3]) for field, value in page.items()}
    return running


def _in_order(blocked: dict[str, Job]) -> list[Job]:
    """Jobs after those that they wait for."""
    ordered: list[Job] = []
    left = dict(blocked)
    while left:
        ready = [
            name
            for name, job in left.items()
            if not any(f"{job.workspace}:{parent}" in left for parent in job.parents)
        ]
        # A circle cannot be enqueued, so there is none; were there one, it would not be waited for.
        ordered.extend(left.pop(name) for name in ready or list(left))
    return ordered


def _row(job: Job, now: int) -> EnqueueRow:
    try:
        header, _ = unpack(job.payload)
    except CodecError as error:
        raise CodecError(f"job {job.id} of {job.queue}: {error}") from error
    parents = "".join(f"{parent}\n" for parent in job.parents)
    delay = max(job.due - now, 1) if job.due else 0
    return EnqueueRow(job.id, header.level, delay, header.unique.decode(), parents, job.payload)
