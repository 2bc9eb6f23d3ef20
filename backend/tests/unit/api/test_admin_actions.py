"""Each action by HTTP, its effect in the store, and its entry in the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from redis_core.api.realtime_hubs import Hubs
from redis_core.cache import CacheRegion
from redis_core.client import Client
from redis_core.keys import rate_key
from redis_core.metrics import Metrics
from redis_core.queue import task
from redis_core.rate_limiting.subject import workspace_key
from redis_core.session import Sessions
from redis_core.worker import Worker
from tests.admin_world import asking, bearer, service

PROFILES = CacheRegion("profile", dict[str, int], ttl=60)


@task(queue="agents", retries=0)
async def good(n: int) -> int:
    return n


@task(queue="agents", retries=0)
async def bad(n: int) -> int:
    raise ValueError(f"no {n}")


@pytest.fixture
async def http(memory: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(service(memory)) as client:
        client.headers.update(bearer("admin"))
        yield client


async def post(http: httpx.AsyncClient, path: str, **body: object) -> dict[str, Any]:
    answer = await http.post(f"/api/v1/admin{path}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def get(http: httpx.AsyncClient, path: str, **query: str | int) -> dict[str, Any]:
    answer = await http.get(f"/api/v1/admin{path}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def last_entry(http: httpx.AsyncClient) -> dict[str, Any]:
    entry: dict[str, Any] = (await get(http, "/audit", count=1))["entries"][0]
    assert (entry["who"], entry["role"], entry["outcome"]) == ("admin-1", "admin", "done")
    assert entry["time"].endswith("Z")
    return entry


async def test_flushing_a_cache(memory: Client, http: httpx.AsyncClient) -> None:
    cache = memory.workspace("acme").cache
    await cache.set(PROFILES, "1", {"n": 1})
    counted = await post(http, "/cache/flush", workspace="acme", dry_run=True)
    assert (counted["matched"], counted["changed"]) == (1, 0)
    assert await cache.get(PROFILES, "1") == {"n": 1}
    assert (await get(http, "/audit"))["entries"] == []
    await post(http, "/cache/flush", workspace="acme", region="other")
    assert await cache.get(PROFILES, "1") == {"n": 1}
    await post(http, "/cache/flush", workspace="acme", region="profile")
    assert await cache.get(PROFILES, "1") is None
    entry = await last_entry(http)
    assert (entry["action"], entry["target"]) == ("cache.flush", "acme:profile")


async def test_resetting_a_users_limits(memory: Client, http: httpx.AsyncClient) -> None:
    for user in ("u1", "u2"):
        for endpoint in ("/a", "/b"):
            await memory.set(rate_key(user, endpoint), "1", ex=60)
    assert (await post(http, "/limits/reset", user="u1", dry_run=True))["matched"] == 2
    assert (await post(http, "/limits/reset", user="u1", endpoint="/a"))["changed"] == 1
    assert await memory.exists(rate_key("u1", "/a")) == 0
    assert (await post(http, "/limits/reset", user="u1"))["changed"] == 1
    assert await memory.exists(rate_key("u2", "/a"), rate_key("u2", "/b")) == 2
    entry = await last_entry(http)
    assert (entry["before"], entry["after"]) == ({"keys": 1}, {"keys": 0, "changed": 1})


async def test_the_limits_of_a_workspace_that_the_report_names_are_reset(
    memory: Client, http: httpx.AsyncClient
) -> None:
    counted = workspace_key("acme", "/agents/{id}")
    for key in (counted, workspace_key("acme", "/other"), workspace_key("globex", "/agents/{id}")):
        await memory.set(key, "1", ex=60)
    memory.meter.refused(counted)
    await memory.service(Metrics).recorder.flush()
    (offender,) = (await get(http, "/redis-metrics"))["offenders"]
    assert (offender["subject"], offender["endpoint"]) == ("ws=acme", "/agents/<id>")
    asked = {"user": offender["subject"], "endpoint": offender["endpoint"]}
    assert (await post(http, "/limits/reset", **asked))["changed"] == 1
    assert (await post(http, "/limits/reset", user="ws=acme"))["changed"] == 1
    assert await memory.exists(workspace_key("globex", "/agents/{id}")) == 1


async def test_revoking_sessions(
    memory: Client, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions.from_settings(memory, memory.settings)
    _, first = await sessions.create("u1", "acme")
    _, second = await sessions.create("u1", "acme")
    shown = (await get(http, "/sessions", user="u1", workspace="acme"))["sessions"]
    assert len(shown) == 2
    assert first not in str(shown)
    ended: list[tuple[str | None, str | None]] = []
    monkeypatch.setattr(
        memory.service(Hubs), "disconnect", lambda workspace, user: ended.append((workspace, user))
    )
    assert (await post(http, "/sessions/revoke", user="u1", workspace="acme", dry_run=True))["matched"] == 2
    handle = shown[0]["handle"]
    alone = await http.post("/api/v1/admin/sessions/revoke", json={"user": "u1", "handle": handle})
    assert alone.status_code == 422
    assert len((await get(http, "/sessions", user="u1", workspace="acme"))["sessions"]) == 2
    assert (await post(http, "/sessions/revoke", user="u1", workspace="acme", handle=handle))["changed"] == 1
    assert [await sessions.get(token) is None for token in (first, second)].count(True) == 1
    assert ended == [("acme", "u1")]
    assert (await post(http, "/sessions/revoke", user="u1", workspace="acme"))["changed"] == 1
    assert await sessions.get(first) is None
    assert await sessions.get(second) is None
    assert (await last_entry(http))["target"] == "acme:u1:*"


async def test_jobs_are_inspected_retried_cancelled_and_deleted(
    memory: Client, http: httpx.AsyncClient
) -> None:
    queue = memory.workspace("acme").queue
    await queue.enqueue_many([bad.call(n) for n in range(3)])
    await Worker(memory, [good, bad], queues=["agents"]).drain()
    waiting = await queue.enqueue_many([good.call(n) for n in range(4)])
    await queue.enqueue(good, 9, delay=60)
    (figures,) = (await get(http, "/queues"))["queues"]
    assert (figures["queue"], figures["unfinished"], figures["delayed"], figures["dead"]) == (
        "agents",
        5,
        1,
        3,
    )
    page = (await get(http, "/queues/agents/jobs", workspace="acme"))["jobs"]
    assert sorted(job["state"] for job in page) == ["delayed", *["waiting"] * 4]
    assert {job["task"] for job in page} == {good.name}
    dead = (await get(http, "/queues/agents/jobs", workspace="acme", state="dead"))["jobs"]
    assert len(dead) == 3
    assert dead[0]["errors"][-1].startswith("ValueError: no")
    assert (await get(http, "/queues/agents/jobs", workspace="other"))["jobs"] == []

    assert (await post(http, "/queues/agents/cancel", workspace="acme", state="waiting", dry_run=True))[
        "matched"
    ] == 4
    done = await post(http, "/queues/agents/cancel", workspace="acme", ids=[waiting[0].id, "unknown"])
    assert (done["matched"], done["changed"]) == (1, 1)
    assert (await get(http, f"/queues/agents/jobs/acme/{waiting[0].id}"))["state"] == "cancelled"
    assert (await post(http, "/queues/agents/cancel", workspace="acme", state="delayed"))["changed"] == 1

    one = dead[0]["id"]
    assert (await get(http, f"/queues/agents/jobs/acme/{one}"))["state"] == "dead"
    assert (await post(http, "/queues/agents/retry", workspace="acme", ids=[one]))["changed"] == 1
    assert (await get(http, f"/queues/agents/jobs/acme/{one}"))["state"] == "waiting"
    # It is no dead letter any more, so it is not deleted.
    assert (await post(http, "/queues/agents/delete", workspace="acme", ids=[one]))["changed"] == 0
    assert (await post(http, "/queues/agents/delete", workspace="acme"))["changed"] == 2
    assert (await get(http, "/queues/agents/jobs", workspace="acme", state="dead"))["jobs"] == []
    assert (await last_entry(http))["action"] == "queue.delete"


async def test_pausing_and_resuming(memory: Client, http: httpx.AsyncClient) -> None:
    queue = memory.workspace("acme").queue
    await post(http, "/queues/agents/pause")
    job = await queue.enqueue(good, 1)
    worker = Worker(memory, [good], queues=["agents"])
    await worker.drain()
    assert (await job.status()).state == "waiting"
    assert (await get(http, "/queues/agents"))["paused"] is True
    await post(http, "/queues/agents/resume")
    await worker.drain()
    assert await job.result(5) == 1
    assert (await get(http, "/queues/agents"))["paused"] is False
    assert (await post(http, "/queues/agents/resume"))["changed"] == 0
    await post(http, "/queues/agents/pause", workspace="acme")
    entry = await last_entry(http)
    assert entry["before"] == {"paused": False}
    # What changes nothing is not written down.
    assert (await post(http, "/queues/agents/pause", workspace="acme"))["changed"] == 0
    assert await last_entry(http) == entry
    assert (entry["action"], entry["target"], entry["after"]["paused"]) == (
        "queue.pause",
        "agents:acme",
        True,
    )


async def test_the_audit_log_is_paged(http: httpx.AsyncClient) -> None:
    for number in range(7):
        await post(http, "/cache/flush", workspace=f"w{number}")
    seen: list[str] = []
    page = await get(http, "/audit", count=3)
    seen += [entry["target"] for entry in page["entries"]]
    while page["next"] is not None:
        page = await get(http, "/audit", count=3, before=page["next"])
        seen += [entry["target"] for entry in page["entries"]]
    assert seen == [f"w{number}" for number in range(6, -1, -1)]


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b'{"workspace": "acme"}', "text/plain", 415),
        (b"workspace=acme", "application/x-www-form-urlencoded", 415),
        (b"{", "application/json", 422),
        (b"\xff", "application/json", 422),
        (b'{"workspace": "a:b"}', "application/json", 422),
        (b'{"workspace": "acme", "all": true}', "application/json", 422),
        (b'{"workspace": "' + b"x" * 300_000 + b'"}', "application/json", 413),
    ],
)
async def test_a_body_that_is_wrong_changes_nothing(
    http: httpx.AsyncClient, content: bytes, media_type: str, status: int
) -> None:
    answer = await http.post(
        "/api/v1/admin/cache/flush", content=content, headers={"content-type": media_type}
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await get(http, "/audit"))["entries"] == []


async def test_auditing_keys(memory: Client, http: httpx.AsyncClient) -> None:
    keys = memory.workspace("acme").keys
    await memory.set(keys.key("cache", "r", "k"), "1")
    await memory.set("stray", "1", ex=60)
    found = await post(http, "/keys/audit")
    assert (found["complete"], found["scanned"], found["faults"]) == (True, 2, 2)
    assert [(family["family"], family["findings"]) for family in found["families"]] == [
        ("cache", [{"fault": "no-expiry", "keys": 1, "examples": ["ws:{acme}:cache:r:k"]}]),
        ("undeclared", [{"fault": "ownerless", "keys": 1, "examples": ["stray"]}]),
    ]
    entry = await last_entry(http)
    assert (entry["action"], entry["target"]) == ("keys.audit", "*")
    assert entry["after"] == {"scanned": 2, "faults": 2, "complete": True}
    assert (await post(http, "/keys/audit", workspace="globex"))["scanned"] == 0
    assert (await last_entry(http))["target"] == "globex"


async def test_an_audit_is_bounded_and_for_operators(memory: Client, http: httpx.AsyncClient) -> None:
    async with memory.pipeline() as batch:
        for number in range(400):
            batch.set(memory.workspace("acme").keys.key("app", f"k{number}"), "1")
    found = await post(http, "/keys/audit", limit=100)
    assert not found["complete"]
    assert 100 <= found["scanned"] < 400
    for wrong in ({"workspace": "a b"}, {"limit": 0}, {"seconds": 3_600}, {"more": 1}):
        answer = await http.post("/api/v1/admin/keys/audit", json=wrong)
        assert answer.status_code == 422, wrong
    for role, status in (("viewer", 403), ("operator", 200)):
        answer = await http.post("/api/v1/admin/keys/audit", json={}, headers=bearer(role))
        assert answer.status_code == status
