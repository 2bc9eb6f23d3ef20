"""What is in the way of an import, and making room for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from redis_core.commands import scan_iter
from redis_core.errors import TargetNotEmpty
from redis_core.transfer.erasing import unlink_all
from redis_core.transfer.jobs import erase_jobs, unfinished_jobs
from redis_core.transfer.selection import BOUND, PASSING, family_name, keys_of, text_of

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["make_room"]

_KEPT: Final = frozenset(
    "session-epoch bus presence cache-lease lock lock-count lock-line lock-waiters".split()
)
"""Families that a replacement leaves: numbers that may not go back, and what belongs to processes that run."""
_HARMLESS: Final = (BOUND | PASSING) - {"queue-jobs", "queue-wait"}
"""Families that nobody misses."""


async def make_room(client: Client, target: str | None, *, replace: bool) -> None:
    """Refuse to write over what is there, or remove it.

    Budget: a SCAN of the key space, two for a workspace; with `replace` UNLINK for each 250 keys, and as `erase_jobs`.

    Args:
        client: the store.
        target: a workspace; None for all, and the queues. What is not this project's is never touched.
        replace: remove what is there.

    Raises:
        TargetNotEmpty: something is there, and was not to be replaced.
    """
    if not replace:
        async for key in _present(client, target):
            if family_name(key) not in _HARMLESS:
                whose = "the store" if target is None else f"the workspace {target!r}"
                raise TargetNotEmpty(
                    f"{whose} is not empty, it has {key!r}: say --replace to remove what is there"
                )
        if target is not None and await unfinished_jobs(client, target):
            raise TargetNotEmpty(
                f"the workspace {target!r} has unfinished jobs: say --replace to remove them"
            )
        return
    if target is not None:
        await erase_jobs(client, target)
    await unlink_all(client, _replaced(client, target))


async def _replaced(client: Client, target: str | None) -> AsyncIterator[str]:
    async for key in _present(client, target):
        if family_name(key) not in _KEPT:
            yield key


async def _present(client: Client, target: str | None) -> AsyncIterator[str]:
    """The keys of a workspace; or of all, and of the queues, without the fleet's own."""
    if target is not None:
        async for key in keys_of(client, target):
            yield key
        return
    async for raw in scan_iter(client, "*", count=1_000):
        key = text_of(raw)
        family = family_name(key)
        if family is not None and family.partition("-")[0] != "sys":
            yield key
