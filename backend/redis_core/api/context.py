"""What the routes work with: the process' client and its health probe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK
from redis_core.health import HealthProbe

__all__ = ["ClientSource", "ProbeSource"]

ClientSource: TypeAlias = Callable[[], Awaitable[Client]]
"""Where routes get their client: `redis_core.get_redis`, or the app's own."""


class ProbeSource:
    """The health probe of whatever client the source gives; made again when that is another one.

    Args:
        client: where the client comes from.
    """

    def __init__(self, client: ClientSource) -> None:
        self._client = client
        self._probe: HealthProbe | None = None
        self._started = SYSTEM_CLOCK.monotonic()

    async def __call__(self) -> HealthProbe:
        """The probe."""
        client = await self._client()
        if self._probe is None or self._probe.client is not client:
            self._probe = HealthProbe(client, started=self._started)
        return self._probe
