"""Schedules: when they come, whatever the clocks do, and that each firing makes one job."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.errors import ConfigError, InvalidJob
from redis_core.queue import Schedule, task
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.schedule import Cron
from redis_core.queueing.timetable import Timetable
from redis_core.quotas import Quotas
from tests.rate_world import Clock

BERLIN = ZoneInfo("Europe/Berlin")


@task
async def report() -> None: ...


def at(text: str, zone: ZoneInfo | None = None) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp()


@pytest.mark.parametrize(
    ("cron", "after", "then"),
    [
        ("* * * * *", "2026-01-01 00:00:30", "2026-01-01 00:01"),
        ("*/15 * * * *", "2026-01-01 00:46", "2026-01-01 01:00"),
        ("0 9 * * mon-fri", "2026-01-02 09:00", "2026-01-05 09:00"),
        ("30 8 1,15 * *", "2026-01-01 08:30", "2026-01-15 08:30"),
        ("0 0 29 feb *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 13 * fri", "2026-01-01 00:00", "2026-01-02 00:00"),
        ("0 0 * * 7", "2026-01-01 00:00", "2026-01-04 00:00"),
        ("5-10/5 3 * * *", "2026-01-01 03:05", "2026-01-01 03:10"),
        ("@daily", "2026-01-01 00:00", "2026-01-02 00:00"),
        ("@yearly", "2026-01-01 00:00", "2027-01-01 00:00"),
    ],
)
def test_cron_comes_when_it_should(cron: str, after: str, then: str) -> None:
    assert Cron(cron).next(at(after)) == at(then)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "a * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "0 0 30 2 *",
        "1,,2 * * * *",
    ],
)
def test_a_wrong_expression_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidJob):
        Cron(wrong)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(InvalidJob, match="Middle/Earth"):
        Cron("* * * * *", "Middle/Earth")


def test_a_time_that_summer_time_skips_comes_an_hour_later() -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin")
    assert cron.next(at("2026-03-29 00:00", BERLIN)) == at("2026-03-29 03:30", BERLIN)
    assert cron.next(at("2026-03-29 03:30", BERLIN)) == at("2026-03-30 02:30", BERLIN)


def test_a_time_that_comes_twice_fires_once_but_hourly_work_in_each_hour() -> None:
    daily, hourly = Cron("30 2 * * *", "Europe/Berlin"), Cron("0 * * * *", "Europe/Berlin")
    first = daily.next(at("2026-10-25 00:00", BERLIN))
    assert first == at("2026-10-25 00:30")
    assert first is not None
    assert daily.next(first) == at("2026-10-26 02:30", BERLIN)
    hours = [at("2026-10-24 22:00")]
    for _ in range(5):
        following = hourly.next(hours[-1])
        assert following is not None
        hours.append(following)
    assert {later - earlier for earlier, later in pairwise(hours)} == {3600.0}


@given(st.floats(1.7e9, 1.9e9), st.sampled_from(["*/7 * * * *", "0 */5 * * *", "0 2 * * sun", "15 2 28 * *"]))
def test_firings_follow_one_another(after: float, expression: str) -> None:
    cron = Cron(expression, "Europe/Berlin")
    first = cron.next(after)
    assert first is not None
    assert first > after
    # Asked from just before it: the same, so none is jumped over.
    assert cron.next(first - 0.001) == first


@pytest.mark.parametrize(
    "wrong", [{}, {"cron": "* * * * *", "every": 5}, {"every": 0.5}, {"cron": "nonsense"}]
)
def test_a_schedule_needs_one_way_to_come(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidJob):
        Schedule("daily", report.call(), "acme", **wrong)  # type: ignore[arg-type]


# --- firing ---


class World:
    """A fleet on one store, with a clock to move."""

    def __init__(self, client: Client, schedule: Schedule) -> None:
        self.clock = Clock()
        self.engine = QueueEngine(client, clock=self.clock)
        self.client = client
        self.schedule = schedule

    def worker(self) -> Timetable:
        return Timetable(self.engine, [self.schedule])

    async def jobs(self) -> int:
        return len(await self.client.execute("HKEYS", "queue-jobs:{default}"))  # type: ignore[arg-type]


async def test_a_fleet_fires_once(memory: Client) -> None:
    world = World(memory, Schedule("minutely", report.call(), "acme", cron="* * * * *"))
    fleet = [world.worker() for _ in range(3)]
    for worker in fleet:
        assert await worker.fire() == 60.0
    assert await world.jobs() == 0
    for minute in range(1, 4):
        world.clock.time += 60
        for worker in fleet:
            await worker.fire()
        assert await world.jobs() == minute


async def test_a_firing_that_was_not_noted_is_not_doubled(memory: Client) -> None:
    world = World(memory, Schedule("minutely", report.call(), "acme", every=60))
    await world.worker().fire()
    world.clock.time += 60
    await world.worker().fire()
    # As if the worker had died after it had made the job, before it could say so.
    await memory.execute(
        "HSET", "queue-schedules:{default}", "acme:minutely", int(world.clock.time - 60) * 1000
    )
    await world.worker().fire()
    assert await world.jobs() == 1


@pytest.mark.parametrize(("catch_up", "jobs"), [("none", 0), ("one", 1), ("all", 5)])
async def test_what_was_missed_is_made_up_for_as_asked(memory: Client, catch_up: str, jobs: int) -> None:
    world = World(memory, Schedule("hourly", report.call(), "acme", cron="0 * * * *", catch_up=catch_up))  # type: ignore[arg-type]
    await world.worker().fire()
    world.clock.time += 5 * 3600 + 600
    assert await world.worker().fire() == 3000.0
    assert await world.jobs() == jobs
    await world.worker().fire()
    assert await world.jobs() == jobs


async def test_a_clock_that_goes_back_fires_nothing_again(memory: Client) -> None:
    world = World(memory, Schedule("minutely", report.call(), "acme", cron="* * * * *"))
    await world.worker().fire()
    world.clock.time += 60
    await world.worker().fire()
    world.clock.time -= 30
    await world.worker().fire()
    world.clock.time += 30
    await world.worker().fire()
    assert await world.jobs() == 1


@given(
    st.integers(0, 3 * 86_400), st.integers(1, 40),
    st.sampled_from(["*/7 * * * *", "0 */5 * * *", "30 2 * * *", "0 * * * *"]),
)  # fmt: skip
def test_the_last_firings_are_those_that_following_each_would_find(
    seconds: int, most: int, expression: str
) -> None:
    # Over the night in which the clock is set back.
    after = at("2026-10-24 12:00")
    cron, found = Cron(expression, "Europe/Berlin"), []
    following = cron.next(after)
    while following is not None and following <= after + seconds:
        found.append(following)
        following = cron.next(following)
    assert cron.last(after, after + seconds, most) == found[-most:]


@pytest.mark.parametrize(("catch_up", "days"), [("none", 1), ("one", 1), ("all", 2)])
def test_a_gap_of_a_year_is_looked_at_from_its_end(
    monkeypatch: pytest.MonkeyPatch, catch_up: str, days: int
) -> None:
    firings = Schedule("m", report.call(), "acme", cron="* * * * *", catch_up=catch_up).firings()  # type: ignore[arg-type]
    made: list[object] = []
    real = Cron._made

    def counted(self: Cron, day: date) -> list[float]:
        made.append(day)
        return real(self, day)

    monkeypatch.setattr(Cron, "_made", counted)
    now = round(at("2026-06-01 12:00:30") * 1000)
    times, over = firings.due(now - 365 * 86_400_000, now, 60_000)
    assert over == now - 30_000
    assert len(times) == (1_000 if catch_up == "all" else 1)
    assert len(made) <= days


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs a workspace may have, to be changed."""
    most = [0]
    monkeypatch.setattr(Quotas, "queue_depth", lambda _self, _workspace: most[0])
    return most


