"""Jobs and workers while the store is away: a real Valkey behind a proxy that breaks, and journals on a disk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import JobCancelled, JournalFull, StoreUnavailable
from redis_core.keys import queue_key
from redis_core.queue import JobContext, JobHandle, task
from redis_core.resilience.outage import State
from redis_core.testing import FaultProxy
from redis_core.worker import Worker
from tests.server_process import ServerProcess
from tests.stores import valkey_binary

RUNS: list[int] = []


@task
async def note(number: int) -> int:
    RUNS.append(number)
    return number


@task(result_ttl=0)
async def forgotten(number: int) -> None:
    RUNS.append(number)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(valkey_binary()) as running:
        yield running


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[FaultProxy]:
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        yield proxy


def settings_for(url: str, folder: Path, **more: object) -> Settings:
    return Settings(_env_file=None, redis_url=url, journal_path=folder / "journal", **more)  # type: ignore[arg-type, call-arg]


@pytest.fixture
async def client(proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[Client]:
    RUNS.clear()
    async with await connect(settings_for(proxy.url, tmp_path)) as client:
        await client.flushdb()
        yield client


async def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)


async def gone(client: Client) -> None:
    client.outage.force(True)
    assert not client.outage.available


async def back(client: Client) -> None:
    client.outage.force(False)
    await until(lambda: client.outage.state is State.HEALTHY and not client.outage.figures.waiting)


async def waiting(client: Client) -> list[str]:
    """Ids in the queue's list, in order."""
    return [
        name.decode() for name in await client.lrange(queue_key("queue-wait", "default", "acme", "2"), 0, -1)
    ]


async def test_jobs_enqueued_while_the_store_is_away_follow_in_order_and_run_once(client: Client) -> None:
    queue = client.workspace("acme").queue
    await gone(client)
    first = [await queue.enqueue(note, number) for number in range(5)]
    many = await queue.enqueue_many([note.call(number) for number in range(5, 20)])
    jobs = [*first, *many]
    assert all(job.spooled and job.is_new for job in jobs)
    assert [(await job.status()).state for job in jobs] == ["spooled"] * 20
    await back(client)
    assert not any(job.spooled for job in jobs)
    assert await waiting(client) == [job.id for job in jobs]
    await Worker(client, [note], concurrency=1).drain()
    assert list(range(20)) == RUNS
    assert await jobs[7].result(10) == 7


async def test_a_result_is_waited_for_through_the_outage(client: Client) -> None:
    worker = Worker(client, [note])
    await gone(client)
    job = await client.workspace("acme").queue.enqueue(note, 3)
    result = asyncio.ensure_future(job.result(30))
    await asyncio.sleep(0)
    await back(client)
    working = asyncio.ensure_future(worker.run())
    assert await result == 3
    worker.stop()
    await working


async def test_new_jobs_go_behind_those_that_wait(client: Client) -> None:
    queue = client.workspace("acme").queue
    await gone(client)
    early = [await queue.enqueue(note, number) for number in range(300)]
    client.outage.force(False)
    late: list[JobHandle[int]] = []
    while client.outage.state is not State.HEALTHY:
        late.append(await queue.enqueue(note, 1_000 + len(late)))
        await asyncio.sleep(0.01)
    await until(lambda: not client.outage.figures.waiting)
    assert await waiting(client) == [job.id for job in early + late]


async def test_a_delay_counts_from_when_the_job_was_accepted(client: Client) -> None:
    queue = client.workspace("acme").queue
    await gone(client)
    soon = await queue.enqueue(note, 1, delay=0.001)
    far = await queue.enqueue(note, 2, delay=1000)
    accepted = time.time()
    await asyncio.sleep(0.01)
    await back(client)
    assert await waiting(client) == [soon.id]
    status = await far.status()
    assert status.state == "delayed"
    assert status.due is not None
    assert abs(status.due - accepted - 1000) < 5


async def test_a_unique_key_holds_through_the_outage(client: Client) -> None:
    queue = client.workspace("acme").queue
    known = await queue.enqueue(note, 1, unique_key="theirs")
    await gone(client)
    refused = await queue.enqueue(note, 2, unique_key="theirs")
    first = await queue.enqueue(note, 3, unique_key="ours")
    again = await queue.enqueue(note, 4, unique_key="ours")
    assert again.id == first.id
    assert first.is_new
    assert not again.is_new
    await back(client)
    assert await waiting(client) == [known.id, first.id]
    with pytest.raises(JobCancelled, match=f"job {known.id} has its unique key"):
        await refused.result(5)
    assert (await queue.enqueue(note, 5, unique_key="ours")).id == first.id


