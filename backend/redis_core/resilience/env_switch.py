"""`MOCK_REDIS` in the `.env` files as a switch: editing one turns mock mode on or off in every running process, without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from redis_core.clock import Clock
from redis_core.config import env_file_stamp, mock_wanted
from redis_core.errors import ConfigError
from redis_core.log import get_logger
from redis_core.resilience.outage import Outage

__all__ = ["EnvSwitch"]

_LOG: Final = get_logger("redis_core.outage")
_EVERY: Final = 1.0
"""Seconds between looks at the files' dates: one `stat` each."""


class EnvSwitch:
    """Watches the files that settings are read from. What the environment says is stronger, and does not change.

    Args:
        outage: what is switched.
        clock: the time.
        wanted: what the files say now.
        stamp: what changes when a file does.
    """

    def __init__(
        self,
        outage: Outage,
        clock: Clock,
        *,
        wanted: Callable[[], bool] = mock_wanted,
        stamp: Callable[[], object] = env_file_stamp,
    ) -> None:
        self._outage = outage
        self._clock = clock
        self._wanted = wanted
        self._stamp = stamp
        self._seen = stamp()
        self._was = self._read(default=False)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch, in the running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="redis-env-files")

    async def aclose(self) -> None:
        """Stop watching."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(_EVERY)
            self.look()

    def look(self) -> None:
        """Read the files if they have changed, and switch if what they say has."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        wanted = self._read(default=self._was)
        if wanted != self._was:
            self._was = wanted
            self._outage.force(wanted)

    def _read(self, *, default: bool) -> bool:
        try:
            return self._wanted()
        except (ConfigError, OSError) as error:
            _LOG.error(
                "MOCK_REDIS cannot be read from the .env files; nothing was switched", error=str(error)
            )
            return default
