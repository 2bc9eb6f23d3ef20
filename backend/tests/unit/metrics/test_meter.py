from __future__ import annotations

import gc
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.errors import StoreUnavailable, WrongType
from redis_core.measuring.attribution import attribute, billed
from redis_core.measuring.meter import Meter
from redis_core.transport.base import Command
from redis_core.transport.memory import MockRedisClient
from tests.metrics_world import LosingTransport


@given(st.lists(st.integers(0, 2_000), max_size=3))
@settings(deadline=None)
@example([33_001, 1_001, 40_000])
def test_calls_are_counted_exactly_however_many_are_measured(rounds: list[int]) -> None:
    meter = Meter(MockRedisClient())
    for calls in rounds:
        measured = 0
        for _ in range(calls):
            if meter.tick():
                measured += 1
                meter.end((("GET", "k"),), [b"v"], 0.001, 1)
        assert meter.take().counters.get("operations_total", 0) == calls
        some, few = min(max(calls - 1_000, 0), 32_000), max(calls - 33_000, 0)
        assert measured == min(calls, 1_000) + -(-some // 128) + -(-few // 1_024)


async def test_what_is_sampled_stands_for_all(memory: Client) -> None:
    key = memory.workspace("acme").keys.key("app", "x")
    for _ in range(3_200):
        await memory.get(key)
    taken = memory.meter.take()
    assert taken.counters["commands_total"] == taken.counters["operations_total"] == 3_200
    assert abs(taken.counters["service_operations_total|application"] - 3_200) < 128
    assert abs(taken.durations["operation_duration_seconds|application"].count - 3_200) < 128
    assert abs(taken.workspaces["acme"].commands - 3_200) < 128


async def test_errors_are_counted_by_their_class_wherever_they_are_raised() -> None:
    transport = LosingTransport()
    async with Client(transport) as client:
        await client.set("text", "x")
        with pytest.raises(WrongType):
            await client.hgetall("text")
        transport.away = True
        with pytest.raises(StoreUnavailable):
            await client.within(0.1).get("text")
        with pytest.raises(StoreUnavailable):
            async with client.pipeline() as batch:
                batch.incr("n")
    counters = client.meter.take().counters
    assert counters["errors_total|WrongType"] == 1
    assert counters["errors_total|DeadlineExceeded"] == 2


async def test_tenants_beyond_a_thousand_are_told_together(memory: Client) -> None:
    meter = memory.meter
    for number in range(1_200):
        meter.end((("GET", memory.workspace(f"w{number}").keys.key("app", "x")),), [b""], 0.001, 1)
    found = meter.take().workspaces
    assert len(found) == 1_001
    assert found["other"].commands == 200


def test_an_owner_is_asked_as_long_as_it_lives() -> None:
    class Owner:
        total = 0.0

        def totals(self) -> Mapping[str, float]:
            return {"cache_loads_total|done": self.total}

    meter, owner = Meter(MockRedisClient()), Owner()
    owner.total = 5
    meter.watch(owner, Owner.totals)
    owner.total = 7
    assert meter.take().counters["cache_loads_total|done"] == 2
    assert "cache_loads_total|done" not in meter.take().counters
    del owner
    gc.collect()
    assert "cache_loads_total|done" not in meter.take().counters


WS = "ws:{acme}:"


@pytest.mark.parametrize(
    ("command", "service", "workspace"),
    [
        (("GET", f"{WS}cache:r:k"), "cache", "acme"),
        (("HGETALL", f"{WS}session:x".encode()), "session", "acme"),
        (("GET", "rate:u:/x"), "rate_limit", ""),
        (("HGET", "job:{agents}:acme:1", "p"), "queue", "acme"),
        (("EVALSHA", "0" * 40, 1, f"{WS}session:x"), "session", "acme"),
        (("GET", "sys:metrics:minutes:0"), "metrics", ""),
        (("GET", "nobodys:key"), "application", ""),
        (("XREAD", "BLOCK", 5, "STREAMS", "sys:cache-bus", "$"), "cache", ""),
        (("GET", "sys:epoch"), "redis_core", ""),
        (("PING",), "store", ""),
        (("SCAN", 0), "store", ""),
    ],
)
def test_a_command_belongs_to_the_service_and_workspace_of_its_key(
    command: Command, service: str, workspace: str
) -> None:
    assert attribute(command) == (service, workspace)


def test_a_script_is_billed_for_what_it_sends() -> None:
    assert billed(("GET", "k")) == 1
    assert billed(("EVALSHA", "0" * 40, 0)) == 4
