"""The key space of the memory store: what it weighs, what expires, and what goes when it is full.

fakeredis keeps the keys and the order in which they expire; an expired key it lets go only when somebody asks for it. Here
each key also has an estimated size, expired keys are taken away without being asked for, and a full store gives up the keys
that expire soonest (Redis' policy `volatile-ttl`).
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from fakeredis._core import Database
from fakeredis.model import ExpiringMembersSet, Hash, XStream, ZSet

if TYPE_CHECKING:
    import threading

__all__ = ["KeySpace", "size_of"]

_KEY_BYTES: Final = 200
"""Python's cost of a key: the item, its places in two dictionaries and in the heap of expiries."""
_ENTRY_BYTES: Final = 75
"""Python's cost of an entry of a dictionary, its spare room included."""
_SAMPLES: Final = 5
"""Entries of a collection that are weighed; the others count as their average. Redis' MEMORY USAGE does so too."""


class KeySpace(Database):
    """The one database of a memory store.

    Args:
        lock: held by whoever calls.
    """

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__(lock)
        self.used = 0
        """Estimated bytes of all keys and values."""
        self.peak = 0
        self.expired_keys = 0
        self.evicted_keys = 0
        self.counting = False
        """Whether the keys that are found and missed are counted: while a command runs that reads."""
        self.hits = 0
        self.misses = 0
        self.waiting: dict[object, Callable[[], None]] = {}
        """Called after a command that changed keys: whoever waits in a blocking command, the longest-waiting first."""
        self._sizes: dict[bytes, int] = {}
        self._expiring: set[bytes] = set()
        self._changed: set[bytes] = set()

    # --- reading: an expired key is gone ---

    def get(self, key: bytes, default: Any = None) -> Any:
        """The key's item, if it has not expired."""
        item = self._dict.get(key)
        if item is None or (item.expireat is not None and self._has_expired(key, item.expireat)):
            self.misses += self.counting
            return default
        self.hits += self.counting
        return item

    def __getitem__(self, key: bytes) -> Any:
        item = self._dict[key]
        if item.expireat is not None and self._has_expired(key, item.expireat):
            raise KeyError(key)
        return item

    def __contains__(self, key: object) -> bool:
        item = self._dict.get(key)  # type: ignore[call-overload]
        return item is not None and (item.expireat is None or not self._has_expired(key, item.expireat))  # type: ignore[arg-type]

    def _has_expired(self, key: bytes, expireat: float) -> bool:
        if expireat >= self.time:
            return False
        self._drop(key)
        self.expired_keys += 1
        return True

    # --- changing ---

    def notify_watch(self, key: bytes) -> None:
        """A command is about to change this key."""
        self._changed.add(key)

    def schedule_expiry(self, key: bytes, expireat: float | None) -> None:
        """A command has given this key an expiry; one that has passed removes it, as `EXPIRE key 0` does."""
        if expireat is None:
            return
        if expireat <= self.time:
            self._drop(key)
        else:
            super().schedule_expiry(key, expireat)

    def __delitem__(self, key: bytes) -> None:
        if key not in self._dict:
            raise KeyError(key)
        self._drop(key)

    def clear(self) -> None:
        """Remove every key."""
        self._dict.clear()
        self._expiry_heap.clear()
        self._sizes.clear()
        self._expiring.clear()
        self._changed.clear()
        self.used = 0

    def _drop(self, key: bytes) -> None:
        if self._dict.pop(key, None) is not None:
            self.used -= self._sizes.pop(key, 0)
            self._expiring.discard(key)

    def settle(self) -> None:
        """After a command: weigh what it changed, and wake whoever waits for a change."""
        changed = self._changed
        if not changed:
            return
        for key in changed:
            item = self._dict.get(key)
            if item is None:
                continue
            size = _KEY_BYTES + len(key) + size_of(item.value)
            self.used += size - self._sizes.get(key, 0)
            self._sizes[key] = size
            if item.expireat is None:
                self._expiring.discard(key)
            else:
                self._expiring.add(key)
        changed.clear()
        self.peak = max(self.peak, self.used)
        for wake in tuple(self.waiting.values()):
            wake()

    # --- expiry and eviction ---

    @property
    def expiring(self) -> int:
        """How many keys have an expiry."""
        return len(self._expiring)

    @property
    def next_expiry(self) -> float | None:
        """When, in seconds since the epoch, the next key may expire; None when none will."""
        return self._expiry_heap[0][0] if self._expiry_heap else None

    def expire_some(self, most: int) -> None:
        """Remove expired keys, looking at no more than `most`, so that one call costs little."""
        heap, now = self._expiry_heap, self.time
        while most and heap and heap[0][0] < now:
            _, key = heapq.heappop(heap)
            item = self._dict.get(key)
            if item is not None and item.expireat is not None:
                self._has_expired(key, item.expireat)
            most -= 1

    def _remove_expired(self) -> None:
        self.expire_some(sys.maxsize)

    def evict(self, most: int) -> bool:
        """Bring the size down to `most` bytes by removing keys that expire, the soonest first; whether that was enough."""
        heap = self._expiry_heap
        while self.used > most and heap:
            expireat, key = heapq.heappop(heap)
            item = self._dict.get(key)
            if item is not None and item.expireat == expireat:
                self._drop(key)
                self.evicted_keys += 1
        return self.used <= most

    def size(self, key: bytes) -> int | None:
        """Estimated bytes of a key and its value, or None if there is none."""
        return self._sizes.get(key) if key in self else None


def size_of(value: object) -> int:
    """Estimated bytes of a value in this process. Collections are weighed by a few of their entries, so it costs little."""
    if isinstance(value, bytes):
        return len(value) + 33
    if isinstance(value, list):
        return 56 + 8 * len(value) + _average(value, lambda entry: len(entry) + 33)
    # fakeredis' collections copy themselves when asked for their contents; a look inside costs nothing.
    if isinstance(value, Hash):
        return 700 + _average(
            value._values.items(),  # noqa: SLF001 - see above
            lambda entry: len(entry[0]) + len(entry[1]) + 66 + _ENTRY_BYTES,
        )
    if isinstance(value, ZSet):
        # Each member stands in a dictionary and, with its score, in a sorted list.
        members = value._bylex  # noqa: SLF001 - see above
        return 900 + _average(members, lambda entry: len(entry) + 33 + 24 + 56 + 16 + _ENTRY_BYTES)
    if isinstance(value, ExpiringMembersSet):
        return 300 + _average(value._values, lambda entry: len(entry) + 33 + _ENTRY_BYTES)  # noqa: SLF001 - see above
    if isinstance(value, XStream):
        fields = value._values_dict.values()  # noqa: SLF001 - see above
        return 1500 + _average(
            fields, lambda entry: 300 + _ENTRY_BYTES + sum(len(word) + 41 for word in entry)
        )
    return sys.getsizeof(value)


def _average(entries: Collection[Any], weigh: Callable[[Any], int]) -> int:
    """The weight of all entries, judged by the first few and, for what can be indexed, the last."""
    count = len(entries)
    if count <= _SAMPLES:
        return sum(map(weigh, entries))
    sample: Iterable[Any]
    sample = (*entries[:2], *entries[-3:]) if isinstance(entries, list) else islice(entries, _SAMPLES)
    return sum(map(weigh, sample)) * count // _SAMPLES
