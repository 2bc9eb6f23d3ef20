"""`raptorflow` as a process of its own, for tests that use it as its users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis_core

__all__ = ["WITHIN", "Cli", "fetch"]

_BACKEND = Path(redis_core.__file__).parent.parent
WITHIN = 30
"""Seconds; what takes longer hangs."""


class Cli:
    """Runs the command line in an empty folder, with no settings but those given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def options(self, settings: dict[str, str]) -> dict[str, Any]:
        # A process group of its own: a signal for it is for nobody else.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment = {
            **kept,
            "PYTHONPATH": str(_BACKEND),
            "RAPTORFLOW_ENV": "test",
            "RAPTORFLOW_STATE_DIR": str(self._folder / "state"),
            "MOCK_REDIS": "true",
            **settings,
        }
        return {"cwd": self._folder, "env": environment, "text": True, "start_new_session": True}

    def __call__(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "redis_core", *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=WITHIN, **self.options(settings)
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "redis_core", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **self.options(settings)
        )

    @contextmanager
    def serving(
        self, *arguments: str, **settings: str
    ) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """A command that serves, and the addresses that it printed."""
        process = self.start(*arguments, "--json", **settings)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate(timeout=WITHIN)
            yield process, json.loads(line)
        finally:
            process.kill()
            process.communicate()


def fetch(url: str, token: str = "", body: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers, data=body.encode() or None)
    with urllib.request.urlopen(request, timeout=WITHIN) as response:
        return json.load(response)
