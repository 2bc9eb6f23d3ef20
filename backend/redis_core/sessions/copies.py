"""What one process knows of sessions by itself: those it has seen, as they were, and those that it ended. No waiting, no store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

__all__ = ["MAX_COPIES", "Copy", "SessionCopies"]

MAX_COPIES: Final = 10_000
"""Sessions that a process has at hand; the one used longest ago makes room."""
_MAX_ENDED: Final = 100_000


class Copy(NamedTuple):
    """A session as it was last seen, with what was changed here since."""

    workspace: str
    user_id: str | None
    fields: dict[bytes, bytes]
    vouched: float
    """When the store last had it, in monotonic seconds; of one begun while the store was away, its beginning."""


class SessionCopies:
    """Copies of sessions by MAC, and the MACs of those that are over.

    Args:
        most: how many copies.
    """

    __slots__ = ("_copies", "_ended", "_most")

    def __init__(self, most: int = MAX_COPIES) -> None:
        self._most = most
        self._copies: dict[str, Copy] = {}
        self._ended: dict[str, tuple[str, str | None]] = {}

    def seen(
        self, mac: str, workspace: str, user_id: str | None, fields: dict[bytes, bytes], now: float
    ) -> None:
        """The store has this session. One that was ended here stays so, whatever a late answer says."""
        if mac in self._ended:
            return
        copies = self._copies
        copies.pop(mac, None)
        if len(copies) >= self._most:
            del copies[next(iter(copies))]
        copies[mac] = Copy(workspace, user_id, fields, now)

    def find(self, mac: str) -> Copy | None:
        """What is known of a session."""
        return self._copies.get(mac)

    def changed(self, mac: str, written: Mapping[bytes, bytes], removed: Iterable[bytes] = ()) -> None:
        """Fields were written or removed; nothing if there is no copy."""
        copy = self._copies.get(mac)
        if copy is not None:
            fields = {**copy.fields, **written}
            for name in removed:
                fields.pop(name, None)
            self._copies[mac] = copy._replace(fields=fields)

    def forget(self, mac: str) -> None:
        """The store no longer has it; whoever ended it."""
        self._copies.pop(mac, None)

    def end(self, mac: str, workspace: str, user_id: str | None) -> None:
        """It was ended here: it never comes back."""
        self._copies.pop(mac, None)
        self._ended.pop(mac, None)
        if len(self._ended) >= _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[mac] = workspace, user_id

    def has_ended(self, mac: str) -> bool:
        """Whether it was ended here."""
        return mac in self._ended

    def __iter__(self) -> Iterator[tuple[str, Copy]]:
        """All copies, the one used last first."""
        return iter(list(self._copies.items())[::-1])

    def ended(self) -> list[tuple[str, str, str | None]]:
        """MAC, workspace and user of all that were ended here."""
        return [(mac, workspace, user_id) for mac, (workspace, user_id) in self._ended.items()]
