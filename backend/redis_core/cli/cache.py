"""`raptorflow cache`: what is cached."""

from __future__ import annotations

from typing import Annotated

import typer

from redis_core.cli.acting import DryRun, Json, Yes, change

__all__ = ["cache"]

cache = typer.Typer(name="cache", help="Look after what is cached.", no_args_is_help=True)


@cache.callback()
def _nothing() -> None:
    """Keeps `flush` a word of its own, though it is the only one."""


@cache.command()
def flush(
    workspace: Annotated[str, typer.Argument(help="Whose.")],
    region: Annotated[str | None, typer.Argument(help="Only this region; all of them unless given.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make misses of a workspace's cached values. Exit code 5 if it was not confirmed."""
    change(
        lambda act, count: act.flush_cache(workspace, region, dry_run=count),
        dry_run=dry_run,
        yes=yes,
        as_json=json,
        even_none=True,  # processes' memory may have what the store has not
    )
