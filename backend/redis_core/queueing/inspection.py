"""Queues and their jobs as an operator looks at them. Only reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from redis_core.commands import scan_iter
from redis_core.errors import CodecError, QueueError
from redis_core.keys import check_part, check_workspace_id, queue_key
from redis_core.measuring.documents import JobFigures, JobPage, QueueFigures, QueueList
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.job import Failure, unpack
from redis_core.queueing.task import check_queue

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.queueing.shard import Shard

__all__ = ["QueueInspection"]

_MOST_WORKSPACES: Final = 20
_MOST_STEPS: Final = 20
"""Steps of HSCAN that one page takes at most."""


class QueueInspection:
    """Looks at queues.

    Args:
        client: the store.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._store = client.primary
        self._engine = client.service(QueueEngine)

    async def queues(self) -> QueueList:
        """All queues that have unfinished jobs, dead letters, limits or workers.

        Budget: two SCANs of the key space, 6 commands a shard, and one for each workspace that has dead letters.
        """
        names: set[str] = set(self._client.settings.queue_shards)
        async for key in scan_iter(self._store, "queue-[ij]*:{*"):
            names.add(_shard_of(key).partition("#")[0])
        buried: dict[str, set[str]] = {}
        async for key in scan_iter(self._store, "job-dead:{*"):
            shard = _shard_of(key)
            names.add(shard.partition("#")[0])
            buried.setdefault(shard, set()).add(key.decode().rpartition("}:")[2])
        return QueueList([await self._queue(name, buried) for name in sorted(names)])

    async def queue(self, queue: str, workspace: str | None = None) -> QueueFigures:
        """One queue. Budget: 1 trip and 6 commands a shard; one more for each workspace whose dead are counted, at most 20.

        Args:
            queue: whose.
            workspace: whose dead letters are counted, besides those that have jobs.

        Raises:
            InvalidJob: there can be no such queue.
        """
        asked = (
            {} if workspace is None else {self._engine.shard(check_queue(queue), workspace).name: {workspace}}
        )
        return await self._queue(queue, asked)

    async def _queue(self, queue: str, buried: Mapping[str, set[str]]) -> QueueFigures:
        """One queue; `buried` are workspaces that may have dead letters, by shard, besides those that have jobs."""
        unfinished = running = delayed = workers = dead = 0
        paused = False
        depths: dict[str, int] = {}
        for shard in self._engine.shards(check_queue(queue)):
            batch = self._store.pipeline()
            depth = batch.hgetall(queue_key("queue-depth", shard.name))
            runs = batch.hget(queue_key("queue-running", shard.name), "*")
            later = batch.zcard(queue_key("queue-later", shard.name))
            leases = batch.zcard(shard.leases)
            pause = batch.hget(queue_key("queue-info", shard.name), "p")
            await batch.send()
            of_shard = {name.decode(): int(count) for name, count in (await depth).items()}
            for name, count in of_shard.items():
                depths[name] = depths.get(name, 0) + count
            unfinished += sum(of_shard.values())
            running += int(await runs or 0)
            delayed += await later
            workers += await leases
            paused = paused or (await pause) == b"1"
            with_dead = buried.get(shard.name, set())
            dead += await self._dead(shard, {*_first(of_shard), *with_dead})
            for name in with_dead:
                depths.setdefault(name, 0)
        first = _first(depths)
        return QueueFigures(
            queue=queue,
            unfinished=unfinished,
            running=running,
            waiting=max(unfinished - running, 0),
            delayed=delayed,
            workers=workers,
            dead=dead,
            paused=paused,
            workspaces={name: depths[name] for name in first},
        )

    async def paused(self, queue: str, workspace: str | None = None) -> bool:
        """Whether a queue is paused, or one workspace in it. Budget: 1 command."""
        if workspace is None:
            shard = self._engine.shards(check_queue(queue))[0]
            return await self._store.hget(queue_key("queue-info", shard.name), "p") == b"1"
        shard = self._engine.shard(check_queue(queue), workspace)
        limits = await self._store.hget(queue_key("queue-limits", shard.name), check_workspace_id(workspace))
        return limits is not None and limits.endswith(b",1")

    async def _dead(self, shard: Shard, names: Iterable[str]) -> int:
        batch = self._store.pipeline()
        counts = [batch.zcard(queue_key("job-dead", shard.name, name)) for name in names]
        await batch.send()
        return sum([await count for count in counts])

    async def jobs(
        self,
        queue: str,
        workspace: str,
        *,
        state: str | None = None,
        task: str | None = None,
        most: int = 100,
        cursor: str = "0",
    ) -> JobPage:
        """A workspace's unfinished jobs, or its dead letters.

        Budget: HSCAN for each 500 jobs of the queue that are passed over, and for each that found some 2 trips; dead: as `Queue.dead`.

        Args:
            queue: whose.
            workspace: whose.
            state: only these: `waiting`, `delayed`, `blocked`, `running` or `dead`; None for all that are unfinished.
            task: only of this task.
            most: about how many; a step of the scan is not cut.
            cursor: where to go on.
        """
        check_workspace_id(workspace)
        shard = self._engine.shard(check_queue(queue), workspace)
        if state == "dead":
            return await self._dead_page(queue, workspace, task, most)
        found: list[JobFigures] = []
        for _ in range(_MOST_STEPS):
            reply = await self._store.execute(
                "HSCAN", queue_key("queue-jobs", shard.name), cursor, "MATCH", f"{workspace}:*", "COUNT", 500
            )
            after, flat = cast("tuple[bytes, list[bytes]]", reply)
            cursor = after.decode()
            rows = [(field, payload) for field, payload in zip(flat[::2], flat[1::2], strict=True) if payload]
            found += [
                job
                for job in await self._described(queue, workspace, shard, rows)
                if state in {None, job.state} and task in {None, job.task}
            ]
            if cursor == "0" or len(found) >= most:
                break
        return JobPage(found, None if cursor == "0" else cursor)

    async def _described(
        self, queue: str, workspace: str, shard: Shard, rows: Sequence[tuple[bytes, bytes]]
    ) -> list[JobFigures]:
        if not rows:
            return []
        fields = [field for field, _ in rows]
        workers = cast("list[bytes]", await self._store.execute("ZRANGE", shard.leases, 0, -1))
        batch = self._store.pipeline()
        later = batch.execute("ZMSCORE", queue_key("queue-later", shard.name), *fields)
        blocked = batch.hmget(queue_key("queue-blocked", shard.name), *fields)
        running = [batch.hkeys(queue_key("queue-run", shard.name, worker.decode())) for worker in workers]
        await batch.send()
        runs = {field for each in running for field in await each}
        due = cast("list[bytes | None]", await later)
        found: list[JobFigures] = []
        for (field, payload), at, waits in zip(rows, due, await blocked, strict=True):
            state = (
                "delayed" if at is not None
                else "blocked" if waits is not None
                else "running" if field in runs
                else "waiting"
            )  # fmt: skip
            task, enqueued = _told(payload)
            found.append(
                JobFigures(
                    id=field.decode().partition(":")[2],
                    workspace=workspace,
                    queue=queue,
                    task=task,
                    state=state,
                    enqueued=enqueued,
                    due=None if at is None else _time(float(at) / 1000),
                )
            )
        return found

    async def _dead_page(self, queue: str, workspace: str, task: str | None, most: int) -> JobPage:
        own = self._client.workspace(workspace).queue
        return JobPage(
            [
                JobFigures(
                    id=job.id,
                    workspace=workspace,
                    queue=queue,
                    task=job.task,
                    state="dead",
                    ended=_time(job.died),
                    errors=_shown(job.errors),
                )
                for job in await own.dead(queue, task=task, most=most)
            ],
            None,
        )

    async def job(self, queue: str, workspace: str, id: str) -> JobFigures:
        """One job. Budget: 2 trips, up to 10 commands and one for each worker."""
        check_workspace_id(workspace)
        shard = self._engine.shard(check_queue(queue), workspace)
        handle = self._client.workspace(workspace).queue.job(queue, check_part(id))
        status = await handle.status()
        batch = self._store.pipeline()
        payload = batch.hget(queue_key("queue-jobs", shard.name), handle.field)
        buried = batch.hmget(queue_key("job", shard.name, workspace, id), "p", "d")
        await batch.send()
        kept, died = await buried
        stored = (await payload) or kept
        task, enqueued = _told(stored) if stored else (None, None)
        return JobFigures(
            id=id,
            workspace=workspace,
            queue=queue,
            task=task,
            state="dead" if died is not None else status.state,
            enqueued=enqueued,
            due=None if status.due is None else _time(status.due),
            ended=None if died is None else _time(int(died) / 1000),
            progress=status.progress,
            message=status.message or None,
            errors=_shown(status.errors),
        )


def _shard_of(key: bytes) -> str:
    return key.decode().partition("{")[2].partition("}")[0]


def _first(depths: Mapping[str, int]) -> list[str]:
    """The workspaces that have most."""
    return sorted(depths, key=lambda name: -depths[name])[:_MOST_WORKSPACES]


def _told(payload: bytes) -> tuple[str | None, str | None]:
    try:
        header, envelope = unpack(payload)
    except (CodecError, QueueError):
        return None, None
    return header.task, _time(envelope.at / 1000)


def _shown(errors: Sequence[Failure]) -> list[str]:
    return [f"{error.type}: {error.message}" for error in errors]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
