"""The folder of journal files: private, each file with a lock beside it that says whether its owner lives.

The lock is a file of its own, because closing any descriptor of a database drops the locks SQLite has on it. Whoever holds it
is the file's one owner; the kernel lets go of it when that process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from redis_core.errors import JournalBroken

__all__ = ["SUFFIX", "Claim", "claim", "claim_new", "orphans", "prepare"]

SUFFIX: Final = ".journal"
_LOCK: Final = ".lock"
_DAMAGED: Final = ".damaged"
_BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""
_MODE: Final = 0o700
_held: Final[weakref.WeakSet[Claim]] = weakref.WeakSet()


class Claim:
    """The lock of one journal file, held by this process.

    Args:
        path: the journal file.
        descriptor: the open lock file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Let another process have the file. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        _held.discard(self)
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove the file and its lock, the lock last."""
        for path in (self.path, *_beside(self.path), _lock_of(self.path)):
            path.unlink(missing_ok=True)
        self.release()

    def set_aside(self) -> Path:
        """Rename a damaged file so that nobody adopts it again; its new path."""
        aside = self.path.with_name(self.path.name + _DAMAGED)
        for path in _beside(self.path):
            with contextlib.suppress(FileNotFoundError):
                path.rename(path.with_name(aside.name + path.name[len(self.path.name) :]))
        with contextlib.suppress(FileNotFoundError):  # it may be what is wrong with it
            self.path.rename(aside)
        _lock_of(self.path).unlink(missing_ok=True)
        self.release()
        return aside


def _let_go() -> None:
    # A lock belongs to all who inherited its descriptor: a child that lives on would keep a dead parent's file from adoption.
    for held in tuple(_held):
        held.release()


os.register_at_fork(after_in_child=_let_go)


def prepare(folder: Path) -> None:
    """Make the folder, or see that an existing one is ours alone.

    Raises:
        JournalBroken: it cannot be made, or belongs to somebody else.
    """
    try:
        folder.mkdir(mode=_MODE, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            raise JournalBroken(
                f"the journal's folder {folder} belongs to another user (uid {found.st_uid}): set JOURNAL_PATH to one of ours"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(_MODE)
    except OSError as error:
        raise JournalBroken(f"the journal's folder {folder} cannot be used: {error}") from error


def claim_new(folder: Path) -> Claim:
    """A new, empty journal file of this process."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
    while True:
        path = folder / f"{host}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        descriptor = _locked(path)
        if descriptor is not None:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return Claim(path, descriptor)


def claim(path: Path) -> Claim | None:
    """The lock of a file whose owner is gone; None if somebody has it, or the file is gone."""
    descriptor = _locked(path)
    if descriptor is None:
        return None
    if not path.exists():
        # Drained and removed meanwhile, or its owner died before it began.
        _lock_of(path).unlink(missing_ok=True)
        os.close(descriptor)
        return None
    return Claim(path, descriptor)


def orphans(folder: Path) -> Iterator[Path]:
    """Journal files that may have lost their owner, by age; `claim` tells."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return
    stems = {name.removesuffix(_LOCK) for name in names if name.removesuffix(_LOCK).endswith(SUFFIX)}
    mine = {held.path.name for held in _held}
    yield from (folder / stem for stem in sorted(stems - mine))


def _locked(path: Path) -> int | None:
    """An open descriptor of the file's lock, held; None if another has it."""
    lock = _lock_of(path)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who removed the file between our open and our lock removed the lock's name as well: ours is nobody's.
        if os.fstat(descriptor).st_ino == lock.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + _LOCK)


def _beside(path: Path) -> Iterator[Path]:
    return (path.with_name(path.name + suffix) for suffix in _BESIDE)
