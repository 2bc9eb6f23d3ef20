"""`raptorflow types`: the types of topics and tasks, for TypeScript."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from redis_core.errors import ConfigError

__all__ = ["types"]


def types(
    modules: Annotated[list[str], typer.Argument(help="Modules with topics and tasks, such as app.events.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; standard output unless given.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if the file is not what would be written.")
    ] = False,
) -> None:
    """Write the TypeScript of what topics and tasks carry."""
    from redis_core.queueing.task import Task  # noqa: PLC0415 - msgspec and the queue, which other commands need not load
    from redis_core.realtime.registry import topics  # noqa: PLC0415 - as above
    from redis_core.typescript import typescript  # noqa: PLC0415 - as above

    # As `python -m` would find them.
    sys.path.insert(0, str(Path.cwd()))
    found = {
        id(one): one for name in modules for one in vars(_imported(name)).values() if isinstance(one, Task)
    }
    text = typescript(topics, found.values())
    if out is None:
        print(text, end="")
    elif not check:
        out.write_text(text, "utf-8")
    elif not out.exists() or out.read_text("utf-8") != text:
        raise ConfigError(
            "--check", str(out), f"make it again: raptorflow types {' '.join(modules)} --out {out}"
        )


def _imported(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError("MODULES", name, f"there is no such module: {error}") from error
