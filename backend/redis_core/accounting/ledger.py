"""Reports of one process about one workspace: numbered, sent one after the other, added once.

A report goes out under the ledger's marker and the next number; the store adds it only if the number is new there. So sending it again
after a lost reply, or carrying it out from the journal after an outage or a crash, adds nothing twice. Reports that are made while
one is on its way travel together as the next, so a busy process pays for one script a round trip, whatever the number of callers.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from msgspec import Struct

from redis_core.accounting.figures import Budget, Spent, field_of
from redis_core.accounting.prices import NANO
from redis_core.errors import JournalError, StoreError
from redis_core.keys import WorkspaceKeys
from redis_core.script import load_script
from redis_core.transport.base import Argument

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.resilience.record import Record

__all__ = ["KIND", "MONTH_COST", "Entry", "Ledger", "add", "replay", "spent_of"]

KIND: Final = "usage"
"""Of the journal's records."""
MONTH_COST: Final = "cost"
"""The field that has the whole month's cost."""
_MONTH_KEPT: Final = 400 * 86_400
"""Seconds a month is kept after its last report: a year and some days for whoever compares."""
_ADD: Final = load_script("usage_add")


class Entry(Struct, frozen=True, array_like=True):
    """One numbered report, as it is sent and as the journal keeps it."""

    workspace: str
    marker: str
    number: int
    kept: int
    """Seconds the store remembers its number: longer than the journal may keep it."""
    day: str
    fields: dict[str, int]

    def command(self) -> tuple[list[str], list[Argument]]:
        """Keys and arguments of the script."""
        keys = WorkspaceKeys(self.workspace)
        day = date.fromisoformat(self.day)
        names = [
            keys.key("usage", self.day[:7]),
            keys.key("usage-once", self.marker),
            keys.key("usage-budget"),
        ]
        args: list[Argument] = [self.number, self.kept, _MONTH_KEPT, field_of(day, "cost"), MONTH_COST]
        for field, by in self.fields.items():
            args += [field, by]
        return names, args


Told = Callable[["Entry", Spent, float], None]
"""Hears of each report that the store has taken in: it, what its workspace has spent, and the report's part of that in US dollars."""


def spent_of(reply: Sequence[Any]) -> Spent:
    """What the script told."""
    day, month, day_limit, month_limit, warn = (
        None if value is None else float(value) for value in reply[1:6]
    )
    budget = None
    if day_limit is not None or month_limit is not None:
        budget = Budget(day_limit, month_limit, 0.8 if warn is None else warn)
    return Spent((day or 0) / NANO, (month or 0) / NANO, budget)


class Ledger:
    """What this process reports of one workspace.

    Args:
        client: the store; its fallback to memory is not used.
        workspace: whose usage.
        kept: seconds a number is remembered.
        spawn: starts a task that ends with the client.
        told: hears what the store tells of each report.
    """

    def __init__(
        self,
        client: Client,
        workspace: str,
        kept: int,
        spawn: Callable[[Any, str], asyncio.Task[None]],
        told: Told,
    ) -> None:
        self._told = told
        self._client = client
        self._workspace = workspace
        self._kept = kept
        self._spawn = spawn
        self._marker = secrets.token_hex(8)
        self._number = 0
        self._waiting: dict[str, tuple[Counter[str], list[asyncio.Future[Spent]]]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return self._task is None

    async def add(self, day: date, fields: dict[str, int]) -> Spent:
        """Add to a day; kept when this returns, in the store or, while it is away, in the journal.

        Budget: 1 trip for all callers of the same moment; a script of 5 commands and 1 for each field.

        Raises:
            StoreUnavailable: the store is away, and there is no journal.
            JournalFull: as `Outage.record`.
            JournalBroken: as `Outage.record`.
        """
        told: asyncio.Future[Spent] = asyncio.get_running_loop().create_future()
        sums, callers = self._waiting.setdefault(day.isoformat(), (Counter(), []))
        sums.update(fields)
        callers.append(told)
        if self._task is None:
            self._task = self._spawn(self._send(), f"usage of {self._workspace}")
        # A caller that is cancelled does not take back what others report with it.
        return await asyncio.shield(told)

    async def _send(self) -> None:
        try:
            while self._waiting:
                day = next(iter(self._waiting))
                sums, callers = self._waiting.pop(day)
                self._number += 1
                entry = Entry(self._workspace, self._marker, self._number, self._kept, day, dict(sums))
                try:
                    spent = await add(self._client, entry, self._told)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told to those who wait
                    _tell(callers, error=error)
                else:
                    _tell(callers, spent)
        finally:
            self._task = None
            for _, callers in self._waiting.values():
                for told in callers:
                    told.cancel()
            self._waiting.clear()


def _tell(
    callers: Sequence[asyncio.Future[Spent]], spent: Spent | None = None, error: Exception | None = None
) -> None:
    for told in callers:
        if told.done():
            continue
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(cast("Spent", spent))


async def add(client: Client, entry: Entry, told: Told) -> Spent:
    """Add an entry once, or keep it in the journal; what was spent, if the store told."""
    order = f"{KIND}:{entry.marker}"
    cause: StoreError | None = None
    outage = client.outage
    if outage.available and not outage.waiting(order):
        try:
            keys, args = entry.command()
            return _heard(entry, await client.primary.run(_ADD, keys, args), told)
        except StoreError as error:
            if not (error.retryable or error.kind.value == "read-only"):
                raise
            cause = error
    try:
        await outage.record(KIND, order, msgspec.msgpack.encode(entry), id=f"{entry.marker}:{entry.number}")
    except JournalError as error:
        if cause is None:
            raise
        raise cause from error
    return Spent(known=False)


async def replay(client: Client, records: Sequence[Record], told: Told) -> None:
    """Carry out what the journal kept. Budget: 1 trip; per record as `Ledger.add`."""
    entries = [msgspec.msgpack.decode(record.payload, type=Entry) for record in records]
    async with client.primary.pipeline() as batch:
        pending = [batch.run(_ADD, *entry.command()) for entry in entries]
    for entry, reply in zip(entries, pending, strict=True):
        _heard(entry, await reply, told)


def _heard(entry: Entry, reply: object, told: Told) -> Spent:
    """What the script told, told on. Of callers that travelled together the entry has the sum: only that crosses a line."""
    values = cast("Sequence[Any]", reply)
    spent = spent_of(values)
    told(entry, spent, entry.fields.get(MONTH_COST, 0) / NANO if values[0] else 0.0)
    return spent
