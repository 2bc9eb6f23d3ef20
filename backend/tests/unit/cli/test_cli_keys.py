"""`raptorflow keys audit`: what it prints, refuses and ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from redis_core.cli.app import app
from redis_core.cli.exit_codes import ExitCode
from redis_core.client import Client
from redis_core.key_audit import AuditState, KeyAuditor

COUNT = 300
Audit = Callable[..., Result]


@pytest.fixture
def audit(valkey: Client, valkey_socket: str, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.setenv("REDIS_URL", f"unix://{valkey_socket}")

    def run(*options: str) -> Result:
        arguments = ["keys", "audit", "--rate", "1000000", *options]
        # A command runs an event loop of its own, so not in the thread of the test's.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(CliRunner().invoke, app, arguments).result(60)

    return run


async def fill(client: Client) -> None:
    """Values of a cache, each third without an expiry, and one key of nobody's."""
    keys = client.workspace("acme").keys
    async with client.pipeline() as batch:
        for number in range(COUNT):
            batch.set(keys.key("cache", "profile", f"u{number}"), "1", ex=None if number % 3 == 0 else 3600)
        batch.set("stray[red]\x1b[31m", "1")


def told(result: Result, code: int) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


async def test_faults_end_it_with_1_and_are_shown_escaped(valkey: Client, audit: Audit) -> None:
    await fill(valkey)
    shown = audit()
    assert shown.exit_code == ExitCode.UNHEALTHY
    for text in ("no-expiry", "ownerless", r"stray[red]\x1b[31m", f"{COUNT + 1} keys", "101 faults"):
        assert text in shown.stdout
    assert "\x1b" not in shown.stdout
    found = told(audit("--json"), 1)
    assert (found["scanned"], found["complete"], found["faults"]) == (COUNT + 1, True, 101)


async def test_options_narrow_what_is_looked_at(valkey: Client, audit: Audit) -> None:
    await fill(valkey)
    assert told(audit("--json", "--workspace", "globex"), 0)["scanned"] == 0
    assert told(audit("--json", "--workspace", "acme"), 1)["faults"] == 100
    assert told(audit("--json", "--sample", "0"), 1)["faults"] == 1
    assert "names of all" in audit("--sample", "0").stdout
    assert told(audit("--json", "--max-bytes", "10"), 1)["faults"] == 101 + COUNT + 1


async def test_a_clean_store_ends_it_with_0(valkey: Client, audit: Audit) -> None:
    assert "No faults" in audit().stdout
    assert told(audit("--json"), 0)["families"] == []
    assert await valkey.dbsize() == 0


async def test_what_was_found_before_is_part_of_what_is_told(
    valkey: Client, audit: Audit, tmp_path: Path
) -> None:
    await fill(valkey)
    kept = tmp_path / "audit.json"
    begun = KeyAuditor(valkey, workspace="acme", rate=1_000_000)
    assert not (await begun.run(keys=100)).complete
    kept.write_bytes(begun.state.encode())
    # The file's workspace holds, though the command does not name it again.
    found = told(audit("--json", "--resume", str(kept)), 1)
    assert (found["workspace"], found["scanned"], found["faults"]) == ("acme", COUNT, 100)
    assert list(tmp_path.iterdir()) == []
    assert told(audit("--json", "--resume", str(kept)), 1)["faults"] == 101


@pytest.mark.parametrize("document", [b"no", AuditState("elsewhere:6379").encode()])
async def test_a_file_that_is_not_of_this_audit_is_refused_and_kept(
    audit: Audit, tmp_path: Path, document: bytes
) -> None:
    kept = tmp_path / "audit.json"
    kept.write_bytes(document)
    assert audit("--resume", str(kept)).exit_code == ExitCode.USAGE
    assert kept.read_bytes() == document


async def test_options_other_than_the_files_are_refused(valkey: Client, audit: Audit, tmp_path: Path) -> None:
    kept = tmp_path / "audit.json"
    kept.write_bytes(KeyAuditor(valkey, workspace="acme").state.encode())
    refused = audit("--resume", str(kept), "--workspace", "globex")
    assert refused.exit_code == ExitCode.USAGE
    assert "another workspace" in refused.output
    assert kept.exists()


async def test_wrong_arguments_end_it_with_2(audit: Audit, tmp_path: Path) -> None:
    for options in (
        ["--workspace", "a b"],
        ["--rate", "0"],
        ["--resume", str(tmp_path / "no" / "audit.json")],
    ):
        assert audit(*options).exit_code == ExitCode.USAGE
