"""The demo's members over HTTP: sessions, rate limits and the cache as an application puts them together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import aiohttp
import pytest

from demo.app import mount_members
from redis_core import Client
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.config import load_settings


@pytest.fixture
async def url(valkey: Client) -> AsyncIterator[str]:
    settings = load_settings(mock_redis=True)
    app = create_app(settings, client=valkey)
    mount_members(app, valkey, settings)
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        async with serve([Site(app, listener)]):
            yield url_of(listener) + "/demo/members"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def login(
    http: aiohttp.ClientSession, url: str, user: str = "ada", workspace: str = "acme"
) -> dict[str, str]:
    """Log in; the headers that carry the session."""
    async with http.post(f"{url}/login", json={"user": user, "workspace": workspace}) as answer:
        assert answer.status == 200
        assert answer.headers["cache-control"] == "no-store"
        cookie = SimpleCookie(answer.headers["set-cookie"])["rf_session"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    return {"cookie": f"rf_session={cookie.value}"}


async def test_a_member_logs_in_is_known_and_logs_out(http: aiohttp.ClientSession, url: str) -> None:
    member = await login(http, url)
    for visits in (1, 2):
        async with http.get(f"{url}/me", headers=member) as answer:
            assert await answer.json() == {"user": "ada", "workspace": "acme", "visits": visits}
    async with http.get(f"{url}/devices", headers=member) as answer:
        assert [one["current"] for one in await answer.json()] == [True]
    async with http.post(f"{url}/logout", headers=member) as answer:
        assert answer.status == 204
        assert "clear-site-data" in answer.headers
    async with http.get(f"{url}/me", headers=member) as answer:
        assert answer.status == 401


async def test_without_a_session_nothing_is_shown(http: aiohttp.ClientSession, url: str) -> None:
    for path in ("me", "devices", "campaigns", "summary"):
        async with http.get(f"{url}/{path}", headers={"cookie": "rf_session=v1.acme.made.up"}) as answer:
            assert (answer.status, answer.content_type) == (401, "application/problem+json")


async def test_a_member_sees_the_own_workspace_only(http: aiohttp.ClientSession, url: str) -> None:
    ada, bob = await login(http, url), await login(http, url, "bob", "globex")
    async with http.post(f"{url}/campaigns", json={"name": "Launch"}, headers=ada) as answer:
        assert answer.status == 201
    seen = []
    for member in (ada, bob):
        async with http.get(f"{url}/campaigns", headers=member) as answer:
            seen.append([campaign["name"] for campaign in await answer.json()])
    assert seen == [["Launch"], []]


async def test_the_summary_is_cached_until_something_changes(http: aiohttp.ClientSession, url: str) -> None:
    member = await login(http, url)

    async def summary() -> tuple[str, int]:
        async with http.get(f"{url}/summary", headers=member) as answer:
            return answer.headers["x-cache"], (await answer.json())["campaigns"]

    assert await summary() == ("loader", 0)
    tier, campaigns = await summary()
    assert (tier in {"memory", "store"}, campaigns) == (True, 0)
    async with http.post(f"{url}/campaigns", json={"name": "Launch"}, headers=member):
        assert await summary() == ("loader", 1)


async def test_too_many_logins_are_refused_with_what_a_client_needs(
    http: aiohttp.ClientSession, url: str
) -> None:
    for _ in range(10):
        await login(http, url)
    async with http.post(f"{url}/login", json={"user": "ada", "workspace": "acme"}) as answer:
        problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, problem["violated-policies"]) == (429, ["10-min"])
        assert int(answer.headers["retry-after"]) > 0
        assert '"10-min";r=0' in answer.headers["ratelimit"]
        assert '"10-min";q=10;w=60' in answer.headers["ratelimit-policy"]


async def test_a_request_costs_few_trips(http: aiohttp.ClientSession, url: str, valkey: Client) -> None:
    """Session and decision leave without waiting for one another: one write each on an idle line, none between."""
    member = await login(http, url)
    async with http.get(f"{url}/campaigns", headers=member):
        pass
    commands, trips = valkey.stats.commands, valkey.stats.trips
    async with http.get(f"{url}/campaigns", headers=member) as answer:
        assert answer.status == 200
    # The decision, the session, the list of ids, and the empty batch of none of them.
    assert (valkey.stats.commands - commands, valkey.stats.trips - trips) <= (4, 3)
