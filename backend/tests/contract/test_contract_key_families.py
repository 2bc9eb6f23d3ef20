"""Every service is used once, and then no key of the store is other than it was declared."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from redis_core.audit import Actor, AuditLog
from redis_core.cache import CacheRegion
from redis_core.caching.engine import CacheEngine
from redis_core.client import Client
from redis_core.commands import scan_iter
from redis_core.key_audit import KeyAudit, KeyAuditor
from redis_core.keys import FAMILIES, canary_key
from redis_core.metrics import Metrics
from redis_core.pubsub import Presence
from redis_core.queue import Backoff, JobContext, QueueControl, Retry, Schedule, task
from redis_core.rate_limit import RateLimiter, Subject, limits_of
from redis_core.secret import Secret
from redis_core.semantic_cache import Answer, SemanticCache
from redis_core.session import Device, PepperRing, Sessions
from redis_core.worker import Worker

PROFILES = CacheRegion("profile", dict[str, int], ttl=60)
USER = Subject(user="u1", workspace="acme", ip="203.0.113.7")
USED = {
    "api", "cache", "locks", "metrics", "pubsub", "queue", "rate_limit", "redis_core", "session", "the application",
}  # fmt: skip
"""Owners of families that are used here."""
NOT_HERE = {"queue-doubts", "queue-taken", "session-once", "sys-cache-bus"}
"""Families that need a lost reply, an outage, or Upstash."""
WITHIN = 30.0
"""Seconds that prove that nothing hangs."""


@task(queue="agents", retries=0)
async def good(n: int) -> int:
    return n


@task(queue="agents", retries=Retry(1, backoff=Backoff(base=0.0)))
async def bad() -> None:
    raise ValueError("no")


@task(queue="agents", retries=0)
async def stepping(ctx: JobContext) -> str:
    async def look() -> str:
        return "seen"

    await ctx.progress(0.5, "half")
    await ctx.step("look", look)
    return await ctx.wait_for("approval", type=str)


@task(queue="agents", retries=0)
async def blocks() -> None:
    await asyncio.Event().wait()


@task(queue="agents", retries=0)
async def blocks_too() -> None:
    await asyncio.Event().wait()


async def use_cache(client: Client, held: AsyncExitStack) -> None:
    cache = client.workspace("acme").cache

    async def load(_: str) -> dict[str, int]:
        return {"n": 1}

    await cache.get_or_load(PROFILES, "u1", load)
    await cache.set(PROFILES, "u2", {"n": 2}, tags=["campaign"])
    await cache.delete(PROFILES, "u1")
    await cache.flush(PROFILES)
    await cache.flush()
    await cache.set(PROFILES, "u3", {"n": 3})

    async def never(_: str) -> dict[str, int]:
        await asyncio.Event().wait()
        return {}

    loading = asyncio.create_task(cache.get_or_load(PROFILES, "u4", never))
    held.push_async_callback(ended, loading)
    await until_made(client, "ws:{acme}:cache-lease")

    async def answer() -> Answer:
        return Answer("yes", tokens=1)

    await SemanticCache(client.workspace("acme"), "opus").ask("north?", answer, embedding=[1.0, 0.0])


async def use_sessions(client: Client) -> None:
    sessions = Sessions(client, PepperRing(Secret("k1:0123456789abcdef0123456789abcdef")))
    anonymous, _ = await sessions.create(None)
    await sessions.rotate(anonymous, user_id="u1", workspace="acme")
    for user in ("u1", "u2", "u3"):
        _, token = await sessions.create(user, "acme", {"seen": 1}, Device("browser"))
        found = await sessions.get(token)
        assert found is not None
        await sessions.touch(found)
    await sessions.revoke_user("u2", "acme")
    await sessions.revoke_user("u3")
    await sessions.revoke_workspace("globex")
    await sessions.create("u4", "globex")


async def use_limits(client: Client) -> None:
    for plan in ("exact", "economy"):
        limiter = RateLimiter(client, limits_of(("5/minute", "50/day")), plan=plan, timeout=20.0)
        for _ in range(7):
            await limiter.check(USER, f"/{plan}/{{id}}")
        await limiter.check(Subject(ip="203.0.113.8"), f"/{plan}")
        await limiter.aclose()


async def use_queue(client: Client, held: AsyncExitStack) -> None:
    queue, control = client.workspace("acme").queue, QueueControl(client)
    first = await queue.enqueue(good, 1, unique_key="one", idempotency_key="once")
    await queue.enqueue(good, 2, depends_on=[first], priority=2)
    await queue.enqueue(bad)
    waiting = await queue.enqueue(stepping)
    await Worker(client, [good, bad, stepping]).drain()
    await waiting.signal("approval", "yes")
    # And what is under way: one runs, one waits for its task, one for its workspace, others for their time or for a job.
    await control.limit("agents", running=50)
    await control.limit_task(blocks, running=1)
    await client.workspace("globex").queue.limit("agents", running=1)
    for workspace, work in (
        ("acme", blocks),
        ("acme", blocks),
        ("globex", blocks_too),
        ("globex", blocks_too),
    ):
        await client.workspace(workspace).queue.enqueue(work)
    await queue.enqueue(good, 3, delay=600)
    parent = await queue.enqueue(blocks, unique_key="two")
    await queue.enqueue(good, 5, depends_on=[parent])
    await (await queue.enqueue(good, 6, delay=600)).cancel()
    hourly = Schedule("hourly", good.call(7), "acme", every=3600)
    worker = Worker(client, [good, blocks, blocks_too], schedules=[hourly], grace=0)
    running = asyncio.create_task(worker.run())

    async def end() -> None:
        worker.stop()
        await asyncio.wait_for(running, WITHIN)

    held.push_async_callback(end)
    await until_made(client, "queue-held", "queue-parked", "queue-run", "queue-schedules")
    await queue.enqueue(good, 8, queue="others")


async def until_made(client: Client, *families: str) -> None:
    """Until there is a key of each of these families."""
    async with asyncio.timeout(WITHIN):
        for family in families:
            while not [key async for key in scan_iter(client, f"{family}:*")]:
                await asyncio.sleep(0.05)


async def use_topics(client: Client, held: AsyncExitStack) -> None:
    acme = client.workspace("acme")
    await acme.topic("campaign:9").publish({"n": 1}, id="x")
    await acme.state("doc:9").set({"a": 1})
    await acme.state("doc:9").patch({"a": 2})
    await acme.text("answer:9").append("word")
    presence: Presence = acme.presence("campaign:9")
    await presence.join("u1", {"name": "Ada"})
    held.push_async_callback(presence.leave, "u1")


async def use_locks(client: Client, held: AsyncExitStack) -> None:
    acme = client.workspace("acme")
    lease = await held.enter_async_context(acme.lock("report", ttl=60))
    assert lease is not None
    async with acme.lock("short"):
        pass
    held.push_async_callback(ended, asyncio.create_task(acme.lock("report", ttl=60).acquire()))
    await until_made(client, "ws:{acme}:lock-line")


async def ended(work: asyncio.Task[Any]) -> None:
    work.cancel()
    await asyncio.wait([work])


async def use_all(client: Client, held: AsyncExitStack) -> None:
    """Leave keys of every service in the store, those of what is under way too."""
    held.push_async_callback(client.service(CacheEngine).aclose)
    await use_cache(client, held)
    await use_sessions(client)
    await use_limits(client)
    await use_queue(client, held)
    await use_topics(client, held)
    await use_locks(client, held)
    await client.service(Metrics).recorder.flush()
    await AuditLog(client).record(Actor("cli:ada", "admin"), "cache.flush", "acme")
    await client.set(canary_key("health"), "1", ex=10)
    await client.set(client.workspace("acme").keys.key("app", "visits"), 1)


def faults(audit: KeyAudit) -> list[tuple[Any, ...]]:
    return [
        (family.family, finding.fault, finding.examples)
        for family in audit.families
        for finding in family.findings
    ]


async def test_no_service_leaves_a_key_that_is_not_as_declared(client: Client) -> None:
    async with AsyncExitStack() as held:
        await use_all(client, held)
        audit = await KeyAuditor(client, rate=1_000_000).run()
    assert faults(audit) == []
    assert audit.complete
    seen = {family.family for family in audit.families}
    # Else it proves nothing.
    assert {family.name for family in FAMILIES if family.owner in USED} - seen <= NOT_HERE
