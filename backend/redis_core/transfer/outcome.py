"""What a transfer tells: while it runs, and when it is over."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

__all__ = ["Erased", "Exported", "Imported", "Progress"]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much; 0 if that is not known."""


class Exported(Struct, frozen=True):
    """What was written to a file."""

    path: str
    workspace: str | None
    keys: dict[str, dict[str, int]]
    """By family and type."""
    jobs: int
    bytes: int
    """Of keys and values, before compression."""
    file_bytes: int
    sha256: str


class Imported(Struct, frozen=True):
    """What was written to a store."""

    path: str
    workspace: str | None
    keys: int
    jobs: int
    """Taken into the queues by this run."""
    refused: int
    """Jobs that could not be: another one holds their unique key, or one before them failed."""
    left: dict[str, int]
    """Keys that were not carried: `expired`; `named`, of use only under the old id; `audit`, the store has a log."""
    resumed: bool
    verified: bool
    sha256: str


class Erased(Struct, frozen=True):
    """What is gone."""

    workspace: str
    keys: int
    names: int
    """Jobs and other names outside the workspace's own keys."""
    left: int
    """Keys that the last walk over the whole key space found: 0."""
