"""What a job costs a real server: bytes while it waits, commands and trips until it is over."""

from __future__ import annotations

import re
from typing import cast

import pytest

from redis_core.client import Client
from redis_core.queue import task
from redis_core.worker import Worker
from tests.store_users import clean_client_as

JOBS = 1000


@task(name="costs.quiet", result_ttl=0)
async def quiet() -> None: ...


@task(name="costs.telling")
async def telling() -> int:
    return 1


async def calls(client: Client) -> dict[str, int]:
    """How often the server ran each command since it was asked to forget."""
    told = cast("bytes", await client.execute("INFO", "commandstats")).decode()
    return {name: int(count) for name, count in re.findall(r"cmdstat_([a-z|]+):calls=(\d+)", told)}


async def test_a_waiting_job_takes_few_bytes(valkey_socket: str) -> None:
    async with await clean_client_as("worker", valkey_socket) as client:
        await client.workspace("acme").queue.enqueue_many([quiet.call()] * JOBS)
        keys = cast("list[bytes]", await client.execute("KEYS", "*"))
        sizes = [await client.execute("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys]
        assert sum(cast("list[int]", sizes)) / JOBS <= 260


@pytest.mark.parametrize(("which", "most"), [(quiet, 0.5), (telling, 1.5)], ids=["quiet", "telling"])
async def test_jobs_of_a_busy_worker_share_its_turns(valkey_socket: str, which: object, most: float) -> None:
    chosen = quiet if which is quiet else telling
    async with await clean_client_as("worker", valkey_socket) as client:
        await client.workspace("acme").queue.enqueue_many([chosen.call()] * JOBS)
        await client.execute("CONFIG", "RESETSTAT")
        await Worker(client, [quiet, telling]).drain()
        ran = await calls(client)
        assert sum(ran.values()) / JOBS <= most
        assert sum(count for name, count in ran.items() if name.startswith("evalsha")) / JOBS <= 0.03
