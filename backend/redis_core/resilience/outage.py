"""`Outage`: what a client's services ask and tell about the store being away.

This file is the face. The null one here is always healthy: what a client has whose store cannot vanish (memory), or whose failover
is off. `watchman.py` has the real one.

::

    outage = client.outage
    if not outage.available or outage.waiting(order):
        await outage.record("job", order, payload, id=job_id)       # durable when this returns
    else:
        await client.primary.execute(...)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from redis_core.errors import ConfigError, JournalBroken

if TYPE_CHECKING:
    from redis_core.resilience.record import Record

__all__ = ["NO_OUTAGE", "Change", "Outage", "OutageFigures", "Replay", "State"]

Replay: TypeAlias = Callable[["Sequence[Record]"], Awaitable[None]]
"""Carries out records of one kind, oldest first. It may be called again for records that were carried out already, so it must be
idempotent by `Record.id`. `StoreUnavailable` and `StoreReadOnly`: later. Any other error: those records go to quarantine, one by
one where a batch held several."""


class State(StrEnum):
    """What is known of the store."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """A call failed; a probe finds out. Calls go to the store meanwhile."""
    DEGRADED = "degraded"
    """The store is away, or an operator says so: nothing is sent to it but probes."""
    RECOVERING = "recovering"
    """It answers again, and what was accepted meanwhile is carried out."""


@dataclass(frozen=True, slots=True)
class Change:
    """The state has changed, or the store turned out to have lost its data."""

    before: State
    after: State
    lasted: float = 0.0
    """Seconds since the outage began, where this ends or changes one."""
    forced: bool = False
    """An operator asked for it."""
    came_back_empty: bool = False
    """The store lost what it had, or part of it: that something is not there proves nothing. `before` and `after` may be the same."""


@dataclass(frozen=True, slots=True)
class OutageFigures:
    """Totals of this process, for health and metrics."""

    state: State = State.HEALTHY
    available: bool = True
    forced: bool = False
    read_only: bool = False
    credentials_rejected: bool = False
    outages_total: int = 0
    degraded_seconds: float = 0.0
    """Of all outages together, the present one included."""
    waiting: int = 0
    """Records in the journal that wait to be carried out."""
    waiting_oldest_seconds: float = 0.0
    replayed_total: int = 0
    quarantined: int = 0
    """Records that could not be carried out and wait for a person."""
    losses_total: int = 0
    """How often the store came back without its data."""


def _nothing() -> None:
    pass


class Outage:
    """The store is always there, and nothing is kept for later."""

    state: State = State.HEALTHY
    orphaned: Callable[[], None] = staticmethod(_nothing)
    """Called when records wait that nobody here carries out: of a process that is gone, and used what this one has not used."""

    @property
    def available(self) -> bool:
        """Whether services may speak to the store now: healthy, suspect, and recovering after the `first` replays."""
        return True

    @property
    def read_only(self) -> bool:
        """Whether the store answers reads and refuses writes, as far as is known: replica, out of memory, disk."""
        return False

    @property
    def forced(self) -> bool:
        """Whether an operator keeps the store away (mock mode)."""
        return False

    @property
    def figures(self) -> OutageFigures:
        """Totals, for health and metrics."""
        return OutageFigures()

    def waiting(self, order: str) -> bool:
        """Whether records of this order key wait: a new write to it must be recorded behind them. Costs a look into a dict."""
        del order
        return False

    async def record(self, kind: str, order: str, payload: bytes, *, id: str | None = None) -> None:
        """Keep an intent until the store is back; durable when this returns. Budget: 0 commands, a share of a disk flush.

        Args:
            kind: which replayer carries it out.
            order: records of one order key are carried out in the order they came.
            payload: what the replayer needs.
            id: its name; a second record of the same name is the same one. A random one unless given.

        Raises:
            JournalFull: the journal's bounds are reached; nothing was kept.
            JournalBroken: its disk is full or damaged, or there is no journal; it counts as not kept.
        """
        del order, payload, id
        raise JournalBroken(f"this store has no journal, so {kind!r} cannot be kept for later")

    def replayer(self, kind: str, replay: Replay, *, first: bool = False) -> None:
        """Name who carries out the records of a kind. Records of a kind without one wait.

        Args:
            kind: the kind; naming it again replaces who did.
            replay: carries them out; see `Replay`.
            first: before anything else may reach the store: invalidations of the cache, revocations of sessions.
        """

    def watch(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Be told of changes, in the event loop; an error of a listener is logged. Call what it returns to stop."""
        del listener
        return _nothing

    async def confirm(self) -> None:
        """Make sure that something is not there because it never was: if a connection is new, the store may have lost its data.

        Budget: nothing; after a new connection, once, 1 trip.
        """

    def force(self, on: bool) -> None:
        """Mock mode: an outage that ends when an operator says so. Loses nothing: what is recorded is carried out afterwards.

        Raises:
            ConfigError: there is no store to come back to, or memory may not serve for it.
        """
        if on:
            raise ConfigError(
                "REDIS_FAILOVER", "false", "memory serves only where it is true; restart with it"
            )
        raise ConfigError("MOCK_REDIS", "true", "this process was started on memory; restart it to leave")

    def start(self) -> None:
        """Begin to watch; in the event loop that the client belongs to. Idempotent."""

    async def aclose(self) -> None:
        """Stop watching and let go of the journal. Idempotent."""


NO_OUTAGE = Outage()
"""The one that all clients without a failover share; it has no state."""
