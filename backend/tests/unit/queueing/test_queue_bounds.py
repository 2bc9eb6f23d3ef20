"""What keeps a queue whole: walls between workspaces, bounds of what is kept, and a store that is full."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import ConfigError, InvalidJob, JobFailed, JobUnknown, StoreReadOnly, StoreUnavailable
from redis_core.keys import queue_key
from redis_core.queue import JobContext, JobHandle, Queue, task
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.shard import Acknowledgement, EnqueueRow, Shard
from redis_core.worker import Worker
from tests.store_users import clean_client_as
from tests.stores import running_server, valkey_binary


@task(name="nothing")
async def nothing() -> int:
    return 1


@task(name="takes")
async def takes(text: str) -> int:
    return len(text)


@task(name="gathers", retries=0)
async def gathers(ctx: JobContext) -> list[Any]:
    return await ctx.gather(_strange[0])


_strange: list[JobHandle[Any]] = []


@pytest.fixture
async def client(valkey_socket: str) -> AsyncIterator[Client]:
    async with await clean_client_as("worker", valkey_socket) as opened:
        yield opened


@pytest.fixture
def shard(client: Client) -> Shard:
    return client.service(QueueEngine).shard("default", "acme")


def row(name: str, *parents: str, unique: str = "") -> EnqueueRow:
    return EnqueueRow(name, 2, 0, unique, "".join(f"{parent}\n" for parent in parents), b"2fast\t\nbody")


async def end(shard: Shard, *ids: str, kind: str = "d") -> None:
    """Claim all there is and end these."""
    turn = await shard.turn("w", lease=15_000, free=10)
    runs = {claim.field.decode(): claim.run for claim in turn.claims}
    acks = [
        Acknowledgement(f"acme:{each}".encode(), runs[f"acme:{each}"], kind, 1, "", 60_000, "d", "f{}")  # type: ignore[arg-type]
        for each in ids
    ]
    await shard.turn("w", lease=15_000, free=0, flags="o", acknowledgements=acks)


# --- walls ---


async def test_the_id_of_anothers_job_is_nobodys(client: Client) -> None:
    theirs = await client.workspace("other").queue.enqueue(nothing)
    guessed = client.workspace("acme").queue.job("default", theirs.id)
    assert (await guessed.status()).state == "unknown"
    assert not await guessed.cancel()
    with pytest.raises(JobUnknown):
        await guessed.result(5)
    with pytest.raises(JobUnknown):
        await guessed.signal("approval")
    assert (await theirs.status()).state == "waiting"


async def test_a_handle_of_anothers_job_is_refused(client: Client) -> None:
    ours, theirs = client.workspace("acme").queue, client.workspace("other").queue
    strange = await theirs.enqueue(nothing)
    forged: JobHandle[Any] = JobHandle(ours, strange.id, strange.shard, strange.field)
    for asked in (forged.status, forged.cancel, forged.result):
        with pytest.raises(InvalidJob, match="not of workspace"):
            await asked()
    with pytest.raises(InvalidJob):
        await anext(ours.events(strange))
    with pytest.raises(InvalidJob):
        await ours.enqueue(nothing, depends_on=[strange])


async def test_a_job_cannot_gather_anothers(client: Client) -> None:
    _strange[:] = [await client.workspace("other").queue.enqueue(nothing, delay=60)]
    job = await client.workspace("acme").queue.enqueue(gathers)
    await Worker(client, [gathers]).drain()
    with pytest.raises(JobFailed, match="not of workspace"):
        await job.result(5)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, 1e-9, 1e9])
async def test_a_weight_is_a_number_of_reason(client: Client, weight: float) -> None:
    with pytest.raises(InvalidJob):
        await client.workspace("acme").queue.limit("default", weight=weight)


@pytest.mark.parametrize("delay", [-1.0, math.nan, math.inf])
async def test_a_delay_is_a_number_of_reason(client: Client, delay: float) -> None:
    with pytest.raises(InvalidJob):
        await client.workspace("acme").queue.enqueue(nothing, delay=delay)


# --- blocked ---


async def blocked(client: Client) -> dict[bytes, bytes]:
    return await client.hgetall(queue_key("queue-blocked", "default"))


async def test_a_job_counts_down_what_it_depends_on(client: Client, shard: Shard) -> None:
    await shard.enqueue("acme", [row("a"), row("b"), row("c", "a", "b", "gone")], most=10)
    assert await blocked(client) == {b"acme:c": b"2"}
    await end(shard, "a")
    assert await blocked(client) == {b"acme:c": b"1"}
    assert (await shard.look("acme:c")).state == "blocked"
    await shard.turn("w", lease=15_000, free=0, flags="xu")
    await end(shard, "b")
    assert await blocked(client) == {}
    turn = await shard.turn("w", lease=15_000, free=10)
    assert [claim.field for claim in turn.claims] == [b"acme:c"]


async def test_what_is_named_twice_is_waited_for_once(client: Client, shard: Shard) -> None:
    await shard.enqueue("acme", [row("a"), row("c", "a", "a")], most=10)
    assert await blocked(client) == {b"acme:c": b"1"}
    queue = client.workspace("acme").queue
    a = queue.job("default", "a")
    d = await queue.enqueue(nothing, depends_on=[a, a])
    await end(shard, "a")
    assert await blocked(client) == {}
    assert (await d.status()).state == "waiting"


async def test_a_job_is_not_run_when_one_of_two_fails(client: Client, shard: Shard) -> None:
    await shard.enqueue("acme", [row("a"), row("b"), row("c", "a", "b")], most=10)
    turn = await shard.turn("w", lease=15_000, free=10)
    acks = [
        Acknowledgement(b"acme:a", 1, "x", 1, "", 60_000, "{}", "f{}"),
        Acknowledgement(b"acme:b", 1, "d", 0, "", 60_000, "d"),
    ]
    assert len(turn.claims) == 2
    await shard.turn("w", lease=15_000, free=0, flags="o", acknowledgements=acks)
    assert await blocked(client) == {}
    assert (await shard.look("acme:c")).result == b"ca job that it depends on did not succeed"


async def test_children_named_twice_are_waited_for_once(client: Client, shard: Shard) -> None:
    await shard.enqueue("acme", [row("p"), row("a")], most=10)
    await shard.turn("w", lease=15_000, free=10)
    waits = Acknowledgement(b"acme:p", 1, "b", 0, "", 0, "a\na\n")
    await shard.turn("w", lease=15_000, free=0, flags="o", acknowledgements=[waits])
    assert await blocked(client) == {b"acme:p": b"1"}


# --- replies that are lost ---


async def test_a_turn_that_comes_late_does_nothing(shard: Shard) -> None:
    await shard.enqueue("acme", [row("a")], most=10)
    assert (await shard.turn("w", lease=15_000, free=0, flags="u", doubts=1)).claims == []
    # Sent before, arrives after: its worker would never learn what it was given.
    assert (await shard.turn("w", lease=15_000, free=10, doubts=0)).claims == []
    assert len((await shard.turn("w", lease=15_000, free=10, doubts=1)).claims) == 1


async def test_jobs_under_a_lease_that_is_gone_are_given_to_others(client: Client, shard: Shard) -> None:
    await shard.enqueue("acme", [row("a"), row("b")], most=10)
    await shard.turn("w", lease=15_000, free=10)
    await client.execute("ZREM", shard.leases, "w")
    done = Acknowledgement(b"acme:a", 1, "d", 0, "", 60_000, "d")
    turn = await shard.turn("w", lease=15_000, free=0, flags="o", acknowledgements=[done])
    assert turn.lost
    assert turn.refused == []
    claims = (await shard.turn("v", lease=15_000, free=10)).claims
    assert [(claim.field, claim.run) for claim in claims] == [(b"acme:b", 2)]


# --- bounds ---


async def test_names_of_cancelled_jobs_count_until_they_are_gone(client: Client) -> None:
    queue = client.workspace("acme").queue
    await queue.pause("default")
    for _ in range(3):
        await (await queue.enqueue(nothing)).cancel()
    assert await queue.depth("default") == 3
    await queue.resume("default")
    await Worker(client, [nothing]).drain()
    assert await queue.depth("default") == 0
    assert await client.exists(queue_key("queue-jobs", "default"), queue_key("queue-depth", "default")) == 0


async def test_a_signal_that_nobody_asked_for_expires_with_its_job(client: Client) -> None:
    job = await client.workspace("acme").queue.enqueue(nothing)
    await job.signal("unheard")
    await Worker(client, [nothing]).drain()
    assert await job.result(5) == 1
    assert 0 < int(await client.pttl(queue_key("job", "default", "acme", job.id))) <= 3_600_000


async def test_what_is_large_travels_in_parts(client: Client) -> None:
    queue = client.workspace("acme").queue
    before = client.stats.trips
    jobs = await queue.enqueue_many([takes.call("x" * 200_000) for _ in range(6)])
    assert client.stats.trips - before >= 3
    await Worker(client, [takes]).drain()
    assert [await job.result(5) for job in jobs] == [200_000] * 6


async def test_a_turn_claims_so_many_bytes_and_the_rest_is_left_in_order(
    client: Client, shard: Shard
) -> None:
    large = b"2fast\t\n" + b"x" * 200_000
    rows = [EnqueueRow(f"j{n}", 2, 0, "", "", large) for n in range(12)]
    for begin in range(0, 12, 4):
        await shard.enqueue("acme", rows[begin : begin + 4], most=100)
    await shard.enqueue("other", [row("small")], most=100)
    claimed: list[bytes] = []
    turns: list[int] = []
    left = True
    while left:
        before = client.stats.received_bytes
        turn = await shard.turn("w", lease=15_000, free=1000, flags="o" if claimed else "")
        assert client.stats.received_bytes - before < 1_100_000
        turns.append(len(turn.claims))
        claimed += [claim.field for claim in turn.claims]
        left = turn.left
    assert len(turns) >= 3
    assert [field for field in claimed if field.startswith(b"acme")] == [
        f"acme:j{n}".encode() for n in range(12)
    ]
    assert claimed.count(b"other:small") == 1


async def test_a_worker_takes_large_jobs_in_as_many_turns_as_they_need(client: Client) -> None:
    await client.workspace("acme").queue.enqueue_many([takes.call("x" * 250_000) for _ in range(10)])
    worker = Worker(client, [takes], concurrency=100)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while worker.report()["finished"] != 10:
            await asyncio.sleep(0.01)
    worker.stop()
    await running


async def test_arguments_and_results_are_bounded(client: Client) -> None:
    runs: list[int] = []

    @task(name="grows", retries=5)
    async def grows(ctx: JobContext, text: str = "") -> str:
        runs.append(ctx.run)
        return "x" * 262_200

    queue = client.workspace("acme").queue
    with pytest.raises(InvalidJob, match=r"more than 262144.*enqueue their address"):
        await queue.enqueue(grows, text="x" * 262_144)
    assert await queue.depth("default") == 0
    job = await queue.enqueue(grows)
    await Worker(client, [grows]).drain()
    with pytest.raises(JobFailed, match=r"more than 262144.*return its address"):
        await job.result(5)
    # Running it again would not make it smaller.
    assert runs == [1]
    assert [dead.id for dead in await queue.dead("default")] == [job.id]


async def test_signals_and_steps_are_bounded(client: Client) -> None:
    @task(name="steps", retries=5)
    async def steps(ctx: JobContext) -> str:
        return await ctx.step("large", lambda: "x" * 300_000)

    queue = client.workspace("acme").queue
    job = await queue.enqueue(steps)
    with pytest.raises(InvalidJob):
        await job.signal("large", "x" * 300_000)
    await Worker(client, [steps]).drain()
    with pytest.raises(JobFailed, match="more than 262144"):
        await job.result(5)


async def test_a_worker_has_no_more_places_than_a_turn_can_tell(client: Client) -> None:
    with pytest.raises(ConfigError):
        Worker(client, [nothing], concurrency=5001)


# --- a store that is full, or away ---


async def test_a_full_store_refuses_jobs_and_lets_those_it_has_end() -> None:
    with running_server(valkey_binary()) as socket:
        async with await clean_client_as("worker", socket) as client:
            queue: Queue = client.workspace("acme").queue
            jobs = [await queue.enqueue(nothing) for _ in range(3)]
            await client.execute("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(StoreReadOnly):
                await queue.enqueue(nothing)
            await Worker(client, [nothing]).drain()
            assert [await client.workspace("acme").queue.job("default", job.id).status() for job in jobs]
            assert [(await job.status()).state for job in jobs] == ["done"] * 3


async def test_what_a_job_tells_waits_while_the_store_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task(name="tells", retries=0)
    async def tells(ctx: JobContext) -> str:
        async def away(*args: object, **options: object) -> bool:
            raise StoreUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(Shard, "note", away)
            await ctx.progress(0.5, "half")
            await ctx.usage(tokens=3)
            await ctx.flush()
        await ctx.usage(tokens=4)
        return "done"

    job = await client.workspace("acme").queue.enqueue(tells)
    await Worker(client, [tells]).drain()
    status = await job.status()
    assert (status.state, status.progress, status.tokens) == ("done", 0.5, 7)


async def test_the_last_word_before_a_silence_is_told(client: Client) -> None:
    @task(name="thinks", retries=0)
    async def thinks(ctx: JobContext) -> None:
        await ctx.progress(0.1, "reading")
        await ctx.progress(0.5, "thinking")
        async with asyncio.timeout(20):
            while (await job.status()).progress != 0.5:
                await asyncio.sleep(0.02)

    job = await client.workspace("acme").queue.enqueue(thinks)
    await Worker(client, [thinks]).drain()
    assert (await job.status()).state == "done"


async def test_log_lines_carry_the_ids(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "redis_core.queue")

    @task(name="logs", retries=0)
    async def logs(ctx: JobContext) -> None:
        await ctx.log("reading", page=3)
        raise ValueError("broken")

    job = await client.workspace("acme").queue.enqueue(logs)
    await Worker(client, [logs]).drain()
    told = {record.getMessage(): vars(record) for record in caplog.records}
    expected = {"job": job.id, "workspace": "acme", "task": "logs", "run": 1, "page": 3}
    assert expected.items() <= told["reading"].items()
    assert {"job": f"acme:{job.id}", "task": "logs", "run": 1}.items() <= told["job failed"].items()


async def test_draining_renews_the_lease(client: Client) -> None:
    @task(name="slow")
    async def slow() -> int:
        await asyncio.sleep(1.0)
        return 1

    job = await client.workspace("acme").queue.enqueue(slow)
    worker = Worker(client, [slow], lease=0.4)
    await worker.drain()
    assert await job.result(5) == 1
    assert (await job.status()).errors == ()
    assert worker.stations[0].turns > 2
