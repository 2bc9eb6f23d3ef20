"""`raptorflow mock on|off|status`: switch a running service to memory and back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from redis_core.api.mock import MockMode
from redis_core.cli.output import console, fields, print_json
from redis_core.cli.running import RunningService, TokenOption, UrlOption

__all__ = ["mock"]


class Switch(StrEnum):
    """What to do."""

    ON = "on"
    OFF = "off"
    STATUS = "status"


def mock(
    switch: Annotated[Switch, typer.Argument(help="Serve from memory, from the store again, or tell.")],
    url: UrlOption = "",
    token: TokenOption = "",
    json: Annotated[bool, typer.Option("--json", help="Print the document of /api/v1/admin/mock.")] = False,
) -> None:
    """Switch mock mode of a running service. Editing MOCK_REDIS in backend/.env.production does the same: it is watched."""
    service = RunningService(url, token)
    if switch is Switch.STATUS:
        found = service.ask("GET", "/admin/mock", MockMode)
    else:
        found = service.ask("PUT", f"/admin/mock?on={'true' if switch is Switch.ON else 'false'}", MockMode)
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
