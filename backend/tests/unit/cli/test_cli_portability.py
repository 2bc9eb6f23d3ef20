"""`raptorflow workspace`, `backup` and `restore`: what they print, and how they end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from redis_core.cli.app import run
from redis_core.client import Client
from redis_core.transfer.selection import keys_of


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


Cli = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(
    valkey_socket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> Cli:
    monkeypatch.setenv("REDIS_URL", f"unix://{valkey_socket}")
    monkeypatch.setenv("REDIS_FAILOVER", "false")

    def ended(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["raptorflow", *arguments])
        with pytest.raises(SystemExit) as left, ThreadPoolExecutor(1) as thread:
            # A command runs an event loop of its own, so not in the thread of the test's.
            thread.submit(run).result(40)
        output = capsys.readouterr()
        return Ended(int(left.value.code or 0), output.out, output.err)

    return ended


def told(cli: Cli, *arguments: str) -> Any:
    done = cli(*arguments, "--json")
    assert done.code == 0, done
    return json.loads(done.stdout)


async def fill(client: Client) -> None:
    name = client.workspace("acme").keys.key
    for number in range(5):
        await client.set(name("app", f"k{number}"), os.urandom(50_000))
    await client.rpush(name("app", "list"), "a", "b", "a")


async def content(client: Client) -> dict[str, Any]:
    keys = sorted({key async for key in keys_of(client, "acme")})
    return {
        key: await client.lrange(key, 0, -1) if key.endswith(":list") else await client.get(key)
        for key in keys
        if not key.endswith(":gen")
    }


async def test_out_gone_and_in_again(cli: Cli, folder: Path, valkey: Client) -> None:
    await fill(valkey)
    before = await content(valkey)
    exported = told(cli, "workspace", "export", "acme", "acme.rft")
    assert exported["keys"] == {"app": {"list": 1, "string": 5}}
    again = cli("workspace", "import", "acme.rft")
    assert again.code == 5
    assert "say --replace" in again.stderr
    unasked = cli("workspace", "erase", "acme")
    assert unasked.code == 5
    assert "say --yes" in unasked.stderr
    assert await content(valkey) == before
    erased = cli("workspace", "erase", "acme", "--yes")
    assert erased.code == 0
    assert "0 keys left" in erased.stdout
    assert told(cli, "workspace", "erase", "acme", "--yes")["left"] == 0
    assert await content(valkey) == {}
    imported = cli("workspace", "import", "acme.rft")
    assert imported.code == 0, imported
    assert "6 keys written and verified" in imported.stdout
    assert await content(valkey) == before
    renamed = told(cli, "workspace", "import", "acme.rft", "--as", "beta")
    assert (renamed["workspace"], renamed["keys"], renamed["verified"]) == ("beta", 6, True)
    assert cli("workspace", "import", "acme.rft", "--as", "no:id").code == 2
    assert cli("backup", "all.rft").code == 0
    unasked = cli("restore", "all.rft", "--replace")
    assert unasked.code == 5
    restored = told(cli, "restore", "all.rft", "--replace", "--yes")
    assert restored["keys"] == 12
    assert await content(valkey) == before


async def test_a_damaged_file_is_refused_and_nothing_is_written(
    cli: Cli, folder: Path, valkey: Client
) -> None:
    await fill(valkey)
    told(cli, "workspace", "export", "acme", "f")
    await valkey.flushdb()
    whole = (folder / "f").read_bytes()
    wrong = bytearray(whole)
    wrong[len(wrong) // 2] ^= 1
    newer = whole.replace(b"raptorflow-transfer 1\n", b"raptorflow-transfer 9\n")
    for data, why in (
        (whole[: len(whole) // 2], "cut short"),
        (bytes(wrong), "checksum"),
        (newer, "newer version"),
        (b"hello", "no export or backup"),
    ):
        (folder / "f").write_bytes(data)
        done = cli("workspace", "import", "f", "--json")
        assert done.code == 1
        assert why in json.loads(done.stdout)["error"]["message"]
    assert await valkey.dbsize() == 0


class Terminal(StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


async def test_an_erasure_is_confirmed_by_typing_the_id(
    valkey: Client, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(valkey)
    monkeypatch.setattr(sys, "stdin", Terminal("acne\n"))
    assert cli("workspace", "erase", "acme").code == 5
    assert len(await content(valkey)) == 6
    monkeypatch.setattr(sys, "stdin", Terminal("acme\n"))
    done = cli("workspace", "erase", "acme")
    assert done.code == 0
    assert "0 keys left" in done.stdout
    assert await content(valkey) == {}
