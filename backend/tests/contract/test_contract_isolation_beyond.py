"""The wall beyond a workspace's own handle: limits, quotas, a job from within, the blocking face, and what operators do to one tenant."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from redis_core import sync
from redis_core.audit import Actor
from redis_core.client import Client
from redis_core.errors import IsolationError, QuotaExceeded
from redis_core.portability import Portability
from redis_core.queue import JobContext, JobHandle, task
from redis_core.quotas import Quota, Quotas
from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from redis_core.worker import Worker
from tests.admin_world import asking, bearer, service
from tests.contract.rest import TOKEN
from tests.store_users import user_url
from tests.two_tenants import MINE, REGION, THEIRS, Names, Tenants, belongings, ended, succeeds

_WORDS = [field.name for field in fields(Names) if field.type == "str"]
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
    ):
        try:
            async with asyncio.timeout(5):
                said.append(repr(await call()))
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    await ctx.step(names.job, str, "acme's")
    await ctx.progress(0.5, names.key)
    await ctx.stream(names.topic)
    await ctx.log(names.lock)
    await ctx.usage(model="gpt-4o", input_tokens=10)
    await ctx.spawn(succeeds.call(), name=names.job)
    return said


async def test_a_job_that_knows_anothers_identifiers(tenants: Tenants) -> None:
    before = await belongings(tenants.client, THEIRS)
    STOLEN.update(names=tenants.known, handle=tenants.known.jobs["job"])
    job = await tenants.mine.queue.enqueue(snoops)
    await Worker(tenants.client, [snoops, succeeds]).drain()
    said = await job.result(20)
    assert len(said) == 8
    assert "globex's" not in str(said)
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
    assert await belongings(tenants.client, THEIRS) == before
    # The other's are untouched by it.
    await tenants.theirs.topic("a").publish("1")
    await tenants.theirs.topic("a").publish("2")
    assert (
        await tenants.theirs.cache.get(REGION, tenants.known.key, tags=[tenants.known.tag])
        == "globex's value"
    )


async def test_a_file_of_one_workspace_and_its_end(tenants: Tenants, tmp_path: Path) -> None:
    operator = Portability(tenants.client, Actor("test", "admin"))
    await tenants.mine.cache.set(REGION, "k", "acme's")
    await tenants.mine.redis.set(tenants.mine.keys.key("app", "k"), "acme's")
    await tenants.mine.queue.enqueue(succeeds, delay=3600)
    before = await belongings(tenants.client, THEIRS)
    await operator.export(MINE, tmp_path / "f", everything=True)
    await operator.import_(tmp_path / "f", replace=True)
    assert await belongings(tenants.client, THEIRS) == before
    assert (await operator.erase(MINE)).left == 0
    assert await belongings(tenants.client, THEIRS) == before
    await operator.import_(tmp_path / "f")
    assert await tenants.mine.redis.get(tenants.mine.keys.key("app", "k")) == b"acme's"
    assert await belongings(tenants.client, THEIRS) == before


@pytest.mark.usefixtures("client")  # an empty store, and its user
def test_the_blocking_face(store: tuple[str, str]) -> None:
    name, place = store
    if name == "memory":
        options: dict[str, Any] = {"mock_redis": True}
    elif name == "rest":
        options = {"upstash_redis_url": place, "upstash_redis_token": TOKEN}
    else:
        options = {"redis_url": user_url("admin", place), "redis_failover": False}
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
        assert not mine.queue.job("default", job.id).cancel()
        mine.cache.flush()
        assert theirs.redis.get(theirs.keys.key("app", "k")) == b"globex's"
        assert theirs.cache.get(REGION, "k") == "globex's"
        assert job.status().state == "delayed"


def _rows(n: Names) -> list[tuple[str, str, dict[str, Any]]]:
    """Every admin route that is told a workspace: ours, and the other's identifiers."""
    of = {"workspace": MINE}
    jobs = {**of, "ids": [n.job, n.done, n.dead]}
    return [
        ("GET", "/sessions", {"user": n.user, **of}),
        ("GET", "/usage", {**of, "days": 2}),
        ("GET", "/queues/{queue}/jobs", of),
        ("GET", "/queues/{queue}/jobs/{workspace}/{id}", {"id": n.job, **of}),
        ("POST", "/keys/audit", of),
        ("POST", "/cache/flush", {**of, "region": REGION.name}),
        ("POST", "/sessions/revoke", {**of, "user": n.user, "handle": n.handle}),
        ("POST", "/sessions/revoke", {**of, "user": n.user}),
        ("POST", "/queues/{queue}/retry", jobs),
        ("POST", "/queues/{queue}/cancel", jobs),
        ("POST", "/queues/{queue}/delete", jobs),
        ("POST", "/queues/{queue}/retry", of),
        ("POST", "/queues/{queue}/cancel", of),
        ("POST", "/queues/{queue}/delete", of),
        ("POST", "/queues/{queue}/pause", of),
        ("POST", "/queues/{queue}/resume", of),
        ("POST", "/usage/budget", {**of, "day": 1.0}),
        ("POST", "/cache/flush", of),
    ]


async def _ask(http: httpx.AsyncClient, method: str, path: str, said: dict[str, Any]) -> str:
    url = "/api/v1/admin" + path.format(queue="default", workspace=said["workspace"], id=said.get("id", ""))
    headers = bearer("admin")
    if method == "GET":
        params = {name: value for name, value in said.items() if name != "id"}
        answer = await http.get(url, params={} if "{id}" in path else params, headers=headers)
    else:
        answer = await http.post(url, json=said, headers=headers)
    assert answer.status_code in {200, 404}, (url, answer.text)
    return answer.text


async def test_what_an_admin_does_to_one_tenant_with_anothers_identifiers(tenants: Tenants) -> None:
    app = service(tenants.client)
    before = await belongings(tenants.client, THEIRS)
    async with asking(app) as http:
        for known, unknown in zip(_rows(tenants.known), _rows(tenants.unknown), strict=True):
            told: list[str] = [
                await ended(names, _ask, http, *row)
                for names, row in ((tenants.known, known), (tenants.unknown, unknown))
            ]
            assert "globex" not in told[0], known
            if known != unknown:  # the others are told nothing of the other tenant, and change what is ours
                assert told[0] == told[1], known
            assert await belongings(tenants.client, THEIRS) == before, known


def test_every_admin_route_that_is_told_a_workspace_has_its_row(memory: Client) -> None:
    said: set[tuple[str, str]] = set()
    document = service(memory).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            names = {parameter["name"] for parameter in operation.get("parameters", ())}
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            schema = body.get("schema", {})
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            if "workspace" in names | set(schema.get("properties", ())):
                said.add((method.upper(), path.removeprefix("/api/v1/admin")))
    nobody = Names(**dict.fromkeys(_WORDS, ""), jobs={}, session=None)
    assert said == {(method, path) for method, path, _ in _rows(nobody)}
