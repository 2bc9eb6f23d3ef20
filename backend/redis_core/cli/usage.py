"""`raptorflow usage`: what workspaces use and may spend."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from redis_core.accounting.figures import UsagePage
from redis_core.audit import Actor
from redis_core.cli.acting import DryRun, Json, Yes, asked, change
from redis_core.cli.output import console, print_json
from redis_core.client import Client
from redis_core.operations import Operations
from redis_core.usage import Budget, UsageEngine

__all__ = ["usage"]

usage = typer.Typer(
    name="usage", help="See what workspaces use, and say what they may spend.", no_args_is_help=True
)

Workspace = Annotated[str, typer.Argument(help="A workspace's id.")]


@usage.command()
def show(
    workspace: Workspace,
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days, today the last.")] = 30,
    json: Json = False,
) -> None:
    """Show what a workspace used, day by day (UTC)."""

    async def ask(client: Client) -> UsagePage:
        last = client.service(UsageEngine).today()
        act = Operations(client, Actor("cli", "viewer"))
        return await act.usage(workspace, last - timedelta(days=days - 1), last)

    page = asked(ask)
    if json:
        print_json(page)
        return
    table = Table(
        "day", "commands", "bytes", "jobs", "tokens in", "cached", "tokens out", "cost in $", title=workspace
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for day in page.days:
        models = day.models.values()
        counts = (
            day.commands, day.bytes, day.jobs, sum(each.input_tokens for each in models),
            sum(each.cached_tokens for each in models), sum(each.output_tokens for each in models),
        )  # fmt: skip
        if any(counts) or day.cost:
            table.add_row(day.day, *(f"{count:,}" for count in counts), f"{day.cost:.4f}")
    console.print(table if table.row_count else f"{workspace} has used nothing in {days} days")
    console.print(_spent("today", page.spent_today, page.budget.day if page.budget else None))
    console.print(_spent("this month", page.spent_this_month, page.budget.month if page.budget else None))


def _spent(period: str, spent: float, limit: float | None) -> str:
    return f"{period}: ${spent:.2f}" + (f" of ${limit:.2f}" if limit is not None else ", no limit")


@usage.command()
def budget(
    workspace: Workspace,
    day: Annotated[float | None, typer.Option(help="US dollars a day.")] = None,
    month: Annotated[float | None, typer.Option(help="US dollars a month.")] = None,
    warn: Annotated[float, typer.Option(help="Share of a limit at which a warning is given.")] = 0.8,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Say what a workspace may spend; without a limit its budget is lifted. Exit code 5 if it was not confirmed."""
    try:
        chosen = None if day is None and month is None else Budget(day, month, warn)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    change(
        lambda act, count: act.set_budget(workspace, chosen, dry_run=count),
        dry_run=dry_run,
        yes=yes,
        as_json=json,
    )
