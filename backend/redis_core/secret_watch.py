"""Secrets that are replaced while processes run: read at start, polled, and handed to whoever uses them.

The one rule of a rotation is that the new secret is accepted before the old one is taken away. Then nothing fails: processes
notice within a minute, or at the first refusal.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import RedisCoreError
from redis_core.log import get_logger
from redis_core.secret import Secret
from redis_core.secret_source import GoogleCloud, read_secret, references_of

if TYPE_CHECKING:
    from redis_core.config import Settings

__all__ = ["SecretWatch", "watch_secrets"]

POLL: Final = 60.0
"""Seconds between two looks, drawn from half to one and a half of it: a fleet does not ask all at once."""
_AGAIN: Final = 1.0
"""Seconds before a refused secret is looked for again: a wrong one must not become a flood of questions."""
_LOG: Final = get_logger(__name__)
_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret

Listener = Callable[[Secret], Awaitable[None] | None]
"""Takes a new secret into use; raises what refuses it."""


class SecretWatch:
    """The secrets of one process whose settings are references.

    Args:
        references: what the settings say, by variable.
        current: the secrets as they were read.
        google: where Secret Manager is.
        clock: what is waited by.
    """

    def __init__(
        self,
        references: Mapping[str, Secret],
        current: Mapping[str, Secret],
        google: GoogleCloud,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._references = dict(references)
        self._current = dict(current)
        self._google = google
        self._clock = clock
        self._listeners: defaultdict[str, list[Listener]] = defaultdict(list)
        self._asking: dict[str, asyncio.Task[bool]] = {}
        self._not_before: dict[str, float] = {}
        self._failing: set[str] = set()
        self._poller: asyncio.Task[None] | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        """The settings that are watched."""
        return tuple(self._references)

    def on_change(self, variable: str, listener: Listener) -> None:
        """Hand each new secret of this setting to the listener; begins to poll with the first one.

        Args:
            variable: the setting; nothing happens for one that is no reference.
            listener: takes it into use.
        """
        if variable not in self._references:
            return
        self._listeners[variable].append(listener)
        if self._poller is None:
            self._poller = asyncio.get_running_loop().create_task(self._poll(), name="secrets")

    async def refresh(self, variable: str) -> bool:
        """Look for a new secret now, because the present one was refused; whether there is one, in use already.

        Who asks together shares the answer, and after a look in vain there is none for a second.
        """
        if variable not in self._references or self._clock.monotonic() < self._not_before.get(variable, 0):
            return False
        task = self._asking.get(variable)
        if task is None:
            task = self._asking[variable] = asyncio.get_running_loop().create_task(self._look(variable))
            task.add_done_callback(lambda _: self._asking.pop(variable, None))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop polling. Idempotent."""
        tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [
            task for task in (self._poller, *self._asking.values()) if task is not None
        ]
        self._poller = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _poll(self) -> None:
        while True:
            await self._clock.sleep(POLL * _RANDOM.uniform(0.5, 1.5))
            for variable in self._references:
                await self._look(variable)

    async def _look(self, variable: str) -> bool:
        try:
            found = await read_secret(variable, self._references[variable], self._google)
            if found == self._current[variable]:
                self._not_before[variable] = self._clock.monotonic() + _AGAIN
                self._well(variable)
                return False
            for listener in self._listeners[variable]:
                if (taking := listener(found)) is not None:
                    await taking
        except RedisCoreError as error:
            # The last good one stays in use; said once, not once a minute.
            self._not_before[variable] = self._clock.monotonic() + _AGAIN
            if variable not in self._failing:
                self._failing.add(variable)
                _LOG.error("secret not taken into use", variable=variable, reason=str(error))
            return False
        self._current[variable] = found
        self._well(variable)
        _LOG.info("secret replaced", variable=variable)
        return True

    def _well(self, variable: str) -> None:
        if variable in self._failing:
            self._failing.discard(variable)
            _LOG.info("secret readable again", variable=variable)


async def watch_secrets(settings: Settings, clock: Clock = SYSTEM_CLOCK) -> tuple[Settings, SecretWatch]:
    """The settings with every reference replaced by its secret, and the watch over them.

    Raises:
        ConfigError: a reference is malformed, or names what is not there or may not be read.
        StoreUnavailable: the place it names does not answer.
    """
    references = references_of(settings)
    google = GoogleCloud(settings.gce_metadata_host, settings.secret_manager_url)
    found = {name: await read_secret(name.upper(), value, google) for name, value in references.items()}
    watch = SecretWatch(
        {name.upper(): value for name, value in references.items()},
        {name.upper(): value for name, value in found.items()},
        google,
        clock,
    )
    return settings.model_copy(update=found), watch
