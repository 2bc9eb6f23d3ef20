"""`raptorflow health`: does the store answer?"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import console, fields, mark, print_json
from redis_core.client import connect
from redis_core.config import load_settings
from redis_core.health import Health, HealthProbe

__all__ = ["health"]


def health(
    json: Annotated[bool, typer.Option("--json", help="Print the document of /api/v1/health/redis.")] = False,
) -> None:
    """Ask the store once how it is. Exit code 0 if it serves, 1 if not."""
    found, target = asyncio.run(_ask())
    if json:
        print_json(found)
    else:
        _show(found, target)
    if found.status == "fail":
        raise typer.Exit(ExitCode.UNHEALTHY)


async def _ask() -> tuple[Health, str]:
    async with await connect(load_settings(redis_failover=False)) as client:
        probe = HealthProbe(client)
        # The first answer takes a connection's time; the second is what callers wait for.
        found = await probe.detail()
        if found.status != "fail":
            found = await probe.detail()
        return found, client.transport.target


def _show(health: Health, target: str) -> None:
    table = fields()
    table.add_row("status", mark(health.status))
    table.add_row("mode", f"{health.mode}, degraded" if health.degraded is True else str(health.mode))
    table.add_row("store", target)
    if health.store:
        role = f", {health.store.role}" if health.store.role else ""
        table.add_row("server", f"{health.store.server} {health.store.version or ''}{role}")
    for check in health.checks.get("redis:responseTime", ()):
        if isinstance(check.observed_value, float):
            table.add_row("PING", f"{check.observed_value:g} {check.observed_unit}")
    if isinstance(health.output, str):
        table.add_row("error", health.output)
        table.add_row("", "`raptorflow doctor` says what to do")
    console.print(table)
