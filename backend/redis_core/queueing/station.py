"""A worker's place at one shard: its turns, the jobs it runs there, and when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from redis_core.errors import Outcome, StoreError
from redis_core.log import get_logger
from redis_core.queueing.doorbell import Doorbell
from redis_core.queueing.run import Job, Runner
from redis_core.queueing.shard import Acknowledgement, Claim, Shard, Turn
from redis_core.transport.backoff import Backoff

if TYPE_CHECKING:
    from redis_core.queueing.engine import QueueEngine

__all__ = ["Places", "Station"]

_MOST_AT_ONCE: Final = 1000
"""Jobs claimed by one turn: some milliseconds of the store's time."""
_LOOK_EVERY: Final = 120.0
"""Seconds after which an idle worker looks whether anybody rang for nobody: one command."""
_IGNORE_AFTER: Final = 10.0
"""Seconds after which an idle worker ends its subscription, which is for cancelling what it runs."""
_TURN_EVERY: Final = 900.0
"""Seconds after which an idle worker takes a turn whatever it has heard: 9 commands, those inside the script counted."""
_LOG: Final = get_logger("redis_core.queue")


_OF_THE_LEASE: Final = 0.9
"""Part of the lease after which jobs are stopped if it could not be renewed: what is left is for them to end."""
_ENDS: Final = frozenset("dcx")
"""Kinds of acknowledgements after which a job is over."""
_MOST_BYTES: Final = 512 * 1024
"""Bytes of results that one turn tells, beside its first: Upstash takes requests of 1 MB."""


def _packed(done: list[Acknowledgement]) -> tuple[list[Acknowledgement], list[Acknowledgement]]:
    """What one turn can tell, and what is left for the next."""
    size = 0
    for place, each in enumerate(done):
        size += len(each.text)
        if place and size > _MOST_BYTES:
            return done[:place], done[place:]
    return done, []


class Places:
    """How many jobs a worker may run at once, shared by its stations."""

    def __init__(self, most: int) -> None:
        self.free = most
        self.most = most
        self.stations: list[Station] = []

    def give_back(self, count: int, giver: Station) -> None:
        """Some became free: whoever left work behind for want of a place may take it."""
        self.free += count
        if count:
            for station in self.stations:
                if station.hungry and station is not giver:
                    station.wake()


