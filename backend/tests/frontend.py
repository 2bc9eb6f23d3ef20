"""The front end as it is built, for tests that need it; built once, whichever test comes first."""

from __future__ import annotations

import fcntl
import subprocess
from functools import cache
from pathlib import Path

__all__ = ["BROWSER", "CLIENT", "DASHBOARD", "DEMO", "ROOT", "built", "node_packages"]

ROOT = Path(__file__).parents[2]
CLIENT, DEMO, DASHBOARD = (ROOT / "frontend" / name for name in ("client", "demo", "dashboard"))
BROWSER = ROOT / "backend" / "tests" / "browser"


@cache
def node_packages(task: str, *folders: Path) -> None:
    """Run scripts/node-packages.sh, one process at a time: tests run side by side."""
    with (ROOT / "frontend" / "client" / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            ["sh", "scripts/node-packages.sh", task, *map(str, folders)], cwd=ROOT, check=True, timeout=300
        )


def built() -> None:
    """The client and the demo's page."""
    node_packages("build", CLIENT, DEMO)
