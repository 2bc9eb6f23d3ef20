"""Walks all keys and compares each with what `keys.py` declares: whose it is, its family, type, expiry and size.

Reads only: SCAN, TYPE, PTTL and MEMORY USAGE, so a user or token that may not write can do it. How far it got is a small
document, `AuditState`, from which a later process goes on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct, field

from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import CommandError
from redis_core.health import timestamp
from redis_core.key_grammar import Fault, judge_name, shown_key
from redis_core.keys import FAMILIES, Family, WorkspaceKeys, check_workspace_id
from redis_core.transport.base import Reply

__all__ = ["DEFAULT_RATE", "AuditState", "FamilyAudit", "Finding", "KeyAudit", "KeyAuditor"]

DEFAULT_RATE: Final = 1_000
"""Commands a second that an audit sends unless told otherwise; a store does a hundred times as much."""
_PAGE: Final = 100
"""Keys that one SCAN is asked for, and most whose answers are awaited at once."""
_EACH: Final = 3
"""Commands for each key that is examined."""
_EXAMPLES: Final = 5
_GONE: Final = -2
_FOREVER: Final = -1
_ENTRY_BYTES: Final = 64
"""What an entry of a collection is taken for where the store does not tell bytes: about what a hash's pair takes."""
_COUNTED_BY: Final = {
    "string": "STRLEN", "hash": "HLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "stream": "XLEN",
}  # fmt: skip
_UNDECLARED: Final = "undeclared"
_UNDECLARED_BYTES: Final = 1024 * 1024
_RULES: Final = zlib.crc32(repr(FAMILIES).encode())
"""Which declaration this is: what was counted by another one cannot be added to."""
_BY_PATTERN: Final = {family.pattern: family for family in FAMILIES}


class Finding(Struct, frozen=True):
    """What is wrong with some keys of a family."""

    fault: Fault
    keys: int
    examples: list[str]
    """The first of them, escaped."""


class FamilyAudit(Struct, frozen=True):
    """What was found of one family."""

    family: str
    """Its name, or `undeclared`."""
    pattern: str | None
    keys: int
    examined: int
    """Keys whose type, expiry and size were asked for."""
    bytes: int
    """What those take."""
    findings: list[Finding]


class KeyAudit(Struct, frozen=True):
    """What an audit found."""

    time: str
    workspace: str | None
    """The one whose keys were looked at; None for all."""
    keys_total: int
    """Keys of the database when it began."""
    scanned: int
    examined: int
    complete: bool
    """Whether all keys were seen."""
    estimated: bool
    """Whether some sizes were reckoned from lengths, because the store does not tell what a key takes."""
    faults: int
    """Faults in all; a key may have several."""
    families: list[FamilyAudit]
    """Those that have keys, in the order of the declaration, then what is undeclared."""


class _Tally(Struct):
    keys: int = 0
    examined: int = 0
    bytes: int = 0
    faults: dict[Fault, int] = field(default_factory=dict[Fault, int])
    examples: dict[Fault, list[str]] = field(default_factory=dict[Fault, list[str]])


class AuditState(Struct):
    """How far an audit got. A few kilobytes, however many keys there are."""

    store: str
    """Where the store is, without credentials."""
    workspace: str | None = None
    sample: int | None = None
    most_bytes: int | None = None
    rules: int = _RULES
    cursor: str = "0"
    begun: bool = False
    complete: bool = False
    estimated: bool = False
    keys_total: int = 0
    scanned: int = 0
    tallies: dict[str, _Tally] = field(default_factory=dict[str, _Tally])
    """By the family's pattern, empty for what is undeclared."""

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, document: bytes) -> AuditState:
        """From JSON.

        Raises:
            ValueError: it is no such document, or another version of this library wrote it.
        """
        try:
            state = msgspec.json.decode(document, type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"it is not the state of an audit: {error}") from error
        if state.rules != _RULES:
            raise ValueError("it was written under other rules for keys; begin anew")
        return state


_Named: TypeAlias = tuple[bytes, Family | None]


@dataclass(slots=True)
class _Seen:
    """What a store said of a key."""

    type: str
    pttl: int
    bytes: int = 0

    @property
    def is_there(self) -> bool:
        return self.type != "none" and self.pttl != _GONE


