"""The operations manual's variables and its deletions, each taken at its word."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from redis_core import Client, connect, load_settings
from redis_core.cache import CacheRegion
from redis_core.commands import scan_iter
from redis_core.errors import StoreOverloaded
from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from redis_core.session import Sessions
from tests.command_line import Cli
from tests.contract.rest import TOKEN, running_gateway
from tests.server_process import free_port

pytestmark = pytest.mark.timeout(120)

_PROFILES = CacheRegion("profile", dict[str, int])


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_the_upstash_variables_lead_to_the_store(cli: Cli, valkey_socket: str) -> None:
    with running_gateway(valkey_socket) as url:
        done = cli("health", "--json", MOCK_REDIS="", UPSTASH_REDIS_URL=url, UPSTASH_REDIS_TOKEN=TOKEN)
        wrong = cli("health", "--json", MOCK_REDIS="", UPSTASH_REDIS_URL=url, UPSTASH_REDIS_TOKEN="another")
    assert (done.returncode, json.loads(done.stdout)["mode"]) == (0, "upstash")
    assert (wrong.returncode, json.loads(wrong.stdout)["status"]) == (1, "fail")
    assert "another" not in wrong.stdout + wrong.stderr
    missing = cli("health", MOCK_REDIS="", UPSTASH_REDIS_URL="https://db.upstash.io")
    assert (missing.returncode, "UPSTASH_REDIS_TOKEN is not set" in missing.stderr) == (3, True)


def test_mock_redis_at_start_serves_from_memory(cli: Cli) -> None:
    dead = f"redis://127.0.0.1:{free_port()}"
    done = cli("health", "--json", MOCK_REDIS="true", UPSTASH_REDIS_URL=dead)
    document = json.loads(done.stdout)
    assert (done.returncode, document["status"], document["mode"]) == (0, "pass", "memory")
    assert document["degraded"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, redis7_socket: str, redis7: Client) -> Client:
    """A store that the environment names, and who looks into it."""
    monkeypatch.setenv("UPSTASH_REDIS_URL", f"unix://{redis7_socket}")
    monkeypatch.setenv("SESSION_PEPPERS", "a:" + "p" * 40)
    return redis7


async def test_redis_default_ttl_is_how_long_a_value_is_fresh(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_DEFAULT_TTL", "77")
    async with await connect() as client:
        await client.workspace("acme").cache.set(_PROFILES, "42", {"n": 1})
    (key,) = await _keys(store, "ws:{acme}:cache:*")
    assert 60 <= await store.ttl(key) <= 78 * 1.2  # what is cached lives up to a tenth more or less


async def test_redis_session_ttl_is_how_long_a_session_lives_unused(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_SESSION_TTL", "901")
    async with await connect() as client:
        await Sessions.from_settings(client, load_settings()).create("ada", "acme")
    (key,) = await _keys(store, "ws:{acme}:session:*")
    # The key outlives the session by a 24th, so that a touch need not be written each time.
    assert 901 <= await store.ttl(key) <= 901 * 25 / 24 + 1


@pytest.mark.parametrize("most", [1, 3])
async def test_redis_max_connections_bounds_blocking_connections(
    store: Client, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setenv("REDIS_MAX_CONNECTIONS", str(most))
    async with await connect() as client:
        keys = [client.workspace("acme").keys.key("app", f"list{number}") for number in range(4)]
        waits = (client.execute("BLPOP", key, 0.5) for key in keys)
        ended = await asyncio.gather(*waits, return_exceptions=True)
    refused = [one for one in ended if isinstance(one, StoreOverloaded)]
    assert (ended.count(None), len(refused)) == (most, 4 - most)


async def test_keys_begin_with_their_workspace(store: Client) -> None:
    async with await connect() as client:
        await client.workspace("acme").cache.set(_PROFILES, "42", {"n": 1})
        await client.set(client.workspace("globex").keys.key("app", "x"), "1")
    names = {key.decode() for key in await _keys(store, "ws:*")}
    assert names
    assert all(name.startswith(("ws:{acme}:", "ws:{globex}:")) for name in names)


async def test_deleting_a_users_limit_lets_it_in_again(store: Client) -> None:
    endpoint = "/api/v1/agents"
    async with await connect() as client:
        limiter = RateLimiter(client, RateLimits(rules=(Rule("sliding", "2/min"),)), remember_refusals=0)
        ann = Subject(user="user_id")
        assert [(await limiter.check(ann, endpoint)).allowed for _ in range(3)] == [True, True, False]
        assert await client.delete(f"rate:user_id:{endpoint}") >= 1
        assert (await limiter.check(ann, endpoint)).allowed
        await limiter.aclose()
    del store


async def test_deleting_a_workspaces_cache_leaves_others(store: Client) -> None:
    async with await connect() as client:
        for workspace in ("workspace_id", "globex"):
            await client.workspace(workspace).cache.set(_PROFILES, "42", {"n": 1})
        assert await client.delete("cache:workspace_id:*") == 1
        assert await client.workspace("workspace_id").cache.get(_PROFILES, "42") is None
        assert await client.workspace("globex").cache.get(_PROFILES, "42") == {"n": 1}
    del store


async def _keys(store: Client, pattern: str) -> list[bytes]:
    return [key async for key in scan_iter(store, pattern)]
