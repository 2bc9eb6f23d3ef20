"""The commands, and what happens when one fails."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

import redis_core
from redis_core.cli import acl as acl_command
from redis_core.cli import (
    bench,
    cache,
    doctor,
    drill,
    health,
    keys,
    limits,
    metrics,
    mock,
    queue,
    rotate,
    serve,
    sessions,
    stats,
    token,
    usage,
)
from redis_core.cli import env as env_command
from redis_core.cli import types as types_command
from redis_core.cli import worker as worker_command
from redis_core.cli import workspace as workspaces
from redis_core.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from redis_core.cli.output import failure_of, print_failure
from redis_core.errors import ConfigError, RedisCoreError, TargetNotEmpty, TransferError

__all__ = ["app", "run"]

app = typer.Typer(
    name="raptorflow",
    help="RaptorFlow Redis: run the service, and see how its store is.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.up)
app.command()(serve.gateway)
app.command()(health.health)
app.command()(doctor.doctor)
app.command()(bench.bench)
app.command()(env_command.env)
app.command()(mock.mock)
app.command()(worker_command.worker)
app.command()(metrics.metrics)
app.command()(stats.stats)
app.command()(token.token)
app.add_typer(cache.cache)
app.add_typer(drill.drill)
app.add_typer(keys.keys)
app.add_typer(limits.limits)
app.add_typer(queue.queue)
app.add_typer(rotate.rotate)
app.add_typer(sessions.sessions)
app.add_typer(usage.usage)
app.add_typer(workspaces.workspace)
app.command()(workspaces.backup)
app.command()(workspaces.restore)
app.command()(types_command.types)
app.add_typer(acl_command.acl, name="acl")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(redis_core.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from, for a bug report.")
    ] = False,
) -> None:
    """Options before the command."""
    # `--traceback` is looked for by `run`, which sees errors when the options are gone.
    del version, traceback


def run() -> NoReturn:
    """Run a command; an error is one line and an exit code, never a traceback unless asked for."""
    try:
        app(prog_name="raptorflow")
    except Exception as error:
        if "--traceback" in sys.argv:
            raise
        print_failure(failure_of(error), as_json="--json" in sys.argv)
        sys.exit(_exit_code(error))
    sys.exit(ExitCode.OK)


def _exit_code(error: Exception) -> ExitCode:
    if isinstance(error, ConfigError):
        return ExitCode.SETTINGS
    if isinstance(error, TargetNotEmpty):
        return ExitCode.DECLINED
    if isinstance(error, TransferError):
        return ExitCode.UNHEALTHY
    return ExitCode.STORE if isinstance(error, RedisCoreError) else ExitCode.BUG
