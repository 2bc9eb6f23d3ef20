"""The tier in this process: bounded by entries and bytes, shared fairly between workspaces.

Eviction is S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main queue for what was read again, and a ghost
list of keys that left the small queue lately. A hit only raises a counter, nothing moves. It resists scans and follows
shifting demand better than LRU and LFU do (docs/cache.md has the ratios).

Each workspace has queues of its own. When the tier is full, the workspace that holds most gives way, so one that fills the
tier cannot evict the others; while there is room, anybody may use it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, Literal
from weakref import WeakValueDictionary

import msgspec

__all__ = ["MemoryEntry", "MemoryTier", "WorkspaceShare", "entry_size"]

_SMALL_PART: Final = 0.1
"""Part of a workspace's entries that are newcomers: the paper's tenth."""
_MAX_FREQUENCY: Final = 3
"""A hit counter's end: two bits in the paper."""
ENTRY_OVERHEAD: Final = 320
"""Bytes an entry costs besides key and value, estimated with sys.getsizeof on CPython 3.11."""
_SLACK: Final = 64
"""Places of gone entries that a queue may hold however small it is."""
_CANDIDATES: Final = 4
"""Workspaces looked at, besides the fullest of those seen before, to find the one that gives way: in turn all of them."""


class MemoryEntry(msgspec.Struct, eq=False):
    """One value in memory. Times are of the monotonic clock, in seconds."""

    region: object
    key: str
    value: Any
    """The object itself, or its bytes where callers must not share one."""
    size: int
    """Bytes, estimated; see `entry_size`."""
    created: int
    """When it was loaded, in Unix milliseconds: what tells whether the store's is another one."""
    fresh_until: float
    """Until when memory answers with it: its TTL, or less where the region bounds its time in memory."""
    expires: float
    """The end of its TTL."""
    kept_until: float
    """The end of the time it may be served stale."""
    refresh_at: float
    """When a read should renew it behind the caller's back: at the end of its TTL, or before with early refresh."""
    tags: Sequence[str] = ()
    overdue: bool = False
    """Whether it is served although it should have been renewed: that failed, or another process is at it."""
    trusted_until: float = 0
    """Until when memory answers with it although changes may go unheard."""
    frequency: int = 0
    """How often it was read lately, at most 3: S3-FIFO's two bits."""


def entry_size(key: str, value_bytes: int) -> int:
    """Bytes that a value costs in memory, about."""
    return value_bytes + len(key) + ENTRY_OVERHEAD


