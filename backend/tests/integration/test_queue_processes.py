"""Real worker processes: started by the command line, killed, stopped and looked after."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redis_core
from redis_core.client import Client, connect
from redis_core.errors import JobFailed
from redis_core.queue import JobHandle, task
from redis_core.queueing import doorbell
from redis_core.worker import Worker
from tests.server_process import free_port
from tests.store_users import clean_client_as, user_url

WITHIN = 40.0
TASKS = """
import asyncio, os, time
from redis_core.queue import JobContext, Retry, task

@task(name="slow")
async def slow(ctx: JobContext) -> list[int]:
    await ctx.log("began")
    await ctx.step("mark", lambda: os.getpid())
    await asyncio.sleep(0.5 if ctx.run > 1 else 60)
    return [ctx.run, os.getpid()]

@task(name="short")
async def short(seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()

@task(name="stuck")
def stuck() -> None:
    time.sleep(30)

@task(name="asks", executor="process", retries=2)
def asks() -> str:
    if not os.path.exists("asked"):
        open("asked", "w").close()
        raise Retry(after=0.0)
    return os.environ.get("REDIS_URL", "not told")

@task(name="lingers", executor="process", timeout=60)
def lingers() -> None:
    open("pid", "w").write(str(os.getpid()))
    time.sleep(60)

@task(name="brief", executor="process", timeout=2, retries=0)
def brief() -> None:
    open("pid", "w").write(str(os.getpid()))
    time.sleep(60)

@task(name="poison")
async def poison() -> None:
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), 9)

@task(name="alone", executor="process", timeout=20, memory=400_000_000, retries=0)
def alone(what: str, at: int = 3) -> object:
    if what == "hang":
        time.sleep(60)
    if what == "eat":
        return len(bytearray(2_000_000_000))
    if what == "print":
        print("not the answer")
    return [what, at, os.getpid()]
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
async def client(valkey_socket: str) -> AsyncIterator[Client]:
    async with await clean_client_as("worker", valkey_socket) as opened:
        yield opened


@pytest.fixture
def start(valkey_socket: str, tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "jobs.py").write_text(TASKS)
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ, "PYTHONPATH": str(Path(redis_core.__file__).parent.parent), "RAPTORFLOW_ENV": "test",
        "REDIS_URL": user_url("worker", valkey_socket),
    }  # fmt: skip

    def worker(*options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "redis_core", "worker", "jobs", "--queues", "default", *options]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
        started.append(process)
        return process

    yield worker
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def state_of(job: JobHandle[Any], wanted: str) -> None:
    async with asyncio.timeout(WITHIN):
        while (await job.status()).state != wanted:
            await asyncio.sleep(0.02)


async def named(client: Client, name: str, **arguments: object) -> JobHandle[Any]:
    """A job of a task that only the worker's process has."""

    async def any_of(seconds: float = 0.0) -> object:
        return seconds

    async def what_of(what: str, at: int = 3) -> object:
        return what, at

    stand_in = task(name=name)(what_of if "what" in arguments else any_of)
    return await client.workspace("acme").queue.enqueue(stand_in.call(**arguments))


async def test_the_jobs_of_a_killed_worker_run_again_exactly_once_more(client: Client, start: Start) -> None:
    first = start("--lease", "2")
    job = await named(client, "slow")
    await state_of(job, "running")
    second = start("--lease", "2")
    warm = await named(client, "short")
    await warm.result(WITHIN)
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed = time.monotonic()
    run, pid = await job.result(WITHIN)
    assert run == 2
    assert pid == second.pid
    # Lease 2 s, and 2 s more, and half a second that the job takes; the rest is for a busy machine.
    assert time.monotonic() - killed < 10
    status = await job.status()
    assert [error.type for error in status.errors] == ["WorkerLost"]


async def test_a_frozen_worker_that_comes_back_changes_nothing(client: Client, start: Start) -> None:
    first = start("--lease", "1")
    job = await named(client, "slow")
    await state_of(job, "running")
    first.send_signal(signal.SIGSTOP)
    second = start("--lease", "1")
    run, pid = await job.result(WITHIN)
    assert (run, pid) == (2, second.pid)
    second.send_signal(signal.SIGTERM)
    second.wait(WITHIN)
    first.send_signal(signal.SIGCONT)
    # It goes on working, as if nothing had been.
    again = await named(client, "short")
    assert await again.result(WITHIN) == first.pid
    assert (await job.result(1))[0] == 2


async def test_sigterm_lets_jobs_finish_and_hands_back_the_others(client: Client, start: Start) -> None:
    worker = start("--grace", "1")
    quick, long = await named(client, "short", seconds=0.5), await named(client, "short", seconds=60)
    await state_of(quick, "running")
    await state_of(long, "running")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WITHIN) == 0
    assert await quick.result(1) == worker.pid
    status = await long.status()
    assert (status.state, status.errors) == ("waiting", ())


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_second_signal_hands_the_jobs_back_at_once(
    client: Client, start: Start, processes: str
) -> None:
    worker = start("--grace", "600", "--processes", processes)
    job = await named(client, "short", seconds=300)
    await state_of(job, "running")
    worker.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    assert worker.poll() is None
    assert (await job.status()).state == "running"
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, WITHIN) == 0
    status = await job.status()
    assert (status.state, status.errors) == ("waiting", ())


