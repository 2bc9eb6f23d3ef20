"""`raptorflow limits`: what was counted for a user."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from redis_core.audit import Actor
from redis_core.cli.acting import DryRun, Json, Yes, asked, change
from redis_core.cli.output import console, print_json
from redis_core.operations import Operations

__all__ = ["limits"]

limits = typer.Typer(name="limits", help="Look after rate limits.", no_args_is_help=True)

User = Annotated[str, typer.Argument(help="A user's id, or ip=<address>.")]


@limits.command()
def show(user: User, json: Json = False) -> None:
    """Show for which endpoints something is counted for a user, and when that is forgotten."""
    found = asked(lambda client: Operations(client, Actor("cli", "viewer")).limits(user))
    if json:
        print_json(
            {"user": user, "limits": [{"key": key, "forgotten_in_ms": left} for key, left in found.items()]}
        )
        return
    table = Table("key", "forgotten in s")
    for key, left in sorted(found.items()):
        table.add_row(key, "never" if left < 0 else f"{left / 1000:.1f}")
    console.print(table if found else f"Nothing is counted for {user}")


@limits.command()
def reset(
    user: User,
    endpoint: Annotated[str | None, typer.Argument(help="Its path template; all unless given.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Forget what was counted for a user. Exit code 5 if it was not confirmed."""
    change(
        lambda act, count: act.reset_limit(user, endpoint, dry_run=count),
        dry_run=dry_run,
        yes=yes,
        as_json=json,
    )
