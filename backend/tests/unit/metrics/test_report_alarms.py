"""What the report raises an alarm for, and how far back it reaches."""

from __future__ import annotations

from typing import Any

import pytest

from redis_core.api.prometheus import exposition
from redis_core.client import Client
from redis_core.health import HealthProbe
from redis_core.measuring.batch import Batch
from redis_core.measuring.documents import Traffic
from redis_core.metrics import Metrics
from redis_core.report import MOST_WINDOW, fleet_alarms, store_alarms, store_report
from redis_core.resilience.outage import OutageFigures
from tests.metrics_world import NOON, MovedClock


@pytest.mark.parametrize(
    ("status", "mode", "figures", "raised"),
    [
        ("pass", "tcp", {}, []),
        ("pass", "memory", {}, []),
        ("fail", "tcp", {}, [("critical", "store-down")]),
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
    found = store_alarms(status, mode, "StoreUnavailable", OutageFigures(**figures))
    assert [(alarm.severity, alarm.code) for alarm in found] == raised


@pytest.mark.parametrize(
    ("failing", "levels", "forecast", "failed_flushes", "raised"),
    [
        (4, {}, 99.0, 1, []),
        (5, {}, 0.0, 0, [("critical", "error-burst")]),
        (0, {"queue_depth|mail": 1000.0}, 0.0, 0, [("critical", "queue-stuck")]),
        (0, {"queue_depth|mail": 1000.0, "jobs_running": 1.0}, 0.0, 0, []),
        (0, {}, 100.0, 0, [("warning", "bill-forecast")]),
        (0, {}, 0.0, 2, [("warning", "metrics-not-flushed")]),
    ],
)
def test_what_is_wrong_with_the_fleet_is_an_alarm(
    failing: int,
    levels: dict[str, float],
    forecast: float,
    failed_flushes: int,
    raised: list[tuple[str, str]],
) -> None:
    traffic = Traffic(100, 1.0, 100, 100, 100, failing, failing / 100, 0, 0)
    found = fleet_alarms(traffic, Batch(levels=levels), forecast, failed_flushes)
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


async def test_a_window_of_days_is_read_from_hours(memory: Client) -> None:
    clock = MovedClock()
    metrics = Metrics(memory, clock=clock)
    memory._services[Metrics] = metrics  # the service on a clock that is moved
    for _ in range(7):
        await memory.get(memory.workspace("acme").keys.key("app", "x"))
    await metrics.recorder.flush(last=True)
    clock.time = NOON + 3 * 86_400
    probe = HealthProbe(memory)
    day = await store_report(probe, window=86_400, clock=clock)
    month = await store_report(probe, window=MOST_WINDOW, clock=clock)
    assert day.traffic.operations == 0
    assert month.traffic.operations >= 7
