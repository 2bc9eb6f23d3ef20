"""How much one request may ask of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GatewayLimits"]


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Bounds of requests. The defaults are Upstash's, where it documents them."""

    max_body_bytes: int = 10 * 1024 * 1024
    """Largest body of a request; a larger one is answered 413."""
    max_pipeline: int = 10_000
    """Most commands of one pipeline or transaction; more are answered 413."""
    max_key_bytes: int = 32 * 1024
    """Longest key; a command with a longer one fails."""
    max_streams: int = 1_000
    """Most event streams at once; one more is answered 429."""
    heartbeat: float = 15.0
    """Seconds of silence after which an event stream gets a comment, so that no proxy takes it for dead."""
    subscribe_timeout: float = 5.0
    """Seconds the store has to confirm a subscription; then 504."""
    drain_timeout: float = 5.0
    """Seconds that the rest of a body that is too large is read and dropped, so that its sender reads the 413."""
