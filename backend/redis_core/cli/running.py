"""The running service, as commands ask it: over HTTP, as its operator."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Annotated, Final, TypeVar

import msgspec
import typer

from redis_core.config import load_settings
from redis_core.errors import RedisCoreError

__all__ = ["RunningService", "ServiceUnreachable", "TokenOption", "UrlOption"]

T = TypeVar("T")

UrlOption = Annotated[
    str, typer.Option("--url", help="The service; http://127.0.0.1:RAPTORFLOW_PORT unless given.")
]
TokenOption = Annotated[
    str, typer.Option("--token", envvar="ADMIN_TOKEN", help="An admin token, where the service asks for one.")
]
_TIMEOUT: Final = 5.0


class ServiceUnreachable(RedisCoreError):
    """The running service did not do what was asked."""


class RunningService:
    """A service that runs.

    Args:
        url: where; the settings' port on this host if empty.
        token: an admin token, or empty.
        timeout: seconds for each request.

    Raises:
        typer.BadParameter: that is no URL.
    """

    def __init__(self, url: str, token: str, timeout: float = _TIMEOUT) -> None:
        self.url = (url or f"http://127.0.0.1:{load_settings().raptorflow_port}").rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise typer.BadParameter("give a URL that begins with http:// or https://", param_hint="--url")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout

    def ask(self, method: str, path: str, type_: type[T], body: msgspec.Struct | None = None) -> T:
        """Send a request to `/api/v1` and read the document of its answer.

        Raises:
            ServiceUnreachable: it does not answer, or refuses.
        """
        data = None if body is None else msgspec.json.encode(body)
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
            f"{self.url}/api/v1{path}", data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310 - as above
                return msgspec.json.decode(response.read(), type=type_)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode("utf-8", "replace")
            raise ServiceUnreachable(f"the service at {self.url} refused: {error.code} {said}") from None
        except (OSError, msgspec.DecodeError) as error:
            raise ServiceUnreachable(f"no service answers at {self.url}: {error}") from None