async def test_a_firing_that_is_not_taken_in_is_tried_again(memory: Client, room: list[int]) -> None:
    world = World(memory, Schedule("minutely", report.call(), "acme", cron="* * * * *"))
    worker = world.worker()
    await worker.fire()
    room[0] = 0
    world.clock.time += 60
    assert await worker.fire() == 5.0
    assert await world.jobs() == 0
    room[0] = 10
    await worker.fire()
    assert await world.jobs() == 1


async def test_of_many_firings_those_that_were_taken_in_are_over(memory: Client, room: list[int]) -> None:
    world = World(memory, Schedule("minutely", report.call(), "acme", cron="* * * * *", catch_up="all"))
    worker = world.worker()
    await worker.fire()
    room[0] = 2
    world.clock.time += 300
    await worker.fire()
    assert await world.jobs() == 2
    noted = await memory.hget("queue-schedules:{default}", "acme:minutely")
    assert noted is not None
    assert int(noted) / 1000 == world.clock.time // 60 * 60 - 180
    room[0] = 10
    await worker.fire()
    assert await world.jobs() == 5


async def test_a_schedule_that_cannot_be_fired_does_not_hold_up_the_others(memory: Client) -> None:
    world = World(memory, Schedule("fine", report.call(), "acme", every=60))
    wrong = Schedule("wrong", report.call(), "acme", every=60)
    worker = Timetable(world.engine, [wrong, world.schedule])
    await worker.fire()
    object.__setattr__(wrong, "call", None)
    world.clock.time += 60
    assert await worker.fire() == 5.0
    assert await world.jobs() == 1


def test_two_schedules_of_one_name_are_refused(memory: Client) -> None:
    engine = QueueEngine(memory)
    daily = Schedule("daily", report.call(), "acme", cron="@daily")
    with pytest.raises(ConfigError, match="two have this name in workspace acme and queue default"):
        Timetable(engine, [daily, Schedule("daily", report.call(), "acme", every=60)])
    # The same one found in two modules, and one of another workspace.
    Timetable(engine, [daily, daily, Schedule("daily", report.call(), "other", every=60)])
