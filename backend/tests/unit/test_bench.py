"""What `raptorflow bench` measures, and that it sends as many commands as it says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from redis_core.bench import BATCH, CALLERS, bench, commands_of
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.errors import StoreError
from redis_core.keys import family_of
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient
from tests.metrics_world import LosingTransport


@pytest.mark.parametrize("calls", [1, 9, 40])
async def test_it_sends_as_many_commands_as_it_says_and_leaves_no_key(memory: Client, calls: int) -> None:
    before = memory.stats.commands
    found = await bench(memory, calls=calls)
    assert found.commands == commands_of(calls) == memory.stats.commands - before
    _, keys = await memory.scan(0)
    assert keys == []


async def test_each_row_tells_of_its_own_calls(memory: Client) -> None:
    done: list[int] = []
    found = await bench(memory, calls=40, progress=done.append)
    assert done == [1, 2, 3, 4, 5, 6]
    for row in found.rows:
        assert row.calls == row.latency.samples == (4 if row.what.startswith("pipeline") else 40)
        assert row.commands == row.calls * (BATCH if row.what.startswith("pipeline") else 1)
        assert row.callers == (CALLERS if "callers" in row.what else 1)
        assert row.commands_per_second > 0
        assert row.latency.p50_ms is not None
        assert row.latency.max_ms is not None
        assert row.latency.p50_ms <= row.latency.max_ms


async def test_the_rows_say_how_many_callers_and_commands_they_are_of(memory: Client) -> None:
    names = " ".join(row.what for row in (await bench(memory, calls=1)).rows)
    assert f"{CALLERS} callers" in names
    assert f"pipeline of {BATCH}" in names


async def test_commands_are_told_at_their_price() -> None:
    settings = load_settings(mock_redis=True, redis_price_per_million=2.0)
    async with Client(MockRedisClient(), settings) as client:
        found = await bench(client, calls=10)
    assert found.cost == round(commands_of(10) * 2 / 1e6, 6)


async def test_its_key_is_of_a_declared_family_and_expires_by_itself() -> None:
    class Watched(MockRedisClient):
        written: list[Command] = []  # noqa: RUF012 - of this test alone

        async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
            self.written += [command for command in batch if command[0] in {"SET", b"SET"}]
            return await super().execute(batch, timeout=timeout)

    transport = Watched()
    async with Client(transport) as client:
        await bench(client, calls=1)
    assert len({str(command[1]) for command in transport.written}) == 1
    for command in transport.written:
        assert family_of(str(command[1])) is not None
        assert "EX" in command


async def test_a_store_that_is_away_is_an_error_and_no_figure() -> None:
    transport = LosingTransport()
    async with Client(transport) as client:
        transport.away = True
        with pytest.raises(StoreError):
            await bench(client, calls=1)
