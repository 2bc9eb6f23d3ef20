"""Secrets in files, replaced as whatever mounts them does: whole, so that nobody reads half of one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["put"]


def put(path: Path, text: str) -> None:
    """Let the file say this from now on."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
