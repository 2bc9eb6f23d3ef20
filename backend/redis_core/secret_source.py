"""Where a secret comes from: the setting itself, a file, or Google Secret Manager.

A setting's value may be a reference instead of the secret: `file:///run/secrets/redis`, or `sm://project/secret/version` with
`latest` as a version. The secret it stands for can then be replaced while processes run (`secret_watch.py`).

Secret Manager is asked over its REST interface: one GET with the instance's own access token, and the CRC-32C that comes with the
payload is checked. Source: https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from redis_core.errors import ConfigError, StoreUnavailable
from redis_core.secret import Secret

if TYPE_CHECKING:
    import aiohttp

    from redis_core.config import Settings

__all__ = ["GoogleCloud", "crc32c", "is_reference", "read_secret", "references_of"]

_SM: Final = re.compile(r"sm://([a-z0-9:.-]{1,64})/([A-Za-z0-9_-]{1,255})/(latest|[0-9]{1,9})", re.ASCII)
_MAX_BYTES: Final = 64 * 1024
"""As large as Secret Manager's payloads may be."""
_TIMEOUT: Final = 5.0
_OK: Final = 200


class GoogleCloud:
    """Google's services as this process reaches them.

    Args:
        metadata: `host[:port]` of the instance's metadata server, which gives out access tokens.
        secret_manager: base URL of Secret Manager.
    """

    def __init__(
        self,
        metadata: str = "metadata.google.internal",
        secret_manager: str = "https://secretmanager.googleapis.com",  # noqa: S107 - an address
    ) -> None:
        self._token_url = f"http://{metadata}/computeMetadata/v1/instance/service-accounts/default/token"
        self._secret_manager = secret_manager.rstrip("/")

    async def access(self, project: str, name: str, version: str) -> bytes:
        """A secret version's payload. 2 requests.

        Raises:
            StoreUnavailable: one of the services does not answer, or what came is not what was sent.
            ConfigError: this instance may not read the secret, or there is none.
        """
        import aiohttp  # noqa: PLC0415 - 40 ms that only they pay who use it

        url = f"{self._secret_manager}/v1/projects/{project}/secrets/{name}/versions/{version}:access"
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as http:
                async with http.get(self._token_url, headers={"Metadata-Flavor": "Google"}) as answer:
                    token = (await self._document(answer, "the metadata server"))["access_token"]
                headers = {"Authorization": f"Bearer {token}"}
                async with http.get(url, headers=headers, allow_redirects=False) as answer:
                    if answer.status in {401, 403, 404}:
                        raise ConfigError(
                            f"sm://{project}/{name}/{version}",
                            f"HTTP {answer.status}",
                            "give this instance's service account the role Secret Manager Secret Accessor, and check the names",
                        )
                    payload = (await self._document(answer, "Secret Manager"))["payload"]
                    return _checked(payload)
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError) as error:
            raise StoreUnavailable(
                f"sm://{project}/{name}/{version} could not be read: {type(error).__name__}"
            ) from None

    @staticmethod
    async def _document(answer: aiohttp.ClientResponse, who: str) -> Mapping[str, Any]:
        if answer.status != _OK:
            raise StoreUnavailable(f"{who} answered HTTP {answer.status}")
        document: Mapping[str, Any] = await answer.json(content_type=None)
        return document


def references_of(settings: Settings) -> dict[str, Secret]:
    """The secrets of the settings that are kept elsewhere, by field name."""
    return {
        name: value
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), Secret) and is_reference(value)
    }


def is_reference(value: Secret | None) -> bool:
    """Whether a setting's value stands for a secret that is kept elsewhere."""
    return value is not None and value.reveal().startswith(("file://", "sm://"))


async def read_secret(variable: str, reference: Secret, google: GoogleCloud) -> Secret:
    """The secret that a reference stands for.

    Args:
        variable: the setting, for messages.
        reference: what it is set to.
        google: where Secret Manager is.

    Raises:
        ConfigError: the reference is malformed, or names what is not there or may not be read.
        StoreUnavailable: the place it names does not answer; ask again later.
    """
    text = reference.reveal()
    if text.startswith("file://"):
        data = await asyncio.to_thread(_file, variable, text.removeprefix("file://"))
    else:
        match = _SM.fullmatch(text)
        if match is None:
            raise ConfigError(variable, "sm://...", "write sm://project/secret/version, or .../latest")
        data = await google.access(*match.groups())
    try:
        # What editors and `echo` put at the end is no part of it.
        return Secret(data.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError:
        raise ConfigError(
            variable, "***", f"what {text.partition('://')[0]}:// holds is not UTF-8 text"
        ) from None


def _file(variable: str, path: str) -> bytes:
    if not path.startswith("/"):
        raise ConfigError(variable, f"file://{path}", "give an absolute path: file:///run/secrets/name")
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            variable, f"file://{path}", f"make it readable for this user ({error.strerror})"
        ) from None
    if not data.strip() or len(data) > _MAX_BYTES:
        raise ConfigError(variable, f"file://{path}", "put the secret, and nothing else, into it")
    return data


def _checked(payload: Mapping[str, Any]) -> bytes:
    data = base64.b64decode(payload["data"], validate=True)
    # Without a sum nobody can tell; Secret Manager always sends one.
    if int(payload.get("dataCrc32c", -1)) != crc32c(data):
        raise ValueError("the payload was damaged on its way, or came without its checksum")
    return data


def _table() -> tuple[int, ...]:
    entries: list[int] = []
    for byte in range(256):
        entry = byte
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of RFC 3720, appendix B.4."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
