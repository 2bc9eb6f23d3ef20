"""The demo, over HTTP, on a real store: sessions, limits and cache as an application puts them together."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from demo import tasks, traffic
from demo.app import create_demo, create_demo_app
from demo.campaigns import KEPT_SECONDS, NEWEST, Campaigns
from demo.limits import LIMITS
from demo.members import _limiter
from demo.page import render_login
from redis_core import Client
from redis_core.api.admin_token import admin_entry
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.cli.banner import Addresses, _examples
from redis_core.config import Settings, load_settings
from redis_core.keys import family_of, workspace_of
from redis_core.transport.base import Command, Reply
from tests.contract.rest import rest_client
from tests.rate_world import rate_gateway
from tests.stores import clean_client

__all__ = ["rate_gateway"]

PROBLEM = "application/problem+json"
_TOKEN = "a-token-of-this-test"


def settings(**changes: object) -> Settings:
    """Peppers that are known, so that two processes accept each other's sessions."""
    entry = admin_entry("tester", "viewer", _TOKEN)
    return load_settings(
        mock_redis=True,
        mock_redis_in_production=True,
        session_peppers="t1:" + "p" * 32,
        admin_tokens=entry,
        **changes,
    )


@asynccontextmanager
async def served(client: Client, **changes: object) -> AsyncIterator[str]:
    """Where a service with the demo is."""
    chosen = settings(**changes)
    app = create_app(chosen, client=client)
    app.mount("/demo", create_demo(client, chosen))
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        async with serve([Site(app, listener)]):
            yield url_of(listener)


@dataclass
class Answer:
    status: int
    headers: Any
    body: Any


@dataclass
class Visitor:
    """A browser of one user, which keeps its cookie where the test sees it."""

    http: aiohttp.ClientSession
    url: str
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, *, headers: Any = None, **body: Any) -> Answer:
        async with self.http.request(
            method, f"{self.url}{path}", headers=self.headers | (headers or {}), allow_redirects=False, **body
        ) as answer:
            if "set-cookie" in answer.headers:
                ((name, cookie),) = SimpleCookie(answer.headers["set-cookie"]).items()
                self.headers = {"cookie": f"{name}={cookie.value}"} if cookie.value else {}
            text = await answer.text()
            read = json.loads(text) if text and "json" in answer.content_type else text
            return Answer(answer.status, answer.headers, read)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, headers={n.replace("_", "-"): v for n, v in headers.items()})

    async def post(self, path: str, body: Any = None) -> Answer:
        return await self.ask("POST", path, json=body)

    async def login(self, user: str = "ada", workspace: str = "acme") -> Visitor:
        answer = await self.post("/demo/api/login", {"user": user, "workspace": workspace})
        assert answer.status == 200
        return self

    async def make(self, name: str) -> str:
        made = await self.post("/demo/api/campaigns", {"name": name, "channel": "video"})
        assert made.status == 201
        campaign_id: str = made.body["id"]
        return campaign_id


@pytest.fixture
async def url(valkey: Client) -> AsyncIterator[str]:
    async with served(valkey) as address:
        yield address


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
def ada(http: aiohttp.ClientSession, url: str) -> Visitor:
    return Visitor(http, url)


@pytest.fixture
def bob(http: aiohttp.ClientSession, url: str) -> Visitor:
    return Visitor(http, url)


