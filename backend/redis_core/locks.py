"""Locks over all processes: leases that end by themselves, with a fencing token.

::

    async with ws.lock("report", ttl=30) as lease:
        await storage.write(report, fence=lease.token)     # a storage that refuses lesser tokens is safe whatever happens
        if lease.lost.is_set():
            ...

A lock in a store that replicates asynchronously (Upstash, Redis with replicas) is for efficiency: a failover may lose it. Where
two holders at once would do harm, the resource has to check the token. While the store is away no lock is granted
(`LockUnavailable`), and one that is held is over a margin before its time is, by this process' own clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import (
    Kind,
    LockLost,
    LockTimeout,
    LockUnavailable,
    StoreError,
)
from redis_core.keys import WorkspaceKeys, check_part
from redis_core.locking.line import Line
from redis_core.locking.store import LockStore
from redis_core.locking.token import Token
from redis_core.log import get_logger

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Lock", "LockEngine", "Scope", "Token"]

Scope = Literal["store", "process"]
"""`store`: over all processes; `process`: among the tasks of this process alone, without the store."""

_MARGIN: Final = 0.1
"""Share of a lease by which it is over early here: clocks drift, and a request is on its way for a while."""
_MAX_MARGIN: Final = 2.0
_RENEW_AT: Final = 1 / 3
"""Share of a lease after which it is renewed; two failures can be made up for."""
_LOOK_EVERY: Final = 5.0
"""Seconds after which a waiter looks by itself, whatever it was told; one that did not for three times as long is dead."""
_SHORT: Final = (0.01, 0.05)
"""Seconds after the end of another's lease at which a waiter looks, drawn at random so that not all do at once."""
_DOWN: Final = frozenset({Kind.UNREACHABLE, Kind.OVERLOADED, Kind.READ_ONLY})
_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret
_LOG: Final = get_logger("redis_core.locks")