class KeyAuditor:
    """One audit of a store's keys.

    SCAN shows a key twice at times while the store rehashes, so counts of a database that is being written to are close, not
    exact; every key that is there from the begin to the end is seen. Not so if the store restarts or fails over meanwhile: its
    cursors mean something else then.

    Args:
        client: the store's client; the audit asks the store itself, never the memory that stands in for it.
        workspace: only this workspace's keys, those that begin with `ws:{id}:`. All names are walked nevertheless.
        sample: about how many keys to examine, spread evenly; names are judged of all. None examines all.
        most_bytes: tell of keys that take more, instead of each family's own limit.
        rate: most commands a second.
        clock: what the rate is kept by.
        state: how far an earlier audit got; its workspace, sample and limit go on to hold.

    Raises:
        InvalidKey: the id may not name a workspace.
        ValueError: the state is of another store, or the rate is below 1.
    """

    def __init__(
        self,
        client: Client,
        *,
        workspace: str | None = None,
        sample: int | None = None,
        most_bytes: int | None = None,
        rate: int = DEFAULT_RATE,
        clock: Clock = SYSTEM_CLOCK,
        state: AuditState | None = None,
    ) -> None:
        if rate < 1:
            raise ValueError("an audit sends at least one command a second")
        self._client = client.primary
        here = self._client.transport.target
        if state is None:
            state = AuditState(here, workspace, sample, most_bytes)
        elif state.store != here:
            raise ValueError(f"it is of the store {state.store}, and this is {here}")
        if state.workspace is not None:
            check_workspace_id(state.workspace)
        self.state = state
        self._match = None if state.workspace is None else f"{WorkspaceKeys(state.workspace).prefix}*"
        self._rate = rate
        self._clock = clock
        self._page = max(1, min(_PAGE, rate // _EACH))
        self._free_at = clock.monotonic()

    async def run(
        self,
        *,
        keys: int | None = None,
        seconds: float | None = None,
        after_page: Callable[[AuditState], None] = lambda _: None,
    ) -> KeyAudit:
        """Go on until all keys were seen, or one of the bounds is reached.

        Budget: 1 DBSIZE, 1 SCAN for each 100 keys, 3 commands for each key that is examined, none faster than the rate.

        Args:
            keys: most keys to look at in this call, about: a page is not cut.
            seconds: how long this call may take, about.
            after_page: told how far it got after each page, such as to keep it in a file.

        Raises:
            PermissionDenied: the user may not SCAN, TYPE or PTTL.
            StoreError: the store did not answer; what was seen before is in `state`.
        """
        state = self.state
        if not state.begun:
            await self._wait_for(1)
            state.keys_total = await self._client.dbsize()
            state.begun = True
        started, before = self._clock.monotonic(), state.scanned
        while not state.complete:
            await self._look_at_page()
            after_page(state)
            if keys is not None and state.scanned - before >= keys:
                break
            if seconds is not None and self._clock.monotonic() - started >= seconds:
                break
        return self.report()

    def report(self) -> KeyAudit:
        """What was found so far."""
        state = self.state
        families = [
            _family_audit(_BY_PATTERN.get(pattern), state.tallies[pattern])
            for pattern in (*_BY_PATTERN, "")
            if pattern in state.tallies
        ]
        return KeyAudit(
            time=timestamp(self._clock),
            workspace=state.workspace,
            keys_total=state.keys_total,
            scanned=state.scanned,
            examined=sum(family.examined for family in families),
            complete=state.complete,
            estimated=state.estimated,
            faults=sum(finding.keys for family in families for finding in family.findings),
            families=families,
        )

    # --- pieces ---

    async def _look_at_page(self) -> None:
        state = self.state
        await self._wait_for(1)
        cursor, page = await self._client.scan(state.cursor.encode(), match=self._match, count=self._page)
        judged = [(key, *judge_name(key)) for key in page]
        sampled = [(key, family) for key, family, _ in judged if self._is_sampled(key)]
        # Nothing is counted before the whole page was answered: who goes on from the state counts no key twice.
        examined: list[tuple[_Named, _Seen]] = []
        for begin in range(0, len(sampled), self._page):
            examined += await self._examine(sampled[begin : begin + self._page])
        for key, family, fault in judged:
            tally = self._tally(family)
            tally.keys += 1
            if fault is not None:
                _tell(tally, fault, key)
        for (key, family), seen in examined:
            self._count(key, family, seen)
        state.scanned += len(page)
        state.cursor = cursor.decode()
        state.complete = cursor == b"0"

    def _is_sampled(self, key: bytes) -> bool:
        sample, total = self.state.sample, self.state.keys_total
        # By the name, so that the same keys are examined again, and not one end of the hash table.
        return sample is None or sample >= total or zlib.crc32(key) * total < sample << 32

    async def _examine(self, keys: list[_Named]) -> list[tuple[_Named, _Seen]]:
        """Type, expiry and size of these keys; those that are gone by now are left out."""
        await self._wait_for(len(keys) * _EACH)
        weigh = not self.state.estimated
        batch = self._client.pipeline()
        asked = [(batch.type(key), batch.pttl(key)) for key, _ in keys]
        sizes = [batch.execute("MEMORY", "USAGE", key) for key, _ in keys] if weigh else []
        await batch.send()
        found = [_Seen(await type_, await pttl) for type_, pttl in asked]
        try:
            for seen, size in zip(found, sizes, strict=weigh):
                seen.bytes = _number(await size)
        except CommandError:
            # Unknown to the store, or not allowed: asked no more.
            self.state.estimated = True
        there = [(named, seen) for named, seen in zip(keys, found, strict=True) if seen.is_there]
        if self.state.estimated:
            await self._estimate(there)
        return there

    async def _estimate(self, found: list[tuple[_Named, _Seen]]) -> None:
        """Sizes by length, where the store does not tell what a key takes."""
        batch = self._client.pipeline()
        asked = [
            (seen, batch.execute(_COUNTED_BY[seen.type], key))
            for (key, _), seen in found
            if seen.type in _COUNTED_BY
        ]
        await batch.send()
        for seen, reply in asked:
            try:
                seen.bytes = _number(await reply) * (1 if seen.type == "string" else _ENTRY_BYTES)
            except CommandError:
                # It became another type since, or this user may not ask; one size less.
                continue

    def _count(self, key: bytes, family: Family | None, seen: _Seen) -> None:
        tally = self._tally(family)
        tally.examined += 1
        tally.bytes += seen.bytes
        limit = self.state.most_bytes
        if limit is None:
            limit = _UNDECLARED_BYTES if family is None else family.most_bytes
        if seen.bytes > limit:
            _tell(tally, Fault.OVERSIZED, key)
        if family is None:
            return
        if family.type not in {"any", seen.type}:
            _tell(tally, Fault.WRONG_TYPE, key)
        if family.expires and seen.pttl == _FOREVER:
            _tell(tally, Fault.NO_EXPIRY, key)

    def _tally(self, family: Family | None) -> _Tally:
        return self.state.tallies.setdefault("" if family is None else family.pattern, _Tally())

    async def _wait_for(self, commands: int) -> None:
        """Wait until this many commands may be sent."""
        now = self._clock.monotonic()
        if self._free_at > now:
            await self._clock.sleep(self._free_at - now)
        self._free_at = max(self._free_at, now) + commands / self._rate


def _number(reply: Reply) -> int:
    # Nil for a key that is gone.
    return reply if isinstance(reply, int) else 0


def _tell(tally: _Tally, fault: Fault, key: bytes) -> None:
    tally.faults[fault] = tally.faults.get(fault, 0) + 1
    examples = tally.examples.setdefault(fault, [])
    if len(examples) < _EXAMPLES:
        examples.append(shown_key(key))


def _family_audit(family: Family | None, tally: _Tally) -> FamilyAudit:
    return FamilyAudit(
        family=_UNDECLARED if family is None else family.name,
        pattern=None if family is None else family.pattern,
        keys=tally.keys,
        examined=tally.examined,
        bytes=tally.bytes,
        findings=[
            Finding(fault, tally.faults[fault], tally.examples[fault])
            for fault in Fault
            if fault in tally.faults
        ],
    )
