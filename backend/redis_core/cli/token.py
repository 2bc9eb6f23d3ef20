"""`raptorflow token`: a new admin token."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from redis_core.api.admin_token import NAME, ROLES, admin_entry
from redis_core.cli.acting import Json
from redis_core.cli.output import console, fields, print_json

__all__ = ["token"]


def token(
    name: Annotated[str, typer.Argument(help="Who or what it is for: 1 to 32 of a-z 0-9 _ -.")],
    role: Annotated[str, typer.Argument(help="viewer, operator or admin.")] = "viewer",
    json: Json = False,
) -> None:
    """Make an admin token, and the entry of ADMIN_TOKENS for it. It is shown once and stored nowhere."""
    if role not in ROLES:
        raise typer.BadParameter(f"role must be one of {', '.join(ROLES)}")
    if NAME.fullmatch(name) is None:
        raise typer.BadParameter(f"name {name!r} must be 1 to 32 of a-z, 0-9, _ and -")
    made = secrets.token_urlsafe(32)
    entry = admin_entry(name, role, made)
    if json:
        print_json({"token": made, "entry": entry})
        return
    table = fields()
    table.add_row("token", made)
    table.add_row("ADMIN_TOKENS", entry)
    console.print(table)