async def test_an_idempotency_key_holds_through_the_outage(client: Client) -> None:
    queue = client.workspace("acme").queue
    before = await queue.enqueue(note, 1, idempotency_key="order-1")
    await Worker(client, [note]).drain()
    await gone(client)
    assert (await queue.enqueue(note, 1, idempotency_key="order-1")).id == before.id
    one = await queue.enqueue(note, 2, idempotency_key="order-2")
    two = await queue.enqueue(note, 2, idempotency_key="order-2")
    assert one.id == two.id
    await back(client)
    await Worker(client, [note]).drain()
    assert RUNS == [1, 2]


async def test_what_it_depends_on_goes_in_first(client: Client) -> None:
    queue = client.workspace("acme").queue
    await gone(client)
    parent = await queue.enqueue(note, 1)
    child = await queue.enqueue(note, 2, depends_on=[parent])
    await back(client)
    assert (await child.status()).state == "blocked"
    await Worker(client, [note]).drain()
    assert RUNS == [1, 2]


async def test_a_call_whose_reply_was_lost_is_sent_again_and_doubles_nothing(
    client: Client, proxy: FaultProxy
) -> None:
    queue = client.workspace("acme").queue
    await queue.enqueue(note, 0)
    proxy.blackhole()
    calling = asyncio.ensure_future(queue.enqueue_many([note.call(number) for number in range(1, 10)]))
    await until(lambda: client.outage.state is State.DEGRADED)
    jobs = await calling
    assert jobs[0].spooled
    proxy.up()
    await until(lambda: client.outage.state is State.HEALTHY and not client.outage.figures.waiting)
    await Worker(client, [note], concurrency=1).drain()
    assert list(range(10)) == RUNS


async def test_a_job_of_unknown_outcome_that_leaves_no_trace_is_not_accepted(
    client: Client, proxy: FaultProxy
) -> None:
    queue = client.workspace("acme").queue
    await queue.enqueue(note, 0)
    proxy.blackhole()
    with pytest.raises(StoreUnavailable) as caught:
        await queue.enqueue(forgotten, 1)
    assert caught.value.outcome == "unknown"
    await until(lambda: client.outage.state is State.DEGRADED)
    # Nothing was sent of this one, so it can be kept.
    assert (await queue.enqueue(forgotten, 2)).spooled


async def test_a_record_is_taken_in_once_even_when_its_job_is_over_and_forgotten(client: Client) -> None:
    engine = client.workspace("acme").queue._engine
    shard = engine.shard("default", "acme")
    job = await client.workspace("acme").queue.enqueue(forgotten, 1)
    row = client.workspace("acme").queue._row(forgotten.call(2), "again", 0, 0.0, "", "", None)
    for _ in range(3):
        await shard.enqueue("acme", [row], most=10, names=["record"], remember=60_000)
        await Worker(client, [forgotten]).drain()
    assert RUNS == [1, 2]
    assert not job.spooled


async def test_a_full_journal_refuses_and_what_it_has_follows(proxy: FaultProxy, tmp_path: Path) -> None:
    async with await connect(settings_for(proxy.url, tmp_path, journal_max_bytes=64 * 1024)) as client:
        await client.flushdb()
        queue = client.workspace("acme").queue
        await gone(client)
        accepted: list[JobHandle[int]] = []
        with pytest.raises(JournalFull):
            while True:
                accepted.append(await queue.enqueue(note, len(accepted)))
        await back(client)
        assert await waiting(client) == [job.id for job in accepted]


async def test_a_store_that_came_back_empty_gets_what_was_in_the_journal(
    client: Client, proxy: FaultProxy
) -> None:
    queue = client.workspace("acme").queue
    await gone(client)
    jobs = [await queue.enqueue(note, number) for number in range(10)]
    async with await connect(Settings(_env_file=None, redis_url=proxy.url, redis_failover=False)) as other:  # type: ignore[call-arg]
        await other.flushdb()
    await back(client)
    assert await waiting(client) == [job.id for job in jobs]


async def test_jobs_run_on_while_the_store_is_away_and_their_ends_are_told_afterwards(client: Client) -> None:
    inside, outside = asyncio.Event(), asyncio.Event()

    @task
    async def long() -> str:
        inside.set()
        await outside.wait()
        return "done"

    worker = Worker(client, [long], lease=30)
    job = await client.workspace("acme").queue.enqueue(long)
    working = asyncio.ensure_future(worker.run())
    await inside.wait()
    await gone(client)
    outside.set()
    await until(lambda: not worker.stations[0].jobs)
    await until(lambda: client.outage.figures.waiting == 1)
    assert not working.done()
    await back(client)
    assert await job.result(20) == "done"
    worker.stop()
    await working


