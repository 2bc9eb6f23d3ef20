"""A service in production's form, as a process of its own: its settings in a file, admin tokens, logs in a file, one store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.command_line import WITHIN, Cli
from tests.server_process import ServerProcess, free_port

__all__ = ["HEALTH", "Deployment"]

HEALTH = "/api/v1/health/redis"


class Deployment:
    """Runs in a folder with `backend/.env.production`; the store may be killed and started again."""

    def __init__(self, folder: Path, store: ServerProcess) -> None:
        self.store = store
        self.cli = Cli(folder)
        self.env_file = folder / "backend" / ".env.production"
        self.env_file.parent.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tokens: dict[str, str] = {}
        entries: list[str] = []
        for role in ("viewer", "operator", "admin"):
            made = json.loads(self.cli("token", f"{role}-1", role, "--json").stdout)
            self.tokens[role] = made["token"]
            entries.append(made["entry"])
        self.env_file.write_text(
            f"UPSTASH_REDIS_URL={store.url}\n"
            f"ADMIN_TOKENS={','.join(entries)}\n"
            f"SESSION_PEPPERS=a:{'p' * 40}\n"
            f"RAPTORFLOW_PORT={self.port}\n"
            "RAPTORFLOW_LOG_LEVEL=debug\n"
        )
        self._log = folder / "log"
        self._process: subprocess.Popen[str] | None = None

    settings = {"MOCK_REDIS": "", "RAPTORFLOW_ENV": ""}  # noqa: RUF012 - never changed
    """Nothing in the environment, so that the file decides."""

    def start(self) -> None:
        command = [sys.executable, "-m", "redis_core", "up", "--demo", "--traffic", "--no-gateway", "--json"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, **self.cli.options(self.settings)
            )
        self.until(lambda: self.health("live")[0] == 200)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def is_the_same_process(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command in the deployment's folder."""
        return self.cli(*arguments, **self.settings)

    def ask(self, path: str, role: str | None = None, method: str = "GET") -> tuple[int, Any]:
        headers = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def health(self, probe: str = "detail") -> tuple[int, dict[str, Any]]:
        try:
            return self.ask(f"{HEALTH}?probe={probe}", "viewer")
        except OSError:
            return 0, {}

    def stands(self) -> tuple[str, str, bool]:
        """Status, mode and degraded as health tells them."""
        document = self.health()[1]
        return document["status"], document["mode"], document["degraded"]

    def events(self) -> list[str]:
        lines = self._log.read_text().splitlines()
        return [json.loads(line)["event"] for line in lines if line.endswith("}")]

    def until(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + WITHIN
        while not what():
            assert time.monotonic() < end, (self.stands(), self._log.read_text()[-3000:])
            time.sleep(0.05)
