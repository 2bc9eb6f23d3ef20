"""`raptorflow metrics`: what the whole fleet does."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from redis_core.cli.acting import Json, asked
from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import console, fields, print_json
from redis_core.client import Client
from redis_core.health import HealthProbe
from redis_core.measuring.documents import RedisMetrics
from redis_core.report import MOST_WINDOW, store_report

__all__ = ["metrics"]


def metrics(
    window: Annotated[
        int, typer.Option("--window", min=60, max=MOST_WINDOW, help="Seconds that it covers.")
    ] = 3_600,
    json: Json = False,
) -> None:
    """Report on all processes within the last hour. Exit code 1 if something is critical."""

    async def ask(client: Client) -> RedisMetrics:
        return await store_report(HealthProbe(client), window=window)

    found = asked(ask)
    if json:
        print_json(found)
    else:
        console.print(_shown(found))
    if any(alarm.severity == "critical" for alarm in found.alarms):
        raise typer.Exit(ExitCode.UNHEALTHY)


def _shown(found: RedisMetrics) -> Group:
    parts: list[RenderableType] = [
        Text(
            f"{alarm.severity}: {alarm.text}", style="bold red" if alarm.severity == "critical" else "yellow"
        )
        for alarm in found.alarms
    ]
    facts = fields()
    facts.add_row("store", f"{found.connection.mode}, {found.connection.target}")
    facts.add_row("window", f"{found.window_seconds} s, {found.processes} processes")
    facts.add_row(
        "traffic",
        f"{found.traffic.operations:,} calls, {found.traffic.operations_per_second:g}/s, {found.traffic.commands:,} commands",
    )
    facts.add_row("errors", f"{found.traffic.errors:,}" + _percent(found.traffic.error_ratio))
    facts.add_row(
        "cache",
        f"hits{_percent(found.hit_rates.hit_ratio)}, in memory{_percent(found.hit_rates.memory_ratio)}",
    )
    facts.add_row(
        "cost",
        f"today ${found.cost.cost_today:,.4f}, 30 days ${found.cost.forecast_month:,.2f} at this rate"
        if found.cost.price_per_million
        else "this store is not billed by command",
    )
    if found.outage.waiting or found.outage.quarantined:
        facts.add_row("journal", f"{found.outage.waiting} waiting, {found.outage.quarantined} in quarantine")
    if found.memory is not None and found.memory.used_bytes is not None:
        facts.add_row("memory", f"{found.memory.used_bytes / 2**20:,.1f} MiB")
    parts.append(facts)
    services = Table("service", "calls", "per s", "p50 ms", "p95 ms", "p99 ms")
    for each in found.services:
        latency = each.latency
        services.add_row(
            each.service,
            f"{each.operations:,}",
            f"{each.operations_per_second:g}",
            *(_figure(value) for value in (latency.p50_ms, latency.p95_ms, latency.p99_ms)),
        )
    if found.services:
        parts.append(services)
    tenants = Table("workspace", "commands", "bytes", "cost $")
    for tenant in found.workspaces:
        tenants.add_row(tenant.workspace, f"{tenant.commands:,}", f"{tenant.bytes:,}", f"{tenant.cost:.6f}")
    if found.workspaces:
        parts.append(tenants)
    return Group(*parts)


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f" {ratio:.1%}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
