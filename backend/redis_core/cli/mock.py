"""`raptorflow mock on|off|status`: switch a running service to memory and back."""

from __future__ import annotations

import urllib.error
import urllib.request
from enum import StrEnum
from typing import Annotated, Final

import msgspec
import typer

from redis_core.api.mock import MockMode
from redis_core.cli.output import console, fields, print_json
from redis_core.config import load_settings
from redis_core.errors import RedisCoreError

__all__ = ["mock"]

_TIMEOUT: Final = 5.0


class Switch(StrEnum):
    """What to do."""

    ON = "on"
    OFF = "off"
    STATUS = "status"


class ServiceUnreachable(RedisCoreError):
    """The running service did not do what was asked."""


def mock(
    switch: Annotated[Switch, typer.Argument(help="Serve from memory, from the store again, or tell.")],
    url: Annotated[
        str, typer.Option("--url", help="The service; http://127.0.0.1:RAPTORFLOW_PORT unless given.")
    ] = "",
    token: Annotated[
        str,
        typer.Option("--token", envvar="ADMIN_TOKEN", help="An admin token, where the service asks for one."),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the document of /api/v1/admin/mock.")] = False,
) -> None:
    """Switch mock mode of a running service. Editing MOCK_REDIS in backend/.env.production does the same: it is watched."""
    found = _ask(url or f"http://127.0.0.1:{load_settings().raptorflow_port}", switch, token)
    if json:
        print_json(found)
        return
    table = fields()
    table.add_row("mock mode", "on" if found.on else "off")
    table.add_row("mode", found.mode)
    table.add_row("state", found.outage.state)
    table.add_row("waiting", f"{found.outage.waiting} records in the journal")
    if found.outage.quarantined:
        table.add_row("quarantined", str(found.outage.quarantined))
    console.print(table)


def _ask(base: str, switch: Switch, token: str) -> MockMode:
    if not base.startswith(("http://", "https://")):
        raise typer.BadParameter("give a URL that begins with http:// or https://", param_hint="--url")
    query = "" if switch is Switch.STATUS else f"?on={'true' if switch is Switch.ON else 'false'}"
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        f"{base.rstrip('/')}/api/v1/admin/mock{query}",
        method="PUT" if query else "GET",
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - as above
            return msgspec.json.decode(response.read(), type=MockMode)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode("utf-8", "replace")
        raise ServiceUnreachable(f"the service at {base} refused: {error.code} {said}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise ServiceUnreachable(f"no service answers at {base}: {error}") from None
