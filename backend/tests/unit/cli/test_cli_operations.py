"""The operator's commands against a real server: what they print, change and end with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from redis_core.api.admin_token import actor_of_token, admin_tokens
from redis_core.audit import Actor
from redis_core.cache import CacheRegion
from redis_core.cli.app import app
from redis_core.cli.exit_codes import ExitCode
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.errors import StoreUnavailable
from redis_core.keys import rate_key
from redis_core.metrics import Metrics
from redis_core.queue import task
from redis_core.session import Sessions
from redis_core.worker import Worker
from tests.stores import clean_client

PEPPERS = "a:" + "p" * 40
PROFILES = CacheRegion("profile", dict[str, int], ttl=60)
Cli = Callable[..., Result]


@task(queue="agents", retries=0)
async def bad(why: str = "no") -> None:
    raise ValueError(why)


@pytest.fixture
def cli(valkey_socket: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setenv("REDIS_URL", f"unix://{valkey_socket}")
    monkeypatch.setenv("SESSION_PEPPERS", PEPPERS)

    async def empty() -> None:
        async with await clean_client(valkey_socket):
            pass

    def run(*arguments: str, input: str | None = None) -> Result:
        # A command runs an event loop of its own, so not in the thread of the test's.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(CliRunner().invoke, app, arguments, input).result(30)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, empty()).result(10)
    return run


def told_text(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_flushing_asks_first(valkey: Client, cli: Cli) -> None:
    cache = valkey.workspace("acme").cache
    await cache.set(PROFILES, "1", {"n": 1})
    assert told(cli("cache", "flush", "acme", "--dry-run", "--json"))["matched"] == 1
    refused = cli("cache", "flush", "acme", "--json")
    assert refused.exit_code == ExitCode.DECLINED
    assert json.loads(refused.stdout)["error"]["code"] == "declined"
    assert cli("cache", "flush", "a:b", "--yes").exit_code == ExitCode.USAGE
    assert told(cli("cache", "flush", "acme", "profile", "--yes", "--json"))["changed"] == 1
    (entry,) = await valkey.xrevrange("sys:audit")
    assert json.loads(entry[1][b"entry"])["who"].startswith("cli:")


async def test_limits_are_shown_and_reset(valkey: Client, cli: Cli) -> None:
    for endpoint in ("/a", "/b"):
        await valkey.set(rate_key("u1", endpoint), "1", ex=60)
    assert len(told(cli("limits", "show", "u1", "--json"))["limits"]) == 2
    assert "rate:u1:/a" in cli("limits", "show", "u1").stdout
    assert told(cli("limits", "reset", "u1", "/a", "-y", "--json"))["changed"] == 1
    assert await valkey.exists(rate_key("u1", "/a"), rate_key("u1", "/b")) == 1
    assert "nothing to change" in cli("limits", "reset", "u2").stdout


async def test_sessions_are_shown_and_revoked(valkey: Client, cli: Cli) -> None:
    sessions = Sessions.from_settings(valkey, load_settings(mock_redis=True, session_peppers=PEPPERS))
    _, token = await sessions.create("u1", "acme")
    (shown,) = told(cli("sessions", "ls", "u1", "acme", "--json"))["sessions"]
    assert shown["handle"] in cli("sessions", "ls", "u1", "acme").stdout
    assert cli("sessions", "revoke", "u1", "--session", shown["handle"]).exit_code == ExitCode.USAGE
    assert told(cli("sessions", "revoke", "u1", "-w", "acme", "-y", "--json"))["changed"] == 1
    assert await sessions.get(token, consistency="strong") is None


async def test_queues_are_shown_and_their_jobs_changed(valkey: Client, cli: Cli) -> None:
    queue = valkey.workspace("acme").queue
    first = await queue.enqueue(bad)
    await Worker(valkey, [bad]).drain()
    later = await queue.enqueue(bad, delay=60)
    (figures,) = told(cli("queue", "ls", "--json"))["queues"]
    assert (figures["queue"], figures["unfinished"], figures["dead"]) == ("agents", 1, 1)
    assert "agents" in cli("queue", "ls").stdout
    assert later.id in cli("queue", "ls", "agents", "acme").stdout
    assert told(cli("queue", "show", "agents", "acme", first.id, "--json"))["state"] == "dead"
    assert "ValueError: no" in cli("queue", "show", "agents", "acme", first.id).stdout
    assert cli("queue", "show", "agents", "acme", "nothing").exit_code == ExitCode.UNHEALTHY
    assert told(cli("queue", "retry", "agents", "acme", "--dry-run", "--json"))["matched"] == 1
    assert told(cli("queue", "retry", "agents", "acme", "-y", "--json"))["changed"] == 1
    assert told(cli("queue", "cancel", "agents", "acme", later.id, "-y", "--json"))["changed"] == 1
    assert told(cli("queue", "pause", "agents", "-y", "--json"))["changed"] == 1
    assert told(cli("queue", "ls", "agents", "--json"))["queues"][0]["paused"]
    assert told(cli("queue", "resume", "agents", "--json"))["changed"] == 1
    assert cli("queue", "drain", "agents", "--timeout", "0").exit_code == ExitCode.UNHEALTHY
    await Worker(valkey, [bad]).drain()
    assert told(cli("queue", "drain", "agents", "--json"))["matched"] == 0
    assert told(cli("queue", "ls", "agents", "acme", "--state", "dead", "--json"))["jobs"]
    assert cli("queue", "ls", "agents", "acme", "--state", "bogus").exit_code == ExitCode.USAGE
    assert told(cli("queue", "delete", "agents", "acme", first.id, "-y", "--json"))["changed"] == 1
    assert told(cli("queue", "ls", "agents", "acme", "--state", "dead", "--json"))["jobs"] == []


async def test_metrics_and_stats(valkey: Client, cli: Cli) -> None:
    key = valkey.workspace("acme").keys.key("app", "x")
    for _ in range(20):
        await valkey.set(key, "1")
    await valkey.service(Metrics).recorder.flush()
    report = told(cli("metrics", "--json"))
    assert report["workspaces"] == [
        {"workspace": "acme", "commands": 20, "bytes": report["workspaces"][0]["bytes"], "cost": 0.0}
    ]
    assert report["traffic"]["operations"] >= 20
    assert report["processes"] == 1
    assert "acme" in cli("metrics").stdout
    families = told(cli("stats", "--json"))["families"]
    assert {family["family"]: family["keys"] for family in families if family["keys"]} == {
        "app": 1,
        "sys-metrics": 2,
    }
    assert "sys-metrics" in cli("stats").stdout


def test_a_token_s_name_is_refused_that_the_service_would_refuse(cli: Cli) -> None:
    assert cli("token", "Bob Smith").exit_code == ExitCode.USAGE


def test_a_token_that_was_made_is_accepted(cli: Cli) -> None:
    made = told(cli("token", "bob", "operator", "--json"))
    tokens = admin_tokens(load_settings(mock_redis=True, admin_tokens=made["entry"]))
    assert actor_of_token(tokens, made["token"]) == Actor("bob", "operator")
    assert made["token"] not in made["entry"]
    assert cli("token", "bob", "root").exit_code == ExitCode.USAGE


def test_usage_and_budget(cli: Cli) -> None:
    assert "has used nothing in 30 days" in cli("usage", "show", "acme").output
    assert told(cli("usage", "budget", "acme", "--day", "5", "--yes", "--json"))["changed"] == 1
    assert told(cli("usage", "show", "acme", "--days", "1", "--json"))["budget"]["day"] == 5
    assert "today: $0.00 of $5.00" in cli("usage", "show", "acme").output
    assert cli("usage", "budget", "acme", "--day", "-5").exit_code == 2
    assert cli("usage", "show", "no/workspace").exit_code == 2
    assert told(cli("usage", "budget", "acme", "--yes", "--json"))["changed"] == 1
    assert told(cli("usage", "show", "acme", "--json"))["budget"] is None


def test_bench_measures_the_store(cli: Cli, valkey_socket: str) -> None:
    document = told(cli("bench", "--calls", "10", "--json"))
    assert document["target"] == f"unix://{valkey_socket}"
    assert len(document["rows"]) == 6
    assert all(row["latency"]["p99_ms"] > 0 for row in document["rows"])
    table = cli("bench", "--calls", "10").stdout
    assert "pipeline of 100 GET" in table
    assert f"{document['commands']:,} commands were sent" in table


@pytest.mark.parametrize(
    "command",
    [
        "bench", "stats", "keys audit", "cache flush acme -y", "limits show u1", "limits reset u1 -y", "usage show acme",
        "sessions ls u1 acme", "sessions revoke u1 -y", "queue ls", "queue ls agents acme", "queue show agents acme j",
        "queue retry agents acme -y", "queue cancel agents acme -y", "queue pause agents -y", "queue resume agents",
        "queue drain agents", "workspace erase acme -y",
    ],
)  # fmt: skip
def test_a_store_that_is_away_is_told_and_memory_does_not_answer_for_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/at-all.sock")
    found = cli(*command.split()).exception
    assert isinstance(found, StoreUnavailable)


async def test_what_a_job_says_is_no_markup(valkey: Client, cli: Cli) -> None:
    job = await valkey.workspace("acme").queue.enqueue(bad, "cannot open [/tmp/x], see [red]more")
    await Worker(valkey, [bad]).drain()
    for shown in (
        cli("queue", "ls", "agents", "acme", "--state", "dead"),
        cli("queue", "show", "agents", "acme", job.id),
    ):
        assert "[/tmp/x], see [red]more" in " ".join(told_text(shown).split())
