"""The whole service behind a real uvicorn on a real port, in front of real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import aiohttp
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.types import Receive, Scope, Send

from redis_core import Client, connect, get_redis
from redis_core.acl import role_user
from redis_core.api.admin_token import admin_entry
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.config import Settings, load_settings
from redis_core.errors import ConfigError
from tests.leaks import nothing_leaks
from tests.server_process import ServerProcess, free_port
from tests.store_users import make_user, user_url
from tests.stores import valkey_binary

_TOKEN = "a-token-of-this-test"
_ADMIN = {"Authorization": f"Bearer {_TOKEN}"}
_ENTRY = admin_entry("tester", "viewer", _TOKEN)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[aiohttp.ClientSession]:
    """The app on a free port, and a client of it that shows no credential."""
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        url = url_of(listener)
        async with serve([Site(app, listener)]), aiohttp.ClientSession(url) as http:
            yield http


@pytest.fixture
async def settings(valkey: Client, valkey_socket: str) -> Settings:
    # `valkey` for its clean database, in which the service is `app`.
    await make_user(valkey, role_user("app"))
    return load_settings(redis_url=user_url("app", valkey_socket), admin_tokens=_ENTRY)


async def test_health_tells_mode_latency_and_version(settings: Settings) -> None:
    async with (
        served(create_app(settings)) as http,
        http.get("/api/v1/health/redis", headers=_ADMIN) as response,
    ):
        document = await response.json(content_type="application/health+json")
    assert response.status == 200
    assert response.headers["cache-control"] == "no-store"
    assert (document["status"], document["mode"], document["degraded"]) == ("pass", "tcp", False)
    assert document["store"]["server"] == "valkey"
    (latency,) = document["checks"]["redis:responseTime"]
    assert latency["observedValue"] > 0
    assert latency["observedUnit"] == "ms"


async def test_when_the_store_dies_health_fails_and_live_passes_and_all_is_well_when_it_returns() -> None:
    with ServerProcess(valkey_binary()) as server:
        settings = load_settings(redis_url=server.url, redis_failover=False, admin_tokens=_ENTRY)
        async with served(create_app(settings)) as http:

            async def status(probe: str) -> int:
                async with http.get("/api/v1/health/redis", params={"probe": probe}) as response:
                    await response.read()
                    return response.status

            assert [await status(probe) for probe in ("live", "ready", "detail")] == [200, 200, 200]
            server.kill()
            assert [await status(probe) for probe in ("live", "detail")] == [200, 503]
            async with http.get("/api/v1/admin/redis-metrics", headers=_ADMIN) as response:
                metrics = await response.json()
            assert (response.status, metrics["connection"]["reachable"], metrics["server"]) == (
                200,
                False,
                None,
            )
            assert metrics["transport"]["errors_total"] > 0
            async with http.get("/api/v1/admin/redis-stats", headers=_ADMIN) as response:
                problem = await response.json(content_type="application/problem+json")
            assert (response.status, problem["code"]) == (503, "store-unavailable")
            assert str(server.port) not in str(problem)
            server.start()
            async with asyncio.timeout(20):
                while await status("detail") != 200:
                    await asyncio.sleep(0.05)


async def test_a_service_that_goes_on_without_its_store_says_so_and_stays_in_service(tmp_path: Path) -> None:
    with ServerProcess(valkey_binary()) as server:
        settings = load_settings(redis_url=server.url, journal_path=tmp_path / "journal")
        async with await connect(settings) as client, served(create_app(settings, client=client)) as http:

            async def health(probe: str) -> tuple[int, str, str, bool]:
                async with http.get("/api/v1/health/redis", params={"probe": probe}) as response:
                    document = await response.json(content_type="application/health+json")
                    return response.status, document["status"], document["mode"], document["degraded"]

            await client.set("k", "v")
            assert await health("detail") == (200, "pass", "tcp", False)
            server.kill()
            await client.get("k")
            # Memory answers the service's own reads; the probe asks the store, and is not taken in by it.
            assert client.mode == "degraded"
            assert await client.set("k", "memory's")
            for probe in ("ready", "detail"):
                assert await health(probe) == (200, "warn", "degraded", True)
            assert (await health("live"))[:2] == (200, "pass")
            server.start()
            async with asyncio.timeout(30):
                while await health("detail") != (200, "pass", "tcp", False):
                    await asyncio.sleep(0.05)
            assert await client.get("k") is None


async def test_a_store_that_hangs_fails_health_within_its_budget() -> None:
    with ServerProcess(valkey_binary()) as server:
        settings = load_settings(
            redis_url=server.url, redis_command_timeout=60, redis_failover=False, admin_tokens=_ENTRY
        )
        async with served(create_app(settings)) as http:
            await (await http.get("/api/v1/health/redis")).read()
            server.freeze()
            async with asyncio.timeout(20):
                for probe in ("ready", "detail"):
                    async with http.get(
                        "/api/v1/health/redis", params={"probe": probe}, headers=_ADMIN
                    ) as response:
                        document = await response.json(content_type="application/health+json")
                    assert response.status == 503
                    assert "DeadlineExceeded" in document["output"]
            server.thaw()


async def test_metrics_show_what_was_sent(settings: Settings) -> None:
    async with await connect(settings) as client, served(create_app(settings, client=client)) as http:
        keys = client.workspace("acme").keys
        for number in range(10):
            await client.set(keys.key("app", f"k{number}"), "x", ex=60)
        await client.get(keys.key("app", "nothing"))
        for _ in range(3):
            async with http.get("/api/v1/admin/redis-metrics", headers=_ADMIN) as response:
                metrics = await response.json()
    assert metrics["connection"] == {
        "mode": "tcp",
        "target": metrics["connection"]["target"],
        "reachable": True,
        "error": None,
        "connects_total": 1,
    }
    assert metrics["transport"]["commands_total"] >= 11
    assert metrics["latency"]["samples"] == 3
    assert 0 < metrics["latency"]["p50_ms"] <= metrics["latency"]["p99_ms"]
    assert metrics["memory"]["used_bytes"] > 0
    assert metrics["server"]["keyspace_misses_total"] >= 1


async def test_statistics_need_a_user_that_lists_keys(settings: Settings) -> None:
    async with (
        served(create_app(settings)) as http,
        http.get("/api/v1/admin/redis-stats", headers=_ADMIN) as response,
    ):
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["code"], problem["outcome"]) == (503, "store-refuses-us", "not_sent")


async def test_statistics_count_the_families(valkey: Client, valkey_socket: str) -> None:
    settings = load_settings(redis_url=f"unix://{valkey_socket}", admin_tokens=_ENTRY)
    async with await connect(settings) as client, served(create_app(settings, client=client)) as http:
        await client.set(client.workspace("acme").keys.key("app", "a"), "x", ex=60)
        async with http.get("/api/v1/admin/redis-stats", params={"limit": 100}, headers=_ADMIN) as response:
            stats = await response.json()
        async with http.get("/api/v1/admin/redis-stats", params={"limit": 0}, headers=_ADMIN) as response:
            problem = await response.json(content_type="application/problem+json")
    assert (stats["keys_total"], stats["complete"], stats["ttl"]["coverage"]) == (1, True, 1.0)
    assert {family["family"]: family["keys"] for family in stats["families"]}["app"] == 1
    assert (response.status, problem["errors"][0]["parameter"]) == (422, "query limit")


async def test_health_keeps_details_from_strangers(settings: Settings) -> None:
    async with served(create_app(settings)) as http:
        documents = [
            await (await http.get("/api/v1/health/redis", headers=headers)).json(content_type=None)
            for headers in ({}, _ADMIN)
        ]
    assert [document["status"] for document in documents] == ["pass", "pass"]
    assert ["store" in document for document in documents] == [False, True]
    dead = load_settings(redis_url=f"redis://127.0.0.1:{free_port()}", redis_failover=False)
    async with (
        served(create_app(dead)) as http,
        http.get("/api/v1/health/redis") as response,
    ):
        text = await response.text()
    assert response.status == 503
    assert "127.0.0.1" not in text


@pytest.mark.parametrize("environment", ["development", "production"])
async def test_admin_is_off_until_a_credential_is_set(valkey_socket: str, environment: str) -> None:
    settings = load_settings(raptorflow_env=environment, redis_url=f"unix://{valkey_socket}")
    async with served(create_app(settings)) as http:
        for path in ("redis-metrics", "redis-stats", "whoami", "audit"):
            async with http.get(f"/api/v1/admin/{path}") as response:
                problem = await response.json(content_type="application/problem+json")
            assert (response.status, problem["code"]) == (403, "admin-off")
            assert "ADMIN_TOKENS" in problem["detail"]


async def test_an_unknown_path_and_method_are_problems(settings: Settings) -> None:
    async with (
        served(create_app(settings)) as http,
        http.get("/nothing") as missing,
        http.delete("/api/v1/health/redis") as wrong,
    ):
        assert (missing.status, missing.content_type) == (404, "application/problem+json")
        assert (wrong.status, wrong.content_type) == (405, "application/problem+json")
        assert wrong.headers["allow"] == "GET"


async def test_routes_that_ask_for_the_client_get_the_services_own(settings: Settings) -> None:
    router = APIRouter()

    @router.get("/who")
    async def who(redis: Annotated[Client, Depends(get_redis)]) -> bool:
        return redis is client

    async with await connect(settings) as client:
        app = create_app(settings, client=client, routers=[router])
        async with served(app) as http, http.get("/who") as response:
            assert await response.json() is True
        # What was lent is still open.
        assert await client.ping()


async def test_the_services_own_client_ends_with_it(settings: Settings) -> None:
    async with (
        nothing_leaks(),
        served(create_app(settings)) as http,
        http.get("/api/v1/health/redis") as response,
    ):
        assert response.status == 200


def test_a_taken_port_names_the_variable() -> None:
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="another program listens there") as refused:
            bind("127.0.0.1", port, port_variable="GATEWAY_PORT")
    assert (refused.value.variable, refused.value.value) == ("GATEWAY_PORT", str(port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_this_one_names_the_variable(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        bind(host, 0, port_variable="RAPTORFLOW_PORT")
    assert refused.value.variable == "RAPTORFLOW_HOST"


def test_the_url_is_one_that_works_from_this_host() -> None:
    with bind("0.0.0.0", 0, port_variable="RAPTORFLOW_PORT") as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
    with bind("::1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        assert url_of(listener).startswith("http://[::1]:")


async def test_an_app_that_does_not_start_ends_the_serving_with_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        async with nothing_leaks():
            with pytest.raises(RuntimeError, match="did not start"):
                async with serve([Site(app, listener)]):
                    pytest.fail("it serves")
