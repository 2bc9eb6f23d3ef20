"""What one process has of all queues: jobs on their way in, and who waits for results."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import JobUnknown, JournalError, StoreError
from redis_core.keys import queue_key
from redis_core.log import get_logger
from redis_core.queueing.shard import EnqueueRow, Refusal, Shard
from redis_core.queueing.spool import Spool

if TYPE_CHECKING:
    from redis_core.queueing.task import Task

    AnyTask = Task[..., Any]
    from redis_core.client import Client
    from redis_core.transport.base import Subscription

__all__ = ["QueueEngine"]

_AT_ONCE: Final = 500
"""Jobs one script takes in: some milliseconds of the store's time."""
_LISTEN_ON: Final = 10.0
"""Seconds after the last result that others are listened for."""
_LOOK_AGAIN: Final = 30.0
"""Seconds after which who waits for a result looks again, should the message of its end have been lost."""
_LOG: Final = get_logger("redis_core.queue")


_MOST_BYTES: Final = 512 * 1024
"""Bytes of jobs one script takes in, beside its first: Upstash takes requests of 1 MB."""


def _parts(rows: Sequence[EnqueueRow]) -> Iterator[tuple[int, Sequence[EnqueueRow]]]:
    """What one script takes in at a time, each part with its place."""
    begin = size = 0
    for place, row in enumerate(rows):
        size += len(row.payload)
        if place > begin and (place - begin == _AT_ONCE or size > _MOST_BYTES):
            yield begin, rows[begin:place]
            begin, size = place, len(row.payload)
    if begin < len(rows):
        yield begin, rows[begin:]


