"""What a process hears of topics: one feed a topic, shared by all its subscribers, healed from history where a message is missing.

Every workspace counts its messages (the bus sequence, in the tenant's own slot). Messages travel on channels of one pattern, so a process
subscribes once, whatever the number of tenants. A hole in a topic's offsets is healed at once; a last message that was lost shows within
5 s, by one MGET of the sequences of the workspaces that are listened to. The same MGET tells which processes that show members have died.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreError
from redis_core.keys import WorkspaceKeys, presence_key
from redis_core.log import get_logger
from redis_core.realtime.bus import Bus
from redis_core.realtime.history import Kind, Message, Names, Position, Restart, Start, Update, read
from redis_core.realtime.seat import Seat, Sink
from redis_core.realtime.sequences import Sequences

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Feed", "Feeds", "Kind", "Position", "Restart", "Seat", "Start", "Update"]

_CHECK: Final = 5.0
"""Seconds between looks for a last message that was lost; the longest wait of a poll."""
_REAP_WITHIN: Final = 0.5
_REMEMBERED: Final = 64
_LOG: Final = get_logger("redis_core.realtime")


class Feed:
    """One topic in this process; made by `Feeds.feed`."""

    def __init__(self, feeds: Feeds, workspace: str, topic: str, kind: Kind) -> None:
        self.names = Names(WorkspaceKeys(workspace), topic, kind)
        self._feeds = feeds
        self._seats: list[Seat] = []
        self._epoch = ""
        self._offset = 0
        self._known = False
        """Whether a first subscriber's start was read: until then there is no position."""
        self._early: Position | None = None
        """Where the topic was said to be before the position was known."""
        self._suspect = False
        """Whether messages may be missing that came before the position was known."""
        self._recent: dict[int, int] = {}
        """What the last updates were like, by offset: one that is told again is not another one of the same offset."""
        self._lost = False
        """Whether the store has lost updates that were heard here."""
        self._healing: asyncio.Task[None] | None = None
        self._again = False
        self._reaping: asyncio.Task[None] | None = None
        self.holders: set[str] = set()
        """Of presence: the processes that show its members."""

    @property
    def listeners(self) -> int:
        """Subscribers just now."""
        return len(self._seats)

    @property
    def offset(self) -> int:
        """Of the last update that was heard."""
        return self._offset

    async def join(self, sink: Sink, after: Position | None) -> tuple[Start, Seat]:
        """Subscribe: what came after a position, or the whole, and then each update as it comes, none lost or doubled.

        Args:
            sink: called in order with each update; must not block. After a `Restart` it must join anew.
            after: the position the subscriber has.

        Raises:
            StoreUnavailable: the store is away.

        Budget: 1 trip; a script of 2 commands. 2 more if an update was lost, or the topic began anew, during it.
        """
        seat = Seat(self.remove, sink)
        self._seats.append(seat)
        try:
            await self._feeds.listen(self)
            while True:
                seat.pending = []
                start = await read(self._feeds.client, self.names, after)
                self.holders |= start.holders
                if self._knows(start) and seat.begin(start, self._offset):
                    return start, seat
                # Either may be the older one: the feed looks again, and then the subscriber does.
                self.heal()
                if self._healing is not None:
                    await asyncio.wait([self._healing])
        except BaseException:
            seat.leave()
            raise

    def _knows(self, start: Start) -> bool:
        """Whether a start is of the feed's epoch; the first one tells the feed where it is."""
        if not self._known:
            self._known = True
            self._begin(start)
            early, self._early = self._early, None
            if self._suspect or (early and (early.epoch != start.epoch or early.offset > start.reached)):
                self.heal()
            self._suspect = False
        return start.epoch == self._epoch

    def remove(self, seat: Seat) -> None:
        """Forget a subscriber."""
        if seat in self._seats:
            self._seats.remove(seat)
            if not self._seats:
                self._known = self._suspect = self._lost = False
                self._early = None
                self._feeds.forget(self)

    def take(self, message: Message) -> None:
        """A message of the bus."""
        if message.kind == "presence":
            self.holders.add(message.update.id)
        if not self._known:
            # The first subscriber still reads where it starts, before this message or after it.
            self._came_early(Position(message.epoch, message.update.offset))
        elif self._healing is not None:
            self._again = True
        elif message.epoch != self._epoch or message.before > self._offset:
            self.heal()
        elif message.before == self._offset:
            self._tell(message.before, message.update)
            self._remember(message.update)
        elif message.update.offset > self._offset:
            # A piece of text that begins where none of ours ended.
            self.lost()
        elif not self._repeats(message.update):
            self.heal()

    def _remember(self, update: Update) -> None:
        if len(self._recent) >= _REMEMBERED:
            del self._recent[next(iter(self._recent))]
        self._recent[update.offset] = _likeness(update)

    def _repeats(self, update: Update) -> bool:
        """Whether an update that is none after ours was heard before. If another one was heard in its place, the store has lost that."""
        heard, told = self._recent.get(update.offset), _likeness(update)
        self._lost = self._lost or heard not in {None, told}
        return heard == told

    def lost(self) -> None:
        """The store has lost updates of the workspace, perhaps of this topic: it begins a new epoch."""
        if self._known:
            self._lost = True
        self.heal()

    def compare(self, before: int, epoch: str, offset: int) -> None:
        """Heal, if the topic is not where we are.

        Args:
            before: our offset when the store was asked.
            epoch: the topic's.
            offset: the topic's.
        """
        if not self._known:
            self._came_early(Position(epoch, offset))
        elif epoch != self._epoch or not before <= offset <= self._offset:
            self.heal()

    def _came_early(self, position: Position) -> None:
        early = self._early
        if early is None or early.epoch != position.epoch or early.offset < position.offset:
            self._early = position

    def heal(self) -> None:
        """Read from history what the bus did not bring."""
        if self._healing is not None:
            self._again = True
        elif self._known:
            self._healing = asyncio.get_running_loop().create_task(self._heal())
        else:
            self._suspect = True

    async def _heal(self) -> None:
        try:
            self._again = True
            while self._again and self._seats:
                self._again = False
                lost, after = self._lost, Position(self._epoch, self._offset)
                known = max(self._feeds.sequences.highest(self.names.workspace), 1)
                start = await read(self._feeds.client, self.names, after, lost=known if lost else 0)
                self._lost = self._lost and not lost
                self.holders |= start.holders
                if start.epoch == after.epoch == self._epoch and start.reached < after.offset:
                    # It has less than it had. What it gets from now on must not look like what it lost.
                    self._lost = self._again = True
                elif start.epoch == self._epoch and start.recovered:
                    self._tell_all(start)
                else:
                    self._begin(start)
                    for seat in list(self._seats):
                        seat.restart()
        except StoreError as error:
            _LOG.warning("a topic could not be healed", topic=self.names.topic, reason=str(error))
            self._feeds.suspect()
        except Exception as error:  # noqa: BLE001 - the next message tries again
            _LOG.error(
                "a topic could not be healed",
                topic=self.names.topic,
                error=f"{type(error).__name__}: {error}",
            )
        finally:
            self._healing = None

    def _begin(self, start: Start) -> None:
        self._epoch, self._offset = start.epoch, start.reached
        self._recent.clear()

    def _tell_all(self, start: Start) -> None:
        before = min(start.offset, self._offset)
        for update in start.updates:
            if update.offset > self._offset:
                self._tell(before, update)
                if self.names.kind in {"events", "state"}:
                    # Of the other kinds several updates are read as one.
                    self._remember(update)
            before = update.offset

    def _tell(self, before: int, update: Update) -> None:
        self._offset = update.offset
        for seat in list(self._seats):
            seat.put(before, update)

    def reap(self, dead: set[str]) -> None:
        """Take out the members that these processes showed."""
        if self._reaping is None or self._reaping.done():
            self._reaping = asyncio.get_running_loop().create_task(self._reap(dead))

    async def _reap(self, dead: set[str]) -> None:
        # All who listen find it at about the same time: mostly one does the work.
        await asyncio.sleep(random.uniform(0, _REAP_WITHIN))  # noqa: S311 - jitter is no secret
        presence = self._feeds.client.workspace(self.names.workspace).presence(self.names.topic)
        for process in dead:
            try:
                await presence.reap(process)
            except StoreError as error:
                _LOG.warning("ghosts were not taken out", topic=self.names.topic, reason=str(error))
                return
            self.holders.discard(process)

    async def aclose(self) -> None:
        """End what it does."""
        tasks = [task for task in (self._healing, self._reaping) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _likeness(update: Update) -> int:
    return hash((update.type, update.id, bytes(update.data)))


class Feeds:
    """All feeds of this process, and its one link to the bus. Reached as `client.service(Feeds)`.

    Args:
        client: the store.
        clock: tells when to look for what was lost.
    """

    def __init__(self, client: Client, clock: Clock = SYSTEM_CLOCK) -> None:
        # Never memory: what it does not have is no news of a topic.
        self.client = client.primary
        self.live = True
        """Whether the store answered when it was last asked."""
        self._feeds: dict[tuple[str, str, Kind], Feed] = {}
        self.sequences = Sequences()
        self._listeners: list[Callable[[bool], None]] = []
        self._bus = Bus(
            self.client,
            hear=lambda payload: self._take(payload),  # noqa: PLW0108 - a test may stand in between
            lost=self._heal_all,
            look=self._look,
            every=_CHECK,
            clock=clock,
        )
        client.meter.watch(self, Feeds.totals)

    def feed(self, workspace: str, topic: str, kind: Kind) -> Feed:
        """The feed of a topic.

        Raises:
            InvalidKey: workspace or topic may not stand in a key.
        """
        key = (workspace, topic, kind)
        if key not in self._feeds:
            self._feeds[key] = Feed(self, workspace, topic, kind)
        return self._feeds[key]

    def listened(self) -> list[tuple[str, str, Kind, int]]:
        """Workspace, topic, kind and subscribers of what is listened to here, the most listened to first."""
        found = [(*key, feed.listeners) for key, feed in self._feeds.items() if feed.listeners]
        return sorted(found, key=lambda one: -one[3])

    def totals(self) -> dict[str, float]:
        """For the metrics."""
        return {"topics": len(self._feeds)}

    def on_link(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        """Be told when the link to the store goes down and comes up; call the result to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def wake(self) -> None:
        """Something was published here: a poll need not wait."""
        self._bus.wake()

    def suspect(self) -> None:
        """A read failed."""
        self._link(live=False)

    async def listen(self, feed: Feed) -> None:
        """Keep a feed, and see to it that messages arrive."""
        self._feeds.setdefault((feed.names.workspace, feed.names.topic, feed.names.kind), feed)
        await self._bus.start()

    def forget(self, feed: Feed) -> None:
        """Nobody listens to this feed."""
        key = (feed.names.workspace, feed.names.topic, feed.names.kind)
        if self._feeds.get(key) is feed:
            del self._feeds[key]

    async def aclose(self) -> None:
        """End its tasks. Idempotent."""
        await self._bus.aclose()
        for feed in list(self._feeds.values()):
            await feed.aclose()

    def _take(self, payload: bytes) -> None:
        message = Message.of(payload)
        if message is None:
            _LOG.warning("a message of the bus is none of ours")
            return
        self.sequences.hear(message.workspace, message.sequence)
        feed = self._feeds.get((message.workspace, message.topic, message.kind))
        if feed is not None:
            feed.take(message)

    async def _look(self) -> bool:
        """Compare the sequences with what was heard; whether something was missing.

        Budget: 1 command; where a sequence is another one 1 trip more, with a command for each topic of the workspace.
        """
        before = self.sequences.before({workspace for workspace, _, _ in self._feeds})
        if not before:
            return False
        holders = sorted(set[str]().union(*(feed.holders for feed in self._feeds.values())))
        try:
            found = await self.client.mget(
                *(WorkspaceKeys(name).key("bus") for name in before), *map(presence_key, holders)
            )
            leases = found[len(before) :]
            self._reap({holder for holder, lease in zip(holders, leases, strict=True) if lease is None})
            sequences = {name: int(value or 0) for name, value in zip(before, found, strict=False)}
            if news := self.sequences.compare(before, sequences):
                for (workspace, _, _), feed in list(self._feeds.items()):
                    if sequences[workspace] < (before[workspace] or 0):
                        feed.lost()
                await self._compare(news)
        except StoreError:
            self._link(live=False)
            return False
        self._link(live=True)
        return bool(news)

    async def _compare(self, workspaces: Collection[str]) -> None:
        """Heal the topics of these workspaces that are not where we are. Budget: 1 trip; a command for each topic."""
        feeds = [feed for feed in self._feeds.values() if feed.names.workspace in workspaces]
        offsets = [feed.offset for feed in feeds]
        batch = self.client.pipeline()
        for feed in feeds:
            batch.hmget(feed.names.meta, "e", "o")
        try:
            replies = await batch.send()
        except StoreError:
            self.sequences.doubt(workspaces)
            raise
        for feed, offset, found in zip(feeds, offsets, replies, strict=True):
            if isinstance(found, StoreError):
                feed.heal()
            else:
                feed.compare(offset, (found[0] or b"").decode(), int(found[1] or 0))

    def _reap(self, dead: set[str]) -> None:
        if dead:
            for feed in list(self._feeds.values()):
                if gone := feed.holders & dead:
                    feed.reap(gone)

    def _heal_all(self) -> None:
        for feed in list(self._feeds.values()):
            feed.heal()

    def _link(self, *, live: bool) -> None:
        if live != self.live:
            self.live = live
            if live:
                self._heal_all()
                self._bus.subscribe()
            for listener in list(self._listeners):
                listener(live)
