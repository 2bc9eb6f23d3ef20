"""A store that may vanish, and memory to go on with: the transport that every client of a real store has.

It has two faces. Its own `execute` is the manual's fallback: while the store is away, memory answers, and says so by its mode and
its figures; what it was told is forgotten when the store is back. `primary` never answers from memory: while the store is away
it raises at once, not sent, and what to do instead is decided feature by feature, above.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import DeadlineExceeded, Kind, StoreError, StoreOverloaded, StoreUnavailable
from redis_core.resilience.classify import TROUBLE, may_answer_elsewhere, trouble_in
from redis_core.resilience.outage import State
from redis_core.resilience.replay import REPLAYING
from redis_core.resilience.throttle import Throttle
from redis_core.transport.base import Command, Reply, RotatingTransport, Subscription, Transport
from redis_core.transport.failover_subscription import FailoverSubscriptions

if TYPE_CHECKING:
    from redis_core.resilience.env_switch import EnvSwitch
    from redis_core.resilience.journal import Journal
    from redis_core.resilience.watchman import Watchman
    from redis_core.secret import Secret

__all__ = ["FailoverTransport", "PrimaryTransport"]

Send = Callable[[Sequence[Command]], Awaitable[list[Reply]]]

_MODES: Final = {State.DEGRADED: "degraded", State.RECOVERING: "recovering"}


class PrimaryTransport:
    """The store itself, and nothing else: raises `StoreUnavailable`, not sent, at once while the store is away.

    Args:
        store: the store.
        clock: the time.
    """

    def __init__(self, store: Transport, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.answered = 0
        self.target = store.target
        self.script_header = store.script_header
        self.stats = store.stats
        self.outage: Watchman
        self._clock = clock
        self._throttle = Throttle()
        self.other_face: Callable[[], int] = lambda: 0
        self.direct = True
        """Whether a call may simply be sent: the store is there, and not overloaded."""

    @property
    def mode(self) -> str:
        """The store's, or `degraded` or `recovering`."""
        return _MODES.get(self.outage.state) or self.store.mode

    @property
    def guard(self) -> PrimaryTransport:
        """Itself; see `Guarded`."""
        return self

    @property
    def primary(self) -> PrimaryTransport:
        """Itself."""
        return self

    @property
    def answered_total(self) -> int:
        """Calls that the store has ever answered, on either face."""
        return self.answered + self.other_face()

    @property
    def links(self) -> int:
        """The first connection and those that followed a lost one: one more that a subscription has opened leads to the same store.

        Over REST connections come and go, and tell nothing.
        """
        stats = self.store.stats
        return 0 if self.store.mode == "upstash" else min(stats.connects, 1) + stats.reconnects

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands and return one reply for each; see `Transport`."""
        if not self.direct:
            self._admit()
        try:
            replies = await self.store.execute(batch, timeout=timeout)
        except StoreError as error:
            self.note(error, timeout)
            raise
        self.answered += 1
        if not TROUBLE.isdisjoint(map(type, replies)):
            return await self.troubled(batch, timeout, replies)
        return replies

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands, all or nothing; see `Transport`."""
        if not self.direct:
            self._admit()
        try:
            replies = await self.store.transaction(batch, timeout=timeout)
        except StoreError as error:
            self.note(error, timeout)
            raise
        self.answered += 1
        return replies

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen on the store; see `Transport`. A subscription outlasts an outage and tells of the gap."""
        if not self.direct:
            self._admit()
        try:
            return await self.store.subscribe(*channels, patterns=patterns)
        except StoreError as error:
            self.note(error, None)
            raise

    async def aclose(self) -> None:
        """Nothing: the failover transport closes the store."""

    def note(self, error: StoreError, timeout: float | None) -> None:
        """Tell the outage how a call ended."""
        if error.kind is Kind.OVERLOADED:
            self._throttle.refused(self._clock.monotonic())
            self.direct = False
        if error.kind is not Kind.CALLER:
            self.outage.failed(error, own_deadline=timeout is not None)

    def reroute(self) -> None:
        """The outage has changed: look again at where calls go."""
        self.direct = self.outage.available and self._throttle.idle

    async def failed(self, batch: Sequence[Command], timeout: float | None, error: StoreError) -> list[Reply]:
        """Take note, and raise."""
        del batch
        self.note(error, timeout)
        raise error

    async def troubled(
        self, batch: Sequence[Command], timeout: float | None, replies: list[Reply]
    ) -> list[Reply]:
        """Take note; the replies are the caller's to judge."""
        del batch, timeout
        trouble = trouble_in(replies)
        if trouble is not None:
            self.note(trouble, None)
        return replies

    def _admit(self) -> None:
        """Raise what a call must be refused with, if it must."""
        if not self.outage.available:
            if REPLAYING.get() and self.outage.state is State.RECOVERING:
                return
            raise StoreUnavailable(f"{self.target} is away; nothing was sent")
        now = self._clock.monotonic()
        if not self._throttle.admit(now):
            raise StoreOverloaded(f"{self.target} is overloaded; nothing was sent, to let it recover")
        self._throttle.accepted(now)
        self.reroute()


