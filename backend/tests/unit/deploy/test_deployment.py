"""What platforms are told: everything that is set, no secret, in commands that a shell reads as they are meant."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from redis_core.cli.app import app
from redis_core.config import load_settings
from redis_core.deployment import commands_for, variables_of

ROOT = Path(__file__).parents[4]
SECRETS = {
    "UPSTASH_REDIS_TOKEN": "token-geheim-1",
    "SESSION_PEPPERS": "p1:" + "geheim-2" * 5,
    "CACHE_KEYS": "1:" + "ab" * 32,
}


@pytest.fixture
def set_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOCK_REDIS", raising=False)
    monkeypatch.setenv("UPSTASH_REDIS_URL", "https://eu1-x.upstash.io")
    monkeypatch.setenv("REDIS_DEFAULT_TTL", "600")
    monkeypatch.setenv("QUEUE_SHARDS", '{"agents": 2}')
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("platform", ["vercel", "cloudrun"])
def test_the_command_prints_every_name_and_no_secret(set_here: None, platform: str) -> None:
    for form in ([], ["--json"]):
        done = CliRunner().invoke(app, ["env", "--for", platform, *form])
        assert done.exit_code == 0
        for name in (*SECRETS, "UPSTASH_REDIS_URL", "REDIS_DEFAULT_TTL", "RAPTORFLOW_ENV"):
            assert name in done.output
        for value in SECRETS.values():
            assert value not in done.output


def test_a_url_with_a_password_is_a_secret() -> None:
    told = variables_of(load_settings(redis_url="redis://user:geheim@db.example:6379/0"))
    url = next(variable for variable in told if variable.name == "REDIS_URL")
    assert (url.secret, url.value, url.set) == (True, None, True)
    assert "geheim" not in str(told)
    assert not any(variable.name.startswith("UPSTASH") for variable in told)


def test_what_is_needed_and_not_set_is_told() -> None:
    done = CliRunner().invoke(app, ["env", "--for", "vercel"], env={"MOCK_REDIS": "true"})
    assert (
        "Not set here, and needed there: UPSTASH_REDIS_URL, UPSTASH_REDIS_TOKEN, SESSION_PEPPERS"
        in done.output
    )


def test_values_reach_the_platform_as_they_are(set_here: None) -> None:
    variables = variables_of(load_settings())
    last = commands_for("cloudrun", variables)[-1]
    words = shlex.split(last)
    assert words[words.index("--set-env-vars") + 1].startswith("^@^RAPTORFLOW_ENV=production@")
    # The service watches them itself: what stands in the environment could not be replaced.
    assert (
        "UPSTASH_REDIS_TOKEN=sm://PROJECT/upstash-redis-token/latest"
        in words[words.index("--set-env-vars") + 1]
    )
    assert "--set-secrets" not in words
    shards = next(line for line in commands_for("vercel", variables) if "QUEUE_SHARDS" in line)
    assert json.loads(shlex.split(shards.split("|")[0])[-1]) == {"agents": 2}


def test_a_secret_that_is_kept_elsewhere_is_set_as_where_it_is(
    set_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_TOKEN", "sm://prod-1/token/latest")
    lines = commands_for("cloudrun", variables_of(load_settings()))
    assert "UPSTASH_REDIS_TOKEN=sm://prod-1/token/latest" in lines[-1]
    assert not any("upstash-redis-token" in line for line in lines)


def test_a_url_with_a_password_comes_from_the_environment() -> None:
    url = "redis://user:geheim@db.example:6379/0"
    last = commands_for("cloudrun", variables_of(load_settings(redis_url=url)))[-1]
    assert "REDIS_URL=redis-url:latest" in last


def _documents(name: str) -> list[str]:
    return (ROOT / "deploy" / name).read_text("utf-8").splitlines()


def test_what_the_deployment_files_set_is_a_setting() -> None:
    from redis_core.config import Settings

    known = {name.upper() for name in Settings.model_fields}
    own = {"STORE_PASSWORD"}
    found: set[str] = set()
    for line in _documents("compose.yaml"):
        name = line.strip().split(":")[0]
        if name.isupper() and "_" in name:
            found.add(name)
    for line in _documents("cloudrun.yaml"):
        if "name: " in line:
            name = line.split("name: ")[1].split(",")[0].split("}")[0].strip()
            if name.isupper():
                found.add(name)
    assert {"REDIS_URL", "SESSION_PEPPERS", "UPSTASH_REDIS_TOKEN", "RAPTORFLOW_PORT"} <= found
    assert found <= known | own


def test_the_image_runs_as_nobody_special_and_without_a_shell() -> None:
    lines: list[Any] = _documents("Dockerfile")
    assert "USER 10001" in lines
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert json.loads(entry.removeprefix("ENTRYPOINT ")) == ["raptorflow"]
    assert not any("TOKEN" in line or "PASSWORD" in line for line in lines)
