"""Where a secret is kept, and how another one is put there."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Final

from redis_core.config import Settings
from redis_core.errors import ConfigError
from redis_core.secret import Secret
from redis_core.secret_source import GoogleCloud, is_reference, read_secret

__all__ = ["Place", "only"]

_REMEDY: Final = "keep it where it can be replaced in use, and let the setting say file:///path or sm://project/name/latest"


class Place:
    """The place that a setting refers to.

    Args:
        settings: as they are set, references unread.
        variable: the setting.

    Raises:
        ConfigError: the setting is the secret itself, which no running process would look at again, or one fixed version of it.
    """

    def __init__(self, settings: Settings, variable: str) -> None:
        reference: Secret | None = getattr(settings, variable.lower())
        if reference is None or not is_reference(reference):
            raise ConfigError(variable, None if reference is None else "***", _REMEDY)
        self.variable = variable
        self.name = reference.reveal()
        if not self.is_file and not self.name.endswith("/latest"):
            raise ConfigError(variable, self.name, "end it with /latest: a version does not change")
        self._reference = reference
        self._google = GoogleCloud(settings.gce_metadata_host, settings.secret_manager_url)

    @property
    def is_file(self) -> bool:
        """Whether it is a file of this host."""
        return self.name.startswith("file://")

    async def read(self) -> Secret:
        """What it holds now.

        Raises:
            ConfigError: it cannot be read.
            StoreUnavailable: it does not answer.
        """
        return await read_secret(self.variable, self._reference, self._google)

    async def put(self, secret: Secret) -> None:
        """Replace what the file holds: all of it at once, with the owner and rights that it has.

        Raises:
            ConfigError: this user may not.
        """
        path = Path(self.name.removeprefix("file://"))
        try:
            await asyncio.to_thread(_replace, path, secret.reveal())
        except OSError as error:
            raise ConfigError(
                self.variable, self.name, f"run this as a user who may write it ({error.strerror})"
            ) from None

    def how(self) -> str:
        """How an operator puts a secret into Secret Manager."""
        _, _, project, name, _ = self.name.split("/")
        return f"gcloud secrets versions add {name} --project={project} --data-file=-"


def _replace(path: Path, text: str) -> None:
    # A link stays one.
    path = path.resolve()
    was = path.stat()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if (was.st_uid, was.st_gid) != (os.getuid(), os.getgid()):
                os.fchown(file.fileno(), was.st_uid, was.st_gid)
            os.fchmod(file.fileno(), was.st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def only(settings: Settings, **kept: object) -> Settings:
    """The settings for a client of one's own: without any secret but these, so that no other place is asked, and without a journal.

    Args:
        settings: all of them.
        kept: what it needs, by field name.
    """
    secrets_ = {
        name: None for name in type(settings).model_fields if isinstance(getattr(settings, name), Secret)
    }
    return settings.model_copy(update={**secrets_, "redis_failover": False, **kept})
