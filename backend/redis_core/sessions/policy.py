"""How long sessions live and how many there may be; and the arithmetic of it, in whole milliseconds since the Unix epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from redis_core.config import Settings

__all__ = ["SessionPolicy"]

TOUCHES_PER_IDLE: Final = 24
"""A session in constant use has its expiry renewed this often per idle time, so 24 times a day."""


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """The rules of one application's sessions. Times in seconds."""

    idle: float = 86_400
    """A session ends this long after it was last touched; it is touched by a use that comes at least 1/24 of this later
    than the last touch. So an unused session ends after 23/24 to 24/24 of this, never later."""
    absolute: float = 30 * 86_400
    """A session ends this long after its creation, however much it is used."""
    max_sessions: int = 0
    """Most sessions of one user in one workspace; 0 is no limit."""
    at_max: Literal["evict-oldest", "refuse"] = "evict-oldest"
    """At the maximum, a login ends the session used longest ago, or fails with `TooManySessions`."""
    renew_after: float | None = None
    """A token older than this is replaced in passing, the old one valid for `renew_grace`; None never."""
    renew_grace: float = 15
    """How long a token that was replaced in passing is still accepted, for requests that are under way."""
    max_bytes: int = 32 * 1024
    """Most bytes of data in a session, names and encoded values."""
    max_fields: int = 64
    """Most fields of data in a session."""
    epoch_cache: float = 30
    """How long a process remembers that a user's or workspace's sessions were not all revoked: the longest that a
    revocation of all of them takes to reach every process."""

    away: float = 3_600
    """While the store is away a process reads the sessions it has seen, for this long after the store last vouched for each: the
    longest that it takes no notice of a revocation elsewhere."""

    idle_ms: int = field(init=False, repr=False)
    touch_after_ms: int = field(init=False, repr=False)
    """Milliseconds after a touch from which a use touches again; also how much longer than a session Redis keeps it."""

    def __post_init__(self) -> None:
        if self.idle <= 0 or self.absolute <= 0 or (self.renew_after is not None and self.renew_after <= 0):
            raise ValueError("a session's times must be more than 0 seconds")
        if (
            self.max_sessions < 0
            or self.max_bytes < 1
            or self.max_fields < 1
            or min(self.epoch_cache, self.away) < 0
        ):
            raise ValueError("a session's limits must not be negative")
        # Every read asks for these, so they are worked out once.
        object.__setattr__(self, "idle_ms", max(1, round(self.idle * 1000)))
        object.__setattr__(self, "touch_after_ms", max(1, -(-self.idle_ms // TOUCHES_PER_IDLE)))

    @classmethod
    def from_settings(cls, settings: Settings) -> SessionPolicy:
        """The policy that the settings name."""
        return cls(
            idle=settings.redis_session_ttl,
            absolute=settings.session_absolute_ttl,
            max_sessions=settings.session_max_per_user,
            at_max=settings.session_at_max,
        )

    def absolute_end(self, created: int) -> int:
        """When a session made then ends at the latest."""
        return created + max(1, round(self.absolute * 1000))

    def end(self, touched: int, absolute_end: int) -> int:
        """When a session ends if it is not used again: the first moment at which it is over."""
        return min(touched + self.idle_ms, absolute_end)

    def touch_due(self, touched: int, now: int) -> bool:
        """Whether a use now is to be written down."""
        return now - touched >= self.touch_after_ms

    def redis_ttl(self, touched: int, absolute_end: int, now: int) -> int:
        """Milliseconds to keep the hash: a little past its end, so that what ends it is our clock and not Redis' lag."""
        return max(1, self.end(touched, absolute_end) - now) + self.touch_after_ms

    @property
    def epoch_ttl_ms(self) -> int:
        """Milliseconds to keep a revocation epoch: longer than any session that it ends."""
        return self.absolute_end(0) + 2 * self.touch_after_ms