class TestSessions:
    async def test_a_user_logs_in_is_known_and_logs_out(self, ada: Visitor) -> None:
        answer = await ada.post("/demo/api/login", {"user": "ada", "workspace": "acme"})
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        cookie = SimpleCookie(answer.headers["set-cookie"])["rf_session"]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
        me = await ada.get("/demo/api/me")
        assert (me.body["user"], me.body["workspace"], me.body["plan"]) == ("ada", "acme", "growth")
        before = ada.headers
        logout = await ada.post("/demo/api/logout")
        assert (logout.status, "clear-site-data" in logout.headers, ada.headers) == (204, True, {})
        ada.headers = before
        assert (await ada.get("/demo/api/me")).status == 401

    async def test_the_device_list_has_all_logins_of_the_user_in_this_workspace(
        self, ada: Visitor, bob: Visitor
    ) -> None:
        await ada.login()
        await bob.login("ada")
        devices = (await ada.get("/demo/api/devices")).body
        assert sorted(one["current"] for one in devices) == [False, True]
        assert {one["network"] for one in devices} == {"127.0.0.0/24"}
        await bob.login("ada", "globex")
        assert len((await bob.get("/demo/api/devices")).body) == 1

    async def test_what_a_session_holds_is_its_own(self, ada: Visitor, bob: Visitor) -> None:
        await ada.login()
        await bob.login("bob")
        made = await ada.make("Launch")
        assert (await ada.get("/demo/api/me")).body["last_made"] == made
        assert (await ada.get("/demo/api/campaigns/last")).body["name"] == "Launch"
        assert (await bob.get("/demo/api/campaigns/last")).status == 404

    @pytest.mark.parametrize("cookie", ["", "rf_session=v1.acme.made.up", "rf_session=" + "x" * 5000])
    async def test_without_a_session_nothing_is_shown(self, ada: Visitor, cookie: str) -> None:
        ada.headers = {"cookie": cookie} if cookie else {}
        for path in ("me", "devices", "campaigns", "campaigns/x", "campaigns/last", "report", "export"):
            answer = await ada.get(f"/demo/api/{path}")
            assert (answer.status, answer.headers["content-type"]) == (401, PROBLEM)
        assert "Log in" in (await ada.get("/demo/")).body

    async def test_in_production_the_cookie_needs_https(
        self, http: aiohttp.ClientSession, valkey: Client
    ) -> None:
        async with served(valkey, raptorflow_env="production") as address:
            answer = await Visitor(http, address).post(
                "/demo/api/login", {"user": "ada", "workspace": "acme"}
            )
        assert answer.headers["set-cookie"].startswith("__Host-rf_session=")
        assert "; Secure" in answer.headers["set-cookie"]

    @pytest.mark.parametrize(
        "headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {"origin": "null"}]
    )
    async def test_another_sites_page_can_change_nothing(self, ada: Visitor, headers: dict[str, str]) -> None:
        await ada.login()
        form = {"name": "Planted", "channel": "email"}
        for path, body in (("", {"data": form}), ("/api", {"json": form})):
            answer = await ada.ask("POST", f"/demo{path}/campaigns", headers=headers, **body)
            assert (answer.status, answer.body["code"]) == (403, "cross-origin")
        assert (await ada.get("/demo/api/campaigns")).body == []
        own = {"sec-fetch-site": "same-origin", "origin": ada.url}
        assert (await ada.ask("POST", "/demo/campaigns", headers=own, data=form)).status == 303


