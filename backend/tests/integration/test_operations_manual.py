"""The operations manual, run: each row of docs/operations.md names a test, and most of them are here.

The service is `raptorflow up` as a process of its own in a folder with `backend/.env.production`, the store a redis-server that is
killed and started again.
"""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import redis_core
from redis_core.cache import CacheRegion
from redis_core.transport.memory import MockRedisClient
from tests.command_line import WITHIN, Cli
from tests.deployment import HEALTH, Deployment
from tests.server_process import ServerProcess, free_port
from tests.stores import redis7_binary, valkey_binary

pytestmark = pytest.mark.timeout(120)

_ROOT = Path(redis_core.__file__).parents[2]
_PAGE = _ROOT / "docs" / "operations.md"
_FELL_BACK = "Redis connection failed - falling back to Mock Mode"
_PROFILES = CacheRegion("profile", dict[str, int])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ServerProcess(redis7_binary() or valkey_binary()) as store:
        deployment = Deployment(tmp_path_factory.mktemp("deployment"), store)
        deployment.start()
        try:
            yield deployment
        finally:
            deployment.stop()


@pytest.fixture
def deployment(running: Deployment) -> Deployment:
    running.until(lambda: running.stands() == ("pass", "tcp", False))
    return running


# --- files ---


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("client", "Client"),
        ("session", "Sessions"),
        ("cache", "CacheRegion"),
        ("rate_limit", "RateLimiter"),
        ("rate_limit_config", "LIMITS"),
        ("queue", "Queue"),
        ("pubsub", "Topic"),
    ],
)
def test_the_manuals_modules_are_where_it_says(module: str, name: str) -> None:
    file = _ROOT / "backend" / "redis_core" / f"{module}.py"
    assert file.is_file()
    loaded = importlib.import_module(f"redis_core.{module}")
    assert hasattr(loaded, name)


def test_the_mock_client_is_where_the_manual_says() -> None:
    assert MockRedisClient().mode == "memory"


def test_the_verification_passes_against_the_deployment(deployment: Deployment) -> None:
    script = _ROOT / "backend" / "tests" / "integration" / "test_redis_integration.py"
    done = subprocess.run(
        [sys.executable, str(script), "--json"],
        check=False,
        capture_output=True,
        timeout=WITHIN,
        **deployment.cli.options(deployment.settings),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["passed"], len(report["checks"])) == (8, 8)
    assert str(deployment.store.port) in report["store"]


# --- endpoints ---


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on the PATH")
def test_health_by_curl(deployment: Deployment) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-X", "GET", f"{deployment.url}{HEALTH}", "-w", "\n%{http_code} %{content_type}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    document, ended = done.stdout.rsplit("\n", 1)
    assert ended == "200 application/health+json"
    assert json.loads(document)["status"] == "pass"
    # Without a credential nobody is told which server it is.
    assert "store" not in json.loads(document)


@pytest.mark.parametrize("probe", ["live", "ready", "detail"])
def test_each_probe_answers(deployment: Deployment, probe: str) -> None:
    status, document = deployment.health(probe)
    assert (status, document["status"], document["degraded"]) == (200, "pass", False)
    assert ("store" in document) == (probe == "detail")


def test_the_metrics_endpoint_needs_a_viewer_and_tells_of_the_store(deployment: Deployment) -> None:
    assert deployment.ask("/api/v1/admin/redis-metrics")[0] == 401
    status, report = deployment.ask("/api/v1/admin/redis-metrics", "viewer")
    assert (status, report["connection"]["mode"], report["connection"]["reachable"]) == (200, "tcp", True)
    assert report["alarms"] == []
    assert report["memory"]["used_bytes"] > 0
    done = deployment.run("metrics", "--json")
    assert (done.returncode, json.loads(done.stdout)["connection"]["mode"]) == (0, "tcp")


def test_the_statistics_endpoint_counts_families(deployment: Deployment) -> None:
    assert deployment.ask("/api/v1/admin/redis-stats")[0] == 401

    def families() -> dict[str, int]:
        status, stats = deployment.ask("/api/v1/admin/redis-stats", "viewer")
        assert status == 200
        return {family["family"]: family["keys"] for family in stats["families"]}

    deployment.until(lambda: families()["session"] >= 2)  # the demo's visitors
    done = deployment.run("stats", "--json")
    assert (done.returncode, json.loads(done.stdout)["keys_total"] > 0) == (0, True)


