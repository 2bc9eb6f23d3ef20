"""`raptorflow workspace`, `backup` and `restore` as their users run them: processes of their own, some of them killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redis_core
from redis_core.audit import Actor
from redis_core.client import Client
from redis_core.portability import Portability
from redis_core.testing.fault_proxy import FaultProxy
from redis_core.transfer.batches import send
from redis_core.transfer.selection import keys_of

_BACKEND = Path(redis_core.__file__).parent.parent
_WITHIN = 40
"""Seconds; what takes longer hangs."""


def options(folder: Path, url: str) -> dict[str, Any]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {
        **kept,
        "PYTHONPATH": str(_BACKEND),
        "RAPTORFLOW_ENV": "test",
        "RAPTORFLOW_STATE_DIR": str(folder / "state"),
        "REDIS_URL": url,
        "REDIS_FAILOVER": "false",
        "REDIS_COMMAND_TIMEOUT": "30",
        "REDIS_CONNECT_TIMEOUT": "30",
    }
    return {"cwd": folder, "env": environment, "text": True, "start_new_session": True}


class Cli:
    """Runs the command line against one store."""

    def __init__(self, folder: Path, socket: str) -> None:
        self.folder = folder
        self.url = f"unix://{socket}"

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "redis_core", *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=_WITHIN,
            **options(self.folder, self.url),
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def start(self, url: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "redis_core", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options(self.folder, url)
        )


@pytest.fixture
def cli(tmp_path: Path, valkey_socket: str) -> Cli:
    return Cli(tmp_path, valkey_socket)


async def until(what: Callable[[], Any]) -> None:
    begun = time.monotonic()
    while not await what():
        assert time.monotonic() - begun < _WITHIN
        time.sleep(0.01)


async def fill(client: Client, count: int = 60) -> None:
    """Keys of many frames, of bytes that do not compress."""
    name = client.workspace("acme").keys.key
    for number in range(count):
        await client.set(name("app", f"k{number}"), os.urandom(50_000))
    await send(client, [("RPUSH", name("app", "list"), *(os.urandom(1000) for _ in range(2000)))])


async def content(client: Client) -> dict[str, Any]:
    keys = sorted({key async for key in keys_of(client, "acme")})
    return {
        key: await client.lrange(key, 0, -1) if key.endswith(":list") else await client.get(key)
        for key in keys
        if not key.endswith(":gen")
    }


async def test_an_export_that_is_interrupted_leaves_no_file(
    cli: Cli, valkey: Client, valkey_socket: str
) -> None:
    await fill(valkey)
    with FaultProxy(valkey_socket) as slow:
        slow.throttle(400_000)
        process = cli.start(slow.url, "workspace", "export", "acme", "f")

        async def writes() -> bool:
            part = cli.folder / "f.part"
            assert process.poll() is None, process.communicate()
            return part.exists()

        await until(writes)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=_WITHIN)
    assert process.returncode == 130, errors
    assert "Traceback" not in output + errors
    assert [each.name for each in cli.folder.iterdir() if each.name.startswith("f")] == []


async def test_an_import_that_is_killed_goes_on_where_it_was(
    cli: Cli, valkey: Client, valkey_socket: str
) -> None:
    await fill(valkey)
    before = await content(valkey)
    await Portability(valkey, Actor("test", "admin")).export("acme", cli.folder / "f")
    await valkey.flushdb()
    with FaultProxy(valkey_socket) as slow:
        slow.throttle(600_000)
        process = cli.start(slow.url, "workspace", "import", "f")

        async def has_written_frames() -> bool:
            assert process.poll() is None, process.communicate()
            marks = [key async for key in _marks(valkey)]
            reached = await valkey.get(marks[0]) if marks else None
            return reached is not None and int(reached.split()[0]) >= 3

        await until(has_written_frames)
        process.kill()
        process.communicate()
    assert 0 < len(await content(valkey)) < len(before)
    done = cli.json("workspace", "import", "f")
    assert (done["resumed"], done["verified"], done["keys"]) == (True, True, len(before))
    assert await content(valkey) == before
    assert [key async for key in _marks(valkey)] == []


async def _marks(client: Client) -> Any:
    from redis_core.commands import scan_iter

    async for key in scan_iter(client, "sys:import:*"):
        yield key


async def test_an_erasure_that_is_killed_is_ended_by_the_next(
    cli: Cli, valkey: Client, valkey_socket: str
) -> None:
    name = valkey.workspace("acme").keys.key
    await send(valkey, [("SET", name("app", f"key-{number:0100}"), b"v") for number in range(20_000)])
    with FaultProxy(valkey_socket) as slow:
        slow.throttle(600_000)
        process = cli.start(slow.url, "workspace", "erase", "acme", "--yes")

        async def has_begun() -> bool:
            assert process.poll() is None, process.communicate()
            return await valkey.dbsize() < 19_000

        await until(has_begun)
        process.kill()
        process.communicate()
    assert await valkey.dbsize() > 100
    assert cli.json("workspace", "erase", "acme", "--yes")["left"] == 0
    assert [key async for key in keys_of(valkey, "acme")] == []