class TestTenants:
    async def test_one_cannot_see_or_change_what_is_anothers(self, ada: Visitor, bob: Visitor) -> None:
        await ada.login()
        await bob.login("bob", "globex")
        secret = await ada.make("Secret plan")
        await ada.get(f"/demo/api/campaigns/{secret}")
        for method, body in (("GET", {}), ("PUT", {"json": {"name": "Mine"}})):
            answer = await bob.ask(method, f"/demo/api/campaigns/{secret}", **body)
            assert (answer.status, answer.body["code"]) == (404, "no-such-campaign")
        assert (await bob.get("/demo/api/campaigns")).body == []
        assert (await bob.get("/demo/api/report")).body["by_channel"] == {}
        assert "Secret plan" not in (await bob.get(f"/demo/?look={secret}")).body

    async def test_no_path_query_or_header_names_a_workspace(self, ada: Visitor, bob: Visitor) -> None:
        await ada.login()
        await ada.make("Secret plan")
        await bob.login("bob", "globex")
        assert (await bob.get("/demo/api/acme/campaigns")).status == 404
        answer = await bob.get("/demo/api/campaigns?workspace=acme", x_workspace="acme", x_tenant="acme")
        assert answer.body == []

    async def test_ids_that_may_not_be_keys_are_refused(self, ada: Visitor) -> None:
        for workspace in ("a:b", "*", "{x}", "_"):
            answer = await ada.post("/demo/api/login", {"user": "ada", "workspace": workspace})
            assert (answer.status, answer.headers["content-type"]) == (422, PROBLEM)
        await ada.login()
        for path in ("api/campaigns/x%20y", "api/campaigns/%7Bx%7D", "?look=a:b"):
            assert (await ada.get(f"/demo/{path}")).status == 422

    async def test_all_the_demos_keys_are_declared_and_expire(self, ada: Visitor, valkey: Client) -> None:
        await ada.login()
        campaign_id = await ada.make("Launch")
        await ada.get(f"/demo/api/campaigns/{campaign_id}")
        await ada.get("/demo/api/report")
        _, keys = await valkey.scan(count=1000)
        seen = set()
        for key in map(bytes.decode, keys):
            family = family_of(key)
            assert family is not None
            assert workspace_of(key) == "acme" or family.name in {"rate", "sys"}
            if family.name not in {"gen", "sys"}:
                assert await valkey.ttl(key) > 0
            if family.name == "app":
                assert await valkey.ttl(key) <= 2 * KEPT_SECONDS
            seen.add(family.name)
        assert {"app", "session", "session-index", "rate", "cache", "gen"} <= seen


class TestLimits:
    async def test_every_answer_says_what_is_left_by_the_workspaces_plan(
        self, ada: Visitor, bob: Visitor
    ) -> None:
        await ada.login()
        await bob.login("bob", "globex")
        for visitor, quota in ((ada, 600), (bob, 120)):
            left = []
            for _ in range(2):
                headers = (await visitor.get("/demo/api/me")).headers
                assert f'"user";q={quota};w=60' in headers["ratelimit-policy"]
                left += re.findall(r'"user";r=(\d+)', headers["ratelimit"])
            assert left == [str(quota - 1), str(quota - 2)]

    async def test_one_user_in_two_sessions_has_one_budget(self, ada: Visitor, bob: Visitor) -> None:
        await ada.login()
        await bob.login("ada")
        first, second = [(await one.get("/demo/api/me")).headers["ratelimit"] for one in (ada, bob)]
        assert '"user";r=599' in first
        assert '"user";r=598' in second

    async def test_too_many_logins_are_refused_with_what_a_client_needs(self, ada: Visitor) -> None:
        for _ in range(10):
            await ada.login()
        answer = await ada.post("/demo/api/login", {"user": "ada", "workspace": "acme"})
        assert (answer.status, answer.headers["content-type"]) == (429, PROBLEM)
        assert answer.body["violated-policies"] == ["login"]
        assert 0 < int(answer.headers["retry-after"]) <= 61
        assert '"login";r=0;t=' in answer.headers["ratelimit"]
        assert '"login";q=10;w=60' in answer.headers["ratelimit-policy"]

    async def test_an_endpoint_has_a_limit_of_its_own(self, ada: Visitor, bob: Visitor) -> None:
        await ada.login()
        assert [(await ada.get("/demo/api/export")).status for _ in range(4)] == [200, 200, 200, 429]
        await bob.login("bob")
        assert (await bob.get("/demo/api/export")).status == 200

    async def test_another_sites_requests_use_up_nothing(self, ada: Visitor, valkey: Client) -> None:
        answer = await ada.ask("POST", "/demo/login", headers={"sec-fetch-site": "cross-site"})
        assert (answer.status, await valkey.dbsize()) == (403, 0)