def test_prometheus_scrapes_with_a_viewers_token(deployment: Deployment) -> None:
    token = deployment.tokens["viewer"]
    request = urllib.request.Request(
        f"{deployment.url}/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=WITHIN) as answer:
        assert "redis_core_commands_total " in answer.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{deployment.url}/metrics", timeout=WITHIN)


def test_the_dashboard_is_at_its_place(deployment: Deployment) -> None:
    with urllib.request.urlopen(f"{deployment.url}/admin/performance/", timeout=WITHIN) as answer:
        page = answer.read().decode()
        policy = answer.headers["content-security-policy"]
    assert "<title>Performance" in page
    assert policy.startswith("default-src 'none'; script-src 'self'")


def test_a_token_is_made_by_command_and_its_role_holds(deployment: Deployment) -> None:
    assert deployment.ask("/api/v1/admin/whoami", "operator")[1] == {"who": "operator-1", "role": "operator"}
    assert deployment.ask("/api/v1/admin/mock?on=true", "viewer", "PUT")[0] == 403
    assert deployment.stands() == ("pass", "tcp", False)


# --- log patterns ---


def test_hits_and_misses_are_in_the_log(deployment: Deployment) -> None:
    deployment.until(lambda: {"Redis HIT", "Redis MISS"} <= set(deployment.events()))


# --- procedures ---


def test_mock_redis_in_the_file_switches_a_running_service_and_back(deployment: Deployment) -> None:
    before = deployment.env_file.read_text()
    # The manual's command, word for word.
    subprocess.run(
        ["sh", "-c", 'echo "MOCK_REDIS=true" >> backend/.env.production'],
        check=True,
        cwd=deployment.env_file.parents[1],
    )
    deployment.until(lambda: deployment.stands() == ("warn", "degraded", True))
    status, report = deployment.ask("/api/v1/admin/redis-metrics", "viewer")
    assert (status, [alarm["code"] for alarm in report["alarms"]]) == (200, ["mock-mode"])
    assert deployment.health("ready")[0] == 200
    deployment.env_file.write_text(before)
    deployment.until(lambda: deployment.stands() == ("pass", "tcp", False))
    assert deployment.is_the_same_process


def test_mock_by_command_with_a_token(deployment: Deployment) -> None:
    def mock(word: str, role: str = "operator") -> subprocess.CompletedProcess[str]:
        return deployment.run("mock", word, "--token", deployment.tokens[role], "--json")

    assert json.loads(mock("status", "viewer").stdout)["on"] is False
    refused = mock("on", "viewer")
    assert (refused.returncode, "403" in refused.stdout + refused.stderr) == (4, True)
    assert json.loads(mock("on").stdout)["on"] is True
    assert deployment.stands() == ("warn", "degraded", True)
    assert json.loads(mock("off").stdout)["on"] is False
    deployment.until(lambda: deployment.stands() == ("pass", "tcp", False))

    def audited() -> list[tuple[str, str]]:
        entries = deployment.ask("/api/v1/admin/audit?count=2", "viewer")[1]["entries"]
        return [(entry["action"], entry["who"]) for entry in entries]

    assert deployment.events().count("changed by an operator") >= 2
    # The second one follows when the store serves again.
    deployment.until(lambda: audited() == [("mock.off", "operator-1"), ("mock.on", "operator-1")])


def test_identify_switch_restore(deployment: Deployment) -> None:
    # The store dies.
    told = deployment.events().count(_FELL_BACK)
    deployment.store.kill()
    deployment.until(lambda: deployment.stands() == ("warn", "degraded", True))

    # Identify: the log says so in the manual's words, once; health and the report tell the same; the doctor fails.
    assert deployment.events().count(_FELL_BACK) == told + 1
    assert [deployment.health(probe)[0] for probe in ("live", "ready", "detail")] == [200, 200, 200]
    status, report = deployment.ask("/api/v1/admin/redis-metrics", "viewer")
    assert (status, report["connection"]["reachable"]) == (200, False)
    assert "degraded" in [alarm["code"] for alarm in report["alarms"]]
    assert report["outage"]["state"] == "degraded"
    metrics = deployment.run("metrics", "--json")
    assert (metrics.returncode, json.loads(metrics.stdout)["alarms"][0]["code"]) == (1, "store-down")
    assert deployment.run("doctor").returncode == 1
    with urllib.request.urlopen(f"{deployment.url}/demo/", timeout=WITHIN) as page:
        assert page.status == 200

    # Switch: an operator keeps memory in charge, whatever the store does.
    on = deployment.run("mock", "on", "--token", deployment.tokens["operator"], "--json")
    assert json.loads(on.stdout)["on"] is True
    deployment.store.start()
    assert deployment.stands() == ("warn", "degraded", True)

    # Restore: the store first, then the switch; the same process serves from it again, and says how long it was.
    deployment.run("mock", "off", "--token", deployment.tokens["operator"])
    deployment.until(lambda: deployment.stands() == ("pass", "tcp", False))
    assert deployment.is_the_same_process
    report = deployment.ask("/api/v1/admin/redis-metrics", "viewer")[1]
    assert report["outage"]["outages_total"] >= 1
    assert (report["outage"]["waiting"], report["outage"]["quarantined"]) == (0, 0)
    assert deployment.run("doctor").returncode == 0


def test_without_failover_a_dead_store_takes_the_service_out_of_the_balancer(cli: Cli) -> None:
    dead = f"redis://127.0.0.1:{free_port()}"
    with cli.serving(
        *("up", "--port", "0", "--no-gateway", "--no-demo"),
        MOCK_REDIS="",
        REDIS_URL=dead,
        REDIS_FAILOVER="false",
    ) as (process, addresses):
        codes = []
        for probe in ("live", "ready", "detail"):
            try:
                with urllib.request.urlopen(f"{addresses['api']}{HEALTH}?probe={probe}") as answer:
                    codes.append(answer.status)
            except urllib.error.HTTPError as error:
                error.close()
                codes.append(error.code)
        process.send_signal(signal.SIGTERM)
    assert codes == [200, 503, 503]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
