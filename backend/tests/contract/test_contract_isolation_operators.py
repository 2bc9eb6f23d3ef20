"""The wall in an operator's hands: what goes out, in and away of one tenant, and every admin route that is told a workspace."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx

from redis_core.audit import Actor
from redis_core.client import Client
from redis_core.portability import Portability
from tests.admin_world import asking, bearer, service
from tests.two_tenants import MINE, REGION, THEIRS, Names, Tenants, belongings, ended, succeeds

_WORDS = [field.name for field in fields(Names) if field.type == "str"]


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
    # A file of the other's, under our name: its things are ours then, and its own stay its own.
    await operator.export(THEIRS, tmp_path / "theirs")
    await operator.import_(tmp_path / "theirs", workspace="third")
    assert await belongings(tenants.client, THEIRS) == before
    assert await tenants.mine.redis.get(tenants.mine.keys.key("app", "k")) == b"acme's"
    assert await belongings(tenants.client, THEIRS) == before


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
