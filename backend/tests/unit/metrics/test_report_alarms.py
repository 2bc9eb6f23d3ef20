"""What the report raises an alarm for, and how far back it reaches."""

from __future__ import annotations

from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError
from redis_core.exposition import exposition
from redis_core.health import HealthProbe
from redis_core.measuring.batch import Batch
from redis_core.measuring.documents import Traffic
from redis_core.metrics import Metrics
from redis_core.queue import task
from redis_core.queueing.control import QueueControl
from redis_core.report import MOST_WINDOW, fleet_alarms, store_alarms, store_report
from redis_core.resilience.outage import OutageFigures
from redis_core.worker import Worker
from tests.metrics_world import NOON, MovedClock


@pytest.mark.parametrize(
    ("status", "mode", "figures", "raised"),
    [
        ("pass", "tcp", {}, []),
        ("pass", "memory", {}, []),
        ("fail", "tcp", {}, [("critical", "store-down")]),
        ("warn", "tcp", {"state": "suspect"}, [("critical", "store-down")]),
        ("warn", "degraded", {"degraded_seconds": 12.0}, [("critical", "degraded")]),
        ("warn", "recovering", {"waiting": 3}, [("critical", "degraded"), ("warning", "journal-waiting")]),
        ("warn", "degraded", {"forced": True}, [("warning", "mock-mode")]),
        ("pass", "tcp", {"waiting": 1}, [("warning", "journal-waiting")]),
        ("pass", "tcp", {"quarantined": 2}, [("critical", "journal-quarantine")]),
        ("warn", "tcp", {"credentials_rejected": True}, [("critical", "credentials-rejected")]),
        ("pass", "tcp", {"read_only": True}, [("critical", "read-only")]),
    ],
)
def test_what_is_wrong_with_the_store_is_an_alarm(
    status: str, mode: str, figures: dict[str, Any], raised: list[tuple[str, str]]
) -> None:
    failure = None if status == "pass" or figures.get("credentials_rejected") else "StoreUnavailable"
    found = store_alarms(status, mode, failure, OutageFigures(**figures))
    assert [(alarm.severity, alarm.code) for alarm in found] == raised


@pytest.mark.parametrize(
    ("failing", "forecast", "failed_flushes", "raised"),
    [
        (4, 99.0, 1, []),
        (5, 0.0, 0, [("critical", "error-burst")]),
        (0, 100.0, 0, [("warning", "bill-forecast")]),
        (0, 0.0, 2, [("warning", "metrics-not-flushed")]),
    ],
)
def test_what_is_wrong_with_the_fleet_is_an_alarm(
    failing: int,
    forecast: float,
    failed_flushes: int,
    raised: list[tuple[str, str]],
) -> None:
    traffic = Traffic(100, 1.0, 100, 100, 100, failing, failing / 100, 0, 0)
    found = fleet_alarms(traffic, [], forecast, failed_flushes)
    assert [(alarm.severity, alarm.code) for alarm in found] == raised


def test_how_much_waits_and_for_how_long_is_told() -> None:
    figures = OutageFigures(waiting=1200, waiting_oldest_seconds=61.4)
    (alarm,) = store_alarms("pass", "tcp", None, figures)
    assert alarm.text == "1,200 records wait in the journal, the oldest for 61 s"


def test_prometheus_is_told_of_the_outage() -> None:
    figures = OutageFigures(degraded_seconds=2.5, outages_total=1, waiting=7, quarantined=3)
    lines = exposition(Batch(), mode="degraded", up=False, price=0, outage=figures).splitlines()
    assert {
        "redis_core_up 0",
        "redis_core_degraded_seconds_total 2.5",
        "redis_core_outages_total 1",
        "redis_core_journal_records 7",
        "redis_core_journal_quarantined 3",
    } <= set(lines)


@task(name="alarms.nothing", queue="alarmed")
async def nothing() -> None:
    pass


@pytest.fixture
def clock(memory: Client) -> MovedClock:
    """The metrics' clock, which a test moves."""
    moved = MovedClock()
    memory._services[Metrics] = Metrics(memory, clock=moved)  # the service on a clock that is moved
    return moved


async def flushed(client: Client, clock: MovedClock, times: int = 2) -> None:
    """As so many tens of seconds do."""
    for _ in range(times):
        await client.service(Metrics).recorder.flush()
        clock.time += 10


async def alarms(client: Client, clock: MovedClock, window: int = 3_600) -> dict[str, str]:
    report = await store_report(HealthProbe(client), window=window, clock=clock)
    return {alarm.code: alarm.text for alarm in report.alarms}


async def test_jobs_that_no_worker_takes_are_an_alarm_until_one_does(
    memory: Client, clock: MovedClock
) -> None:
    await memory.workspace("acme").queue.enqueue_many([nothing.call()] * 3)
    await flushed(memory, clock)
    assert (await alarms(memory, clock))[
        "queue-stuck"
    ] == "Queue alarmed: 3 jobs wait, and no worker takes any"
    # Also hours after the last sign of who made them.
    clock.time += 300
    await flushed(memory, clock)
    clock.time += 4 * 3_600
    assert "queue-stuck" in await alarms(memory, clock)
    await Worker(memory, [nothing]).drain()
    assert "queue-stuck" not in await alarms(memory, clock)


async def test_jobs_that_are_not_due_yet_raise_none(memory: Client, clock: MovedClock) -> None:
    await memory.workspace("acme").queue.enqueue(nothing, delay=3_600)
    await flushed(memory, clock)
    assert "queue-stuck" not in await alarms(memory, clock)


async def test_a_pause_is_named_as_the_reason(memory: Client, clock: MovedClock) -> None:
    await memory.workspace("acme").queue.enqueue(nothing)
    await QueueControl(memory).pause("alarmed")
    await flushed(memory, clock)
    assert (await alarms(memory, clock))["queue-stuck"] == "Queue alarmed: 1 jobs wait, and is paused"


@pytest.mark.parametrize("window", [3_600, MOST_WINDOW])
async def test_a_burst_of_errors_is_seen_whatever_the_report_is_of(
    memory: Client, clock: MovedClock, window: int
) -> None:
    for _ in range(400):
        await memory.get("well")
    await flushed(memory, clock)
    clock.time += 600
    for _ in range(10):
        with pytest.raises(CommandError):
            await memory.execute("NOSUCH")
    await flushed(memory, clock)
    assert "error-burst" in await alarms(memory, clock, window)
    clock.time += 600
    assert "error-burst" not in await alarms(memory, clock, window)


async def test_a_window_of_days_is_read_from_hours(memory: Client, clock: MovedClock) -> None:
    metrics = memory.service(Metrics)
    for _ in range(7):
        await memory.get(memory.workspace("acme").keys.key("app", "x"))
    await metrics.recorder.flush(last=True)
    clock.time = NOON + 3 * 86_400
    probe = HealthProbe(memory)
    day = await store_report(probe, window=86_400, clock=clock)
    month = await store_report(probe, window=MOST_WINDOW, clock=clock)
    assert day.traffic.operations == 0
    assert month.traffic.operations >= 7
