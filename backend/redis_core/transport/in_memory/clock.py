"""Time for fakeredis: its streams and hashes read the machine's clock, a memory store has a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Final

from fakeredis import _helpers
from fakeredis.commands_mixins import hash_mixin, streams_mixin
from fakeredis.model import _expiring_members_set, _hash, _stream

from redis_core.clock import SYSTEM_CLOCK, Clock

__all__ = ["follow"]

_READERS: Final[tuple[ModuleType, ...]] = (_expiring_members_set, _hash, _stream, hash_mixin, streams_mixin)
_machine_time: Final = _helpers.current_time
_followed: list[Clock] = [SYSTEM_CLOCK]


def _current_time() -> int:
    """Milliseconds since the epoch by the clock of the store that runs a command just now."""
    clock = _followed[0]
    return _machine_time() if clock is SYSTEM_CLOCK else int(clock.now() * 1000)


class _StoreTime:
    """What the streams take for the module `time`."""

    @staticmethod
    def time() -> float:
        """Seconds since the epoch by the same clock."""
        return _followed[0].now()


def follow(clock: Clock) -> Callable[[], None]:
    """What a store calls before each command, so that fakeredis sees its time. Changes nothing until a test moves a clock."""
    if clock is not SYSTEM_CLOCK:
        for module in _READERS:
            module.current_time = _current_time  # type: ignore[attr-defined]
        setattr(_stream, "time", _StoreTime)  # noqa: B010 - not declared as theirs to set

    def now_running() -> None:
        _followed[0] = clock

    return now_running
