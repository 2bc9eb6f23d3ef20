"""`raptorflow up` as a process of its own, its secrets in files: replaced while it runs, by the command, with callers who never stop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import redis_core
from redis_core.api.admin_token import hash_of

_BACKEND = Path(redis_core.__file__).parent.parent
# The same program, which looks for new secrets ten times a second instead of each minute.
_QUICK = (
    "from redis_core import secret_watch; secret_watch.POLL = 0.1; from redis_core.cli.app import run; run()"
)


class Program:
    """The command line in a folder, with secrets in files."""

    def __init__(self, folder: Path) -> None:
        self.admin, self.gateway = folder / "admin-tokens", folder / "gateway-token"
        self.admin.write_text(f"ada:operator:{hash_of('admin-0')}")
        self.gateway.write_text("gateway-0")
        self._folder = folder
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(_BACKEND),
            "RAPTORFLOW_ENV": "test",
            "RAPTORFLOW_STATE_DIR": str(folder / "state"),
            "MOCK_REDIS": "true",
            "ADMIN_TOKENS": f"file://{self.admin}",
            "GATEWAY_TOKEN": f"file://{self.gateway}",
        }

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", _QUICK, *arguments,
            cwd=self._folder, env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def __call__(self, *arguments: str) -> dict[str, object]:
        process = await self.start(*arguments)
        output, errors = await process.communicate()
        assert process.returncode == 0, (output, errors)
        found: dict[str, object] = json.loads(output)
        return found

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[dict[str, str]]:
        process = await self.start("up", "--no-demo", "--port", "0", "--gateway-port", "0", "--json")
        try:
            assert process.stdout is not None
            line = await process.stdout.readline()
            if not line:
                assert process.stderr is not None
                pytest.fail((await process.stderr.read()).decode())
            yield json.loads(line)
        finally:
            process.terminate()
            _, errors = await process.communicate()
        assert b"Traceback" not in errors
        assert b"gateway-0" not in errors


@pytest.mark.timeout(180)
async def test_a_running_service_takes_new_tokens_and_refuses_the_old_ones(tmp_path: Path) -> None:
    program = Program(tmp_path)
    async with asyncio.timeout(150), program.serving() as addresses, aiohttp.ClientSession() as http:

        async def status(url: str, token: str) -> int:
            async with http.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                await answer.read()
                return answer.status

        whoami, ping = f"{addresses['api']}/api/v1/admin/whoami", f"{addresses['gateway']}/ping"
        # What the setting says is a place, and no token.
        assert await status(ping, f"file://{program.gateway}") == 401
        assert await status(whoami, f"file://{program.admin}") == 401
        stop = asyncio.Event()
        failed: list[tuple[str, int]] = []
        calls = 0

        async def call(url: str, token: str) -> None:
            nonlocal calls
            while not stop.is_set():
                calls += 1
                if (found := await status(url, token)) != 200:
                    failed.append((url, found))

        callers = [asyncio.create_task(call(whoami, "admin-0")), asyncio.create_task(call(ping, "gateway-0"))]
        made = await program("rotate", "admin", "ada", "--show", "--yes", "--json", "--url", addresses["api"])
        begun = await program("rotate", "gateway", "--show", "--yes", "--json", "--url", addresses["gateway"])
        stop.set()
        await asyncio.gather(*callers)
        assert not failed
        assert calls > 10
        assert await status(whoami, str(made["made"])) == 200
        assert await status(ping, str(begun["made"])) == 200

        await program("rotate", "gateway", "--finish", "--yes", "--json", "--url", addresses["gateway"])
        assert await status(ping, "gateway-0") == 401
        assert await status(ping, str(begun["made"])) == 200
        await program("rotate", "admin", "ada", "--finish", "--yes", "--json")
        while await status(whoami, "admin-0") != 401:
            await asyncio.sleep(0.05)
        assert await status(whoami, str(made["made"])) == 200
