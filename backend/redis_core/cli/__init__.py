"""The command line: `raptorflow`.

`app.py` lists the commands, `serve.py`, `health.py` and `doctor.py` hold them, `output.py` is how they speak,
`exit_codes.py` how they end.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    try:
        from redis_core.cli.app import run  # noqa: PLC0415 - what it needs is an extra of the package
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        sys.exit(
            f"raptorflow: {error.name} is not installed: pip install 'raptorflow-redis[service,embedded]'"
        )
    run()