class TestOneTrip:
    async def test_session_and_decision_are_one_request_to_the_store(
        self, http: aiohttp.ClientSession, rate_gateway: str
    ) -> None:
        async with await rest_client(rate_gateway) as rest, served(rest) as address:
            await rest.execute("FLUSHDB")
            ada = await Visitor(http, address).login()
            await ada.get("/demo/api/me")  # connects, and learns the store's clock
            trips = rest.stats.trips
            assert (await ada.get("/demo/api/me")).status == 200
            assert rest.stats.trips - trips == 1

    async def test_over_tcp_neither_waits_for_the_other(
        self, http: aiohttp.ClientSession, valkey_socket: str
    ) -> None:
        async with await clean_client(valkey_socket) as client:
            send = client.transport.execute
            story: list[str] = []

            async def execute(batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
                story.append("sent")
                replies = await send(batch, timeout=timeout)
                story.append("answered")
                return replies

            async with served(client) as address:
                ada = await Visitor(http, address).login()
                await ada.get("/demo/api/me")  # teaches the store the script
                client.transport.execute = execute  # type: ignore[method-assign]
                assert (await ada.get("/demo/api/me")).status == 200
                client.transport.execute = send  # type: ignore[method-assign]
        assert story == ["sent", "sent", "answered", "answered"]


class TestCache:
    async def test_a_campaign_comes_from_loader_store_and_memory_and_a_change_is_seen_at_once(
        self, ada: Visitor, http: aiohttp.ClientSession, valkey_socket: str
    ) -> None:
        await ada.login()
        path = f"/demo/api/campaigns/{await ada.make('Launch')}"

        async def read(visitor: Visitor) -> tuple[str, str, str]:
            answer = await visitor.get(path)
            assert int(answer.headers["age"]) >= 0
            return answer.headers["x-cache"], answer.headers["x-cache-tier"], answer.body["name"]

        # Another process on the same store, which accepts the same sessions.
        options = {"redis_url": f"unix://{valkey_socket}", "redis_command_timeout": 20}
        async with await _connected(options) as other, served(other) as elsewhere:
            also = Visitor(http, elsewhere, ada.headers)
            assert await read(ada) == ("MISS", "loader", "Launch")
            assert await read(also) == ("HIT", "store", "Launch")
            assert await read(ada) == ("HIT", "memory", "Launch")
            changed = await also.ask("PUT", path, json={"name": "Relaunch"})
            assert (changed.status, changed.body["name"]) == (200, "Relaunch")
            assert await read(also) == ("MISS", "loader", "Relaunch")
            async with asyncio.timeout(10):
                # The first process learns of it by the backplane, on its own connection.
                while (await read(ada))[2] != "Relaunch":
                    await asyncio.sleep(0.01)

    async def test_a_whole_response_is_kept_for_the_workspace_and_has_an_etag(
        self, ada: Visitor, bob: Visitor
    ) -> None:
        await ada.login()
        await bob.login("bob")
        first = await ada.get("/demo/api/report")
        second = await bob.get("/demo/api/report")
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
        assert first.body == second.body
        etag = first.headers["etag"]
        unchanged = await ada.get("/demo/api/report", if_none_match=etag)
        assert (unchanged.status, unchanged.headers["etag"], unchanged.body) == (304, etag, "")
        await bob.login("bob", "globex")
        await bob.make("Launch")
        assert (await bob.get("/demo/api/report")).headers["x-cache"] == "MISS"

    async def test_a_session_that_has_ended_gets_nothing_from_the_cache(self, ada: Visitor) -> None:
        await ada.login()
        cookie = ada.headers
        assert (await ada.get("/demo/api/report")).status == 200
        await ada.post("/demo/api/logout")
        ada.headers = cookie
        assert (await ada.get("/demo/api/report")).status == 401

    async def test_the_report_tells_what_was_looked_at(self, ada: Visitor) -> None:
        await ada.login()
        campaign_id = await ada.make("Launch")
        for _ in range(3):
            await ada.get(f"/demo/api/campaigns/{campaign_id}")
        report = (await ada.get("/demo/api/report")).body
        assert report == {"views_today": 3, "most_viewed": {campaign_id: 3}, "by_channel": {"video": 1}}


class TestPlans:
    async def state(self, visitor: Visitor, path: str, *states: str) -> Any:
        """A plan, once it is in one of these states."""
        async with asyncio.timeout(30):
            while (told := (await visitor.get(path)).body)["state"] not in states:
                await asyncio.sleep(0.02)
        return told

    async def test_an_agent_plans_step_by_step_and_tells_how_far_it_is(
        self, ada: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await ada.login()
        asked: list[int] = []
        go = asyncio.Event()

        async def model(budget: int) -> int:
            asked.append(budget)
            if len(asked) == 3:
                await go.wait()
            return budget // 4

        monkeypatch.setattr(tasks, "_ask_the_model", model)
        begun = await ada.post("/demo/api/plans", {"budget": 400})
        assert begun.status == 202
        assert begun.body["channels"] is None
        path = f"/demo/api/{begun.headers['location']}"
        async with asyncio.timeout(30):
            while (told := (await ada.get(path)).body)["progress"] != 0.5:
                await asyncio.sleep(0.02)
        assert (told["state"], told["message"]) == ("running", "looking at social")
        go.set()
        done = await self.state(ada, "/demo/api/plans/last", "done", "failed")
        assert done == {
            "id": begun.body["id"],
            "state": "done",
            "progress": 1.0,
            "message": "planned",
            "channels": dict.fromkeys(["email", "search", "social", "video"], 100),
        }
        assert asked == [400] * 4
        assert (await ada.ask("DELETE", path)).status == 409

    async def test_a_plan_at_work_is_cancelled(self, ada: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        await ada.login()
        ended: list[str] = []

        async def model(_budget: int) -> int:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return 0

        monkeypatch.setattr(tasks, "_ask_the_model", model)
        await ada.post("/demo/api/plans", {"budget": 400})
        await self.state(ada, "/demo/api/plans/last", "running")
        assert (await ada.ask("DELETE", "/demo/api/plans/last")).status == 202
        told = await self.state(ada, "/demo/api/plans/last", "cancelled", "done", "failed")
        assert told["state"] == "cancelled"
        assert told["channels"] is None

    async def test_nobody_sees_or_cancels_anothers(self, ada: Visitor, bob: Visitor) -> None:
        await ada.login()
        begun = await ada.post("/demo/api/plans", {"budget": 1})
        path = f"/demo/api/{begun.headers['location']}"
        assert (await bob.get(path)).status == 401
        await bob.login("bob", "globex")
        for asked in (
            await bob.get(path), await bob.ask("DELETE", path), await bob.get("/demo/api/plans/last"), await bob.get("/demo/api/plans/a%2Ab"),
        ):  # fmt: skip
            assert (asked.status, asked.headers["content-type"]) == (404, PROBLEM)
        assert (await ada.get(path)).status == 200

    @pytest.mark.parametrize("draft", [{}, {"budget": -1}, {"budget": "much"}, {"budget": 1, "to": "me"}])
    async def test_a_draft_that_is_not_good_begins_nothing(self, ada: Visitor, draft: dict[str, Any]) -> None:
        await ada.login()
        assert (await ada.post("/demo/api/plans", draft)).status == 422
        assert (await ada.get("/demo/api/plans/last")).status == 404


async def _connected(options: dict[str, Any]) -> Client:
    from redis_core import connect

    return await connect(**options)


@pytest.mark.parametrize(
    "draft", [{"name": " "}, {"name": "x" * 81}, {"name": "x", "channel": "fax"}, {"nam": "x"}]
)
async def test_a_draft_that_is_not_good_is_refused(ada: Visitor, draft: dict[str, str]) -> None:
    await ada.login()
    answers = [
        await ada.post("/demo/api/campaigns", draft),
        await ada.ask("POST", "/demo/campaigns", data=draft),
        await ada.ask("PUT", "/demo/api/campaigns/x", json=draft),
    ]
    assert [(one.status, one.headers["content-type"]) for one in answers] == [(422, PROBLEM)] * 3
    assert (await ada.get("/demo/api/campaigns")).body == []


class TestPage:
    async def test_its_forms_log_in_make_change_and_log_out(self, ada: Visitor) -> None:
        async def submit(path: str, **fields: str) -> str:
            answer = await ada.ask("POST", f"/demo/{path}", data=fields)
            assert answer.status == 303
            place: str = answer.headers["location"]
            return (await ada.get(place)).body  # type: ignore[no-any-return]

        assert "<h1>Campaigns of acme</h1>" in await submit("login", user="ada", workspace="acme")
        page = await submit("campaigns", name="<script>alert(1)</script>", channel="email")
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        (campaign_id,) = re.findall(r'href="\?look=(\w+)"', page)
        page = await submit(f"campaigns/{campaign_id}", name="Launch", channel="video")
        assert ("<option selected>video</option>" in page, "<script" in page) == (True, False)
        assert (await ada.ask("POST", "/demo/campaigns/none", data={"name": "x"})).status == 404
        assert "<h2>Log in</h2>" in await submit("logout")
        assert ada.headers == {}

    async def test_it_shows_devices_limits_and_the_tier_of_the_last_read(self, ada: Visitor) -> None:
        await ada.login()
        campaign_id = await ada.make("Launch")
        for tier in ("loader", "memory"):
            page = (await ada.get(f"/demo/?look={campaign_id}")).body
            assert f'came from the <span class="mark">{tier}</span>' in page
        assert 'value="598">598</meter>' in page
        assert page.count("<code>") == page.count("this one") == 1

    async def test_it_runs_no_scripts_and_is_not_kept(self, ada: Visitor) -> None:
        await ada.login()
        headers = (await ada.get("/demo/")).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline';")
        assert headers["cache-control"] == "no-store"
        assert (await ada.get("/demo")).status == 307

    async def test_a_form_without_end_is_refused(self, ada: Visitor) -> None:
        assert (await ada.ask("POST", "/demo/login", data={"user": "x" * 10_000})).status == 413

    def test_it_proposes_the_workspaces(self) -> None:
        assert "<option>acme</option><option>globex</option>" in render_login()


async def test_the_list_of_the_newest_is_bounded_and_forgets_what_expired(valkey: Client) -> None:
    campaigns = Campaigns(valkey.workspace("acme"))
    made = [await campaigns.create(f"n{number}", "email") for number in range(NEWEST + 5)]
    assert [campaign.id for campaign in await campaigns.newest()] == [
        one.id for one in made[: -NEWEST - 1 : -1]
    ]
    await valkey.delete(valkey.workspace("acme").keys.key("app", "campaign", made[-1].id))
    assert next(iter(await campaigns.newest())).id == made[-2].id
    assert await campaigns.look(made[-1].id) is None
    assert await campaigns.change(made[-1].id, "new", "email") is None


async def test_the_curl_lines_that_up_prints_work_as_printed(url: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not on the PATH")
    printed = _examples(Addresses(store="", mode="", api=url, demo=f"{url}/demo"))

    async def run(line: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", line, cwd=tmp_path, env=environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, err
        return out.decode()

    said = [(line, await run(line)) for line in printed]

    def of(path: str, pattern: str) -> list[str]:
        ((_, text),) = [
            (line, text) for line, text in said if f"{path};" in f"{line} ;" or f"{path} " in f"{line} "
        ]
        return re.findall(pattern, text, re.IGNORECASE | re.MULTILINE)

    status = r"^HTTP/1.1 (\d+)"
    assert of("/login", status) == ["200"]
    assert len(of("/login", r"^set-cookie: rf_session=v1\.acme\.")) == 1
    assert of("/devices", r'"current":(\w+)') == ["true"]
    assert of("/me", r'^ratelimit: "user";r=(\d+)') == ["599"]
    assert of("/export", status) == ["200", "200", "200", "429"]
    assert of("/campaigns/last", r"^x-cache-tier: (\w+)") == ["loader", "memory"]
    assert of("/report", r"^x-cache: (\w+)") == ["MISS", "HIT"]
    first, polled, second, ended = [text for line, text in said if "/plans" in line]
    assert [re.findall(r'"state":"(\w+)"', text)[0] for text in (first, second)] != ["done", "done"]
    assert set(re.findall(r'"channels":(\{[^}]*\}|null)', polled)) <= {
        "null",
        '{"email":100,"search":100,"social":100,"video":100}',
    }
    assert re.findall(r'"state":"(\w+)"', ended)[0] in {"waiting", "running", "cancelled"}
    assert of("/logout", status) == ["204"]
    assert '"login-required"' in await run(f"curl -s -b cookies.txt {url}/demo/api/me")


class TestVisitors:
    @pytest.fixture(autouse=True)
    def _hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(traffic, "PAUSE_SECONDS", (0.0, 0.005))
        monkeypatch.setattr(traffic, "AWAY_SECONDS", 0.05)

    @asynccontextmanager
    async def driving(self, url: str) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(traffic.drive(url))
        try:
            async with asyncio.timeout(30):
                yield task
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)

    async def test_they_make_sessions_limits_cache_and_refusals_to_see(
        self, http: aiohttp.ClientSession, url: str, valkey: Client
    ) -> None:
        keys: dict[str, int] = {}
        bearer = {"Authorization": f"Bearer {_TOKEN}"}
        async with self.driving(url) as task:
            while not (
                all(keys.get(name) for name in ("session", "rate", "cache", "app"))
                and valkey.service(_limiter).stats.refused
            ):
                assert not task.done()
                await asyncio.sleep(0.05)
                async with http.get(f"{url}/api/v1/admin/redis-stats", headers=bearer) as answer:
                    keys = {one["family"]: one["keys"] for one in (await answer.json())["families"]}

    async def test_they_leave_logins_for_who_tries_the_demo(
        self, ada: Visitor, url: str, valkey: Client
    ) -> None:
        async with self.driving(url):
            while valkey.service(_limiter).stats.allowed < 50:
                await asyncio.sleep(0.01)
            await ada.login()

    async def test_they_log_in_again_when_their_sessions_are_gone(self, url: str, valkey: Client) -> None:
        async def sessions() -> int:
            _, keys = await valkey.scan(match="ws:{*}:session:*", count=1000)
            return len(keys)

        async with self.driving(url):
            for _ in range(2):
                while await sessions() < len(traffic.VISITORS):
                    await asyncio.sleep(0.01)
                await valkey.execute("FLUSHALL")

    async def test_they_log_out_and_in(
        self, url: str, valkey: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(traffic, "REQUESTS_A_LOGIN", 3)
        caplog.set_level("INFO", "redis_core.session")
        async with self.driving(url):
            while "reason=logout" not in caplog.text:
                await asyncio.sleep(0.01)

    async def test_they_wait_for_a_service_that_is_away(self) -> None:
        with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as nobody:
            away = url_of(nobody)
        async with self.driving(away) as task:
            done, _ = await asyncio.wait([task], timeout=0.3)
            assert done == set()


async def test_the_demo_is_a_service_of_its_own_too(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCK_REDIS", "true")
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        address = url_of(listener)
        async with serve([Site(create_demo_app(), listener)]):
            ada = await Visitor(http, address).login()
            await ada.make("Launch")
            health = (await ada.get("/api/v1/health/redis")).body
    assert (health["mode"], health["degraded"]) == ("memory", True)


def test_the_demos_limits_are_those_of_paths_that_it_has(memory: Client) -> None:
    app = create_demo(memory, settings())
    paths = {getattr(route, "path", "") for route in app.routes} | set(app.openapi()["paths"])
    assert {"/api/login"} <= set(LIMITS.endpoints) & paths
