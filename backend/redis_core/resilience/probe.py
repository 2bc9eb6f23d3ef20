"""One look into the store: it writes and reads back, and says whether the data is still there.

A PING would pass on a store that is read-only or full, and on one that has lost everything.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from redis_core.clock import Clock
from redis_core.errors import DeadlineExceeded, Kind, StoreError
from redis_core.keys import canary_key
from redis_core.resilience.classify import trouble_in
from redis_core.resilience.epoch import (
    EPOCH_KEY,
    MARK_SECONDS,
    Epoch,
    Seen,
    epoch_micros,
    later_epoch,
    new_epoch,
)

__all__ = ["PROBE_TIMEOUT", "Look", "Probe", "Target"]

PROBE_TIMEOUT: Final = 0.5
"""Seconds the store has for a probe. With `REDIS_COMMAND_TIMEOUT` this is how long a silent store stays unnoticed."""

_AGREED_SECONDS: Final = 300
"""How long processes have to notice one loss and agree on one epoch."""


class Target(Protocol):
    """The store that is watched, as far as watching needs it: a transport has this."""

    @property
    def target(self) -> str:
        """Where it is, without user or secret."""
        ...

    @property
    def execute(self) -> Callable[..., Awaitable[Sequence[object]]]:
        """Sends a batch, `timeout` in seconds; one reply for each command."""
        ...


class Look(Struct, frozen=True):
    """What a probe found."""

    trouble: Kind | None = None
    """None if the store took a write and gave it back."""
    silent: bool = False
    """It did not answer in time."""
    lost: bool = False
    """Data is gone that was there at the last look."""
    message: str = ""


class Probe:
    """Looks into one store. Budget: 6 commands and 1 trip each; none that is billed while it cannot be reached.

    Where data was lost, 3 commands and 2 trips more, to raise the store's epoch.

    Args:
        store: what is looked into.
        clock: the time.
    """

    def __init__(self, store: Target, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._epoch = Epoch()
        self._to_raise: bytes | None = None
        """The epoch of before a loss, until it is raised."""
        self._mark_key = canary_key(f"mark-{secrets.token_hex(8)}")

    @property
    def knows_store(self) -> bool:
        """Whether there was a look that the next one can be compared with."""
        return self._epoch.known is not None

    async def look(self) -> Look:
        """Write, read back, and compare with the last look. Never raises what the store says or fails to say."""
        mark, known = self._epoch.next_mark(), self._epoch.known
        try:
            replies = await self._store.execute(
                [
                    ("GET", EPOCH_KEY),
                    ("GET", self._mark_key),
                    ("SET", EPOCH_KEY, new_epoch(self._clock.now()), "NX"),
                    ("SET", self._mark_key, str(mark), "EX", MARK_SECONDS),
                    ("GET", EPOCH_KEY),
                    ("GET", self._mark_key),
                ],
                timeout=PROBE_TIMEOUT,
            )
        except StoreError as error:
            return Look(error.kind, isinstance(error, DeadlineExceeded), message=str(error))
        trouble = trouble_in(replies)
        if trouble is not None and trouble.kind is not Kind.READ_ONLY:
            return Look(trouble.kind, message=str(trouble))
        look = self._compare(replies, mark, trouble)
        if look.lost and look.trouble is None:
            self._to_raise = known
        if self._to_raise is not None and look.trouble is None:
            await self._raise(self._to_raise)
        return look

    async def _raise(self, known: bytes) -> None:
        """Raise the epoch above the one that was known before the loss, unless another process has. All who notice one loss agree on one.

        Should this fail, the next look tries again.
        """
        if epoch_micros(self._epoch.known) <= epoch_micros(known):
            agreed = canary_key(f"epoch-{hashlib.sha256(known).hexdigest()[:16]}")
            later = later_epoch(known, self._clock.now())
            try:
                _, chosen = await self._store.execute(
                    [("SET", agreed, later, "NX", "EX", _AGREED_SECONDS), ("GET", agreed)],
                    timeout=PROBE_TIMEOUT,
                )
                if not isinstance(chosen, bytes):
                    return
                (done,) = await self._store.execute([("SET", EPOCH_KEY, chosen)], timeout=PROBE_TIMEOUT)
            except StoreError:
                return
            if isinstance(done, StoreError):
                return
            self._epoch.known = chosen
        self._to_raise = None

    def _compare(self, replies: Sequence[object], mark: int, trouble: StoreError | None) -> Look:
        was_epoch, was_mark, _, _, epoch, marked = replies
        now = self._clock.monotonic()
        seen = Seen(was_epoch if isinstance(was_epoch, bytes) else None, _number(was_mark))
        refused = any(isinstance(reply, StoreError) for reply in (was_epoch, was_mark))
        lost = not refused and self._epoch.lost(seen, now)
        if trouble is not None:
            return Look(Kind.READ_ONLY, lost=lost, message=str(trouble))
        if isinstance(epoch, bytes) and _number(marked) == mark:
            self._epoch.confirmed(epoch, mark, now)
            return Look(lost=lost)
        error = next((reply for reply in replies if isinstance(reply, StoreError)), None)
        if error is not None:
            # An ACL user who may not use these keys: the store is there, and its epoch stays unknown.
            return Look(message=str(error))
        return Look(Kind.UNREACHABLE, message=f"{self._store.target} does not keep what is written")


def _number(reply: object) -> int | None:
    return int(reply) if isinstance(reply, bytes) and reply.isdigit() else None
