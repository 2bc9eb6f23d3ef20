"""What each workspace uses: commands, bytes, jobs, tokens and money, by day, each counted once; and budgets that warn and stop.

::

    usage = redis.workspace("acme").usage
    await usage.check()                                                   # raises BudgetExceeded once the budget is spent
    answer = await model.ask(prompt)
    await usage.add(model="gpt-4o", input_tokens=1_200, output_tokens=300)   # priced by `usage_config.py`
    today = await usage.day()

A report is kept when `add` returns: in the store, or in the journal while the store is away. It is numbered, so that sending it again
adds nothing twice (`accounting/ledger.py`). Commands, bytes and jobs are counted one by one in the process (`measuring/tally.py`) and
reported once per 5 minutes.
"""

from __future__ import annotations

import asyncio
import calendar
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from redis_core.accounting.figures import Budget, DayUsage, ModelUsage, Spent, days_of, fields_of
from redis_core.accounting.ledger import KIND, MONTH_COST, Entry, Ledger, add, replay
from redis_core.accounting.prices import NANO, Price, price_of
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import BudgetExceeded, RedisCoreError
from redis_core.keys import WorkspaceKeys, check_part
from redis_core.log import get_logger
from redis_core.usage_config import PRICES

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.resilience.record import Record

__all__ = ["Budget", "BudgetWarning", "DayUsage", "ModelUsage", "Price", "Spent", "Usage", "UsageEngine"]

REPORT_EVERY: Final = 300.0
"""Seconds from one report of commands, bytes and jobs to the next."""
_REMEMBERED: Final = 5.0
"""Seconds for which `check` believes what the last report told."""
_DAY: Final = 86_400
_LONGER: Final = _DAY
"""Seconds that a number is remembered beyond the longest stay in the journal."""
_MOST_LEDGERS: Final = 10_000
_MOST_DAYS: Final = 400
_LONGEST_NAME: Final = 128
_LOG: Final = get_logger("redis_core.usage")

Period = Literal["day", "month"]
BudgetWarning = Callable[[str, Period, float, float], None]
"""Called with the workspace, the period, what was spent and the limit."""