class FailoverTransport:
    """The store while it is there, memory while it is not.

    Args:
        store: the store; closed with this.
        journal: where services keep what must outlast an outage; closed with this.
        memory: makes the memory store of an outage.
        clock: the time.
        watchman: makes what watches the store; a test's own.
    """

    def __init__(
        self,
        store: Transport,
        journal: Journal,
        memory: Callable[[], Transport],
        *,
        clock: Clock = SYSTEM_CLOCK,
        watchman: Callable[[PrimaryTransport], Watchman] | None = None,
    ) -> None:
        from redis_core.resilience.watchman import Watchman  # noqa: PLC0415 - it brings SQLite

        self.store = store
        self.answered = 0
        self.primary = PrimaryTransport(store, clock)
        self.outage: Watchman = (
            watchman(self.primary)
            if watchman
            else Watchman(store, self.primary, journal, clock=clock, prepare=memory)
        )
        self.primary.outage = self.outage
        self.primary.other_face = lambda: self.answered
        self.outage.rerouted = self._rerouted
        self.target = store.target
        self.stats = store.stats
        self._make_memory = memory
        self._switch: EnvSwitch | None = None
        self._memory: Transport | None = None
        self.direct = True
        self._send = store.execute
        self._clock = clock
        self._subscriptions = FailoverSubscriptions(self._listen, lambda: self._from_memory)

    @property
    def mode(self) -> str:
        """The store's, or `degraded` or `recovering`."""
        return self.primary.mode

    @property
    def script_header(self) -> str:
        """What the store wants before a script; memory ignores it."""
        return self.store.script_header

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands to the store, or to memory while it is away; see `Transport`."""
        if not self.direct:
            return await self._detour(batch, timeout, transaction=False)
        try:
            replies = await self._send(batch, timeout=timeout)
        except StoreError as error:
            return await self.failed(batch, timeout, error)
        self.answered += 1
        if TROUBLE.isdisjoint(map(type, replies)):
            return replies
        return await self.troubled(batch, timeout, replies)

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands, all or nothing; see `Transport`."""
        if not self.direct:
            return await self._detour(batch, timeout, transaction=True)
        try:
            replies = await self.store.transaction(batch, timeout=timeout)
        except StoreError as error:
            return await self.failed(batch, timeout, error, transaction=True)
        self.answered += 1
        return replies

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns, on the store and, during an outage, in memory; see `Transport`."""
        return await self._subscriptions.subscribe(channels, patterns)

    def watch(self, switch: EnvSwitch | None = None) -> None:
        """Begin to watch the store, in the running event loop.

        Args:
            switch: turns mock mode on and off; closed with this.
        """
        self._switch = switch
        self.outage.start()
        if switch is not None:
            switch.start()

    async def rotate(self, secret: Secret) -> None:
        """Use another password or token of the store; see `RotatingTransport`. A store without one takes none."""
        if isinstance(self.store, RotatingTransport):
            await self.store.rotate(secret)

    async def aclose(self) -> None:
        """Close the watch, the journal, memory and the store."""
        if self._switch is not None:
            await self._switch.aclose()
        await self.outage.aclose()
        await self._subscriptions.aclose()
        memory, self._memory = self._memory, None
        if memory is not None:
            await memory.aclose()
        await self.store.aclose()

    # --- where a call goes ---

    @property
    def _from_memory(self) -> bool:
        return not self.outage.available

    def _rerouted(self) -> None:
        self.primary.reroute()
        self.direct = self.primary.direct
        memory = self._memory
        if not self._from_memory and memory is not None:
            # What raw commands wrote there is dropped: it was never the store's.
            self._memory = None
            self._forgetting = asyncio.get_running_loop().create_task(memory.aclose())
        self._subscriptions.moved()

    async def _detour(
        self, batch: Sequence[Command], timeout: float | None, *, transaction: bool
    ) -> list[Reply]:
        if self._from_memory:
            return await self._remembered(batch, timeout, transaction=transaction)
        send = self.primary.transaction if transaction else self.primary.execute
        try:
            return await send(batch, timeout=timeout)
        except StoreUnavailable as error:
            return await self._after_verdict(batch, timeout, error, transaction=transaction)
        finally:
            self.direct = self.primary.direct

    @property
    def guard(self) -> FailoverTransport:
        """Itself; see `Guarded`."""
        return self

    async def failed(
        self,
        batch: Sequence[Command],
        timeout: float | None,
        error: StoreError,
        *,
        transaction: bool = False,
    ) -> list[Reply]:
        """Take note of a call that the store did not answer; memory's answer, or the error, raised."""
        self.primary.note(error, timeout)
        self.direct = self.primary.direct
        if error.kind is not Kind.UNREACHABLE:
            raise error
        return await self._after_verdict(batch, timeout, error, transaction=transaction)

    async def troubled(
        self, batch: Sequence[Command], timeout: float | None, replies: list[Reply]
    ) -> list[Reply]:
        """Replies that tell of the store: one that loads or whose cluster is down is as good as away."""
        trouble = trouble_in(replies)
        if trouble is None:
            return replies
        self.primary.note(trouble, None)
        self.direct = self.primary.direct
        if trouble.kind is not Kind.UNREACHABLE or not all(isinstance(one, StoreError) for one in replies):
            return replies  # some of it was done, and must not be done a second time elsewhere
        await self.outage.verdict()
        return await self._remembered(batch, timeout, transaction=False) if self._from_memory else replies

    async def _after_verdict(
        self, batch: Sequence[Command], timeout: float | None, error: StoreError, *, transaction: bool
    ) -> list[Reply]:
        """What becomes of a call that found the store unreachable: memory answers it if that cannot do anything twice."""
        if not may_answer_elsewhere(batch, error):
            raise error
        if timeout is not None and isinstance(error, DeadlineExceeded) and not self._from_memory:
            raise error  # the caller's time is used up
        try:
            async with asyncio.timeout(timeout):
                await self.outage.verdict()
        except TimeoutError:
            raise error from None
        if not self._from_memory:
            raise error
        return await self._remembered(batch, timeout, transaction=transaction)

    async def _remembered(
        self, batch: Sequence[Command], timeout: float | None, *, transaction: bool
    ) -> list[Reply]:
        memory = self._in_memory()
        count = self.stats.extra
        count["degraded_commands"] = count.get("degraded_commands", 0) + len(batch)
        send = memory.transaction if transaction else memory.execute
        return await send(batch, timeout=timeout)

    def _in_memory(self) -> Transport:
        if self._memory is None:
            self._memory = self._make_memory()
        return self._memory

    async def _listen(
        self, from_memory: bool, channels: Sequence[str], patterns: Sequence[str]
    ) -> Subscription:
        if from_memory:
            return await self._in_memory().subscribe(*channels, patterns=patterns)
        return await self.primary.subscribe(*channels, patterns=patterns)