async def test_a_changed_source_file_starts_the_worker_anew(
    client: Client, start: Start, tmp_path: Path
) -> None:
    supervisor = start("--reload")
    before = await (await named(client, "short")).result(WITHIN)
    source = tmp_path / "jobs.py"
    source.write_text(TASKS.replace("return os.getpid()", "return -os.getpid()"))
    os.utime(source, (time.time() + 10, time.time() + 10))
    async with asyncio.timeout(WITHIN):
        # The old one may still take a job before it is told to stop.
        while (after := await (await named(client, "short")).result(WITHIN)) == before:
            await asyncio.sleep(0.1)
    assert isinstance(after, int)
    assert after < 0
    supervisor.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(supervisor.wait, WITHIN) == 0


async def test_a_job_that_kills_its_workers_is_buried_and_its_neighbours_are_not(
    client: Client, start: Start
) -> None:
    neighbours = [await named(client, "short", seconds=1.0) for _ in range(4)]
    poison = await named(client, "poison")
    async with asyncio.timeout(WITHIN):
        for _ in range(3):
            await asyncio.to_thread(start("--lease", "1").wait)
    start("--lease", "1")
    with pytest.raises(JobFailed, match="WorkerLost"):
        await poison.result(WITHIN)
    for job in neighbours:
        assert await job.result(WITHIN)


async def test_a_killed_worker_is_noticed_by_one_that_stood_behind_it_in_the_line(
    client: Client, start: Start, valkey_socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = asyncio.Event()

    @task(name="slow")
    async def slow() -> str:
        await killed.wait()
        return "the other's"

    # The first worker claims the delayed job by its own clock, not by a token, so it still stands in the line of the bell; the other
    # one has joined the line anew meanwhile, behind it. A single token that tells of the first one's lease would come to itself.
    monkeypatch.setattr(doorbell, "_BLOCK", 3.0)
    first = start("--lease", "1")
    await (await named(client, "short")).result(WITHIN)
    async with await connect(redis_url=user_url("worker", valkey_socket), mock_redis=False) as other:
        worker = Worker(other, [slow], lease=1, concurrency=2)
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0.5)
        late = await client.workspace("acme").queue.enqueue(slow, delay=4)
        await state_of(late, "running")
        os.killpg(first.pid, signal.SIGKILL)
        killed.set()
        assert await late.result(WITHIN) == "the other's"
        worker.stop()
        await running


async def test_a_process_that_dies_is_started_anew(client: Client, start: Start, tmp_path: Path) -> None:
    supervisor = start("--processes", "2", "--lease", "1", "--health-file", "health", "--concurrency", "1")
    jobs = [await named(client, "short", seconds=0.2) for _ in range(6)]
    pids = {await job.result(WITHIN) for job in jobs}
    assert len(pids) == 2
    assert supervisor.pid not in pids
    assert json.loads((tmp_path / "health").read_bytes())["healthy"] is True
    for pid in pids:
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
    fresh = await (await named(client, "short")).result(WITHIN)
    assert fresh not in pids
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(WITHIN) == 0


async def test_the_probe_answers(client: Client, start: Start) -> None:
    port = free_port()
    start("--health-port", str(port))
    await (await named(client, "short")).result(WITHIN)

    def ask(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return str(answer.read().decode())

    told = json.loads(await asyncio.to_thread(ask, "/health"))
    assert told["healthy"] is True
    assert told["running"] == 0
    scraped = await asyncio.to_thread(ask, "/metrics")
    assert 'redis_core_jobs_total{outcome="done"} 1' in scraped.splitlines()


async def test_untrusted_work_runs_in_a_process_with_limits(client: Client, start: Start) -> None:
    worker = start()
    what, at, pid = await (await named(client, "alone", what="print", at=5)).result(WITHIN)
    assert (what, at) == ("print", 5)
    assert pid != worker.pid
    with pytest.raises(JobFailed, match="MemoryError"):
        await (await named(client, "alone", what="eat")).result(WITHIN)
    hanging = await named(client, "alone", what="hang")
    await state_of(hanging, "running")
    await hanging.cancel()
    await state_of(hanging, "cancelled")


async def test_untrusted_work_may_ask_to_run_again_and_knows_nothing_of_the_store(
    client: Client, start: Start
) -> None:
    start()
    assert await (await named(client, "asks")).result(WITHIN) == "not told"


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def pid_in(folder: Path) -> int:
    async with asyncio.timeout(WITHIN):
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            await asyncio.sleep(0.02)
    return int((folder / "pid").read_text())


async def gone(pid: int) -> None:
    async with asyncio.timeout(WITHIN):
        while is_there(pid):
            await asyncio.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
async def test_a_process_of_its_own_ends_with_a_worker_that_is_killed(
    client: Client, start: Start, tmp_path: Path
) -> None:
    worker = start()
    await named(client, "lingers")
    pid = await pid_in(tmp_path)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(WITHIN)
    await gone(pid)


async def test_a_process_of_its_own_that_takes_too_long_is_killed(
    client: Client, start: Start, tmp_path: Path
) -> None:
    start()
    job = await named(client, "brief")
    pid = await pid_in(tmp_path)
    with pytest.raises(JobFailed, match="TimeoutError"):
        await job.result(WITHIN)
    await gone(pid)


async def test_a_thread_that_does_not_end_holds_up_nobody(client: Client, start: Start) -> None:
    worker = start("--grace", "0.2")
    job = await named(client, "stuck")
    await state_of(job, "running")
    worker.send_signal(signal.SIGTERM)
    # The thread sleeps for half a minute; Python alone would wait for it.
    assert await asyncio.to_thread(worker.wait, 25) == 0
    await state_of(job, "waiting")


async def test_a_wrong_module_is_told_with_an_exit_code(start: Start, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("x = 1\n")
    assert start().wait(WITHIN) == 3
