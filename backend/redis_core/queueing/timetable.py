"""Fires schedules: each worker looks at them, and the store sees to it that each firing makes one job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from redis_core.errors import ConfigError, StoreError
from redis_core.log import get_logger
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.job import derived_id, level_of, pack
from redis_core.queueing.schedule import Firings, Schedule
from redis_core.queueing.shard import EnqueueRow
from redis_core.queueing.spool import SPOOLED

__all__ = ["Timetable"]

_ON_TIME: Final = 60_000
"""Milliseconds that a firing may be late and is not yet a missed one."""
_REMEMBERED: Final = 86_400_000
"""Milliseconds that a firing's job is known after it is over, so that nobody makes it again."""
_LONGEST_SLEEP: Final = 3600.0
_AGAIN: Final = 5.0
"""Seconds until what could not be fired is tried again; `_AWAY`, if the store did not answer."""
_AGAIN_AWAY: Final = 1.0
_KEPT: Final = frozenset({"known", SPOOLED})
"""Refusals of a job that is there nevertheless."""
_LOG: Final = get_logger("redis_core.queue")


class Timetable:
    """The schedules of a worker.

    A firing's job has an id made of the schedule and the time, so any number of workers may fire it; that it was fired is noted
    after the job was taken in, so a worker that dies in between loses nothing.

    Args:
        engine: the process' queues.
        schedules: all of them.

    Raises:
        ConfigError: two that are unlike have one name in a workspace and queue: each firing of one would count as the other's.
    """

    def __init__(self, engine: QueueEngine, schedules: Sequence[Schedule]) -> None:
        self._engine = engine
        self._clock = engine.clock
        by_name: dict[tuple[str, str, str], Schedule] = {}
        for each in schedules:
            # Modules that import a schedule from one another have the same one.
            if by_name.setdefault((each.call.task.queue, each.workspace, each.name), each) != each:
                where = f"workspace {each.workspace} and queue {each.call.task.queue}"
                raise ConfigError("schedules", each.name, f"two have this name in {where}; rename one")
        self._schedules: list[tuple[Schedule, Firings]] = [
            (each, each.firings()) for each in by_name.values()
        ]

    async def run(self) -> None:
        """Fire until cancelled."""
        while self._schedules:
            await self._clock.sleep(min(await self.fire(), _LONGEST_SLEEP))

    async def fire(self) -> float:
        """Fire what is due; seconds until something is again. Budget: 2 commands for each schedule, and a job's for each firing."""
        return min([await self._try(*each) for each in self._schedules], default=_LONGEST_SLEEP)

    async def _try(self, schedule: Schedule, firings: Firings) -> float:
        """Fire one; what is wrong with it does not hold up the others, and is tried again."""
        try:
            return await self._fire(schedule, firings)
        except StoreError as error:
            _LOG.warning("cannot fire a schedule", schedule=schedule.name, error=str(error))
            return _AGAIN_AWAY
        except Exception:  # noqa: BLE001 - it is told, and the other schedules go on
            _LOG.exception("cannot fire a schedule", schedule=schedule.name)
            return _AGAIN

    async def _fire(self, schedule: Schedule, firings: Firings) -> float:
        shard = self._engine.shard(schedule.call.task.queue, schedule.workspace)
        name = f"{schedule.workspace}:{schedule.name}"
        now = int(self._clock.now() * 1000)
        last = await shard.fired(name, None, now)
        times, over = firings.due(last, now, _ON_TIME)
        if times:
            rows = [self._row(schedule, at, now) for at in times]
            refused = await self._engine.enqueue_rows(
                shard, schedule.workspace, rows, check_results=True, keep=_REMEMBERED
            )
            lost = min((place for place, why in refused.items() if why not in _KEPT), default=None)
            if lost is not None:
                # Only what was taken in is over: the others are fired again as long as they count as due.
                why = str(refused[lost])
                _LOG.error("a schedule's job was not taken in", schedule=schedule.name, reason=why)
                if lost:
                    await shard.fired(name, times[lost - 1], now)
                return _AGAIN
        if over is not None:
            await shard.fired(name, over, now)
        return max(firings.next(now) / 1000 - self._clock.now(), 0.001)

    @staticmethod
    def _row(schedule: Schedule, at: int, now: int) -> EnqueueRow:
        chosen = derived_id("schedule", schedule.workspace, schedule.name, str(at))
        level = level_of(schedule.priority)
        payload = pack(
            level, schedule.call.task.name, "", schedule.call.arguments, now, {"keep": _REMEMBERED}
        )
        return EnqueueRow(chosen, level, 0, "", "", payload)