async def test_how_a_job_ended_outlives_the_worker_that_ended_it(
    client: Client, proxy: FaultProxy, tmp_path: Path
) -> None:
    inside, outside = asyncio.Event(), asyncio.Event()

    @task
    async def long() -> str:
        inside.set()
        await outside.wait()
        return "done"

    job = await client.workspace("acme").queue.enqueue(long)
    async with await connect(settings_for(proxy.url, tmp_path)) as dying:
        worker = Worker(dying, [long], lease=600)
        working = asyncio.ensure_future(worker.run())
        await inside.wait()
        await gone(dying)
        outside.set()
        await until(lambda: dying.outage.figures.waiting == 1)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    # Another process adopts what it left.
    async with await connect(settings_for(proxy.url, tmp_path)) as heir:
        assert await heir.workspace("acme").queue.job("default", job.id, str).result(20) == "done"


async def test_jobs_stop_before_their_lease_ends_and_run_again(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []
    stopped: list[int] = []

    @task
    async def endless(ctx: JobContext) -> int:
        runs.append(ctx.run)
        if ctx.run == 1:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(ctx.run)
        return ctx.run

    caplog.set_level(logging.ERROR, "redis_core.queue")
    worker = Worker(client, [endless], lease=1.0)
    job = await client.workspace("acme").queue.enqueue(endless)
    working = asyncio.ensure_future(worker.run())
    await until(lambda: runs == [1])
    await gone(client)
    await until(lambda: stopped == [1])
    assert not client.outage.available
    await back(client)
    assert await job.result(20) == 2
    worker.stop()
    await working
    assert (await job.status()).errors == ()


async def test_a_job_that_needs_the_store_is_begun_anew_and_has_not_failed(client: Client) -> None:
    inside, outside = asyncio.Event(), asyncio.Event()

    @task(retries=0)
    async def steps(ctx: JobContext) -> int:
        inside.set()
        if ctx.run == 1:
            await outside.wait()
        await ctx.step("one", lambda: 1)
        return ctx.run

    worker = Worker(client, [steps], lease=30)
    job = await client.workspace("acme").queue.enqueue(steps)
    working = asyncio.ensure_future(worker.run())
    await inside.wait()
    await gone(client)
    outside.set()
    await until(lambda: not worker.stations[0].jobs)
    await back(client)
    assert await job.result(20) == 2
    worker.stop()
    await working


async def test_a_process_that_never_used_a_queue_carries_out_what_another_left(
    client: Client, proxy: FaultProxy, tmp_path: Path
) -> None:
    async with await connect(settings_for(proxy.url, tmp_path)) as dying:
        await gone(dying)
        job = await dying.workspace("acme").queue.enqueue(note, 1)
        await dying.workspace("acme").topic("t").publish({"n": 1})
    async with await connect(settings_for(proxy.url, tmp_path)) as heir:
        await heir.ping()
        async with asyncio.timeout(30):
            while await waiting(client) != [job.id]:
                await asyncio.sleep(0.02)
        # What is adopted is carried out by its order, each for itself.
        async with asyncio.timeout(30):
            while await client.xlen(client.workspace("acme").keys.key("topic", "events", "t")) != 1:
                await asyncio.sleep(0.02)
        await until(lambda: not heir.outage.figures.waiting)


async def test_two_processes_that_adopt_at_once_take_each_job_in_once(
    client: Client, proxy: FaultProxy, tmp_path: Path
) -> None:
    jobs = []
    for number in range(3):
        async with await connect(settings_for(proxy.url, tmp_path)) as dying:
            await gone(dying)
            # Their results are kept nowhere, so that only the records' names tell that they were taken in.
            jobs += await dying.workspace("acme").queue.enqueue_many(
                [forgotten.call(100 * number + each) for each in range(100)]
            )
    heirs = await asyncio.gather(*(connect(settings_for(proxy.url, tmp_path)) for _ in range(2)))
    worker = Worker(client, [forgotten])
    working = asyncio.ensure_future(worker.run())
    for heir in heirs:
        heir.workspace("acme").queue  # noqa: B018 - who carries out jobs that were kept
    async with asyncio.timeout(30):
        while len(RUNS) < len(jobs) or any(heir.outage.figures.waiting for heir in heirs):
            await asyncio.sleep(0.02)
    for heir in heirs:
        await heir.aclose()
    worker.stop()
    await working
    assert sorted(RUNS) == list(range(300))
