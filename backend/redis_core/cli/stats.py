"""`raptorflow stats`: which keys there are."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from redis_core.cli.acting import Json, asked, progress_bar
from redis_core.cli.output import console, print_json
from redis_core.client import Client
from redis_core.stats import MOST_KEYS, KeyStats, key_stats

__all__ = ["stats"]


def stats(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MOST_KEYS, help="Most keys to look at: one SCAN for 500.")
    ] = 10_000,
    json: Json = False,
) -> None:
    """Count the store's keys by family, and how many of them expire."""

    async def ask(client: Client) -> KeyStats:
        with progress_bar() as bar:
            scan = bar.add_task("Looking at keys", total=limit)
            found = await key_stats(
                client, limit=limit, progress=lambda seen: bar.update(scan, completed=seen)
            )
            bar.update(scan, completed=limit)
        return found

    found = asked(ask)
    if json:
        print_json(found)
        return
    table = Table("family", "keys", "workspaces", "expire", title=f"{found.keys_total:,} keys")
    for family in found.families:
        if family.keys:
            covered = "" if family.ttl.coverage is None else f"{family.ttl.coverage:.0%}"
            table.add_row(family.family, f"{family.keys:,}", f"{family.workspaces:,}", covered)
    console.print(table)
    if not found.complete:
        console.print(f"Of {found.scanned:,} keys that were looked at; --limit looks at more")
