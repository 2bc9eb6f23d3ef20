"""What the store holds: its keys by family, and how many of them expire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.health import timestamp
from redis_core.keys import FAMILIES, Family, family_of, workspace_of

__all__ = ["MOST_KEYS", "FamilyStats", "KeyStats", "TtlCoverage", "key_stats"]

MOST_KEYS: Final = 100_000
"""Most keys that one call looks at."""
_PAGE: Final = 500
_UNDECLARED: Final = "undeclared"
_GONE: Final = -2
"""PTTL's answer for a key that expired since SCAN saw it."""

Ratio = Annotated[float, Meta(ge=0, le=1)]


class TtlCoverage(Struct, frozen=True):
    """How many of the keys that were asked have an expiry."""

    sampled: int
    with_ttl: int
    coverage: Ratio | None
    """None if no key was asked."""


class FamilyStats(Struct, frozen=True):
    """The keys of one family among those that were seen."""

    family: str
    """Its name, or `undeclared` for keys of no declared family."""
    pattern: str | None
    """The shape of its keys, which tells families of one name apart."""
    keys: int
    workspaces: int
    """How many workspaces have such keys."""
    ttl: TtlCoverage


class KeyStats(Struct, frozen=True):
    """Key statistics at one moment."""

    time: str
    keys_total: int
    """Keys of the whole database."""
    scanned: int
    """Keys that were looked at."""
    complete: bool
    """Whether all were; if not, `families` counts a sample."""
    workspaces: int
    ttl: TtlCoverage
    families: list[FamilyStats]
    """Every declared family, in the order of the declaration, then what is undeclared, if anything is."""


@dataclass
class _Count:
    keys: int = 0
    sampled: int = 0
    with_ttl: int = 0
    workspaces: set[str] = field(default_factory=set[str])

    def ttl(self) -> TtlCoverage:
        coverage = round(self.with_ttl / self.sampled, 4) if self.sampled else None
        return TtlCoverage(sampled=self.sampled, with_ttl=self.with_ttl, coverage=coverage)


_Counts: TypeAlias = dict[Family | None, _Count]


async def key_stats(
    client: Client,
    *,
    limit: int = 10_000,
    ttl_sample: int = 1_000,
    clock: Clock = SYSTEM_CLOCK,
    progress: Callable[[int], None] | None = None,
) -> KeyStats:
    """Count keys by family, by a SCAN that ends after `limit` keys.

    SCAN may show a key twice while the store rehashes, so the counts of a database that is being written to are close, not
    exact. Budget: 1 DBSIZE, 1 SCAN for each 500 keys looked at, 1 PTTL for each key of the TTL sample.

    Args:
        client: the store's client.
        limit: most keys to look at, about: a page of SCAN is not cut.
        ttl_sample: most keys to ask for their expiry; the first of the scan, whose order is the hash table's.
        clock: what dates the answer.
        progress: told how many keys were looked at.

    Raises:
        StoreError: the store did not answer.
    """
    total = _Count()
    families: _Counts = {family: _Count() for family in FAMILIES}
    keys_total = await client.dbsize()
    cursor: bytes | int = 0
    while cursor != b"0" and total.keys < limit:
        cursor, page = await client.scan(cursor, count=min(_PAGE, limit))
        for key in page:
            _count(families, total, key)
        if progress is not None:
            progress(min(total.keys, limit))
        await _ask_ttls(client, page[: max(ttl_sample - total.sampled, 0)], families, total)
    return KeyStats(
        time=timestamp(clock),
        keys_total=keys_total,
        scanned=total.keys,
        complete=cursor == b"0",
        workspaces=len(total.workspaces),
        ttl=total.ttl(),
        families=[
            FamilyStats(
                family=family.name if family is not None else _UNDECLARED,
                pattern=family.pattern if family is not None else None,
                keys=count.keys,
                workspaces=len(count.workspaces),
                ttl=count.ttl(),
            )
            for family, count in families.items()
        ],
    )


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def _count(families: _Counts, total: _Count, key: bytes) -> None:
    count = families.setdefault(family_of(_text(key)), _Count())
    workspace = workspace_of(_text(key))
    for one in (count, total):
        one.keys += 1
        if workspace is not None:
            one.workspaces.add(workspace)


async def _ask_ttls(client: Client, keys: list[bytes], families: _Counts, total: _Count) -> None:
    if not keys:
        return
    batch = client.pipeline()
    pending = [(key, batch.pttl(key)) for key in keys]
    await batch.send()
    for key, reply in pending:
        milliseconds = await reply
        if milliseconds == _GONE:
            continue
        for count in (families[family_of(_text(key))], total):
            count.sampled += 1
            count.with_ttl += milliseconds >= 0
