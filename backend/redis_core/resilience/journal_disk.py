"""What a folder's file system keeps: a journal in RAM is gone with the machine, and must not pass for a durable one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

__all__ = ["Storage", "storage_in", "storage_of"]

_MOUNTS: Final = Path("/proc/self/mountinfo")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs", "rootfs"})
_LAYERED: Final = frozenset({"overlay", "overlayfs", "aufs", "9p", "none"})
"""File systems of containers: on the host's disk, except where the platform keeps them in memory."""


class Storage(StrEnum):
    """What a file outlasts."""

    DISK = "disk"
    """A restart of the machine."""
    MEMORY = "memory"
    """A crash of the process, and no more."""


def storage_of(folder: Path, *, overlay_is_memory: bool = False) -> Storage:
    """What files of a folder outlast, by the file system of its nearest parent that exists.

    Where the system does not tell (other than Linux), it is taken for a disk.

    Args:
        folder: it need not be there yet.
        overlay_is_memory: whether a container's own file system is in memory, as on Cloud Run.
    """
    try:
        mounts = _MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return Storage.DISK
    return storage_in(mounts, folder.resolve(), overlay_is_memory=overlay_is_memory)


def storage_in(mounts: str, folder: Path, *, overlay_is_memory: bool = False) -> Storage:
    """`storage_of`, decided from the text of `/proc/self/mountinfo` (see proc_pid_mountinfo(5))."""
    kind, depth = "", -1
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split(" ")
        if len(fields) < 5 or not tail:  # noqa: PLR2004 - the mount point is the fifth field
            continue
        point = Path(_unescaped(fields[4]))
        # The last mount on a point hides those before it.
        if folder.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = tail.split(" ", 1)[0], len(point.parts)
    if kind in _IN_MEMORY or (overlay_is_memory and kind in _LAYERED):
        return Storage.MEMORY
    return Storage.DISK


def _unescaped(field: str) -> str:
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(code, character)
    return field
