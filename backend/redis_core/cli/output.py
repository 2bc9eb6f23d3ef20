"""What commands print: tables for people on standard output, one JSON document for programs, errors as one line."""

from __future__ import annotations

import sys
from typing import Final

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from redis_core.errors import ConfigError, RedisCoreError, StoreError
from redis_core.log_format import redact

__all__ = ["Failure", "console", "failure_of", "fields", "mark", "print_failure", "print_json"]

# A terminal wraps what is too long for it; a pipe or a file gets a line a row. No markup: what jobs and stores say may have brackets.
console: Final = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
_STYLES: Final = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why a command could not do its work."""

    code: str
    message: str
    variable: str | None = None
    value: str | None = None
    remedy: str | None = None


def failure_of(error: Exception) -> Failure:
    """An error as it is printed, without anything secret."""
    message = str(redact(" ".join(str(error).split())))
    if isinstance(error, ConfigError):
        return Failure("settings", message, error.variable, error.value, error.remedy)
    if isinstance(error, StoreError):
        return Failure("store", f"{type(error).__name__}: {message}")
    if isinstance(error, RedisCoreError):
        return Failure("request", message)
    return Failure("bug", f"{type(error).__name__}: {message}")


def print_failure(failure: Failure, *, as_json: bool) -> None:
    """Say why a command failed: on standard error, or as `{"error": ...}` on standard output."""
    if as_json:
        print_json({"error": failure})
        return
    line = Text("raptorflow: ", style="bold red")
    line.append(failure.message, style="default")
    if failure.code == "bug":
        line.append(" - a mistake of this program; `raptorflow --traceback ...` shows where", style="default")
    # A terminal wraps it; a file or a pipe gets one line.
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)


def print_json(document: object) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def mark(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=_STYLES.get(status, ""))


def fields() -> Table:
    """A table without lines, of names and what they are."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
