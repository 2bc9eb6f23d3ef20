"""What one workspace, and one stream of it, may use of a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis_core.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from redis_core.config import Settings

__all__ = ["Allowance", "RealtimeLimits"]


@dataclass(frozen=True, slots=True)
class RealtimeLimits:
    """Limits of the realtime endpoints. Those of a workspace hold in each process by itself: counting costs no command."""

    heartbeat: int = 25
    """Seconds between two pings."""
    token_seconds: int = 600
    """Life of a token that an app session is exchanged for."""
    max_streams: int = 10_000
    """Streams a workspace may have open."""
    max_topics: int = 100
    """Topics a stream may have, each kind counted."""
    max_subscriptions: int = 100_000
    """Those of all streams of a workspace together."""
    max_publishes: int = 500
    """Updates a second that a workspace's browsers may publish."""
    max_bytes: int = 1024 * 1024
    """Bytes a second of them."""
    max_body: int = 256 * 1024
    """Bytes of a request's body or a WebSocket message."""
    max_held: int = 64 * 1024
    """Bytes of updates held for a client whose last write is under way; beyond, it resumes from history."""
    max_parked: float = 30.0
    """Seconds one write to a client may take before it is told to come back."""
    auth_within: float = 10.0
    """Seconds within which a WebSocket must show its token."""
    max_unknown: int = 1_000
    """WebSockets of a process that have not shown theirs yet."""
    drain_seconds: int = 10
    """At a shutdown clients are told to come back at a random moment within so many seconds."""

    @classmethod
    def from_settings(cls, settings: Settings) -> RealtimeLimits:
        """The limits that the settings name."""
        return cls(
            heartbeat=settings.realtime_heartbeat,
            token_seconds=settings.realtime_token_seconds,
            max_streams=settings.realtime_max_streams,
            max_topics=settings.realtime_max_topics,
            max_subscriptions=settings.realtime_max_subscriptions,
            max_publishes=settings.realtime_max_publishes,
            max_bytes=settings.realtime_max_bytes,
        )


class Allowance:
    """What a workspace has left of its streams, topics, publishes and bytes: two token buckets that hold one second's worth.

    Args:
        limits: how much.
        clock: refills the buckets.
    """

    __slots__ = ("_at", "_bytes", "_clock", "_limits", "_publishes", "streams", "subscriptions")

    def __init__(self, limits: RealtimeLimits, clock: Clock = SYSTEM_CLOCK) -> None:
        self._limits = limits
        self._clock = clock
        self.streams = 0
        """Open now."""
        self.subscriptions = 0
        """Topics that these have."""
        self._at = clock.monotonic()
        self._publishes = float(limits.max_publishes)
        self._bytes = float(limits.max_bytes)

    @property
    def idle(self) -> bool:
        """Whether nothing would be forgotten with it."""
        return not self.streams and self._clock.monotonic() - self._at >= 1

    def take(self, size: int) -> str | None:
        """Take one publish of so many bytes; the code of the refusal, or None."""
        now = self._clock.monotonic()
        passed, self._at = now - self._at, now
        most = self._limits
        self._publishes = min(most.max_publishes, self._publishes + passed * most.max_publishes)
        self._bytes = min(most.max_bytes, self._bytes + passed * most.max_bytes)
        if self._publishes < 1:
            return "too-many-publishes"
        # One larger than a second's worth passes on a full bucket, and the bucket owes it.
        if self._bytes < min(size, most.max_bytes):
            return "too-many-bytes"
        self._publishes -= 1
        self._bytes -= size
        return None
