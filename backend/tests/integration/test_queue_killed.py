"""A worker's process that is killed, on each kind of store: its job runs once more, elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

import redis_core
from redis_core.client import Client
from redis_core.queue import task
from tests.contract.rest import TOKEN, rest_client, running_gateway
from tests.store_users import clean_client_as, user_url

WITHIN = 50.0
TASKS = """
import asyncio, os
from redis_core.queue import JobContext, task

@task(name="killed")
async def killed(ctx: JobContext) -> list[int]:
    await asyncio.sleep(0 if ctx.run > 1 else 600)
    return [ctx.run, os.getpid()]
"""


@task(name="killed")
async def killed() -> list[int]:
    raise AssertionError("only the processes run it")


@pytest.fixture
async def store(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Client, dict[str, str]]]:
    """A client of an empty store, and the settings of a process that is to find it."""
    socket = request.getfixturevalue("redis7_socket" if request.param == "redis7" else "valkey_socket")
    async with await clean_client_as("worker", socket) as direct:
        if request.param != "rest":
            yield direct, {"REDIS_URL": user_url("worker", socket)}
            return
        with running_gateway(socket) as url:
            async with await rest_client(url) as client:
                yield client, {"UPSTASH_REDIS_URL": url, "UPSTASH_REDIS_TOKEN": TOKEN}


async def _running(client: Client) -> int:
    """The process of the only worker that has jobs, as its name in the lease tells."""
    async with asyncio.timeout(WITHIN):
        while not (names := await client.execute("ZRANGE", "queue-leases:{default}", 0, -1)):
            await asyncio.sleep(0.05)
    (name,) = cast("list[bytes]", names)
    return int(name.decode().split("-")[-2])


@pytest.mark.parametrize(
    ("store", "lease"),
    # The default lease is 15 s, which are waited for on one store only.
    [("valkey9", ["--lease", "2"]), ("redis7", []), ("rest", ["--lease", "2"])],
    indirect=["store"],
    ids=["valkey9", "redis7 with the default lease", "rest"],
)
async def test_a_killed_workers_job_runs_once_more_in_the_other(
    store: tuple[Client, dict[str, str]], lease: list[str], tmp_path: Path
) -> None:
    client, settings = store
    (tmp_path / "jobs.py").write_text(TASKS)
    environment = {
        **os.environ, **settings, "RAPTORFLOW_ENV": "test",
        "PYTHONPATH": str(Path(redis_core.__file__).parent.parent),
    }  # fmt: skip
    command = [sys.executable, "-m", "redis_core", "worker", "jobs", "--queues", "default", *lease]
    fleet = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True) for _ in range(2)
    ]
    try:
        job = await client.workspace("acme").queue.enqueue(killed)
        first = await _running(client)
        os.kill(first, signal.SIGKILL)
        run, pid = await job.result(WITHIN)
        assert (run, {first, pid}) == (2, {each.pid for each in fleet})
        assert [error.type for error in (await job.status()).errors] == ["WorkerLost"]
    finally:
        for each in fleet:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
