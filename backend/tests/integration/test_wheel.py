"""The built wheel in a clean environment, started and ended as deploy/Dockerfile does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(300)
def test_the_wheel_serves_in_a_clean_environment_and_ends_on_sigterm(tmp_path: Path) -> None:
    with ServerProcess("redis-server") as server:
        done = subprocess.run(
            ["sh", str(ROOT / "scripts" / "check-wheel.sh"), str(tmp_path)],
            env={**os.environ, "REDIS_URL": server.url, "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "live: 200 pass",
        "ready: 200 pass",
        "dashboard: 200 text/html",
        "ended by SIGTERM with 0",
    ]