class WorkspaceShare:
    """One workspace's entries and their queues."""

    __slots__ = ("__weakref__", "_ghosts", "_main", "_small", "by_region", "bytes", "count", "tier")

    def __init__(self, tier: MemoryTier) -> None:
        self.tier = tier
        self.by_region: dict[object, dict[str, MemoryEntry]] = {}
        self.bytes = 0
        self.count = 0
        self._small: deque[MemoryEntry] = deque()
        self._main: deque[MemoryEntry] = deque()
        self._ghosts: OrderedDict[tuple[object, str], None] = OrderedDict()

    def put(self, entry: MemoryEntry) -> None:
        """Keep an entry, over the one of the same key; not one that all of memory could not hold."""
        entries = self.by_region.setdefault(entry.region, {})
        before = entries.get(entry.key)
        if before is entry:
            return  # it has its place
        if entry.size > self.tier.max_bytes:
            self.remove(entry.region, entry.key)
            return
        entries[entry.key] = entry
        if before is not None:
            self._account(-1, -before.size)
            entry.frequency = before.frequency
            self._main.append(entry)
        elif (ghost := (entry.region, entry.key)) in self._ghosts:
            del self._ghosts[ghost]
            self._main.append(entry)
        else:
            self._small.append(entry)
        self._account(1, entry.size)
        if len(self._small) + len(self._main) > 2 * self.count + _SLACK:
            self._compact()
        self.tier.make_room(self)

    def remove(self, region: object, key: str) -> None:
        """Forget an entry. Its place in the queues is skipped when it comes up."""
        entries = self.by_region.get(region)
        entry = entries.pop(key, None) if entries else None
        if entry is not None:
            self._account(-1, -entry.size)

    def remove_named(self, region: str, key: str) -> None:
        """As `remove`, of every region of this name."""
        for known in self._named(region):
            self.remove(known, key)

    def flush_named(self, region: str) -> None:
        """As `flush`, of every region of this name."""
        for known in self._named(region):
            self.flush(known)

    def _named(self, name: str) -> list[object]:
        return [region for region in self.by_region if getattr(region, "name", None) == name]

    def flush(self, region: object | None = None) -> None:
        """Forget all entries of a region, or all."""
        gone = list(self.by_region.values()) if region is None else [self.by_region.get(region, {})]
        for entries in gone:
            self._account(-len(entries), -sum(entry.size for entry in entries.values()))
            # Emptied, not replaced: a handle may hold the dict.
            entries.clear()
        if region is None:
            self._small.clear()
            self._main.clear()
            self._ghosts.clear()

    def flush_tag(self, tag: str) -> None:
        """Forget the entries that carry a tag."""
        for region, entries in self.by_region.items():
            for key in [key for key, entry in entries.items() if tag in entry.tags]:
                self.remove(region, key)

    def evict_one(self) -> None:
        """Let the least useful entry go."""
        while self.count:
            small_turn = self._small and (len(self._small) >= self.count * _SMALL_PART or not self._main)
            entry = self._small.popleft() if small_turn else self._main.popleft()
            if self.by_region[entry.region].get(entry.key) is not entry:
                continue  # removed or replaced meanwhile
            if small_turn:
                if entry.frequency > 0:
                    entry.frequency = 0
                    self._main.append(entry)
                    continue
                self._remember(entry)
            elif entry.frequency > 0:
                entry.frequency = min(entry.frequency, _MAX_FREQUENCY) - 1
                self._main.append(entry)
                continue
            self.remove(entry.region, entry.key)
            return

    def _compact(self) -> None:
        """Take out the places of entries that were removed or replaced, which nothing else does while there is room."""
        for queue in (self._small, self._main):
            living = [entry for entry in queue if self.by_region[entry.region].get(entry.key) is entry]
            queue.clear()
            queue.extend(living)

    def _remember(self, entry: MemoryEntry) -> None:
        self._ghosts[entry.region, entry.key] = None
        while len(self._ghosts) > max(self.count, 1):
            self._ghosts.popitem(last=False)

    def _account(self, count: int, size: int) -> None:
        self.count += count
        self.bytes += size
        self.tier.account(self, count, size)


class MemoryTier:
    """All entries of this process.

    Args:
        max_entries: most entries at once.
        max_bytes: most bytes, estimated.
    """

    def __init__(self, max_entries: int = 100_000, max_bytes: int = 128 * 1024 * 1024) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.count = 0
        self.bytes = 0
        # A share lives as long as somebody uses it or it has entries: workspaces come and go.
        self._shares: WeakValueDictionary[str, WorkspaceShare] = WeakValueDictionary()
        self._holders: OrderedDict[WorkspaceShare, None] = OrderedDict()
        self._fullest_seen: dict[str, WorkspaceShare] = {}

    def share(self, workspace: str) -> WorkspaceShare:
        """The entries of one workspace, made at first use."""
        share = self._shares.get(workspace)
        if share is None:
            share = self._shares[workspace] = WorkspaceShare(self)
        return share

    def known(self, workspace: str) -> WorkspaceShare | None:
        """The entries of one workspace, if this process has used it."""
        return self._shares.get(workspace)

    def flush(self) -> None:
        """Forget everything: what was missed is not known."""
        for share in list(self._holders):
            share.flush()

    def account(self, share: WorkspaceShare, count: int, size: int) -> None:
        """Note that a share grew or shrank."""
        self.count += count
        self.bytes += size
        if share.count:
            self._holders[share] = None
        else:
            self._holders.pop(share, None)

    def make_room(self, newcomer: WorkspaceShare) -> None:
        """Evict until the bounds hold, from whoever holds most of what there is too much of.

        Looked at are the newcomer, the fullest seen before and some others.
        """
        while self.count > self.max_entries:
            self._fullest(newcomer, "count").evict_one()
        while self.bytes > self.max_bytes:
            self._fullest(newcomer, "bytes").evict_one()

    def _fullest(self, newcomer: WorkspaceShare, of: Literal["count", "bytes"]) -> WorkspaceShare:
        held = attrgetter(of)
        candidates = [newcomer, self._fullest_seen.get(of, newcomer)]
        for _ in range(min(_CANDIDATES, len(self._holders))):
            share = next(iter(self._holders))
            self._holders.move_to_end(share)
            candidates.append(share)
        fullest = self._fullest_seen[of] = max(candidates, key=held)
        return fullest
