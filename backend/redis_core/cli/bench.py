"""`raptorflow bench`: how fast is the store from here?"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from redis_core.bench import MOST_CALLS, Bench
from redis_core.bench import bench as measure
from redis_core.cli.acting import Json, progress_bar
from redis_core.cli.output import console, print_json
from redis_core.client import connect
from redis_core.config import load_settings

__all__ = ["bench"]

_MOST_BYTES = 1_000_000
_ROWS = 6


def bench(
    calls: Annotated[
        int, typer.Option("--calls", min=1, max=MOST_CALLS, help="Calls a row: 200 send 5,413 commands.")
    ] = 200,
    value_bytes: Annotated[
        int,
        typer.Option("--bytes", min=1, max=_MOST_BYTES, help="Size of the value that is written and read."),
    ] = 64,
    json: Json = False,
) -> None:
    """Measure GET, SET and pipelines on the store of the settings: latency and commands a second, from this host."""
    found = asyncio.run(_measure(calls, value_bytes))
    if json:
        print_json(found)
    else:
        _show(found)


async def _measure(calls: int, value_bytes: int) -> Bench:
    # What is measured is the store itself, never the memory that would serve instead.
    async with await connect(load_settings(redis_failover=False)) as client:
        with progress_bar() as bar:
            rows = bar.add_task("Measuring", total=_ROWS)
            return await measure(
                client,
                calls=calls,
                value_bytes=value_bytes,
                progress=lambda done: bar.update(rows, completed=done),
            )


def _show(found: Bench) -> None:
    table = Table(title=f"{found.mode} at {found.target}, values of {found.value_bytes:,} bytes")
    table.add_column("")
    for name in ("calls", "p50 ms", "p95 ms", "p99 ms", "max ms", "commands/s", "commands/trip"):
        table.add_column(name, justify="right")
    for row in found.rows:
        latency = row.latency
        shown = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
        table.add_row(
            row.what,
            f"{row.calls:,}",
            *(f"{value:,.2f}" for value in shown if value is not None),
            f"{row.commands_per_second:,.0f}",
            f"{row.commands / row.trips:,.1f}" if row.trips else "",
        )
    console.print(table)
    bill = f", ${found.cost:,.4f}" if found.cost else ""
    console.print(
        f"{found.commands:,} commands were sent{bill}. Other work on this host and on the store is in the figures."
    )
