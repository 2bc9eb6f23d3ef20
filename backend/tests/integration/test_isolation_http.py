"""A tenant is a wall, over HTTP: the demo's routes and the realtime endpoints, with one tenant's login and the other's identifiers."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from fastapi.routing import APIRoute

from demo import live, page
from demo import routes as routes_of_demo
from demo.app import create_demo
from redis_core import Client
from redis_core.api import realtime
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.config import Settings, load_settings
from tests.realtime_service import Browser, Service, token
from tests.two_tenants import THEIRS, belongings

SAME_SITE = {"sec-fetch-site": "same-origin"}
CALLS: dict[tuple[str, str], Any] = {
    ("GET", "/"): {"params": {"look": "{id}"}},
    ("POST", "/campaigns"): {"data": {"name": "{id}", "channel": "email"}},
    ("POST", "/campaigns/{campaign_id}"): {"data": {"name": "acme's", "channel": "email"}},
    ("GET", "/api/me"): {},
    ("GET", "/api/devices"): {},
    ("GET", "/api/campaigns"): {},
    ("POST", "/api/campaigns"): {"json": {"name": "{id}", "channel": "email"}},
    ("GET", "/api/campaigns/last"): {},
    ("GET", "/api/campaigns/{campaign_id}"): {},
    ("PUT", "/api/campaigns/{campaign_id}"): {"json": {"name": "acme's", "channel": "email"}},
    ("GET", "/api/report"): {},
    ("GET", "/api/export"): {},
    ("GET", "/live/"): {},
    ("POST", "/live/answers"): {"json": {"campaign": "{id}"}},
    ("POST", "/live/plans"): {"json": {"job": "{id}", "budget": 1}},
}
"""A request for each of the demo's routes; `{id}` is where an identifier goes in the query or body."""
LOGINS = {("POST", "/login"), ("POST", "/logout"), ("POST", "/api/login"), ("POST", "/api/logout")}
"""Routes that say who one is."""
INSTANCE = re.compile(r"urn:uuid:[0-9a-f-]+")
"""Each answer's own."""


def settings() -> Settings:
    return load_settings(mock_redis=True, session_peppers="t1:" + "p" * 32)


@pytest.fixture
async def demo(valkey: Client) -> AsyncIterator[str]:
    """Where the demo is."""
    chosen = settings()
    app = create_app(chosen, client=valkey)
    app.mount("/demo", create_demo(valkey, chosen))
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        async with serve([Site(app, listener)]):
            yield f"{url_of(listener)}/demo"


def test_every_route_of_the_demo_has_its_row() -> None:
    routes = {
        (method, route.path)
        for router in (page.router, routes_of_demo.router, live.router)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert routes == set(CALLS) | LOGINS


async def _logged_in(url: str, user: str, workspace: str) -> aiohttp.ClientSession:
    http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers=SAME_SITE)
    async with http.post(f"{url}/api/login", json={"user": user, "workspace": workspace}) as answer:
        assert answer.status == 200
    return http


async def _asked(http: aiohttp.ClientSession, url: str, row: tuple[str, str], name: str) -> tuple[int, str]:
    method, path = row
    options = json.loads(json.dumps(CALLS[row]).replace("{id}", name))
    address = url + path.replace("{campaign_id}", name)
    async with http.request(method, address, allow_redirects=False, **options) as answer:
        return answer.status, INSTANCE.sub("", await answer.text()).replace(name, "<it>")


async def test_no_route_of_the_demo_shows_or_changes_anothers_campaign(valkey: Client, demo: str) -> None:
    async with await _logged_in(demo, "bob", THEIRS) as theirs, await _logged_in(demo, "ada", "acme") as mine:
        async with theirs.post(
            f"{demo}/api/campaigns", json={"name": "globex's", "channel": "video"}
        ) as made:
            known: str = (await made.json())["id"]
        assert (await _asked(theirs, demo, ("GET", "/api/campaigns/{campaign_id}"), known))[0] == 200
        unknown = secrets.token_hex(len(known))[: len(known)]
        before = await belongings(valkey, THEIRS)
        for row in CALLS:
            answers = [await _asked(mine, demo, row, name) for name in (known, unknown)]
            assert answers[0][0] == answers[1][0], row
            if row[1] in {"/api/campaigns/{campaign_id}", "/campaigns/{campaign_id}"}:
                assert answers[0] == answers[1], row
            assert all("globex" not in text for _, text in answers), row
            assert await belongings(valkey, THEIRS) == before, row


@pytest.fixture(scope="module")
def service(valkey_socket: str) -> Iterator[Service]:
    with Service(f"unix://{valkey_socket}") as running:
        yield running


async def test_no_realtime_endpoint_reaches_anothers_stream_or_topics(
    valkey: Client, service: Service
) -> None:
    ours = token("acme", "u1")
    theirs = valkey.workspace(THEIRS)
    await theirs.state("doc").set({"of": "globex"})
    async with Browser(service, token(THEIRS, "u1"), ("x", "events"), ("doc", "state")) as other:
        await theirs.topic("x").publish("globex's", id="once")
        await other.until(lambda: other.messages)
        status, _ = await other.post(
            "presence", {"stream": other.stream, "topic": "here", "data": "globex's"}
        )
        assert status < 300
        before, frames = await belongings(valkey, THEIRS), len(other.frames)
        want = {"topic": "x", "kind": "events", "epoch": other.positions["x", "events"][0], "offset": 0}
        calls: dict[str, list[dict[str, Any]]] = {
            "subscribe": [{"topics": [want]}],
            "unsubscribe": [{"topics": ["x"]}, {"topics": [{"topic": "doc", "kind": "state"}]}],
            "auth": [{}],
            "presence": [{"topic": "here", "data": 1}, {"topic": "here", "leave": True}],
            "publish": [
                {"topic": "x", "data": "acme's", "id": "once"},
                {"topic": "doc", "kind": "state", "patch": {"of": "acme"}},
                {"topic": "doc", "kind": "state", "data": {}, "version": 1},
                {"topic": "x", "kind": "append", "text": "acme's", "done": True},
            ],
        }
        assert set(calls) == set(realtime._HANDLERS)  # a new endpoint needs its row
        unknown = other.stream[:-4] + ("AAAA" if not other.stream.endswith("AAAA") else "BBBB")
        for endpoint, bodies in calls.items():
            for body in bodies:
                answers = [
                    await other.post(endpoint, {**body, "stream": stream}, ours)
                    for stream in (other.stream, unknown)
                ]
                if endpoint == "publish":
                    assert [status for status, _ in answers] == [200, 200], body
                    assert answers[0][1]["epoch"] != want["epoch"]
                else:
                    for _, problem in answers:
                        problem.pop("instance")  # each answer's own
                    assert answers[0] == answers[1], (endpoint, body)
                    assert answers[0][0] >= 400, (endpoint, body)
                assert await belongings(valkey, THEIRS) == before, (endpoint, body)
        # Still there and still listening; of all that it has heard only what was its own.
        await theirs.topic("x").publish("the last")
        await other.until(lambda: "the last" in other.messages)
        assert other.messages == ["globex's", "the last"]
        assert all("acme" not in json.dumps(frame) for frame in other.frames[frames:])
