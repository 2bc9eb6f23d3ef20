"""Reading the buckets back: what all processes measured, minute by minute or hour by hour.

What is over does not change, so it is read once and remembered: who looks at a month costs the store one command a day of it the first
time, and two afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import CodecError
from redis_core.keys import metrics_key
from redis_core.log import get_logger
from redis_core.measuring.batch import Batch, decode_batch
from redis_core.measuring.catalogue import split_label
from redis_core.measuring.recorder import DAY, HOUR, HOURS_KEPT, MINUTE, MINUTES_KEPT

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Archive", "Scale", "Window"]

_SETTLED: Final = 1_200
"""Seconds after the end of a hash until its last writer has given up."""
_MOST_REMEMBERED: Final = 64
_LOG: Final = get_logger("redis_core.metrics")


class Scale(NamedTuple):
    """How the buckets of one length are kept."""

    name: str
    bucket: int
    """Seconds of one bucket."""
    hash: int
    """Seconds of one hash of them."""
    kept: int
    """Seconds they are kept at least."""


MINUTES: Final = Scale("minutes", MINUTE, HOUR, MINUTES_KEPT - HOUR)
HOURS: Final = Scale("hours", HOUR, DAY, HOURS_KEPT - DAY)


class Window(NamedTuple):
    """What was measured within some time."""

    scale: Scale
    buckets: Mapping[int, Batch]
    """By their beginning in Unix seconds; one for which nothing was written is missing."""
    levels: Mapping[str, Mapping[int, Mapping[str, float]]]
    """What each process that wrote had at the end of a bucket."""

    def together(self) -> Batch:
        """All of it as one, with the levels that the processes had last."""
        whole = Batch(levels=self._last_levels())
        for batch in self.buckets.values():
            whole.add_counts(batch)
        return whole

    def since(self, begin: float) -> Window:
        """The part of it from the bucket of this time on."""
        first = int(begin) // self.scale.bucket * self.scale.bucket
        late = {
            process: {at: each for at, each in of_process.items() if at >= first}
            for process, of_process in self.levels.items()
        }
        return Window(
            self.scale,
            {at: batch for at, batch in self.buckets.items() if at >= first},
            {process: of_process for process, of_process in late.items() if of_process},
        )

    def had(self, name: str) -> set[str]:
        """The labels of which some process had anything, of this level, when it last wrote."""
        return {
            label
            for of_process in self.levels.values()
            for series, level in of_process[max(of_process)].items()
            for found, label in [split_label(series)]
            if found == name and level
        }

    def _last_levels(self) -> dict[str, float]:
        """Of processes that were there in the last bucket or the one before: not each has flushed in the last one yet."""
        together = Batch()
        newest = max(self.buckets, default=0)
        for of_process in self.levels.values():
            last = max(of_process)
            if last >= newest - self.scale.bucket:
                together.add(Batch(levels=dict(of_process[last])))
        return together.levels


class _Hash(NamedTuple):
    buckets: dict[int, Batch]
    levels: dict[str, dict[int, dict[str, float]]]


class Archive:
    """The store's buckets, those that are over remembered.

    Args:
        client: the store.
        clock: the time.
    """

    def __init__(self, client: Client, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._clock = clock
        self._remembered: dict[str, _Hash] = {}

    async def window(self, begin: float, end: float, scale: Scale = MINUTES) -> Window:
        """What was measured in the buckets from the one of `begin` to the one of `end`, that one included.

        Budget: 1 trip; 1 HGETALL for each hour of minutes, or day of hours, that is not remembered.

        Raises:
            StoreError: the store did not answer.
        """
        first = int(begin) // scale.bucket * scale.bucket
        starts = range(first // scale.hash * scale.hash, int(end) + 1, scale.hash)
        hashes = await self._hashes([metrics_key(scale.name, start) for start in starts], starts, scale)
        buckets: dict[int, Batch] = {}
        levels: dict[str, dict[int, Mapping[str, float]]] = {}
        for found in hashes:
            buckets.update({at: batch for at, batch in found.buckets.items() if first <= at <= end})
            for process, of_process in found.levels.items():
                for at, each in of_process.items():
                    if first <= at <= end:
                        levels.setdefault(process, {})[at] = each
        return Window(scale, buckets, levels)

    async def _hashes(self, keys: list[str], starts: range, scale: Scale) -> list[_Hash]:
        found = {key: self._remembered[key] for key in keys if key in self._remembered}
        missing = [(key, start) for key, start in zip(keys, starts, strict=True) if key not in found]
        batch = self._client.pipeline()
        asked = [batch.hgetall(key) for key, _ in missing]
        await batch.send()
        for (key, start), reply in zip(missing, asked, strict=True):
            found[key] = _decoded(await reply)
            if self._clock.now() > start + scale.hash + _SETTLED:
                self._remember(key, found[key])
        return [found[key] for key in keys]

    def _remember(self, key: str, found: _Hash) -> None:
        if len(self._remembered) >= _MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[key] = found


def _decoded(stored: Mapping[bytes, bytes]) -> _Hash:
    """A hash's fields, those of one bucket added up. What does not decode is logged and left out."""
    buckets: dict[int, Batch] = {}
    levels: dict[str, dict[int, dict[str, float]]] = {}
    for field, value in stored.items():
        at, _, process = field.decode("utf-8", "replace").partition(":")
        try:
            measured, begin = decode_batch(value), int(at)
        except (CodecError, ValueError) as error:
            _LOG.warning("stored metrics do not decode", field=at, error=str(error))
            continue
        buckets.setdefault(begin, Batch()).add(measured)
        levels.setdefault(process, {})[begin] = measured.levels
    return _Hash(buckets, levels)
