"""The contract of floor 2: bytes in, replies out.

A transport speaks to one kind of store. It is small on purpose: adding a store is adding one file that
has these methods, and failover, fault injection and counting are transports that wrap a transport.

Replies have the shape of RESP2 on every store: `bytes`, `int`, `None`, lists of these, and for a command
that the store refused a `StoreError` *value* (never raised) at its place. Simple strings are bytes too
(`b"OK"`). Numbers that a store sends as doubles are the bytes of their shortest decimal form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from redis_core.errors import StoreError
from redis_core.secret import Secret

if TYPE_CHECKING:
    from redis_core.resilience.outage import Outage

__all__ = [
    "Argument",
    "Command",
    "Guarded",
    "Message",
    "Reply",
    "RotatingTransport",
    "Subscription",
    "Transport",
    "TransportStats",
]

Argument: TypeAlias = str | bytes | int | float
"""One word of a command. Text goes out as UTF-8, numbers as their decimal form, bytes as they are."""

Command: TypeAlias = tuple[Argument, ...]
"""A command as it is sent: its name first, in capitals."""

Reply: TypeAlias = "bytes | int | list[Reply] | StoreError | None"
"""What a store answers; see the module's text for its shapes."""


class Message(NamedTuple):
    """One message of a subscription."""

    channel: bytes
    payload: bytes
    pattern: bytes | None = None
    """The pattern that matched, for a pattern subscription."""
    gap: bool = False
    """True for a notice, with empty channel and payload: messages may be missing before the next one."""


@dataclass(slots=True)
class TransportStats:
    """Running totals of one transport, for health, metrics and tests of command budgets."""

    commands: int = 0
    """Commands sent, each of a batch counted."""
    trips: int = 0
    """Writes to a socket, or requests."""
    errors: int = 0
    """Calls that ended because the store was unavailable."""
    connects: int = 0
    """Connections opened, the first included."""
    reconnects: int = 0
    """Connections opened after others were lost: they may lead to a store that is another, or has lost its data."""
    lost: bool = False
    """A connection was lost and none has been opened since."""
    sent_bytes: int = 0
    received_bytes: int = 0
    in_flight: int = 0
    """Commands sent and not yet answered: a level, not a total."""
    extra: dict[str, float] = field(default_factory=dict[str, float])
    """What only this kind of transport can tell."""


@runtime_checkable
class Subscription(Protocol):
    """Messages as they come, until closed: an async iterator and an async context manager.

    Its buffer is bounded: a reader that falls behind loses the oldest messages and is told so by a `Message` with
    `gap=True`, as is every reader after a lost link, because what was published meanwhile is gone.
    """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Message: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def aclose(self) -> None:
        """Stop listening; `__anext__` then ends the iteration. Idempotent."""
        ...


@runtime_checkable
class Transport(Protocol):
    """What speaks to one store. Safe for any number of concurrent tasks of one event loop."""

    @property
    def mode(self) -> str:
        """What health, metrics and logs call it: `upstash`, `tcp`, `cluster`, `memory`, `degraded` or `recovering`."""
        ...

    @property
    def target(self) -> str:
        """Where the store is, without user or secret: for messages and logs."""
        ...

    @property
    def script_header(self) -> str:
        """What must stand before a Lua script's text on this store; empty where nothing must."""
        ...

    @property
    def stats(self) -> TransportStats:
        """Running totals."""
        ...

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands in order, together, and return one reply for each.

        Batches of concurrent tasks that are issued in one turn of the event loop travel together.
        Cancelling the call abandons the replies, never the connection.

        Args:
            batch: the commands; an empty batch costs nothing.
            timeout: seconds until `DeadlineExceeded`; None takes the transport's default.

        Raises:
            StoreUnavailable: the store was lost; `outcome` tells whether the batch may have been done.
            StoreOverloaded: too much is in flight; nothing was sent.
            CredentialsRejected: the store does not know us.
            LimitExceeded: the batch is larger than the store takes.
        """
        ...

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """As `execute`, all or nothing and without another client's command in between.

        Raises:
            TransactionAborted: the store discarded it; nothing was done.
        """
        ...

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns; returns when the store has confirmed all of them.

        Subscriptions of one transport share one link. After a lost link it subscribes again by itself.
        """
        ...

    async def aclose(self) -> None:
        """Fail what is in flight and let go of every socket, task and process. Idempotent."""
        ...


@runtime_checkable
class RotatingTransport(Transport, Protocol):
    """A transport whose password or token can be replaced while it is in use."""

    async def rotate(self, secret: Secret) -> None:
        """Use another password or token from now on; no call fails for it.

        Connections of the old one take no further calls and close when those on them are answered. The store is asked
        first: a secret that it refuses changes nothing.

        Raises:
            CredentialsRejected: the store does not accept it.
            StoreUnavailable: the store could not be asked.
        """
        ...


class Guarded(Protocol):
    """What a transport is besides, whose store is watched, as its attribute `guard`: `failover.py`.

    A caller on a hot path may send to `store` itself while `direct` is true, if it counts what is answered and hands over what fails.
    """

    direct: bool
    """Whether a call may simply be sent to the store."""
    answered: int
    """Calls that were."""

    @property
    def store(self) -> Transport:
        """The store, unwatched."""
        ...

    @property
    def outage(self) -> Outage:
        """What is known of the store being away."""
        ...

    @property
    def primary(self) -> Transport:
        """The store, watched, without a fallback."""
        ...

    async def failed(self, batch: Sequence[Command], timeout: float | None, error: StoreError) -> list[Reply]:
        """Take note of a call that ended so; answer it from elsewhere, or raise the error."""
        ...

    async def troubled(
        self, batch: Sequence[Command], timeout: float | None, replies: list[Reply]
    ) -> list[Reply]:
        """Take note of replies that tell of the store; these, or others from elsewhere."""
        ...
