"""The job queue on every store: what is enqueued runs, once it may, and ends as it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest

from redis_core.client import Client
from redis_core.errors import (
    InvalidJob,
    JobCancelled,
    JobFailed,
    JobUnknown,
    QueueFull,
    RateLimited,
    ResultTimeout,
)
from redis_core.keys import queue_key
from redis_core.queue import Backoff, Depends, JobContext, Queue, QueueControl, Retry, Task, task
from redis_core.worker import Worker

SOON = Backoff(base=0.0)
WITHIN = 20.0
"""Seconds that prove that nothing hangs."""

ran: list[str] = []
"""What has run, in order; emptied for each test."""
gate: asyncio.Event


@pytest.fixture(autouse=True)
async def _fresh() -> None:
    global gate  # noqa: PLW0603 - tasks are functions of a module, and share its names
    ran.clear()
    gate = asyncio.Event()


@pytest.fixture
def queue(client: Client) -> Queue:
    return client.workspace("acme").queue


@task
async def add(a: int, b: int = 2) -> int:
    return a + b


@task
async def note(word: str) -> None:
    ran.append(word)


@task
def in_a_thread(text: str) -> str:
    return text.upper()


@task(retries=Retry(2, backoff=SOON))
async def fails(message: str) -> None:
    ran.append("try")
    raise ValueError(message)


@task(retries=Retry(5, backoff=SOON))
async def succeeds_later(ctx: JobContext) -> int:
    if ctx.run < 3:
        raise Retry(after=0.01)
    return ctx.run


@task
async def waits() -> str:
    ran.append("began")
    await gate.wait()
    ran.append("ended")
    return "went through"


@task(timeout=0.05, retries=0)
async def hangs() -> None:
    await asyncio.sleep(60)


@task
async def agent(topic: str, ctx: JobContext) -> dict[str, Any]:
    async def research() -> str:
        ran.append("research")
        return f"about {topic}"

    await ctx.progress(0.5, "researching")
    found = await ctx.step("research", research)
    answer = await ctx.wait_for("approval", type=str)
    child = await ctx.spawn(add.call(20, b=22))
    (total,) = await ctx.gather(child)
    await ctx.usage(tokens=7, cost=0.5)
    return {"found": found, "answer": answer, "total": total, "run": ctx.run}


@task(retries=0)
async def impatient(ctx: JobContext) -> str:
    return await ctx.wait_for("never", 0.05, type=str)


@task(retries=0)
async def sleeper(ctx: JobContext) -> int:
    await ctx.sleep(1.05)
    return ctx.run


@asynccontextmanager
async def database() -> AsyncGenerator[str]:
    ran.append("open")
    yield "db"
    ran.append("close")


@task(name="with_database")
async def with_database(db: Annotated[str, Depends(database)]) -> str:
    return db


TASKS: list[Task[..., Any]] = [
    add, note, in_a_thread, fails, succeeds_later, waits, hangs, agent, impatient, sleeper, with_database,
]  # fmt: skip


@asynccontextmanager
async def working(client: Client, *more: Task[..., Any], **options: Any) -> AsyncGenerator[Worker]:
    worker = Worker(client, [*TASKS, *more], **options)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        gate.set()
        await asyncio.wait_for(running, WITHIN)


async def until(what: Any) -> None:
    async with asyncio.timeout(WITHIN):
        while not what():
            await asyncio.sleep(0.005)


# --- a job's life ---


async def test_a_job_runs_and_gives_its_result(client: Client, queue: Queue) -> None:
    async with working(client):
        assert await (await queue.enqueue(add, 1)).result(WITHIN) == 3
        assert await (await queue.enqueue(add, a=5, b=5)).result(WITHIN) == 10
        assert await (await queue.enqueue(in_a_thread, "quiet")).result(WITHIN) == "QUIET"
        job = await queue.enqueue(add.call(4))
        assert await job.result(WITHIN) == 6
        assert (await job.status()).state == "done"
        again = queue.job("default", job.id, int)
        assert await again.result(WITHIN) == 6


async def test_an_idle_worker_is_woken_by_what_is_enqueued(client: Client, queue: Queue) -> None:
    async with working(client) as worker:
        await until(lambda: worker.stations[0].turns >= 1)
        await asyncio.sleep(0.05)
        before = worker.stations[0].turns
        await asyncio.sleep(0.2)
        assert worker.stations[0].turns == before
        assert await (await queue.enqueue(add, 1)).result(WITHIN) == 3


async def test_wrong_arguments_are_told_to_who_enqueues(queue: Queue) -> None:
    for wrong in (
        queue.enqueue(add),
        queue.enqueue(add, "one"),
        queue.enqueue(add, 1, 2, 3),
        queue.enqueue(add, 1, c=3),
        queue.enqueue(add, 1, a=1),
        queue.enqueue(add, 1, priority=9),
        queue.enqueue(add, 1, delay=-1),
        queue.enqueue(note, "x" * 300_000),
        queue.enqueue(note, object()),
    ):
        with pytest.raises(InvalidJob):
            await wrong
    assert await queue.depth("default") == 0


async def test_what_fails_is_tried_again_then_buried_and_can_be_sent_again(
    client: Client, queue: Queue
) -> None:
    async with working(client):
        job = await queue.enqueue(fails, "no luck")
        with pytest.raises(JobFailed, match="no luck") as caught:
            await job.result(WITHIN)
        assert caught.value.error_type == "ValueError"
        assert ran == ["try"] * 3
        (dead,) = await queue.dead("default")
        assert dead.id == job.id
        assert [error.message for error in dead.errors] == ["no luck"] * 3
        assert await queue.dead("default", task="another") == []
        assert await queue.redrive("default", task=fails.name) == 1
        await until(lambda: len(ran) == 6)
        with pytest.raises(JobFailed):
            await job.result(WITHIN)
    assert await queue.depth("default") == 0


async def test_a_job_may_ask_to_be_run_again(client: Client, queue: Queue) -> None:
    async with working(client):
        assert await (await queue.enqueue(succeeds_later)).result(WITHIN) == 3


async def test_a_job_that_takes_too_long_fails(client: Client, queue: Queue) -> None:
    async with working(client):
        with pytest.raises(JobFailed, match="TimeoutError"):
            await (await queue.enqueue(hangs)).result(WITHIN)


async def test_a_job_past_its_deadline_is_not_begun(client: Client, queue: Queue) -> None:
    job = await queue.enqueue(note, "late", deadline=0.01)
    await asyncio.sleep(0.02)
    async with working(client):
        with pytest.raises(JobFailed, match="deadline"):
            await job.result(WITHIN)
    assert ran == []


async def test_who_does_not_wait_long_enough_is_told(queue: Queue) -> None:
    job = await queue.enqueue(add, 1)
    with pytest.raises(ResultTimeout):
        await job.result(0.05)
    with pytest.raises(JobUnknown):
        await queue.job("default", "nobody").result(WITHIN)
    assert (await queue.job("default", "nobody").status()).state == "unknown"


async def test_a_result_that_is_too_large_or_not_data_buries_the_job(client: Client, queue: Queue) -> None:
    @task(name="large")
    async def large() -> str:
        return "x" * 300_000

    @task(name="odd")
    async def odd() -> object:
        return object()

    async with working(client, large, odd):
        for call in (large.call(), odd.call()):
            with pytest.raises(JobFailed, match="result"):
                await (await queue.enqueue(call)).result(WITHIN)


# --- when and whether ---


async def test_the_more_urgent_runs_first(client: Client, queue: Queue) -> None:
    for word, priority in (("last", -2), ("third", 0), ("fourth", 0), ("first", 2), ("second", 1)):
        await queue.enqueue(note, word, priority=priority)
    await Worker(client, TASKS, concurrency=1).drain()
    assert ran == ["first", "second", "third", "fourth", "last"]


async def test_a_delayed_job_waits_and_an_earlier_one_is_not_held_up_by_it(
    client: Client, queue: Queue
) -> None:
    async with working(client):
        later = await queue.enqueue(note, "later", delay=0.4)
        sooner = await queue.enqueue(note, "sooner", delay=0.1)
        assert (await later.status()).state == "delayed"
        await sooner.result(WITHIN)
        await later.result(WITHIN)
    assert ran == ["sooner", "later"]


async def test_the_same_key_is_the_same_job(client: Client, queue: Queue) -> None:
    first = await queue.enqueue(note, "a", unique_key="one")
    second = await queue.enqueue(note, "b", unique_key="one")
    assert (second.id, second.is_new) == (first.id, False)
    other = await client.workspace("other").queue.enqueue(note, "c", unique_key="one")
    assert other.is_new
    third = await queue.enqueue(note, "d", idempotency_key="order 7")
    await Worker(client, TASKS).drain()
    assert sorted(ran) == ["a", "c", "d"]
    assert (await queue.enqueue(note, "e", unique_key="one")).is_new
    fourth = await queue.enqueue(note, "f", idempotency_key="order 7")
    assert (fourth.id, fourth.is_new) == (third.id, False)


async def test_a_job_waits_for_those_it_depends_on(client: Client, queue: Queue) -> None:
    first, second = await queue.enqueue(note, "first"), await queue.enqueue(note, "second", delay=0.05)
    last = await queue.enqueue(note, "last", depends_on=[first, second])
    assert (await last.status()).state == "blocked"
    async with working(client):
        await last.result(WITHIN)
        assert ran == ["first", "second", "last"]
        failing = await queue.enqueue(fails, "no", delay=0.3)
        child = await queue.enqueue(note, "never", depends_on=[failing])
        grandchild = await queue.enqueue(note, "nor this", depends_on=[child])
        with pytest.raises(JobCancelled):
            await grandchild.result(WITHIN)
        with pytest.raises(JobCancelled):
            await queue.enqueue(note, "at once", depends_on=[failing])
    assert "never" not in ran


async def test_concurrent_callers_share_a_trip(client: Client, queue: Queue) -> None:
    await queue.enqueue(note, "warm")
    before = client.stats.trips
    jobs = await asyncio.gather(*(queue.enqueue(note, f"{n}") for n in range(100)))
    # One on most stores; a batch of two where the transport had one on its way.
    assert client.stats.trips - before <= 2
    assert len({job.id for job in jobs}) == 100
    many = await queue.enqueue_many([note.call(f"m{n}") for n in range(700)])
    assert len({job.id for job in many}) == 700
    assert await queue.depth("default") == 801


async def test_a_workspace_may_have_only_so_many_jobs(client: Client, queue: Queue) -> None:
    client._settings = client.settings.model_copy(update={"queue_max_depth": 3})
    with pytest.raises(QueueFull) as caught:
        await queue.enqueue_many([note.call("x")] * 5)
    assert caught.value.accepted == 3
    with pytest.raises(QueueFull):
        await queue.enqueue(note, "y")
    await client.workspace("other").queue.enqueue(note, "z")
    await Worker(client, TASKS).drain()
    await queue.enqueue(note, "y")


# --- cancelling, pausing, limits ---


async def test_a_cancelled_job_does_not_run(client: Client, queue: Queue) -> None:
    waiting, delayed = await queue.enqueue(note, "a"), await queue.enqueue(note, "b", delay=60)
    assert await waiting.cancel("not needed")
    assert await delayed.cancel()
    assert not await waiting.cancel()
    await Worker(client, TASKS).drain()
    assert ran == []
    with pytest.raises(JobCancelled, match="not needed"):
        await waiting.result(WITHIN)
    assert (await waiting.status()).state == "cancelled"
    assert await queue.depth("default") == 0


async def test_a_running_job_is_cancelled_from_outside(client: Client, queue: Queue) -> None:
    async with working(client, lease=3.0):
        job = await queue.enqueue(waits)
        await until(lambda: ran == ["began"])
        assert (await job.status()).state == "running"
        assert await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(WITHIN)
    assert ran == ["began"]


async def test_what_is_paused_waits(client: Client, queue: Queue) -> None:
    control = QueueControl(client)
    async with working(client):
        for pause, resume in (
            (queue.pause("default"), queue.resume("default")),
            (control.pause("default"), control.resume("default")),
            (control.pause_task(note), control.resume_task(note)),
        ):
            ran.clear()
            await pause
            job = await queue.enqueue(note, "x")
            with pytest.raises(ResultTimeout):
                await job.result(0.1)
            await resume
            await job.result(WITHIN)
            assert ran == ["x"]


async def test_no_more_run_than_may(client: Client, queue: Queue) -> None:
    running = most = 0

    @task(name="counted")
    async def counted() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    control = QueueControl(client)
    async with working(client, counted):
        for limit, lift in (
            (queue.limit("default", running=2), queue.limit("default")),
            (control.limit("default", running=2), control.limit("default")),
            (control.limit_each("default", running=2), control.limit_each("default")),
            (control.limit_task(counted, running=2), control.limit_task(counted)),
        ):
            most = 0
            await limit
            jobs = await queue.enqueue_many([counted.call()] * 8)
            for job in jobs:
                await job.result(WITHIN)
            assert most == 2
            await lift


async def test_a_job_that_is_rate_limited_waits_and_does_not_fail(client: Client, queue: Queue) -> None:
    async def closed_once(ctx: JobContext) -> float:
        return 0.01 if ctx.run == 1 else 0.0

    @task(name="gated", gate=closed_once, retries=0)
    async def gated(ctx: JobContext) -> tuple[int, int]:
        return ctx.run, ctx.failures

    @task(name="limited", retries=0)
    async def limited(ctx: JobContext) -> tuple[int, int]:
        if ctx.run == 1:
            raise RateLimited("the model is busy", retry_after=0.01)
        return ctx.run, ctx.failures

    async with working(client, gated, limited):
        assert await (await queue.enqueue(gated)).result(WITHIN) == (2, 0)
        assert await (await queue.enqueue(limited)).result(WITHIN) == (2, 0)


# --- agents ---


async def test_an_agent_keeps_its_steps_waits_for_a_person_and_gathers_children(
    client: Client, queue: Queue
) -> None:
    async with working(client, concurrency=1) as worker:
        job = await queue.enqueue(agent, "llamas")
        await until(lambda: ran == ["research"] and worker.report()["running"] == 0)
        async with asyncio.timeout(WITHIN):
            while (status := await job.status()).state == "running":
                # Its run is over, which is still to be told to the store.
                await asyncio.sleep(0.01)
        assert (status.state, status.progress, status.message) == ("delayed", 0.5, "researching")
        assert await job.signal("approval", "go on")
        assert not await job.signal("approval", "stop")
        assert await job.result(WITHIN) == {"found": "about llamas", "answer": "go on", "total": 42, "run": 3}
        status = await job.status()
        assert (status.tokens, status.cost) == (7, 0.5)
    assert ran == ["research"]
    with pytest.raises(JobUnknown):
        await job.signal("approval", "too late")


async def test_an_answer_that_does_not_come_is_a_timeout(client: Client, queue: Queue) -> None:
    async with working(client):
        with pytest.raises(JobFailed, match="TimeoutError"):
            await (await queue.enqueue(impatient)).result(WITHIN)


async def test_a_sleeping_job_holds_no_worker(client: Client, queue: Queue) -> None:
    async with working(client, concurrency=1):
        sleeping = await queue.enqueue(sleeper)
        assert await (await queue.enqueue(add, 1)).result(WITHIN) == 3
        assert await sleeping.result(WITHIN) == 2


async def test_who_follows_a_job_hears_what_it_tells(client: Client, queue: Queue) -> None:
    @task(name="talks")
    async def talks(ctx: JobContext) -> None:
        await gate.wait()
        for word in ("to", "ken", "s"):
            await ctx.stream(word)
        await ctx.log("thought", hard=True)

    job = await queue.enqueue(talks)
    heard: list[dict[str, Any]] = []

    async def follow() -> None:
        async for event in job.events():
            heard.append(event)
            gate.set()

    async with working(client, talks):
        following = asyncio.create_task(follow())
        await asyncio.sleep(0.2)
        gate.set()
        await asyncio.wait_for(following, WITHIN)
    assert "".join(event["text"] for event in heard if event["kind"] == "token") == "tokens"
    assert [event["message"] for event in heard if event["kind"] == "log"] == ["thought"]


# --- workers ---


async def test_a_stopping_worker_finishes_and_hands_back_the_rest(client: Client, queue: Queue) -> None:
    worker = Worker(client, TASKS, grace=0.1)
    running = asyncio.create_task(worker.run())
    job = await queue.enqueue(waits)
    await until(lambda: ran == ["began"])
    worker.stop()
    await asyncio.wait_for(running, WITHIN)
    assert (await job.status()).state == "waiting"
    gate.set()
    async with working(client):
        assert await job.result(WITHIN) == "went through"
    assert ran == ["began", "began", "ended"]


async def test_resources_and_middleware_are_around_each_run(client: Client, queue: Queue) -> None:
    async def around(ctx: JobContext, call: Any) -> Any:
        ran.append(f"before {ctx.id}")
        return await call()

    async with working(client, middleware=[around]):
        jobs = await queue.enqueue_many([with_database.call()] * 2)
        assert [await job.result(WITHIN) for job in jobs] == ["db", "db"]
    assert sorted(ran) == sorted([*(f"before {job.id}" for job in jobs), "close", "open"])


async def test_workspaces_do_not_see_each_others_jobs(client: Client, queue: Queue) -> None:
    job = await queue.enqueue(add, 1)
    other = client.workspace("other").queue
    stranger = other.job("default", job.id)
    assert (await stranger.status()).state == "unknown"
    assert not await stranger.cancel()
    with pytest.raises(JobUnknown):
        await stranger.signal("approval")
    async with working(client):
        assert await job.result(WITHIN) == 3
    assert await other.dead("default") == []


async def test_nothing_but_results_remains_when_all_is_done(client: Client, queue: Queue) -> None:
    async with working(client):
        jobs = [await queue.enqueue(add, 1), await queue.enqueue(agent, "x"), await queue.enqueue(fails, "y")]
        await jobs[1].signal("approval", "yes")
        for job in jobs:
            await asyncio.wait([asyncio.ensure_future(job.result(WITHIN))])
    for family in (
        "jobs",
        "later",
        "blocked",
        "after",
        "tries",
        "unique",
        "depth",
        "running",
        "leases",
        "ring",
    ):
        assert await client.exists(queue_key(f"queue-{family}", "default")) == 0, family
    for job in jobs:
        assert await client.ttl(queue_key("job-result", "default", "acme", job.id)) > 0
    assert await client.ttl(queue_key("job", "default", "acme", jobs[1].id)) > 0
