"""`raptorflow drill blackout` against a running `raptorflow up`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.drill import Drill
from tests.command_line import Cli
from tests.server_process import ServerProcess, free_port
from tests.stores import valkey_binary


def settings_for(server: ServerProcess) -> dict[str, str]:
    return {
        "MOCK_REDIS": "false",
        "REDIS_URL": server.url,
        "RAPTORFLOW_PORT": str(free_port()),
        "GATEWAY_PORT": str(free_port()),
    }


def step(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in report["steps"] if each["name"] == name]
    return dict(found)


@pytest.mark.timeout(180)
def test_a_blackout_of_a_running_service_loses_nothing(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with ServerProcess(valkey_binary()) as server:
        settings = settings_for(server)
        with cli.serving("up", "--no-demo", **settings) as (_, addresses):
            refused = cli("drill", "blackout", "--url", addresses["api"], "--json", **settings)
            assert refused.returncode == 4
            assert "admin-login" in refused.stdout
            settings["ADMIN_TOKEN"] = addresses["tokens"]["ADMIN_TOKEN"]
            done = cli(
                "drill", "blackout", "--url", addresses["api"], "--seconds", "0.6", "--json", **settings
            )
            report = json.loads(done.stdout)
            assert done.returncode == 0, report
            assert report["passed"]
            assert {each["status"] for each in report["steps"]} == {"pass"}
            assert report["jobs"] >= 30
            assert (report["lost"], report["doubled"]) == (0, 0)
            assert step(report, "away-1")["told"].startswith(
                "mode degraded, read what was written, 10 jobs (10 in the journal)"
            )
            assert step(report, "health while away")["told"].endswith("degraded true")
            # As people see it, and the service is as it was.
            shown = cli("drill", "blackout", "--url", addresses["api"], "--seconds", "0", **settings)
            assert shown.returncode == 0
            assert "Passed: away" in shown.stdout
            assert "20 of 20 jobs ran, 0 lost, 0 doubled, in order" in shown.stdout


@pytest.mark.timeout(120)
def test_a_service_without_a_store_is_not_taken_through_it(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    ports = {"RAPTORFLOW_PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
    with cli.serving("up", "--no-demo", **ports) as (_, addresses):
        done = cli(
            "drill",
            "blackout",
            "--url",
            addresses["api"],
            "--json",
            ADMIN_TOKEN=addresses["tokens"]["ADMIN_TOKEN"],
        )
        report = json.loads(done.stdout)
        assert done.returncode == 1
        assert [each["name"] for each in report["steps"]] == ["identify"]
        assert "a drill needs a store that is there" in report["steps"][0]["told"]
    nobody = cli("drill", "blackout", "--url", f"http://127.0.0.1:{free_port()}", "--json")
    assert nobody.returncode == 4
    assert "no service answers" in json.loads(nobody.stdout)["error"]["message"]
    wrong = cli("drill", "blackout", "--url", "ftp://somewhere")
    assert wrong.returncode == 2


async def test_what_is_lost_doubled_or_left_over_shows(valkey_socket: str, tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, redis_url=f"unix://{valkey_socket}", journal_path=tmp_path / "journal"
    )  # type: ignore[call-arg]
    async with await connect(settings) as client:
        await client.flushdb()
        drill = Drill(client, "run")
        before = await drill.round("before", 3)
        assert (before.read_back, before.spooled, before.errors) == (True, 0, [])
        client.outage.force(True)
        away = await drill.round("away", 3)
        assert (away.mode, away.read_back, away.spooled) == ("degraded", True, 3)
        client.outage.force(False)
        await settled(client)
        # What must not be: a job that is gone, and what only memory was told in the store.
        await client.set(client.workspace("raptorflow-drill").keys.key("app", "run", "away"), "leaked")
        await client.delete(client.workspace("raptorflow-drill").keys.key("app", "run", "before"))
        verdict = await drill.verdict([*before.jobs, "a" * 16, *away.jobs], ["away"])
        assert verdict.lost == ["a" * 16]
        assert (verdict.ran, verdict.doubled, verdict.in_order) == (6, [], True)
        assert (verdict.value_kept, verdict.memory_forgotten) == (False, False)
        again = await drill.verdict(before.jobs, [])
        assert again.lost == []


async def settled(client: Client) -> None:
    async with asyncio.timeout(30):
        while client.outage.state != "healthy" or client.outage.figures.waiting:
            await asyncio.sleep(0.01)
