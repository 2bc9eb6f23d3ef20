"""`raptorflow sessions`: who is logged in where."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from redis_core.audit import Actor
from redis_core.cli.acting import DryRun, Json, Yes, asked, change
from redis_core.cli.output import console, print_json
from redis_core.operations import Operations

__all__ = ["sessions"]

sessions = typer.Typer(name="sessions", help="Look after sessions.", no_args_is_help=True)

User = Annotated[str, typer.Argument(help="The user's id.")]


@sessions.command("ls")
def list_(user: User, workspace: Annotated[str, typer.Argument(help="Where.")], json: Json = False) -> None:
    """Show a user's sessions in a workspace, the one used last first. Needs the service's SESSION_PEPPERS."""
    page = asked(lambda client: Operations(client, Actor("cli", "viewer")).sessions(user, workspace))
    if json:
        print_json(page)
        return
    table = Table("session", "created", "last used", "ends", "device")
    for each in page.sessions:
        table.add_row(each.handle, each.created, each.last_used, each.ends, each.device or "")
    console.print(table if page.sessions else f"{user} has no session in {workspace}")


@sessions.command()
def revoke(
    user: User,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Only there.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Only this one, as `ls` shows it.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End a user's sessions. Exit code 5 if it was not confirmed. Needs the service's SESSION_PEPPERS."""
    if session is not None and workspace is None:
        raise typer.BadParameter("--session needs --workspace")
    change(
        lambda act, count: act.revoke_sessions(user, workspace, session, dry_run=count),
        dry_run=dry_run,
        yes=yes,
        as_json=json,
    )