class LockEngine:
    """What all locks of one client share: the line, and the locks of scope `process`.

    Args:
        client: the store; its fallback to memory is not used.
        clock: the time.
    """

    def __init__(self, client: Client, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.store = LockStore(client.primary)
        self.line = Line(client.primary)
        self.tasks: set[asyncio.Task[None]] = set()
        self._local: dict[str, tuple[asyncio.Lock, int]] = {}
        self._grants = 0

    def local(self, key: str) -> asyncio.Lock:
        """The lock of this process under a name; `forget_local` undoes it."""
        lock, users = self._local.get(key, (asyncio.Lock(), 0))
        self._local[key] = lock, users + 1
        return lock

    def forget_local(self, key: str) -> None:
        """One user of it less."""
        lock, users = self._local.pop(key)
        if users > 1:
            self._local[key] = lock, users - 1

    def local_token(self) -> Token:
        """A token of this process: it says nothing to others."""
        self._grants += 1
        return Token(0, self._grants)

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """A task that ends with the client."""
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def aclose(self) -> None:
        """End renewals: what is held ends by its time."""
        tasks = tuple(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.line.aclose()


class Lock:
    """One lock, taken once: made by `Workspace.lock()`, entered with `async with`. Not reentrant.

    Args:
        engine: what locks of this client share.
        keys: the workspace's.
        name: which lock.
        ttl: seconds it is held without a renewal; renewed by itself until it is released.
        wait: seconds to wait for it; None for as long as it takes.
        scope: among whom.

    Raises:
        InvalidKey: the name may not stand in a key.
    """

    def __init__(
        self,
        engine: LockEngine,
        keys: WorkspaceKeys,
        name: str,
        *,
        ttl: float = 30.0,
        wait: float | None = None,
        scope: Scope = "store",
    ) -> None:
        if ttl <= 0 or (wait is not None and wait < 0):
            raise ValueError(f"a lock's ttl is positive and its wait not negative, not {ttl} and {wait}")
        self.name = check_part(name)
        self.ttl = ttl
        self.scope: Scope = scope
        self.lost = asyncio.Event()
        """Set when the lease is over before it was released: another may have the lock now."""
        self._engine = engine
        self._keys = keys
        self._wait = wait
        self._clock = engine.clock
        self._holder = ""
        self._token: Token | None = None
        self._until = 0.0
        self._local: asyncio.Lock | None = None
        self._renewing: asyncio.Task[None] | None = None

    # --- what it is ---

    @property
    def token(self) -> Token:
        """The fencing token: greater than that of whoever had the lock before.

        Raises:
            LockLost: it is not held.
        """
        if self._token is None:
            raise LockLost(f"lock {self.name!r} is not held: it has no token")
        return self._token

    @property
    def held(self) -> bool:
        """Whether it is ours still, by this process' own clock."""
        return self._token is not None and not self.lost.is_set() and self.remaining > 0

    @property
    def remaining(self) -> float:
        """Seconds for which it is certainly ours unless it is renewed."""
        if self._token is None:
            return 0.0
        return max(0.0, self._until - self._clock.monotonic())

    def check(self) -> None:
        """Go on only while it is ours: call it before each step that must not be done twice.

        Raises:
            LockLost: it is not.
        """
        if not self.held:
            raise LockLost(f"lock {self.name!r} is no longer ours: its lease is over")

    # --- taking ---

    async def acquire(self) -> Self:
        """Take it, in the order of asking; `async with` does this. Budget: see `LockStore.take`; while waiting one command in 5 s.

        Raises:
            LockTimeout: others had it for as long as `wait`.
            LockUnavailable: the store is away.
            RuntimeError: this object has been used before.
        """
        if self._holder:
            raise RuntimeError("a lock object is taken once: ask the workspace for another")
        self._holder = self._engine.line.new_holder()
        if self.scope == "process":
            await self._acquire_local()
            return self
        try:
            if not await self._try():
                await self._stand_in_line()
        except BaseException as error:
            # Whether it was granted is not known: it is given back in the background, so that nobody waits for its time.
            self._engine.spawn(self._leave(None), f"leave lock {self.name}")
            if isinstance(error, StoreError) and error.kind in _DOWN:
                raise LockUnavailable(
                    f"lock {self.name!r} cannot be granted while the store is away: {error}"
                ) from error
            raise
        self._renewing = self._engine.spawn(self._renew(), f"renew lock {self.name}")
        return self

    async def _try(self, waits: float = 0) -> bool:
        asked = self._clock.monotonic()
        found = await self._engine.store.take(self._keys, self.name, self._holder, self.ttl, waits)
        if isinstance(found, Token):
            self._token = found
            self._until = asked + self.ttl - min(_MAX_MARGIN, self.ttl * _MARGIN)
            return True
        self._ends_in = found
        return False

    async def _stand_in_line(self) -> None:
        line = self._engine.line
        until = None if self._wait is None else self._clock.monotonic() + self._wait
        with line.standing(self._holder) as told:
            while True:
                left = _LOOK_EVERY if until is None else until - self._clock.monotonic()
                if left <= 0:
                    raise LockTimeout(f"lock {self.name!r} was held by others for {self._wait} s")
                await _within(line.open(), min(left, 1.0))
                told.clear()
                if await self._try(3 * _LOOK_EVERY):
                    return
                patience = min(left, _LOOK_EVERY)
                if self._ends_in:
                    patience = min(patience, self._ends_in + _RANDOM.uniform(*_SHORT))
                await _within(told.wait(), patience)

    async def _acquire_local(self) -> None:
        key = self._keys.key("lock", self.name)
        lock = self._engine.local(key)
        try:
            async with asyncio.timeout(self._wait):
                await lock.acquire()
        except BaseException as error:
            self._engine.forget_local(key)
            if isinstance(error, TimeoutError):
                raise LockTimeout(f"lock {self.name!r} was held by others for {self._wait} s") from None
            raise
        self._local = lock
        self._token = self._engine.local_token()
        self._until = float("inf")

    # --- keeping ---

    async def _renew(self) -> None:
        """Renew until released; say so when that failed for too long."""
        try:
            pause = self.ttl * _RENEW_AT
            while True:
                await self._clock.sleep(min(pause, self.remaining))
                if not self.remaining:
                    return
                try:
                    if not await self._renewed():
                        return
                    pause = self.ttl * _RENEW_AT
                except StoreError as error:
                    left = self.remaining
                    _LOG.warning(
                        "lock cannot be renewed", lock=self.name, seconds_left=left, error=str(error)
                    )
                    pause = self.ttl * _MARGIN
        finally:
            if self._token is not None:
                self.lost.set()

    async def _renewed(self) -> bool:
        asked = self._clock.monotonic()
        renewal = asyncio.ensure_future(
            self._engine.store.renew(self._keys, self.name, self._holder, self.ttl)
        )
        over = asyncio.ensure_future(self._clock.sleep(self.remaining))
        try:
            # The store may not answer in time; the lease is over all the same when its time is.
            await asyncio.wait({renewal, over}, return_when=asyncio.FIRST_COMPLETED)
            if not renewal.done():
                return False
            if not renewal.result():
                _LOG.warning("lock lost: the store no longer has it", lock=self.name)
                return False
        finally:
            for task in (renewal, over):
                task.cancel()
            await asyncio.gather(renewal, over, return_exceptions=True)
        self._until = max(self._until, asked + self.ttl - min(_MAX_MARGIN, self.ttl * _MARGIN))
        return True

    # --- giving back ---

    async def release(self) -> None:
        """Give it back and wake who is next. Idempotent; a store that is away lets it end by its time. Budget: 1 command."""
        token, self._token = self._token, None
        if token is None:
            return
        if self._local is not None:
            self._local.release()
            self._engine.forget_local(self._keys.key("lock", self.name))
            return
        if self._renewing is not None:
            self._renewing.cancel()
        await self._leave(token)

    async def _leave(self, token: Token | None) -> None:
        try:
            await self._engine.store.leave(self._keys, self.name, self._holder, token)
        except StoreError as error:
            _LOG.warning(
                "lock could not be given back: it ends by its time", lock=self.name, error=str(error)
            )

    async def __aenter__(self) -> Self:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        over = not self.held
        await self.release()
        if over and error is None:
            raise LockLost(
                f"lock {self.name!r} was lost while it was needed: what was done under it may overlap"
            )

    def __repr__(self) -> str:
        state = "lost" if self.lost.is_set() else "held" if self.held else "not held"
        return f"<Lock {self.name!r} of {self._keys.workspace!r}, {state}>"


async def _within(work: Awaitable[object], seconds: float) -> None:
    """Wait for it, but not for longer."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return
