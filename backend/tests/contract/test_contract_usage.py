"""Usage and budgets, on every store."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest

from redis_core.client import Client
from redis_core.errors import BudgetExceeded
from redis_core.queue import task
from redis_core.queueing.context import JobContext
from redis_core.testing import inline
from redis_core.usage import Budget, DayUsage, Price, UsageEngine
from tests.hand_clock import HandClock

NOON = 1_795_435_200.0
"""2026-11-23, at noon."""
DAY = 86_400


class StandingClock(HandClock):
    """Who sleeps does so to the end of the test, which calls by hand what would happen then."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def clock(client: Client) -> HandClock:
    clock = StandingClock(NOON)
    client._services[UsageEngine] = UsageEngine(client, clock)
    client.service(UsageEngine).prices = {"m": Price(2.0, 10.0, cached=1.0)}
    return clock


async def test_tokens_are_priced_and_summed_by_day_and_model(client: Client, clock: HandClock) -> None:
    usage = client.workspace("acme").usage
    await usage.add(model="m", input_tokens=1_000, cached_tokens=400, output_tokens=100)
    await usage.add(model="m-2026-01", input_tokens=1_000)
    spent = await usage.add(cost=0.25)
    assert spent.day == spent.month == pytest.approx(0.0026 + 0.002 + 0.25)
    today = await usage.day()
    assert today.day == "2026-11-23"
    assert today.cost == pytest.approx(0.2546)
    assert today.models["m"].input_tokens == 1_000
    assert today.models["m"].cached_tokens == 400
    assert today.models["m"].output_tokens == 100
    assert today.models["m"].cost == pytest.approx(0.0026)
    assert set(today.models) == {"m", "m-2026-01"}
    assert await client.workspace("globex").usage.day() == DayUsage("2026-11-23")


async def test_days_and_months_are_told_apart(client: Client, clock: HandClock) -> None:
    usage = client.workspace("acme").usage
    for _ in range(10):
        await usage.add(cost=1.0)
        clock.time += DAY
    days = await usage.range(date(2026, 11, 22), date(2026, 12, 3))
    assert [day.cost for day in days] == [0, *[1.0] * 10, 0]
    assert (await usage.spent()).month == pytest.approx(2.0)


async def test_callers_of_one_moment_share_a_script(client: Client, clock: HandClock) -> None:
    usage = client.workspace("acme").usage
    await usage.add(cost=1)
    before = client.stats.trips
    await asyncio.gather(*(usage.add(model="m", input_tokens=1) for _ in range(100)))
    assert client.stats.trips - before <= 4
    assert (await usage.day()).models["m"].input_tokens == 100


async def test_an_idempotency_key_counts_once_from_whatever_process(client: Client, clock: HandClock) -> None:
    other = Client(client.transport, client.settings)
    for _ in range(3):
        await client.workspace("acme").usage.add(cost=1, id="call-1")
        await other.workspace("acme").usage.add(cost=1, id="call-1")
    assert (await client.workspace("acme").usage.spent()).month == pytest.approx(1.0)
    await other.service(UsageEngine).aclose()


async def test_a_budget_warns_once_and_stops(client: Client, clock: HandClock) -> None:
    usage = client.workspace("acme").usage
    warned: list[tuple[str, str, float, float]] = []
    client.service(UsageEngine).on_warning(lambda *told: warned.append(told))
    await usage.set_budget(Budget(day=1.0, month=1.5))
    assert await usage.budget() == Budget(day=1.0, month=1.5)
    for _ in range(4):
        await usage.check()
        await usage.add(cost=0.25)
    with pytest.raises(BudgetExceeded, match="raise its budget, or wait") as stopped:
        await usage.check()
    assert (stopped.value.period, stopped.value.resets_in) == ("day", DAY / 2)
    assert [(name, period) for name, period, _, _ in warned] == [("acme", "day")]
    clock.time += DAY
    await usage.check()
    for _ in range(2):
        await usage.add(cost=0.25)
    with pytest.raises(BudgetExceeded) as stopped:
        await usage.check()
    assert (stopped.value.period, stopped.value.resets_in) == ("month", 7.5 * DAY - DAY)
    assert [period for _, period, _, _ in warned] == ["day", "month"]
    await usage.set_budget(None)
    await usage.check()