class Station:
    """Runs the jobs of one shard.

    Args:
        engine: what this process has of all queues.
        shard: which.
        runner: what runs a job.
        worker: the worker's name.
        places: the worker's.
        lease: seconds.
        most_deaths: workers a job may outlive.
    """

    def __init__(
        self,
        engine: QueueEngine,
        shard: Shard,
        runner: Runner,
        worker: str,
        places: Places,
        *,
        lease: float,
        most_deaths: int = 3,
    ) -> None:
        self.shard = shard
        self.jobs: dict[bytes, Job] = {}
        self.hungry = False
        """Work was left behind, because no place was free."""
        self.turns = 0
        self.finished = 0
        self.healthy_at = 0.0
        """When the store last answered, by the loop's clock."""
        self._client = engine.store
        self._spool = engine.spool
        self._runner = runner
        self._worker = worker
        self._places = places
        self._lease = lease
        self._most_deaths = most_deaths
        self._done: list[Acknowledgement] = []
        self._stirred = asyncio.Event()
        self._bell = Doorbell(engine.store, shard, self._rung, self._cancel)
        self._spooled: set[tuple[bytes, int]] = set()
        """Ends of runs that are in the journal too."""
        self._uncertain = False
        self._doubts = 0
        self._look = False
        self._stopping = False
        self._leased = False
        self._farewell = False
        self._event: float | None = None
        self._heartbeat = 0.0
        self._turned = 0.0
        self._told = 0.0
        self._backoff = Backoff()

    # --- what wakes it ---

    def wake(self) -> None:
        """Something happened: have a look."""
        self._stirred.set()

    def _rung(self) -> None:
        self._look = True
        self._stirred.set()

    def _cancel(self, field: bytes) -> None:
        job = self.jobs.get(field)
        if job is not None and not job.cancelled:
            job.cancel()

    # --- its life ---

    async def run(self) -> None:
        """Take turns until `stop`; then until the jobs it has are over."""
        self._places.stations.append(self)
        self._bell.start()
        self._look = True
        try:
            while not (self._stopping and not self.jobs and not self._done):
                # The only try of the loop: a store that is away costs a pause, the jobs go on.
                try:
                    await self._step()
                except StoreError as error:
                    await self._away(error)
            # First: or this worker hears its own farewell, which is for the others.
            await self._bell.aclose()
            await self._leave()
        finally:
            self._places.stations.remove(self)
            await self._bell.aclose()

    async def drain(self) -> None:
        """Take turns until nothing is ready and all jobs are over. For tests and for programs that end."""
        while True:
            turn = await self._turn()
            await asyncio.sleep(0)
            if self.jobs:
                self._stirred.clear()
                if not self._done:
                    # The lease is to be renewed meanwhile.
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stirred.wait(), self._lease / 3)
            elif not self._done and not turn.claims:
                return

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._stirred.set()

    def hand_back(self) -> None:
        """Give the jobs that still run to others."""
        for job in list(self.jobs.values()):
            job.hand_back()

    async def _step(self) -> None:
        self._stirred.clear()
        turn = await self._turn()
        # One turn of the event loop: short jobs finish in it, and are acknowledged by the call that claims more.
        await asyncio.sleep(0)
        while not self._done and not (turn.left and self._places.free) and not self._look:
            if self._stopping and not self.jobs:
                return
            if await self._rest():
                return

    async def _rest(self) -> bool:
        """Wait for something; True if that calls for a turn."""
        loop = asyncio.get_running_loop()
        idle = not self.jobs
        if not idle:
            self._bell.attend()
        elif loop.time() - self._turned >= _IGNORE_AFTER:
            self._bell.ignore()
        if self._places.free and not self._stopping:
            self._bell.listen()
        look_at = loop.time() + _LOOK_EVERY
        turn_at = self._turn_at()
        times = [turn_at, look_at]
        if idle and loop.time() - self._turned < _IGNORE_AFTER:
            times.append(self._turned + _IGNORE_AFTER)
        timer = loop.call_at(min(times), self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            timer.cancel()
        self._stirred.clear()
        if self._done or self._look or self._stopping or (self.hungry and self._places.free):
            return True
        now = loop.time()
        if now >= turn_at:
            # Or the metrics would be flushed each time, which costs as much.
            self._client.meter.watching += idle and self._event is None
            return True
        return idle and now >= look_at and await self._left_alone()

    def _turn_at(self) -> float:
        """When to take a turn if nothing happens: to renew the lease, for what is due, or to be sure."""
        times = [self._turned + _TURN_EVERY]
        if self.jobs:
            times.append(self._heartbeat + self._lease / 3)
        if self._event is not None and not self._stopping:
            times.append(self._event)
        return min(times)

    async def _left_alone(self) -> bool:
        """Whether there is work, or a worker or a time to watch, that nobody rang for: a token was lost with whoever took it."""
        if self._leased:
            # It has no jobs, so its lease need not be watched by others: a turn, for only a turn knows when it comes too late.
            self._farewell = True
            return True
        # As a turn that only watches.
        self._client.meter.watching += 1
        watched = (self.shard.ring, self.shard.leases)
        # What is due when is looked for only by who knows of nothing: who knows, comes by itself.
        later = () if self._event is not None else (self.shard.later,)
        return bool(await self._client.exists(*watched, *later))

    # --- a turn ---

    async def _turn(self) -> Turn:
        loop = asyncio.get_running_loop()
        done, self._done = _packed(self._done)
        free = 0 if self._stopping else min(self._places.free, _MOST_AT_ONCE)
        self._places.free -= free
        self._look = False
        began = loop.time()
        beat = bool(self.jobs) and began >= self._told + self._lease / 3
        flags = (
            ("o" if self.jobs or done else "")
            + ("b" if beat else "")
            + ("s" if self._bell.by_message else "")
            + ("e" if self._farewell and not self.jobs and not done else "")
        )
        self._farewell = False
        kept: list[Acknowledgement] = []
        if self._uncertain:
            flags += "u"
            kept = [
                Acknowledgement(field, job.claim.run, "k", 0, "", 0, "") for field, job in self.jobs.items()
            ]
        owned = list(self.jobs.values())
        claimed = 0
        try:
            turn = await self.shard.turn(
                self._worker,
                lease=round(self._lease * 1000),
                free=free,
                flags=flags,
                most_deaths=self._most_deaths,
                doubts=self._doubts,
                acknowledgements=[*done, *kept] if kept else done,
            )
            claimed = len(turn.claims)
        except BaseException as error:
            # It may have been done: what is told again is refused by its run, what was claimed for nobody goes back.
            self._done[:0] = done
            if not (isinstance(error, StoreError) and error.outcome is Outcome.NOT_SENT):
                # Should it still be on its way: it is of an earlier doubt than the next, and will do nothing.
                self._uncertain = True
                self._doubts += 1
            raise
        finally:
            self._places.give_back(free - claimed, self)
        if beat:
            self._told = began
        self._took(turn, began, owned, done, flags)
        return turn

    def _took(
        self, turn: Turn, began: float, owned: list[Job], done: list[Acknowledgement], flags: str
    ) -> None:
        loop = asyncio.get_running_loop()
        self.turns += 1
        self.finished += len(done)
        self._runner.last_words.settled(done, turn.refused)
        self.healthy_at = self._turned = loop.time()
        self._backoff.succeeded()
        spooled = {field for field, _ in self._spooled}
        late = [field.decode() for field in turn.refused if field not in spooled]
        if late and not self._uncertain:
            _LOG.warning("acknowledgements refused: others have the jobs", jobs=late)
        self._spooled.clear()
        if turn.lost:
            _LOG.error(
                "the lease had ended: others have this worker's jobs", queue=self.shard.name, jobs=len(owned)
            )
            for job in owned:
                job.lose()
        elif self._uncertain:
            refused = set(turn.refused)
            for job in owned:
                if job.claim.field in refused:
                    job.lose()
        self._uncertain = False
        # From before it was sent: the store cannot have renewed the lease earlier.
        self._heartbeat = began
        self._event = None if turn.event < 0 else loop.time() + turn.event / 1000
        self.hungry = turn.left
        self._leased = bool(turn.claims) or (self._leased and "e" not in flags)
        for field in turn.cancelled:
            self._cancel(field)
        self._begin(turn.claims)

    def _begin(self, claims: Sequence[Claim]) -> None:
        suspect = any(self._last_chance(job.claim) for job in self.jobs.values())
        for claim in claims:
            if self._last_chance(claim) and suspect:
                # One at a time, so that the next death is told of the one that caused it, not of its neighbours.
                self._done.append(self._runner.put_off(claim))
                self._places.give_back(1, self)
                continue
            suspect = suspect or self._last_chance(claim)
            job = Job(claim)
            former = self.jobs.get(claim.field)
            if former is not None:
                former.lose()
            self.jobs[claim.field] = job
            job.task = asyncio.get_running_loop().create_task(self._work(job))

    def _last_chance(self, claim: Claim) -> bool:
        """Whether another death would bury the job. Earlier ones cost no order: all jobs of a worker that was killed run again at once."""
        return 0 < self._most_deaths - 1 <= claim.deaths

    async def _work(self, job: Job) -> None:
        acknowledgement: Acknowledgement | None = None
        job.began = True
        try:
            acknowledgement = await self._runner.run(self.shard, job)
        finally:
            if acknowledgement is not None and not job.lost:
                self._done.append(acknowledgement)
            if self.jobs.get(job.claim.field) is job:
                del self.jobs[job.claim.field]
            self._places.give_back(1, self)
            self._stirred.set()

    async def _away(self, error: StoreError) -> None:
        delay = self._backoff.failed()
        # Once for each time it is away: what comes after that is the same news.
        tell = _LOG.debug if delay else _LOG.warning
        tell("the store does not answer", queue=self.shard.name, error=str(error), again_in=round(delay, 2))
        self._look = True
        await self._spool_ends()
        await asyncio.sleep(min(delay, self._fence()))
        self._fence()

    async def _spool_ends(self) -> None:
        """Keep how jobs ended during an outage, should this worker not live to tell."""
        if self._client.outage.available:
            return
        for done in self._done:
            name = done.field, done.run
            if done.kind in _ENDS and name not in self._spooled:
                self._spooled.add(name)
                await self._spool.keep_end(self.shard.name, self._worker, done)

    def _fence(self) -> float:
        """Stop the jobs before the lease ends, for others may have them then; seconds until that is to be done."""
        left = self._heartbeat + self._lease * _OF_THE_LEASE - asyncio.get_running_loop().time()
        running = [job for job in self.jobs.values() if not job.ended]
        if left > 0 or not running:
            return max(left, 0.0) if running else self._lease
        _LOG.error(
            "the store was away for a lease: jobs are stopped, and handed back when it is here",
            queue=self.shard.name,
            jobs=len(running),
        )
        for job in running:
            job.hand_back()
        return self._lease

    async def _leave(self) -> None:
        """Tell that this worker stops; what it had and has not acknowledged goes back."""
        try:
            flags = "xu" if self._uncertain else "x"
            await self.shard.turn(
                self._worker,
                lease=round(self._lease * 1000),
                free=0,
                flags=flags,
                most_deaths=self._most_deaths,
                doubts=self._doubts,
            )
        except StoreError as error:
            _LOG.warning(
                "left without a word: the lease ends by itself", queue=self.shard.name, error=str(error)
            )
