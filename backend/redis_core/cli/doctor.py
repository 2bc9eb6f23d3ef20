"""`raptorflow doctor`: what is wrong, and what to do about it?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import console, mark, print_json
from redis_core.client import connect
from redis_core.config import load_settings
from redis_core.doctor import Finding, examine

__all__ = ["doctor"]


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check settings, connection and store, and say what to do. Exit code 1 if a check fails."""
    findings = asyncio.run(_examine())
    failed = any(finding.status == "fail" for finding in findings)
    if json:
        print_json({"status": _overall(findings), "findings": findings})
    else:
        _show(findings)
    if failed:
        raise typer.Exit(ExitCode.UNHEALTHY)


async def _examine() -> list[Finding]:
    settings = load_settings(redis_failover=False)  # what is looked at is the store itself
    async with await connect(settings) as client:
        return await examine(client, settings)


def _overall(findings: Sequence[Finding]) -> str:
    statuses = {finding.status for finding in findings}
    return next((status for status in ("fail", "warn") if status in statuses), "pass")


def _show(findings: Sequence[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(mark(finding.status), finding.check, finding.found)
        if finding.advice is not None:
            table.add_row("", "", Text.assemble(("do: ", "bold"), finding.advice))
    console.print(table)
    counts = {status: sum(f.status == status for f in findings) for status in ("fail", "warn")}
    if not any(counts.values()):
        console.print("\nAll is well.")
    else:
        console.print(f"\n{counts['fail']} failed, {counts['warn']} to look at.")
