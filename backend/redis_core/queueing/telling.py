"""What a job tells browsers: the topic `job:<id>`, its events and its text."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from redis_core.errors import Outcome, StoreError
from redis_core.log import get_logger
from redis_core.queueing.job import Failure, packed_value
from redis_core.queueing.shard import Acknowledgement

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.realtime.writer import TextWriter

__all__ = ["JobTopic", "LastWords"]

_MOST: Final = 200
"""Events that wait while the store is away; the oldest go."""
_STATES: Final = {"d": "done", "x": "failed", "c": "cancelled"}
_LOG: Final = get_logger("redis_core.queue.job")


class JobTopic:
    """The topic of one run of a job. While the store is away what is told waits; it never costs the job its work.

    Args:
        client: the store.
        workspace: the job's.
        id: the job's.
        run: the job's; from the second on its text begins anew.
    """

    def __init__(self, client: Client, workspace: str, id: str, run: int) -> None:
        handle = client.workspace(workspace)
        self._events = handle.topic(f"job:{id}")
        self._text = handle.text(f"job:{id}")
        self._run = run
        self._writer: TextWriter | None = None
        self._waiting: list[dict[str, Any]] = []

    async def write(self, token: str) -> None:
        """Add to the text. Budget: a script of 6 commands each 40 ms in which something was added."""
        if self._writer is None:
            self._writer = self._text.writer(anew=self._run > 1)
        try:
            await self._writer.write(token)
        except StoreError as error:
            _LOG.debug("a piece of a job's text is not told", topic=self._text.name, error=str(error))

    async def tell(self, events: Sequence[dict[str, Any]]) -> None:
        """Publish events; of several about progress only the last. Budget: a script of 7 commands for each."""
        for event in events:
            if self._waiting and event["kind"] == self._waiting[-1]["kind"] == "progress":
                self._waiting.pop()
            self._waiting.append(event)
        del self._waiting[:-_MOST]
        while self._waiting:
            event = self._waiting.pop(0)
            try:
                await self._events.publish(event)
            except StoreError as error:
                _LOG.debug("what a job tells waits", topic=self._events.name, error=str(error))
                if error.outcome is Outcome.NOT_SENT:
                    self._waiting.insert(0, event)
                return

    async def finish(self, ended: Acknowledgement | None) -> None:
        """The run is over. Budget: 2 scripts of 7 commands if the job is too, 1 if it has made no text.

        Args:
            ended: what the store has taken for the job's end; None if the job goes on in another run.
        """
        if self._writer is not None:
            try:
                await self._writer.aclose(end=ended is not None)
            except StoreError as error:
                _LOG.debug("a job's text is not ended", topic=self._text.name, error=str(error))
        if ended is not None:
            await self.tell([_end(ended)])

    def abandon(self) -> None:
        """Another worker has the job: what waits here is not told."""
        self._waiting.clear()
        if self._writer is not None:
            self._writer.abandon()


class LastWords:
    """Tells the ends of jobs once the store has taken them, beside the worker's turns."""

    def __init__(self) -> None:
        self._topics: dict[tuple[bytes, int], JobTopic] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def expect(self, field: bytes, run: int, topic: JobTopic) -> None:
        """This run's acknowledgement is under way."""
        self._topics[field, run] = topic

    def settled(self, acknowledged: Sequence[Acknowledgement], refused: Sequence[bytes]) -> None:
        """The store has answered."""
        if not self._topics:
            return
        for each in acknowledged:
            topic = self._topics.pop((each.field, each.run), None)
            if topic is None:
                continue
            if each.field in refused:
                topic.abandon()
                continue
            task = asyncio.get_running_loop().create_task(
                topic.finish(each if each.kind in _STATES else None), name="queue-last-words"
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait until all is told."""
        for topic in self._topics.values():
            topic.abandon()
        self._topics.clear()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


def _end(ended: Acknowledgement) -> dict[str, Any]:
    event: dict[str, Any] = {"kind": "end", "status": _STATES[ended.kind]}
    stored = ended.text.encode() if isinstance(ended.text, str) else ended.text
    if ended.kind == "d" and stored:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            # What JSON cannot carry is to be had by `result()` alone.
            event["result"] = msgspec.Raw(msgspec.json.encode(msgspec.msgpack.decode(packed_value(stored))))
    elif ended.kind == "x":
        # Only what it is called: messages of exceptions are written for operators, and may tell what no browser is to know.
        event["error"] = msgspec.json.decode(stored, type=Failure).type
    return event