@pytest.mark.parametrize("callers", [4, 100])
async def test_reports_that_travel_together_cross_the_line_once(
    client: Client, clock: HandClock, callers: int
) -> None:
    warned: list[float] = []
    client.service(UsageEngine).on_warning(lambda _name, _period, spent, _limit: warned.append(spent))
    usage = client.workspace("acme").usage
    await usage.set_budget(Budget(day=1.0))
    await asyncio.gather(*(usage.add(cost=0.95 / callers) for _ in range(callers)))
    assert len(warned) == 1
    await usage.add(cost=0.01)
    assert len(warned) == 1


async def test_a_check_after_a_report_costs_nothing(client: Client, clock: HandClock) -> None:
    usage = client.workspace("acme").usage
    await usage.add(cost=1)
    before = client.stats.commands
    for _ in range(10):
        await usage.check()
    assert client.stats.commands == before


async def test_commands_are_counted_one_by_one_however_many_there_are(
    client: Client, clock: HandClock
) -> None:
    engine = client.service(UsageEngine)
    engine.start()
    acme, globex = client.workspace("acme"), client.workspace("globex")
    name = acme.keys.key("app", "x")
    # So many that the meter would measure a few of them only.
    for _ in range(30):
        await asyncio.gather(*(acme.redis.set(name, "x" * 100) for _ in range(100)))
    async with acme.redis.pipeline() as batch:
        for _ in range(100):
            batch.get(name)
    await globex.redis.get(globex.keys.key("app", "x"))
    await engine.flush()
    today = await acme.usage.day()
    assert today.commands == 3_100
    written = len(name) + len("SET") + 100
    # A store tells `OK` of two bytes, or true.
    assert 3_100 * written <= today.bytes <= 3_100 * written + 3_000 * 8
    assert (await globex.usage.day()).commands == 1


async def test_jobs_are_counted_and_what_is_counted_is_reported_once_and_nothing_at_rest(
    client: Client, clock: HandClock
) -> None:
    @task(name="nothing")
    async def nothing() -> None: ...

    engine = client.service(UsageEngine)
    engine.start()
    async with inline(client):
        for _ in range(3):
            await (await client.workspace("acme").queue.enqueue(nothing)).result(20)
    await engine.flush()
    assert (await client.workspace("acme").usage.day()).jobs == 3
    await engine.flush()
    before = client.stats.commands
    await engine.flush()
    assert client.stats.commands == before
    assert (await client.workspace("acme").usage.day()).jobs == 3


async def test_what_was_counted_before_midnight_is_of_the_day_before(
    client: Client, clock: HandClock
) -> None:
    clock.time = NOON + DAY / 2 - 100
    engine = client.service(UsageEngine)
    engine.start()
    acme = client.workspace("acme")
    for _ in range(5):
        await acme.redis.get(acme.keys.key("app", "x"))
    clock.time += 100
    await engine.flush()
    yesterday, today = await acme.usage.range(date(2026, 11, 23), date(2026, 11, 24))
    assert (yesterday.commands, today.commands) == (5, 0)
    await engine.flush()
    assert (await acme.usage.day(date(2026, 11, 24))).commands == 1


async def test_a_job_reports_its_workspace_s_usage(client: Client, clock: HandClock) -> None:
    @task(name="ask")
    async def ask(ctx: JobContext) -> None:
        await ctx.usage(model="m", input_tokens=1_000)
        await ctx.usage(tokens=7, cost=0.5)

    async with inline(client):
        job = await client.workspace("acme").queue.enqueue(ask)
        await job.result(20)
        status = await job.status()
    assert status.tokens == 1_007
    assert status.cost == pytest.approx(0.502)
    assert (await client.workspace("acme").usage.day()).cost == pytest.approx(0.502)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"input_tokens": -1, "model": "m"}, "0 or more"),
        ({"input_tokens": 1}, "name it"),
        ({"input_tokens": 1, "cached_tokens": 2, "model": "m"}, "part of"),
        ({"cost": -0.1}, "0 or more dollars"),
        ({"cost": float("nan")}, "0 or more dollars"),
        ({"cost": 1, "model": "m" * 129}, "128"),
    ],
)
async def test_a_wrong_report_is_refused(client: Client, wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        await client.workspace("acme").usage.add(**wrong)  # type: ignore[arg-type]
    assert await client.dbsize() == 0
