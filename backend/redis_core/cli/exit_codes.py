"""How a command ends."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["EXIT_CODES_HELP", "ExitCode"]


class ExitCode(IntEnum):
    """The process' exit code."""

    OK = 0
    """It did what was asked; a service was ended by Ctrl-C or SIGTERM."""
    UNHEALTHY = 1
    """It ran, and what it looked at is not well."""
    USAGE = 2
    """An argument is wrong."""
    SETTINGS = 3
    """A setting is wrong, or a port is taken."""
    STORE = 4
    """The store did not do what was asked."""
    DECLINED = 5
    """What it was to change was not confirmed, and nothing was changed."""
    BUG = 70
    """A mistake of this program."""
    INTERRUPTED = 130
    """Ctrl-C, while it worked on something."""


EXIT_CODES_HELP: Final = (
    "Exit codes: 0 done, 1 not healthy, 2 wrong argument, 3 wrong setting or port taken, 4 store error, 5 not confirmed, "
    "70 a bug, 130 interrupted."
)
