"""`Watchman`: the `Outage` of a real store. One task watches, probes, and has carried out what was kept.

What is decided is decided in `monitor.py`; this is the shell that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import DeadlineExceeded, JournalError, Kind, StoreError
from redis_core.log import get_logger
from redis_core.resilience.journal import Journal
from redis_core.resilience.monitor import Monitor
from redis_core.resilience.outage import Change, Outage, OutageFigures, Replay, State
from redis_core.resilience.probe import Look, Probe, Target
from redis_core.resilience.replay import Replays

__all__ = ["FELL_BACK", "Traffic", "Watchman"]

FELL_BACK: Final = "Redis connection failed - falling back to Mock Mode"
"""The line that operators know; once for each outage."""

_LOG: Final = get_logger("redis_core.outage")
_TICK: Final = 1.0
"""Seconds between looks at this process' own figures while all is well: no commands."""
_ALARM_EVERY: Final = 5.0
"""Seconds between probes while the store is read-only or does not know us."""
_RETRY: Final = 0.5
"""Seconds between tries to carry out what the store would not have."""


class Traffic(Protocol):
    """What calls tell without being asked."""

    @property
    def answered_total(self) -> int:
        """Calls that the store has ever answered."""
        ...

    @property
    def links(self) -> int:
        """The first connection, and those opened after one was lost: they may lead to a store that has lost its data."""
        ...


