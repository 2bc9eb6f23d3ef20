"""`raptorflow keys audit` as its users run it: a process that is killed and resumed, and users of few rights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

import redis_core
from redis_core.acl import AclUser, role_user
from redis_core.client import Client
from tests.store_users import make_user, user_url

_BACKEND: Final = Path(redis_core.__file__).parent.parent
_WITHIN: Final = 60
"""Seconds; what takes longer hangs."""
COUNT: Final = 400


class Audits:
    """Runs the command in an empty folder, with no settings but those of one store."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {
            **kept,
            "PYTHONPATH": str(_BACKEND),
            "RAPTORFLOW_ENV": "test",
            "RAPTORFLOW_STATE_DIR": str(folder / "state"),
            **settings,
        }

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "redis_core", "keys", "audit", *options],
            cwd=self._folder, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *options: str, code: int = 0) -> str:
        process = self.start(*options)
        out, err = process.communicate(timeout=_WITHIN)
        assert process.returncode == code, (process.returncode, out, err)
        assert "Traceback" not in out + err
        return out

    def document(self, *options: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("--json", "--rate", "1000000", *options, code=code))
        return found


@pytest.fixture
def audits(tmp_path: Path, valkey_socket: str) -> Audits:
    return Audits(tmp_path, REDIS_URL=f"unix://{valkey_socket}")


async def fill(client: Client, count: int = COUNT) -> None:
    """This many values of a cache, each third without an expiry, and one key of nobody's."""
    keys = client.workspace("acme").keys
    async with client.pipeline() as batch:
        for number in range(count):
            batch.set(keys.key("cache", "profile", f"u{number}"), "1", ex=None if number % 3 == 0 else 3600)
        batch.set("stray[red]\x1b[31m", "1")


async def test_it_leaves_nothing_in_the_store(valkey: Client, audits: Audits) -> None:
    assert audits.document() | {"time": ""} == {
        "time": "", "workspace": None, "keys_total": 0, "scanned": 0, "examined": 0, "complete": True,
        "estimated": False, "faults": 0, "families": [],
    }  # fmt: skip
    assert await valkey.dbsize() == 0


async def test_killed_it_goes_on_from_its_file(valkey: Client, audits: Audits, tmp_path: Path) -> None:
    await fill(valkey)
    kept = tmp_path / "audit.json"
    # Some two minutes' worth of commands: killed when the first page is in the file.
    process = audits.start("--resume", str(kept), "--rate", "10")
    try:
        until = time.monotonic() + _WITHIN
        while not kept.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = json.loads(kept.read_bytes())
    assert 0 < before["scanned"] < COUNT
    found = audits.document("--resume", str(kept), code=1)
    assert (found["scanned"], found["examined"], found["faults"]) == (COUNT + 1, COUNT + 1, 135)
    assert not kept.exists()


@pytest.mark.parametrize(
    "user",
    [
        role_user("auditor"),
        AclUser("reader", ("@read",), ("~*",)),
        AclUser("little", tuple("dbsize ping scan type pttl strlen".split()), ("~*",)),
    ],
    ids=lambda user: user.name,
)
async def test_a_user_that_may_only_read_is_enough(
    valkey: Client, tmp_path: Path, valkey_socket: str, user: AclUser
) -> None:
    await fill(valkey)
    await make_user(valkey, user)
    try:
        found = Audits(tmp_path, REDIS_URL=user_url(user.name, valkey_socket)).document(code=1)
    finally:
        await valkey.execute("ACL", "DELUSER", user.name)
    assert (found["scanned"], found["faults"], found["complete"]) == (COUNT + 1, 135, True)
    assert found["estimated"] == (user.name == "little")


async def test_a_user_that_may_not_even_scan_is_told_so(
    valkey: Client, tmp_path: Path, valkey_socket: str
) -> None:
    await valkey.execute("ACL", "SETUSER", "nobody", "reset", "on", ">geheim", "~*", "+get")
    try:
        Audits(tmp_path, REDIS_URL=f"unix://nobody:geheim@{valkey_socket}")(code=4)
    finally:
        await valkey.execute("ACL", "DELUSER", "nobody")