class UsageEngine:
    """What the usage of all workspaces shares in one process; see `Client.service`.

    Args:
        client: the store; its fallback to memory is not used.
        clock: the time.
    """

    def __init__(self, client: Client, clock: Clock = SYSTEM_CLOCK) -> None:
        self.client = client
        self.clock = clock
        self.prices: Mapping[str, Price] = PRICES
        """Dollars a million tokens, by model."""
        self.spent: dict[str, tuple[float, Spent]] = {}
        """When each workspace's sums were last told (monotonic seconds), and what they were."""
        self.kept = int(client.settings.journal_max_age) + _LONGER
        self._ledgers: dict[str, Ledger] = {}
        self._listeners: list[BudgetWarning] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._counted: defaultdict[tuple[str, date], Counter[str]] = defaultdict(Counter)
        self._since = self.today()
        """The day on which what is counted now has begun."""
        self._marker = secrets.token_hex(8)
        self._numbers: Counter[str] = Counter()
        """Of the last report of sums of each workspace."""
        self._unsure: dict[str, Entry] = {}
        """Reports of sums that were not answered."""
        self._reporting: asyncio.Task[None] | None = None
        self._unpriced: set[str] = set()
        client.outage.replayer(KIND, self._replay)

    # --- reports ---

    def today(self) -> date:
        """The date in UTC, by which everything is counted."""
        return datetime.fromtimestamp(self.clock.now(), UTC).date()

    def ledger(self, workspace: str) -> Ledger:
        """Where this process reports a workspace's usage."""
        ledger = self._ledgers.get(workspace)
        if ledger is None:
            if len(self._ledgers) >= _MOST_LEDGERS:
                # One that begins anew has another marker, so nothing is lost but a small key for some days.
                self._ledgers = {name: each for name, each in self._ledgers.items() if not each.idle}
            ledger = self._ledgers[workspace] = Ledger(
                self.client, workspace, self.kept, self.spawn, self.answered
            )
        return ledger

    def cost(self, model: str, input_tokens: int, output_tokens: int, cached_tokens: int) -> int:
        """What tokens cost, in billionths of a dollar; 0 and one warning for a model without a price."""
        price = price_of(self.prices, model)
        if price is None:
            if model not in self._unpriced and len(self._unpriced) < _MOST_LEDGERS:
                self._unpriced.add(model)
                _LOG.warning("a model without a price is counted as free", model=model)
            return 0
        return price.cost(input_tokens, output_tokens, cached_tokens)

    def answered(self, entry: Entry, spent: Spent, added: float) -> None:
        """What the store told of a report; of one that waited since yesterday it told yesterday's sums."""
        if entry.day == self.today().isoformat():
            self.told(entry.workspace, spent, added)

    def told(self, workspace: str, spent: Spent, added: float = 0.0) -> None:
        """Remember what the store told, and warn who wants to know.

        Args:
            workspace: whose.
            spent: what the store told.
            added: US dollars that the report which it answered has added.
        """
        if len(self.spent) >= _MOST_LEDGERS:
            self.spent.clear()
        self.spent[workspace] = self.clock.monotonic(), spent
        if (budget := spent.budget) is None or added <= 0:
            return
        sums: tuple[tuple[Period, float, float | None], ...] = (
            ("day", spent.day, budget.day),
            ("month", spent.month, budget.month),
        )
        for period, now, limit in sums:
            # The one report that crosses the line warns, whichever process it is of.
            if limit is not None and now >= limit * budget.warn > now - added:
                _LOG.warning(
                    "a workspace has nearly spent its budget",
                    workspace=workspace, period=period, spent=round(now, 6), limit=limit,
                )  # fmt: skip
                for listener in tuple(self._listeners):
                    listener(workspace, period, now, limit)

    def on_warning(self, listener: BudgetWarning) -> None:
        """Be told when a workspace reaches the share of its budget at which it warns."""
        self._listeners.append(listener)

    # --- what is summed in the process ---

    def count(self, workspace: str, *, commands: int = 0, bytes: int = 0, jobs: int = 0) -> None:
        """Add to what the next report of this process tells. Budget: nothing."""
        counted = self._counted[workspace, self.today()]
        counted["commands"] += commands
        counted["bytes"] += bytes
        counted["jobs"] += jobs

    def start(self) -> None:
        """Report commands, bytes and jobs from now on. Idempotent.

        Budget: for each workspace that did something, a script of at most 8 commands once per 5 minutes; nothing at rest.
        """
        if self._reporting is None:
            self._since = self.today()
            self.client.tallies.counting = True
            self._reporting = self.spawn(self._report(), "usage")

    def _collect(self) -> None:
        """Take what was counted, for the day on which it began: reports are made at midnight, too."""
        day, self._since = self._since, self.today()
        for workspace, (commands, size, jobs) in self.client.tallies.take().items():
            self._counted[workspace, day].update(commands=commands, bytes=size, jobs=jobs)

    async def _report(self) -> None:
        while True:
            await self.clock.sleep(min(REPORT_EVERY, _seconds_of_day_left(self.clock)))
            await self.flush()

    async def flush(self) -> None:
        """Report what was counted. What the store and the journal would not have, or may have, is sent again as it was with the next."""
        self._collect()
        for entry in tuple(self._unsure.values()):
            await self._deliver(entry)
        counted, self._counted = self._counted, defaultdict(Counter)
        for (workspace, day), sums in counted.items():
            if workspace in self._unsure:
                self._counted[workspace, day].update(sums)
            elif fields := fields_of(day, sums):
                number = self._numbers[workspace] = self._numbers[workspace] + 1
                await self._deliver(
                    Entry(workspace, self._marker, number, self.kept, day.isoformat(), fields)
                )

    async def _deliver(self, entry: Entry) -> None:
        """Send a report of sums; its number lets it be sent until an answer comes, and be added once."""
        try:
            await add(self.client, entry, self.answered)
        except RedisCoreError as error:
            _LOG.warning("a workspace's usage waits", workspace=entry.workspace, reason=str(error))
            self._unsure[entry.workspace] = entry
        else:
            self._unsure.pop(entry.workspace, None)

    async def _replay(self, records: Sequence[Record]) -> None:
        await replay(self.client, records, self.answered)

    # --- its tasks ---

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that ends with the client."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Report what was summed, and end. Idempotent."""
        if self._reporting is not None:
            self._reporting.cancel()
            self._reporting = None
            self.client.tallies.counting = False
            await self.flush()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Usage:
    """What one workspace uses, reached as `ws.usage`.

    Args:
        engine: what usage shares in this process.
        keys: the workspace's.
    """

    def __init__(self, engine: UsageEngine, keys: WorkspaceKeys) -> None:
        self._engine = engine
        self._keys = keys
        self._redis = engine.client.primary.confined(keys)

    async def add(
        self,
        *,
        model: str = "",
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        cost: float | None = None,
        id: str = "",
    ) -> Spent:
        """Report what was used; kept when this returns.

        Args:
            model: which model; needed with tokens.
            input_tokens: read by it, the cached ones included.
            output_tokens: written by it.
            cached_tokens: those of the input that the provider had cached.
            cost: US dollars; by the model's price unless given.
            id: idempotency key: the same again within 8 days, from whatever process, adds nothing.

        Returns:
            What the workspace has spent, this report included.

        Budget: 1 trip for all callers of the same moment; a script of 5 commands and 1 for each sum, at most 5.

        Raises:
            ValueError: an amount is negative, or tokens are of no model.
            StoreUnavailable: the store is away, and there is no journal.
            JournalFull: the store is away, and the journal has no room: nothing was kept.
        """
        tokens = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
        }
        _check(tokens, model, cost)
        engine = self._engine
        if cost is not None:
            nano = round(cost * NANO)
        else:
            nano = engine.cost(model, input_tokens, output_tokens, cached_tokens) if model else 0
        day = engine.today()
        fields = fields_of(day, {"cost": nano})
        if model:
            fields |= fields_of(day, {**tokens, "cost": nano}, model)
        if nano:
            fields[MONTH_COST] = nano
        if id:
            marker = f"id-{check_part(id)}"
            entry = Entry(self._keys.workspace, marker, 1, engine.kept, day.isoformat(), fields)
            spent = await add(engine.client, entry, engine.answered)
        else:
            spent = await engine.ledger(self._keys.workspace).add(day, fields)
        return msgspec.structs.replace(spent, cost=nano / NANO)

    async def spent(self) -> Spent:
        """What was spent today and this month, and the budget. Budget: 2 commands, 1 trip."""
        day = self._engine.today()
        async with self._redis.pipeline() as batch:
            costs = batch.hmget(self._month_key(day), f"{day.day:02}:cost", MONTH_COST)
            limits = batch.hgetall(self._keys.key("usage-budget"))
        today, month = (int(value or 0) / NANO for value in await costs)
        spent = Spent(today, month, _budget(await limits))
        self._engine.told(self._keys.workspace, spent)
        return spent

    async def check(self) -> None:
        """Go on only while the budget is not spent: call it before what costs money.

        Budget: nothing if a report or a check told it less than 5 s ago, else as `spent`. While the store is away, what was last known
        decides, and a workspace of which nothing is known passes.

        Raises:
            BudgetExceeded: it is spent, with the seconds until the next day or month begins.
        """
        engine = self._engine
        told, spent = engine.spent.get(self._keys.workspace, (float("-inf"), Spent()))
        if engine.clock.monotonic() - told >= _REMEMBERED and engine.client.outage.available:
            spent = await self.spent()
        if (budget := spent.budget) is None:
            return
        if budget.day is not None and spent.day >= budget.day:
            raise BudgetExceeded(self._keys.workspace, "day", spent.day, budget.day, self._until("day"))
        if budget.month is not None and spent.month >= budget.month:
            raise BudgetExceeded(
                self._keys.workspace, "month", spent.month, budget.month, self._until("month")
            )

    async def budget(self) -> Budget | None:
        """What the workspace may spend; None is as much as it likes. Budget: 1 command."""
        return _budget(await self._redis.hgetall(self._keys.key("usage-budget")))

    async def set_budget(self, budget: Budget | None) -> None:
        """Say what the workspace may spend. Other processes know within 5 s. Budget: 2 commands, 1 trip."""
        key = self._keys.key("usage-budget")
        async with self._redis.transaction() as batch:
            batch.delete(key)
            if budget is not None:
                limits = {"day": budget.day, "month": budget.month, "warn": budget.warn}
                batch.hset(key, {name: str(limit) for name, limit in limits.items() if limit is not None})
        self._engine.spent.pop(self._keys.workspace, None)

    async def day(self, day: date | None = None) -> DayUsage:
        """What was used on a day (UTC), today unless given. Budget: 1 command."""
        chosen = self._engine.today() if day is None else day
        return (await self.range(chosen, chosen))[0]

    async def range(self, first: date, last: date) -> list[DayUsage]:
        """What was used on each day from the first to the last, both included. Budget: 1 trip, 1 command a month.

        Raises:
            ValueError: the last is before the first, or they are more than 400 days apart.
        """
        count = (last - first).days + 1
        if not 0 < count <= _MOST_DAYS:
            raise ValueError(f"from {first} to {last} is not a range of 1 to {_MOST_DAYS} days")
        wanted = [first + timedelta(days=number) for number in range(count)]
        months = sorted({day.isoformat()[:7] for day in wanted})
        async with self._redis.pipeline() as batch:
            pending = [(month, batch.hgetall(self._keys.key("usage", month))) for month in months]
        found: dict[str, DayUsage] = {}
        for month, fields in pending:
            found |= days_of(month, (await fields).items())
        return [found.get(day.isoformat()) or DayUsage(day.isoformat()) for day in wanted]

    def _month_key(self, day: date) -> str:
        return self._keys.key("usage", day.isoformat()[:7])

    def _until(self, period: Period) -> float:
        left = _seconds_of_day_left(self._engine.clock)
        if period == "month":
            today = self._engine.today()
            left += _DAY * (calendar.monthrange(today.year, today.month)[1] - today.day)
        return left


def _seconds_of_day_left(clock: Clock) -> float:
    """Days are UTC's, of 86,400 seconds each in Unix time."""
    return _DAY - clock.now() % _DAY


def _check(tokens: Mapping[str, int], model: str, cost: float | None) -> None:
    for name, amount in tokens.items():
        if amount < 0:
            raise ValueError(f"{name} is 0 or more, not {amount}")
    if tokens["cached_tokens"] > tokens["input_tokens"]:
        raise ValueError("cached_tokens are part of input_tokens, so there cannot be more of them")
    if cost is not None and not 0 <= cost < NANO:
        raise ValueError(f"a cost is 0 or more dollars, not {cost!r}")
    if any(tokens.values()) and not model:
        raise ValueError("tokens are of a model: name it")
    if len(model) > _LONGEST_NAME:
        raise ValueError(f"a model's name has at most {_LONGEST_NAME} characters")


def _budget(fields: Mapping[bytes, bytes]) -> Budget | None:
    limits = {name.decode(): float(value) for name, value in fields.items()}
    return Budget(limits.get("day"), limits.get("month"), limits.get("warn", 0.8)) if limits else None
