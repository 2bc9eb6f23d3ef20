"""The demo, over HTTP, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from demo.app import ROUTERS, create_demo_app
from demo.campaigns import KEPT_SECONDS, NEWEST, Campaigns
from demo.page import render
from demo.traffic import drive
from redis_core import Client
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.config import load_settings
from redis_core.keys import family_of, workspace_of


@pytest.fixture
async def url(valkey: Client) -> AsyncIterator[str]:
    """Where the service with the demo is."""
    app = create_app(load_settings(mock_redis=True), client=valkey, routers=ROUTERS)
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        address = url_of(listener)
        async with serve([Site(app, listener)]):
            yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session:
        yield session


async def make(http: aiohttp.ClientSession, name: str, workspace: str = "acme") -> str:
    async with http.post(f"/demo/api/{workspace}/campaigns", json={"name": name, "channel": "video"}) as made:
        assert made.status == 201
        campaign_id: str = (await made.json())["id"]
        return campaign_id


async def test_a_campaign_is_made_looked_at_and_listed(http: aiohttp.ClientSession) -> None:
    campaign_id = await make(http, "Launch")
    for _ in range(3):
        async with http.get(f"/demo/api/acme/campaigns/{campaign_id}") as response:
            campaign = await response.json()
    assert (campaign["name"], campaign["channel"], campaign["views"]) == ("Launch", "video", 3)
    async with http.get("/demo/api/acme/campaigns") as response:
        listed = await response.json()
    assert listed == {"workspace": "acme", "views_today": 3, "campaigns": [campaign]}


async def test_one_workspace_cannot_see_what_is_anothers(http: aiohttp.ClientSession) -> None:
    campaign_id = await make(http, "Secret plan", "acme")
    async with http.get(f"/demo/api/globex/campaigns/{campaign_id}") as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (
            404,
            "no-such-campaign",
        )
    async with http.get("/demo/api/globex/campaigns") as response:
        assert (await response.json())["campaigns"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/demo/api/a%3Ab/campaigns",
        "/demo/api/*/campaigns",
        "/demo?workspace=%7Bx%7D",
        "/demo/api/acme/campaigns/x%20y",
    ],
)
async def test_ids_that_may_not_be_keys_are_refused(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        assert (response.status, response.content_type) == (422, "application/problem+json")


@pytest.mark.parametrize(
    "draft", [{"name": " "}, {"name": "x" * 81}, {"name": "x", "channel": "fax"}, {"nam": "x"}]
)
async def test_a_draft_that_is_not_good_is_refused(
    http: aiohttp.ClientSession, valkey: Client, draft: dict[str, str]
) -> None:
    async with http.post("/demo/api/acme/campaigns", json=draft) as response:
        assert (response.status, response.content_type) == (422, "application/problem+json")
    assert await valkey.dbsize() == 0


async def test_the_page_shows_campaigns_and_its_form_makes_one(http: aiohttp.ClientSession) -> None:
    form = {"name": "<script>alert(1)</script>", "channel": "email"}
    async with http.post("/demo?workspace=acme", data=form, allow_redirects=False) as response:
        assert (response.status, response.headers["location"]) == (303, "/demo?workspace=acme")
    async with http.get("/demo?workspace=acme") as response:
        page = await response.text()
    assert response.content_type == "text/html"
    assert "script-src" not in response.headers["content-security-policy"]
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page


async def test_a_form_without_end_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.post("/demo", data={"name": "x" * 10_000}) as response:
        assert response.status == 413


def test_the_page_of_an_empty_workspace_says_so() -> None:
    assert "None yet." in render("acme", [], 0)


async def test_all_the_demos_keys_are_its_workspaces_and_expire(
    http: aiohttp.ClientSession, valkey: Client
) -> None:
    campaign_id = await make(http, "Launch")
    await (await http.get(f"/demo/api/acme/campaigns/{campaign_id}")).read()
    _, keys = await valkey.scan(count=100)
    assert len(keys) == 3
    for key in keys:
        family = family_of(key.decode())
        assert family is not None
        assert (family.name, workspace_of(key.decode())) == ("app", "acme")
        assert 0 < await valkey.ttl(key) <= 2 * KEPT_SECONDS


async def test_the_list_of_the_newest_is_bounded_and_forgets_what_expired(valkey: Client) -> None:
    campaigns = Campaigns(valkey.workspace("acme"))
    made = [await campaigns.create(f"n{number}", "email") for number in range(NEWEST + 5)]
    assert [campaign.id for campaign in await campaigns.newest()] == [
        one.id for one in made[: -NEWEST - 1 : -1]
    ]
    await valkey.delete(valkey.workspace("acme").keys.key("app", "campaign", made[-1].id))
    assert next(iter(await campaigns.newest())).id == made[-2].id
    assert await campaigns.view(made[-1].id) is None


async def test_visitors_make_numbers_and_end_when_cancelled(http: aiohttp.ClientSession, url: str) -> None:
    task = asyncio.create_task(drive(url))
    try:
        async with asyncio.timeout(20):
            views = 0
            while views < 5:
                assert not task.done()
                await asyncio.sleep(0.05)
                async with http.get("/demo/api/globex/campaigns") as response:
                    views = (await response.json())["views_today"]
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)


async def test_visitors_wait_for_a_service_that_is_away(url: str) -> None:
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as nobody:
        away = url_of(nobody)
    task = asyncio.create_task(drive(away))
    done, _ = await asyncio.wait([task], timeout=0.3)
    assert done == set()
    task.cancel()
    await asyncio.wait([task])


async def test_the_demo_is_an_app_of_its_own_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_REDIS", "true")
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        address = url_of(listener)
        async with serve([Site(create_demo_app(), listener)]), aiohttp.ClientSession(address) as http:
            await make(http, "Launch")
            async with http.get("/api/v1/health/redis") as response:
                health = await response.json(content_type=None)
    assert (health["mode"], health["degraded"]) == ("memory", True)