class QueueEngine:
    """One a client; see `Client.service`.

    Args:
        client: the store.
        clock: the time; None takes the store's for what is stored, so that all processes agree.
    """

    def __init__(self, client: Client, *, clock: Clock | None = None) -> None:
        self.client = client
        self.store = client.primary
        """The store alone: what memory would answer for it is no promise of a queue's."""
        self.clock: Clock = clock or SYSTEM_CLOCK
        self._stored_clock = clock
        self._shards: dict[str, Shard] = {}
        self._arriving: dict[
            tuple[Shard, str, bool], list[tuple[EnqueueRow, int, asyncio.Future[Refusal | None]]]
        ] = {}
        self.spool = Spool(client, self.clock, self._named)
        self._watches: dict[Shard, _Watch] = {}
        self.inline: Callable[[Sequence[AnyTask]], Awaitable[None]] | None = None
        """Called with the tasks of jobs that were taken in; tests run them so, see `redis_core.testing.inline`."""
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- shards ---

    def shards(self, queue: str) -> list[Shard]:
        """All of a queue."""
        return [
            self._shard(queue, number) for number in range(self.client.settings.queue_shards.get(queue, 1))
        ]

    def shard(self, queue: str, workspace: str) -> Shard:
        """The one that has a workspace's jobs."""
        count = self.client.settings.queue_shards.get(queue, 1) if self.client.settings.queue_shards else 1
        return self._shard(queue, zlib.crc32(workspace.encode()) % count if count > 1 else 0)

    def _shard(self, queue: str, number: int) -> Shard:
        return self._named(f"{queue}#{number}" if number else queue)

    def _named(self, name: str) -> Shard:
        shard = self._shards.get(name)
        if shard is None:
            shard = self._shards[name] = Shard(self.store, name, self._stored_clock)
        return shard

    # --- jobs on their way in ---

    def enqueue(
        self, shard: Shard, workspace: str, row: EnqueueRow, *, check_results: bool, keep: int
    ) -> asyncio.Future[Refusal | None]:
        """Take a job in, together with all others of the workspace that this turn of the loop brings.

        A caller who is cancelled does not call the job back.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Refusal | None] = loop.create_future()
        place = shard, workspace, check_results
        arriving = self._arriving.get(place)
        if arriving is None:
            arriving = self._arriving[place] = []
            loop.call_soon(self._depart, place)
        arriving.append((row, keep, future))
        if len(arriving) >= _AT_ONCE:
            self._depart(place)
        return future

    def _depart(self, place: tuple[Shard, str, bool]) -> None:
        arrived = self._arriving.pop(place, None)
        if arrived:
            self._spawn(self._send(place, arrived))

    async def _send(
        self,
        place: tuple[Shard, str, bool],
        arrived: list[tuple[EnqueueRow, int, asyncio.Future[Refusal | None]]],
    ) -> None:
        shard, workspace, check_results = place
        try:
            refused = await self.enqueue_rows(
                shard,
                workspace,
                [row for row, _, _ in arrived],
                check_results=check_results,
                keep=min(keep for _, keep, _ in arrived),
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to who waits
            for _, _, future in arrived:
                if not future.done():
                    future.set_exception(error)
            return
        for number, (_, _, future) in enumerate(arrived):
            why = refused.get(number)
            if future.done():
                continue
            if isinstance(why, JournalError):
                future.set_exception(why)
            else:
                future.set_result(why)

    async def enqueue_rows(
        self, shard: Shard, workspace: str, rows: Sequence[EnqueueRow], *, check_results: bool, keep: int
    ) -> dict[int, Refusal | JournalError]:
        """Take many jobs in; why those that were not taken were not, by place; see `Spool.take_in`. Budget: 1 trip for 500."""
        self.tell_depth(shard.name.partition("#")[0])
        refused: dict[int, Refusal | JournalError] = {}
        for begin, part in _parts(rows):
            why = await self.spool.take_in(shard, workspace, part, check_results=check_results, keep=keep)
            refused.update((begin + place, reason) for place, reason in why.items())
        return refused

    def tell_depth(self, queue: str) -> None:
        """Have the queue's depth among the metrics: without workers, those who enqueue must tell it. Budget: see `Recorder`."""
        self.client.meter.lengths.setdefault(
            f"queue_depth|{queue}", [queue_key("queue-jobs", shard.name) for shard in self.shards(queue)]
        )

    # --- who waits for results ---

    async def result(self, shard: Shard, field: str) -> bytes:
        """How a job ended, waited for without polling.

        Raises:
            JobUnknown: there is no such job, or nothing is kept of how it ended.
        """
        await self.spool.arrival(shard.name, field)
        watch = self._watches.get(shard)
        if watch is None:
            watch = self._watches[shard] = _Watch(shard)
            watch.listening = self._spawn(watch.listen(self.store))
        watch.waiting += 1
        try:
            await watch.tried.wait()
            while True:
                ended = watch.end_of(field)
                # Asked only now: what ended before was not told to us.
                watched = await shard.watch(field)
                if watched.result is not None:
                    return watched.result
                if not watched.known:
                    raise JobUnknown(
                        f"job {field.partition(':')[2]} of queue {shard.name} is not known, or kept no result"
                    )
                await asyncio.wait({ended}, timeout=_LOOK_AGAIN)
        finally:
            watch.forget(field)
            watch.waiting -= 1
            if not watch.waiting:
                asyncio.get_running_loop().call_later(_LISTEN_ON, self._retire, shard, watch)

    def _retire(self, shard: Shard, watch: _Watch) -> None:
        """Listen no more if nobody has waited since: a link that is only kept open costs a command now and then."""
        if not watch.waiting and self._watches.get(shard) is watch:
            del self._watches[shard]
            if watch.listening is not None:
                watch.listening.cancel()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End what listens; who waits for a job to be taken in is told."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watches.clear()


class _Watch:
    """Those of this process who wait for the end of a job of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._ends: dict[bytes, asyncio.Future[None]] = {}
        self.waiting = 0
        self.listening: asyncio.Task[None] | None = None
        self.tried = asyncio.Event()
        """Set when it listens, or could not: who waits then looks now and then."""

    def end_of(self, field: str) -> asyncio.Future[None]:
        """Done when the job is over, or when that may have been missed."""
        key = field.encode()
        end = self._ends.get(key)
        if end is None or end.done():
            end = self._ends[key] = asyncio.get_running_loop().create_future()
        return end

    def forget(self, field: str) -> None:
        """Who waited does no more; others who wait for the same are woken, and look again."""
        self._wake([field.encode()])

    async def listen(self, client: Client) -> None:
        """Follow the ends of jobs for as long as the client lives."""
        while True:
            try:
                subscription: Subscription
                async with await client.subscribe(self._shard.done) as subscription:
                    self.tried.set()
                    self._wake(list(self._ends))
                    async for message in subscription:
                        self._wake(list(self._ends) if message.gap else [message.payload])
            except StoreError as error:
                _LOG.debug("cannot follow the ends of jobs", queue=self._shard.name, error=str(error))
            self.tried.set()
            await asyncio.sleep(1)

    def _wake(self, fields: list[bytes]) -> None:
        for field in fields:
            end = self._ends.pop(field, None)
            if end is not None and not end.done():
                end.set_result(None)
