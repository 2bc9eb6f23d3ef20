"""Chromium, and a site that a test may kill: what the browser tests share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.frontend import BROWSER, ROOT, built, node_packages
from tests.server_process import free_port

__all__ = ["Chromium", "Running", "chromium_binary", "needs_chromium", "running_chromium"]


def chromium_binary() -> str | None:
    """A Chromium of this system, if it has one."""
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(
    chromium_binary() is None and not os.environ.get("CI"), reason="chromium is not on the PATH"
)
"""Skips where there is none, except in continuous integration, where that is a failure."""


class Chromium:
    """A browser with its tabs, driven by driver.mjs. Calls block."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, name: str, /, **options: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": name, **options}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, f"{name} {options}: {answer['error']}"
        return answer["ok"]

    def evaluate(self, tab: str, code: str, argument: Any = None) -> Any:
        """What a function gives in a tab."""
        return self.do("eval", tab=tab, code=code, argument=argument)

    def wait(self, tab: str, code: str, argument: Any = None) -> None:
        """Until a function gives true in a tab."""
        self.do("wait", tab=tab, code=code, argument=argument)


@contextmanager
def running_chromium() -> Iterator[Chromium]:
    """A browser for as long as the block runs."""
    binary = chromium_binary()
    assert binary is not None, "chromium is not on the PATH: see scripts/system-packages.sh"
    built()
    node_packages("install", BROWSER)
    process = subprocess.Popen(
        ["node", "driver.mjs", binary], cwd=BROWSER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Chromium(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Running:
    """A server program of the tests on a port that it keeps."""

    def __init__(self, command: list[str], environment: dict[str, str], path: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = command
        self._path = path
        self._environment = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("REDIS", "UPSTASH"))
            },
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RAPTORFLOW_ENV": "test",
            "REALTIME_KEYS": "k1:" + "k" * 40,
            **environment,
            "TEST_PORT": str(self.port),
            "RAPTORFLOW_PORT": str(self.port),
            "GATEWAY_PORT": str(self.port),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *self._command], cwd=ROOT / "backend", env=self._environment
        )
        until = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{self.url}{self._path}", timeout=2).close()
            except urllib.error.HTTPError:
                return  # It answers, if only that it wants a token.
            except OSError:
                assert self._process.poll() is None, "the site did not start"
                assert time.monotonic() < until, "the site does not answer"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a deployment does."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def figures(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/figures", timeout=5) as answer:
            return json.load(answer)  # type: ignore[no-any-return]


SITE = Path(__file__).parent / "site.py"
