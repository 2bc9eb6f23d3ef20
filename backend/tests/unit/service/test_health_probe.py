from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import UNSET

from redis_core.client import Client
from redis_core.errors import CommandError, DeadlineExceeded
from redis_core.health import READY_BUDGET, HealthProbe
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from tests.hand_clock import HandClock


class AnsweringTransport:
    """Answers PING and INFO as it is told, and keeps what it was asked."""

    target = "there"
    script_header = ""

    def __init__(self, mode: str = "tcp") -> None:
        self.mode = mode
        self.stats = TransportStats(connects=1)
        self.asked: list[tuple[object, float | None]] = []
        self.away = False
        self.info: Reply = b"redis_version:7.2.4\r\nrole:master\r\n"

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self.asked += [(command[0], timeout) for command in batch]
        await asyncio.sleep(0)
        if self.away:
            raise DeadlineExceeded("no answer")
        return [b"PONG" if command[0] == "PING" else self.info for command in batch]

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        raise NotImplementedError

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        raise NotImplementedError

    async def aclose(self) -> None: ...


async def test_live_never_asks_the_store() -> None:
    transport, clock = AnsweringTransport(), HandClock()
    transport.away = True
    probe = HealthProbe(Client(transport), clock=clock)
    clock.time += 7
    health = probe.live()
    assert transport.asked == []
    assert health.status == "pass"
    assert health.checks["process:uptime"][0].observed_value == 7


async def test_ready_asks_once_a_second_however_many_ask_it() -> None:
    transport, clock = AnsweringTransport(), HandClock()
    probe = HealthProbe(Client(transport), clock=clock)
    answers = await asyncio.gather(*(probe.ready() for _ in range(50)))
    assert {answer.status for answer in answers} == {"pass"}
    assert transport.asked == [("PING", READY_BUDGET)]
    clock.time += 0.9
    await probe.ready()
    assert len(transport.asked) == 1
    clock.time += 0.2
    transport.away = True
    assert (await probe.ready()).status == "fail"
    assert len(transport.asked) == 2


async def test_detail_asks_every_time_and_which_server_once_a_connection() -> None:
    transport = AnsweringTransport()
    probe = HealthProbe(Client(transport))
    for _ in range(3):
        health = await probe.detail()
    assert [name for name, _ in transport.asked] == ["PING", "INFO", "PING", "PING"]
    assert health.store is not UNSET
    assert health.store.version == "7.2.4"
    transport.stats.connects += 1
    transport.info = b"redis_version:8.0.0\r\n"
    health = await probe.detail()
    assert health.store is not UNSET
    assert health.store.version == "8.0.0"


async def test_a_store_that_refuses_info_is_well_and_nameless() -> None:
    transport = AnsweringTransport()
    transport.info = CommandError("NOPERM this user has no permissions to run the 'info' command")
    health = await HealthProbe(Client(transport)).detail()
    assert (health.status, health.store) == ("pass", UNSET)


async def test_a_store_that_is_away_fails_and_says_why() -> None:
    transport = AnsweringTransport()
    transport.away = True
    probe = HealthProbe(Client(transport))
    health = await probe.detail()
    assert (health.status, health.output) == ("fail", "DeadlineExceeded: no answer")
    assert health.checks["redis:responseTime"][0].status == "fail"
    assert probe.latency.percentiles().samples == 0


async def test_modes_without_a_lasting_store_are_degraded() -> None:
    statuses = {}
    for mode in ("tcp", "upstash", "cluster", "memory", "degraded", "recovering"):
        health = await HealthProbe(Client(AnsweringTransport(mode))).detail()
        statuses[mode] = health.status, health.degraded
    assert statuses == {
        "tcp": ("pass", False),
        "upstash": ("pass", False),
        "cluster": ("pass", False),
        "memory": ("pass", True),
        "degraded": ("warn", True),
        "recovering": ("warn", True),
    }
