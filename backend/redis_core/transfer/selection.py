"""What belongs to whom, and what of it is carried.

Three sorts of families. *Lasting* ones are what a tenant would miss: sessions, topics, jobs, what the application keeps.
*Passing* ones come again by themselves and are carried on demand: cached values, counted limits, measurements. *Bound* ones
mean something only while the processes and the store live that wrote them, and are never carried: locks, leases, who is present.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING, Final

from redis_core.commands import scan_iter
from redis_core.errors import TransferError
from redis_core.keys import FAMILIES, check_workspace_id, family_of, is_user_epoch, workspace_of

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = [
    "BOUND",
    "FOREIGN",
    "NAMED",
    "PASSING",
    "Selection",
    "bytes_of",
    "family_name",
    "keys_of",
    "owner_of",
    "queue_key_parts",
    "text_of",
]

PASSING: Final = frozenset({"cache", "cache-index", "gen", "rate", "sys-metrics"})
"""Families that are carried on demand."""
BOUND: Final = frozenset(
    """
    lock lock-count lock-line lock-waiters cache-lease presence sys sys-cache-bus sys-import sys-presence
    queue-jobs queue-wait queue-ring queue-later queue-blocked queue-after queue-held queue-parked queue-tries queue-unique
    queue-depth queue-running queue-limits queue-leases queue-run queue-doubts queue-taken queue-bell
    """.split()
)
"""Families that are never carried as keys. Unfinished jobs are carried as jobs; a lock's counter that is missing begins
anew at the time, so that its tokens grow."""
NAMED: Final = frozenset({"session", "session-index", "session-epoch", "cache", "cache-index", "gen"})
"""Families that are of use only under the workspace's own id: a session's token has it under its MAC, a cached value's
encryption under its seal."""
FOREIGN: Final = "foreign"
"""The family, in counts, of keys that no family has."""

_JOB_FAMILIES: Final = frozenset({"job", "job-result", "job-dead"})
_BY_QUEUE: Final = frozenset(family.name for family in FAMILIES if "{<queue>}" in family.pattern)
_BY_WORKSPACE: Final = frozenset(
    family.name for family in FAMILIES if "{<queue>}:<workspace>" in family.pattern
)
_AT_ONCE: Final = 1_000
"""What a step of SCAN looks at."""


def text_of(key: bytes) -> str:
    """A key as text. What is no UTF-8, which no key of ours is, comes back as it was by `bytes_of`."""
    return key.decode("utf-8", "surrogateescape")


def bytes_of(key: str) -> bytes:
    """A key as it is in the store."""
    return key.encode("utf-8", "surrogateescape")


def queue_key_parts(key: str) -> tuple[str, str, list[str]] | None:
    """Family, shard and what follows of a queue's key: `job:{agents#1}:acme:7` is `job`, `agents#1`, `[acme, 7]`."""
    family, brace, rest = key.partition(":{")
    shard, end, parts = rest.partition("}")
    if not brace or not end or family not in _BY_QUEUE:
        return None
    return family, shard, parts[1:].split(":") if parts else []


def owner_of(key: str) -> str | None:
    """The workspace whose key this is, a job's included; None if it is nobody's, or has parts of several."""
    workspace = workspace_of(key)
    if workspace is None and (parts := queue_key_parts(key)) is not None:
        family, _, rest = parts
        return rest[0] if family in _BY_WORKSPACE and rest else None
    return workspace


async def keys_of(client: Client, workspace: str) -> AsyncIterator[str]:
    """Every key of a workspace, a job's included. Budget: 1 command for each 1,000 keys in the whole store.

    A key may come twice, as SCAN says. One walk: `[{:]` is what stands before an id in both kinds of names.
    """
    async for key in scan_iter(client, f"*[{{:]{workspace}*", count=_AT_ONCE):
        name = text_of(key)
        if owner_of(name) == workspace:
            yield name


class Selection:
    """Which keys are carried.

    Args:
        workspace: only this one's; None for a whole store.
        everything: the passing families too; of a whole store also keys that no family has.
        without: families that are left out.

    Raises:
        InvalidKey: the id may not name a workspace.
        TransferError: there is no such family.
    """

    def __init__(
        self, workspace: str | None, *, everything: bool = False, without: Collection[str] = ()
    ) -> None:
        self.workspace = workspace if workspace is None else check_workspace_id(workspace)
        known = {family.name for family in FAMILIES}
        if unknown := sorted(set(without) - known):
            raise TransferError(f"there is no family {unknown[0]!r}; known are {', '.join(sorted(known))}")
        self.without = frozenset(without)
        self.everything = everything
        self.jobs = "job" not in self.without
        """Whether unfinished jobs are."""
        left = BOUND | self.without | (frozenset() if everything else PASSING)
        if not self.jobs:
            left |= _JOB_FAMILIES
        self.families = tuple(
            sorted(name for name in known - left if workspace is None or _has_workspace(name))
        )

    def family(self, key: str) -> str | None:
        """The family under which a key is carried; None if it is not."""
        if self.workspace is not None and owner_of(key) != self.workspace:
            return None
        name = family_name(key)
        if name is None:
            return FOREIGN if self.everything and self.workspace is None else None
        if name == "sys":
            # Of the fleet's own, the ends of users' sessions outlive the processes; a rollback must not undo them.
            return "sys" if is_user_epoch(key) and self.workspace is None else None
        return name if name in self.families else None

    async def keys(self, client: Client) -> AsyncIterator[tuple[str, str]]:
        """The keys that are carried, each with its family. Budget: 1 command for each 1,000 keys in the whole store."""
        if self.workspace is not None:
            async for key in keys_of(client, self.workspace):
                if (family := self.family(key)) is not None:
                    yield key, family
            return
        async for raw in scan_iter(client, "*", count=_AT_ONCE):
            key = text_of(raw)
            if (family := self.family(key)) is not None:
                yield key, family


def family_name(key: str) -> str | None:
    """The name of a key's family, a queue's included; None if no family has keys of this shape."""
    parts = queue_key_parts(key)
    if parts is not None:
        return parts[0]
    family = family_of(key)
    return None if family is None else family.name


def _has_workspace(name: str) -> bool:
    return any(family.name == name and "<workspace>" in family.pattern for family in FAMILIES)
