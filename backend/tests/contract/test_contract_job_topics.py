"""What a job tells reaches its topic, for browsers; a job that tells nothing costs nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from redis_core.client import Client
from redis_core.commands import scan_iter
from redis_core.errors import InvalidJob
from redis_core.pubsub import BEGINNING
from redis_core.queue import Backoff, JobContext, JobHandle, Retry, task
from redis_core.worker import Worker


async def told(client: Client, job: JobHandle[Any]) -> list[dict[str, Any]]:
    """All events of a job that is over."""
    found = []
    async for item in client.workspace("acme").topic(f"job:{job.id}").listen(after=BEGINNING):
        assert isinstance(item, tuple)
        found.append(json.loads(bytes(item[1].data)))
        if found[-1]["kind"] == "end":
            break
    return found


async def text_of(client: Client, job: JobHandle[Any]) -> dict[str, Any]:
    async for item in client.workspace("acme").text(f"job:{job.id}").listen():
        assert isinstance(item, tuple)
        found: dict[str, Any] = json.loads(bytes(item[1].data))
        return found
    raise AssertionError


async def test_progress_log_text_and_end_are_the_jobs_topic(client: Client) -> None:
    @task(name="writes")
    async def writes(ctx: JobContext) -> dict[str, int]:
        await ctx.progress(0.5, "half")
        await ctx.log("found", page=3)
        for token in ("to", "ken", "s"):
            await ctx.stream(token)
        return {"pages": 3}

    job = await client.workspace("acme").queue.enqueue(writes)
    await Worker(client, [writes]).drain()
    assert await told(client, job) == [
        {"kind": "progress", "value": 0.5, "message": "half"},
        {"kind": "log", "message": "found", "fields": {"page": 3}},
        {"kind": "end", "status": "done", "result": {"pages": 3}},
    ]
    assert await text_of(client, job) == {"from": 0, "text": "tokens", "done": True}


async def test_a_run_after_another_begins_the_text_anew(client: Client) -> None:
    @task(name="second-try", retries=Retry(1, backoff=Backoff(0.001)))
    async def second_try(ctx: JobContext) -> None:
        await ctx.stream(f"run {ctx.run}")
        if ctx.run == 1:
            raise ConnectionError("the model hung up")

    job = await client.workspace("acme").queue.enqueue(second_try)
    await Worker(client, [second_try]).drain()
    while (await job.status()).state != "done":
        await Worker(client, [second_try]).drain()
    assert await text_of(client, job) == {"from": 0, "text": "run 2", "done": True}
    assert await told(client, job) == [{"kind": "end", "status": "done", "result": None}]


async def test_a_failure_is_told_by_its_name_alone(client: Client) -> None:
    @task(name="hopeless")
    async def hopeless(ctx: JobContext) -> None:
        await ctx.progress(0.1)
        raise InvalidJob("the password of the database is hunter2")

    job = await client.workspace("acme").queue.enqueue(hopeless)
    await Worker(client, [hopeless]).drain()
    assert (await told(client, job))[-1] == {"kind": "end", "status": "failed", "error": "InvalidJob"}


async def test_a_cancelled_job_tells_its_end(client: Client) -> None:
    began = asyncio.Event()

    @task(name="endless")
    async def endless(ctx: JobContext) -> None:
        await ctx.stream("so far")
        began.set()
        await asyncio.sleep(600)

    worker = Worker(client, [endless], lease=3.0)
    running = asyncio.create_task(worker.run())
    job = await client.workspace("acme").queue.enqueue(endless)
    await began.wait()
    await job.cancel()
    async with asyncio.timeout(30):
        assert await told(client, job) == [{"kind": "end", "status": "cancelled"}]
        worker.stop()
        await running
    assert (await text_of(client, job))["done"]


async def test_a_job_that_tells_nothing_publishes_nothing(client: Client) -> None:
    @task(name="silent")
    async def silent(ctx: JobContext) -> int:
        return await ctx.step("count", lambda: 1)

    workspace = client.workspace("acme")
    await workspace.queue.enqueue(silent)
    await Worker(client, [silent]).drain()
    assert [key async for key in scan_iter(client, f"{workspace.keys.prefix}*")] == []