class Watchman(Outage):
    """Watches one store for one client.

    Args:
        store: the store.
        traffic: what calls tell.
        journal: where intents are kept.
        clock: the time.
        monitor: the state machine; a test's own.
        prepare: loads, in a thread, what an outage will need, so that its first moment does not wait for an import.
    """

    def __init__(
        self,
        store: Target,
        traffic: Traffic,
        journal: Journal,
        *,
        clock: Clock = SYSTEM_CLOCK,
        monitor: Monitor | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._prepare = prepare
        self._store = store
        self._traffic = traffic
        self._journal = journal
        self._clock = clock
        self._monitor = monitor or Monitor()
        self._probe = Probe(store, clock)
        self._replays = Replays(journal, clock)
        self._listeners: list[Callable[[Change], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._told: State = State.HEALTHY
        self._open = True
        self._links = 0
        self._confirming: asyncio.Task[None] | None = None
        self._lost = False
        self._losses = 0
        self._read_only = False
        self._rejected = False
        self._away_before = 0.0
        self._before_outage = (0, 0)
        self._prepared = False
        self.rerouted: Callable[[], None] = lambda: None
        """Called when `available` may have changed: where calls go is the transport's matter."""

    # --- what services ask ---

    @property
    def state(self) -> State:  # type: ignore[override]
        """What is known of the store."""
        return self._monitor.state

    @property
    def available(self) -> bool:
        """Whether services may speak to the store now."""
        return self._open

    @property
    def read_only(self) -> bool:
        """Whether the store refuses writes, as far as is known."""
        return self._read_only

    @property
    def forced(self) -> bool:
        """Whether an operator keeps the store away."""
        return self._monitor.forced

    @property
    def figures(self) -> OutageFigures:
        """Totals, for health and metrics."""
        away = self._away_before
        if self._told in {State.DEGRADED, State.RECOVERING}:
            away += self._clock.monotonic() - self._monitor.began
        kept = self._journal.figures
        return OutageFigures(
            state=self.state,
            available=self._open,
            forced=self.forced,
            read_only=self._read_only,
            credentials_rejected=self._rejected,
            outages_total=self._monitor.outages,
            degraded_seconds=away,
            waiting=kept.waiting,
            waiting_oldest_seconds=kept.oldest_age,
            replayed_total=self._replays.replayed,
            quarantined=kept.quarantined,
            losses_total=self._losses,
        )

    def waiting(self, order: str) -> bool:
        """Whether records of this order key wait."""
        return self._journal.waiting(order)

    async def record(self, kind: str, order: str, payload: bytes, *, id: str | None = None) -> None:
        """Keep an intent; see `Outage`."""
        await self._journal.append(kind, order, payload, id=id)

    def replayer(self, kind: str, replay: Replay, *, first: bool = False) -> None:
        """Name who carries out a kind; see `Outage`."""
        self._replays.add(kind, replay, first=first)

    def watch(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Be told of changes; see `Outage`."""
        self._listeners.append(listener)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return stop

    async def confirm(self) -> None:
        """Look at once if a connection is new; see `Outage`."""
        if self.state is State.HEALTHY and self._traffic.links != self._links:
            if self._confirming is None or self._confirming.done():
                self._confirming = asyncio.get_running_loop().create_task(self._look_at_links())
            await asyncio.shield(self._confirming)

    async def _look_at_links(self) -> None:
        links = self._traffic.links
        await self._look()
        self._links = links

    def force(self, on: bool) -> None:
        """Mock mode, on or off; see `Outage`."""
        if on == self._monitor.forced:
            return
        self._monitor.force(self._clock.monotonic(), on)
        _LOG.warning(
            "mock mode is on: an operator asked for it" if on else "mock mode is off",
            target=self._store.target,
        )
        self._changed()
        self._wake.set()

    # --- what calls tell ---

    def failed(self, error: StoreError, *, own_deadline: bool = False) -> None:
        """A call has ended so, or a reply says so.

        Args:
            error: what the call ended with.
            own_deadline: the caller gave it less time than the store is given.
        """
        if error.kind is Kind.UNREACHABLE:
            counts = not (own_deadline and isinstance(error, DeadlineExceeded))
            self._monitor.call_failed(self._clock.monotonic(), self._traffic.answered_total, counts=counts)
            self._changed(str(error))
        else:
            self._noted(Look(error.kind, message=str(error)))
            self._wake.set()

    async def verdict(self) -> None:
        """Wait until it is known whether a store under suspicion is away."""
        await self._settled.wait()

    # --- life ---

    def start(self) -> None:
        """Begin to watch, in the running event loop. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="redis-outage")

    async def aclose(self) -> None:
        """Stop watching and let go of the journal. Idempotent."""
        tasks = [task for task in (self._task, self._confirming) if task is not None]
        self._task = self._confirming = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._settled.set()
        await self._journal.aclose()

    async def _watch(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception as error:  # noqa: BLE001 - the watch must outlive what it meets
                _LOG.error("watching the store failed, and goes on", error=f"{type(error).__name__}: {error}")
                await self._clock.sleep(_RETRY)

    async def _turn(self) -> None:
        match self._monitor.state:
            case State.SUSPECT:
                await self._clock.sleep(self._monitor.pause())
                await self._look()
            case State.DEGRADED if not self.forced:
                await self._nap(self._monitor.pause())
                if self.state is State.DEGRADED and not self.forced:
                    await self._look()
            case State.RECOVERING:
                await self._recover()
            case _:
                await self._nap(_ALARM_EVERY if self._read_only or self._rejected else _TICK)
                await self._idle()

    async def _nap(self, seconds: float) -> None:
        """Sleep, unless the state changes."""
        self._wake.clear()
        napping = asyncio.ensure_future(self._clock.sleep(seconds))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({napping, waking}, return_when="FIRST_COMPLETED")
        finally:
            napping.cancel()
            waking.cancel()
            await asyncio.gather(napping, waking, return_exceptions=True)

    async def _idle(self) -> None:
        """While all is well: adopt what others left, carry out what waits, look at a store that may be another."""
        if not self._prepared:
            self._prepared = True
            await self._start_journal()
            if self._prepare is not None:
                await asyncio.to_thread(self._prepare)
        if self.state is not State.HEALTHY:
            return
        if self._traffic.links != self._links or self._read_only or self._rejected:
            await self._look_at_links()
        if self.state is State.HEALTHY and not self._read_only:
            self._attend()
            await self._replays.drain(self._replays.all)

    def _attend(self) -> None:
        if not set(self._journal.kinds) <= set(self._replays.all):
            self.orphaned()

    async def _start_journal(self) -> None:
        try:
            await self._journal.start()
        except JournalError as error:
            _LOG.error("the journal cannot be read: nothing can be kept in an outage", error=str(error))

    async def _look(self) -> None:
        found = await self._probe.look()
        self._noted(found)
        self._monitor.probed(
            self._clock.monotonic(), found.trouble, self._traffic.answered_total, silent=found.silent
        )
        self._changed(found.message)

    async def _recover(self) -> None:
        """Let others go first or last, carry out what must be first, open, and carry out the rest."""
        self._attend()
        if not self._open:
            await self._nap(self._monitor.settle())
            while self.state is State.RECOVERING and not await self._replays.drain(self._replays.first):
                await self._nap(_RETRY)
            if self.state is not State.RECOVERING:
                return
            self._open = True
            self.rerouted()
        if not await self._replays.drain(self._replays.all):
            await self._nap(_RETRY)
            return
        self._monitor.replayed(self._clock.monotonic())
        self._changed()

    # --- telling ---

    def _noted(self, found: Look) -> None:
        """Keep what is no outage: a store that takes no writes, does not know us, or has lost its data."""
        self._lost |= found.lost
        if found.trouble is Kind.CREDENTIALS:
            if not self._rejected:
                self._rejected = True
                _LOG.error(
                    "the store rejects our credentials", target=self._store.target, error=found.message
                )
        elif (
            found.trouble is not Kind.UNREACHABLE and self._rejected and found.trouble is not Kind.OVERLOADED
        ):
            self._rejected = False
            _LOG.info("the store accepts our credentials again", target=self._store.target)
        if found.trouble is Kind.READ_ONLY and not self._read_only:
            self._read_only = True
            _LOG.error("the store takes no writes", target=self._store.target, error=found.message)
        elif found.trouble is None and self._read_only:
            self._read_only = False
            _LOG.info("the store takes writes again", target=self._store.target)

    def _changed(self, reason: str = "") -> None:
        """Tell everybody what has changed, if anything has."""
        before, after = self._told, self.state
        if before is after:
            if self._lost and after is State.HEALTHY:
                self._tell(before, after)
            return
        self._told = after
        away = after in {State.DEGRADED, State.RECOVERING}
        self._open = not away or (self._open and after is State.RECOVERING)
        (self._settled.clear if after is State.SUSPECT else self._settled.set)()
        self._log(before, after, reason)
        self.rerouted()
        self._wake.set()
        self._tell(before, after)

    def _log(self, before: State, after: State, reason: str) -> None:
        counted = self._replays.replayed, self._replays.quarantined
        if after is State.DEGRADED and before in {State.HEALTHY, State.SUSPECT}:
            self._before_outage = counted
            if not self.forced:
                _LOG.warning(FELL_BACK, target=self._store.target, error=reason)
        elif after is State.HEALTHY and before is State.RECOVERING:
            seconds = self._clock.monotonic() - self._monitor.began
            self._away_before += seconds
            _LOG.info(
                "Redis is back",
                target=self._store.target,
                seconds=round(seconds, 3),
                replayed=counted[0] - self._before_outage[0],
                quarantined=counted[1] - self._before_outage[1],
            )

    def _tell(self, before: State, after: State) -> None:
        # Told with the first state in which something can be done about it.
        lost = self._lost and after in {State.RECOVERING, State.HEALTHY}
        if lost:
            self._lost = False
            self._losses += 1
            _LOG.warning("the store has lost its data, or part of it", target=self._store.target)
        lasted = (
            self._clock.monotonic() - self._monitor.began
            if before in {State.DEGRADED, State.RECOVERING}
            else 0.0
        )
        change = Change(before, after, lasted, self.forced, lost)
        for listener in list(self._listeners):
            try:
                listener(change)
            except Exception as error:  # noqa: BLE001 - one listener's mistake is not the others'
                _LOG.error("a listener of the outage failed", error=f"{type(error).__name__}: {error}")
