"""The wall beyond a workspace's own handle: limits, quotas, a job from within, and the blocking face."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core import sync
from redis_core.errors import IsolationError, JobUnknown, QueueFull, QuotaExceeded
from redis_core.queue import JobContext, JobHandle, task
from redis_core.quotas import Quota, Quotas
from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from redis_core.worker import Worker
from tests.contract.rest import TOKEN
from tests.store_users import user_url
from tests.two_tenants import MINE, REGION, THEIRS, Names, Tenants, belongings, ended, succeeds

STOLEN: dict[str, Any] = {}
"""What the job below was told of the other tenant: no argument could carry a handle."""


@task(name="snoops", retries=0)
async def snoops(ctx: JobContext) -> list[str]:
    """Does all that a job can, with the other's identifiers; the ends."""
    names: Names = STOLEN["names"]
    other: JobHandle[Any] = STOLEN["handle"]
    ours: JobHandle[Any] = JobHandle(ctx.queue, other.id, other.shard, other.field)
    said: list[str] = []
    for call in (
        lambda: ctx.gather(ours),
        lambda: ctx.queue.job("default", names.job).cancel(),
        lambda: ctx.queue.job("default", names.job).signal("approval", "yes"),
        lambda: ours.cancel(),
        lambda: ours.signal("approval", "yes"),
        lambda: ours.result(0.2),
        lambda: ours.status(),
        lambda: ctx.queue.redrive("default", ids=[names.dead]),
        lambda: ctx.wait_for(names.key, 0.001),
    ):
        try:
            async with asyncio.timeout(5):
                said.append(repr(await call()))
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}".replace(ctx.id, "this job"))
    await ctx.step(names.job, str, "acme's")
    await ctx.progress(0.5, names.key)
    await ctx.stream(names.topic)
    await ctx.log(names.lock)
    await ctx.usage(model="gpt-4o", input_tokens=10)
    await ctx.spawn(succeeds.call(), name=names.job)
    return said


async def _snooped(t: Tenants, names: Names) -> object:
    STOLEN.update(names=names, handle=names.jobs["job"])
    job = await t.mine.queue.enqueue(snoops)
    worker = Worker(t.client, [snoops, succeeds])
    working = asyncio.create_task(worker.run())
    said = await job.result(15)
    worker.stop()
    await working
    assert len(said) == 9
    return said


async def test_a_job_that_knows_anothers_identifiers(tenants: Tenants) -> None:
    before = await belongings(tenants.client, THEIRS)
    said = [await ended(names, _snooped, tenants, names) for names in (tenants.known, tenants.unknown)]
    assert said[0] == said[1]
    assert "globex's" not in said[0]
    assert await belongings(tenants.client, THEIRS) == before


async def test_limits_of_a_workspace(tenants: Tenants) -> None:
    limiter = RateLimiter(
        tenants.client,
        RateLimits(rules=(Rule("of-tenant", "3/hour", by="workspace"),)),
        timeout=20,
    )
    mine, theirs = Subject(user="u", workspace=MINE), Subject(user="u", workspace=THEIRS)
    await limiter.check(theirs, "/a")
    before = await belongings(tenants.client, THEIRS)
    left = await limiter.peek(theirs, "/a")
    allowed = [(await limiter.check(mine, "/a")).allowed for _ in range(5)]
    assert allowed == [True, True, True, False, False]
    await limiter.reset(mine, "/a")
    async with await limiter.reserve(mine, "/a"):
        pass
    assert (await limiter.peek(theirs, "/a")).remaining == left.remaining == 2
    assert await belongings(tenants.client, THEIRS) == before
    await limiter.aclose()


async def test_quotas(tenants: Tenants) -> None:
    quotas = tenants.client.service(Quotas)
    quotas.plans = {"small": Quota(publishes=1, cache_bytes=10, queue_depth=1)}
    quotas.plan_of = {MINE: "small"}.get
    before = await belongings(tenants.client, THEIRS)
    await tenants.mine.topic("a").publish("1")
    with pytest.raises(QuotaExceeded, match=MINE):
        await tenants.mine.topic("a").publish("2")
    await tenants.mine.cache.set(REGION, "k", "x" * 100)
    assert 0 < await tenants.client.pttl(tenants.mine.keys.key("cache", REGION.name, "k")) <= 1_000
    await tenants.mine.queue.enqueue(succeeds, delay=3600)
    with pytest.raises(QueueFull, match=MINE):
        await tenants.mine.queue.enqueue(succeeds, delay=3600)
    assert await belongings(tenants.client, THEIRS) == before
    # The other's are untouched by it.
    await tenants.theirs.topic("a").publish("1")
    await tenants.theirs.topic("a").publish("2")
    assert (
        await tenants.theirs.cache.get(REGION, tenants.known.key, tags=[tenants.known.tag])
        == "globex's value"
    )


@pytest.mark.usefixtures("client")  # an empty store, and its user
def test_the_blocking_face(store: tuple[str, str]) -> None:
    name, place = store
    if name == "memory":
        options: dict[str, Any] = {"mock_redis": True}
    elif name == "rest":
        options = {"upstash_redis_url": place, "upstash_redis_token": TOKEN}
    else:
        options = {"redis_url": user_url("worker", place), "redis_failover": False}
    with sync.connect(**options) as redis:
        mine, theirs = redis.workspace(MINE), redis.workspace(THEIRS)
        theirs.redis.set(theirs.keys.key("app", "k"), "globex's", ex=600)
        theirs.cache.set(REGION, "k", "globex's")
        theirs.topic("x").publish("globex's")
        job = theirs.queue.enqueue(succeeds, delay=3600)
        for call in (
            lambda: mine.redis.get(theirs.keys.key("app", "k")),
            lambda: mine.redis.unlink(theirs.keys.key("app", "k")),
            lambda: mine.redis.mget(mine.keys.key("app", "k"), theirs.keys.key("app", "k")),
        ):
            with pytest.raises(IsolationError):
                call()
        with pytest.raises(IsolationError), mine.redis.pipeline() as batch:
            batch.get(theirs.keys.key("app", "k"))
        assert mine.cache.get(REGION, "k") is None
        ours = mine.queue.job("default", job.id)
        assert not ours.cancel()
        with pytest.raises(JobUnknown):
            ours.signal("approval", "yes")
        assert ours.status().state == "unknown"
        with pytest.raises(JobUnknown):
            ours.result(10)
        held = theirs.lock("x", ttl=60)
        held.acquire()
        with mine.lock("x", ttl=60, wait=0.0) as lease:
            assert lease is not None
        theirs.state("doc").set({"of": "globex"})
        assert mine.state("doc").get()[1] is None
        theirs.presence("x").join("m", {"of": "globex"})
        assert mine.presence("x").members() == {}
        theirs.usage.add(cost=1.0)
        assert mine.usage.spent().month == 0
        mine.cache.flush()
        held.release()
        assert theirs.redis.get(theirs.keys.key("app", "k")) == b"globex's"
        assert theirs.cache.get(REGION, "k") == "globex's"
        assert job.status().state == "delayed"
