"""Usage while the store is away, on real sockets and processes: every report that was accepted is added once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

import redis_core
from redis_core.client import Client, connect
from redis_core.config import Settings, load_settings
from redis_core.errors import StoreUnavailable
from redis_core.resilience.outage import State
from redis_core.testing import FaultProxy
from redis_core.usage import Budget, UsageEngine
from tests.stores import clean_client

WITHIN = 30.0
"""Seconds; what takes longer hangs."""

REPORTER = """
import asyncio, sys
from redis_core.client import connect

async def main():
    async with await connect() as client:
        usage = client.workspace("acme").usage
        while True:
            await usage.add(cost=1)
            print("kept", flush=True)

asyncio.run(main())
"""


async def until(what: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < WITHIN, "it never came"
        await asyncio.sleep(0.01)


def settings_for(url: str, folder: Path) -> Settings:
    return Settings(_env_file=None, redis_url=url, journal_path=folder / "journal")  # type: ignore[call-arg]


@pytest.fixture
async def direct(valkey_socket: str) -> AsyncIterator[Client]:
    async with await clean_client(valkey_socket) as client:
        yield client


async def total(client: Client) -> float:
    return (await client.workspace("acme").usage.spent()).month


async def test_reports_of_an_outage_are_added_once_when_the_store_is_back(
    direct: Client, valkey_socket: str, tmp_path: Path
) -> None:
    with FaultProxy(valkey_socket) as proxy:
        async with await connect(settings_for(proxy.url, tmp_path)) as client:
            usage = client.workspace("acme").usage
            assert (await usage.add(cost=1)).known
            proxy.refuse()
            for _ in range(5):
                assert not (await usage.add(cost=1)).known
            assert await total(direct) == 1
            proxy.up()
            # Behind a report that waits the next one waits too.
            await until(lambda: client.outage.state is State.HEALTHY and not client.outage.figures.waiting)
            assert (await usage.add(cost=1)).month == 7
    assert await total(direct) == 7


@pytest.mark.parametrize("fault", ["blackhole", "half_reply", "reset"])
async def test_a_report_whose_reply_is_lost_is_added_once(
    direct: Client, valkey_socket: str, tmp_path: Path, fault: str
) -> None:
    with FaultProxy(valkey_socket) as proxy:
        async with await connect(settings_for(proxy.url, tmp_path)) as client:
            usage = client.workspace("acme").usage
            await usage.add(cost=1)
            getattr(proxy, fault)()
            await asyncio.gather(*(usage.add(cost=1) for _ in range(3)))
            await usage.add(cost=1, id="one")
            proxy.up()
            await until(lambda: client.outage.state is State.HEALTHY)
            await usage.add(cost=1, id="one")
    assert await total(direct) == 5


async def test_what_a_killed_process_had_kept_is_added_by_the_next(
    direct: Client, valkey_socket: str, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    kept = 0
    with FaultProxy(valkey_socket) as proxy:
        environment = {
            **os.environ, "PYTHONPATH": str(Path(redis_core.__file__).parent.parent), "RAPTORFLOW_ENV": "test",
            "REDIS_URL": proxy.url, "JOURNAL_PATH": str(tmp_path / "journal"),
        }  # fmt: skip
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", REPORTER], env=environment, stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            for line in range(40):
                assert await asyncio.to_thread(process.stdout.readline) == "kept\n"
                if line == 20:
                    chance.choice([proxy.refuse, proxy.blackhole, proxy.reset, proxy.up])()
            process.send_signal(signal.SIGKILL)
            # What it had printed and we had not read is kept as well.
            kept += 40 + process.stdout.read().count("kept\n")
            process.wait()
            process.stdout.close()
            proxy.up()
        async with await connect(settings_for(proxy.url, tmp_path)) as client:
            client.service(UsageEngine)
            began = time.monotonic()
            while (found := await total(direct)) < kept and time.monotonic() - began < WITHIN:
                await asyncio.sleep(0.05)
    # Each of the three may have been killed between the keeping and the telling.
    assert kept <= found <= kept + 3, f"seed {seed}"


async def test_a_budget_is_held_by_what_was_last_known(
    direct: Client, valkey_socket: str, tmp_path: Path
) -> None:
    await direct.workspace("acme").usage.set_budget(Budget(day=10))
    with FaultProxy(valkey_socket) as proxy:
        async with await connect(settings_for(proxy.url, tmp_path)) as client:
            usage = client.workspace("acme").usage
            await usage.add(cost=1)
            proxy.refuse()
            await usage.add(cost=20)
            await usage.check()
            proxy.up()
            await until(lambda: client.outage.state is State.HEALTHY)


async def test_without_a_journal_a_report_is_refused_in_clear_words(
    valkey_socket: str, tmp_path: Path
) -> None:
    settings = settings_for("redis://127.0.0.1:1", tmp_path).model_copy(update={"redis_failover": False})
    async with await connect(settings) as client:
        with pytest.raises(StoreUnavailable):
            await client.workspace("acme").usage.add(cost=1)


async def test_sums_whose_reply_was_lost_are_added_once_without_a_journal_too(valkey_socket: str) -> None:
    async with await clean_client(valkey_socket) as direct:
        with FaultProxy(valkey_socket) as proxy:
            settings = load_settings(redis_url=proxy.url, redis_failover=False)
            async with await connect(settings) as client:
                engine = client.service(UsageEngine)
                await client.workspace("acme").usage.add(cost=0.01)
                engine.count("acme", jobs=10)
                proxy.half_reply()
                await engine.flush()
                engine.count("acme", jobs=5)
                proxy.up()
                async with asyncio.timeout(WITHIN):
                    while (await direct.workspace("acme").usage.day()).jobs < 15:
                        await engine.flush()
                await engine.flush()
        assert (await direct.workspace("acme").usage.day()).jobs == 15


async def test_a_report_out_of_the_journal_warns_as_well(valkey_socket: str, tmp_path: Path) -> None:
    async with await clean_client(valkey_socket) as direct:
        await direct.workspace("acme").usage.set_budget(Budget(day=1.0))
        with FaultProxy(valkey_socket) as proxy:
            async with await connect(settings_for(proxy.url, tmp_path)) as client:
                warned: list[float] = []
                client.service(UsageEngine).on_warning(
                    lambda _name, _period, spent, _limit: warned.append(spent)
                )
                await client.ping()
                proxy.refuse()
                async with asyncio.timeout(WITHIN):
                    while client.outage.available:
                        with suppress(StoreUnavailable):
                            await client.primary.ping()
                assert not (await client.workspace("acme").usage.add(cost=0.9)).known
                proxy.up()
                await until(lambda: bool(warned))
        assert warned == [pytest.approx(0.9)]
