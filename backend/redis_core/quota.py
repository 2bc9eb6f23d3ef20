"""What a workspace may take of the shared store."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Quota"]


class Quota(Struct, frozen=True, forbid_unknown_fields=True):
    """What a workspace may take, in each process; None is no limit."""

    commands: float | None = None
    """Commands a second. More wait, and are refused where they would wait too long."""
    publishes: float | None = None
    """Updates of topics a second; more are refused."""
    cache_bytes: int | None = None
    """Bytes of cached values that this process has written and that have not expired. Beyond, values are kept for a second only."""
    queue_depth: int | None = None
    """Unfinished jobs in one queue, in the whole fleet; `QUEUE_MAX_DEPTH` unless given."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"a quota is more than 0, not {name}={limit!r}; None is no limit")
