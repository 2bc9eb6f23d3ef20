"""`raptorflow worker`: run jobs, in as many processes as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redis_core.config import load_settings
from redis_core.log_format import configure_logs

__all__ = ["worker"]


def worker(
    modules: Annotated[
        list[str], typer.Argument(help="Modules with tasks and schedules, such as app.tasks.")
    ],
    queues: Annotated[
        str, typer.Option("--queues", help="Their names, with commas; those of the tasks unless given.")
    ] = "",
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=5000, help="Jobs at once in each process.")
    ] = 100,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes; one that dies is started anew.")
    ] = 1,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that jobs have to finish after SIGTERM.")
    ] = 30.0,
    lease: Annotated[float | None, typer.Option("--lease", min=1, help="Instead of QUEUE_LEASE.")] = None,
    health_file: Annotated[
        Path | None, typer.Option("--health-file", help="Written every 5 s while all is well.")
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option("--health-port", help="Answers HTTP here; further processes on the ports after it."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew when a source file here changes.")
    ] = False,
) -> None:
    """Run jobs until SIGTERM or Ctrl-C, then let them finish. A second signal hands them back at once."""
    from redis_core.cli.worker_process import Options, run_here, supervise  # noqa: PLC0415 - uvloop and the user's modules

    configure_logs(level=load_settings().raptorflow_log_level)
    options = Options(
        tuple(modules), tuple(name.strip() for name in queues.split(",") if name.strip()), concurrency, grace, lease, health_file,
        health_port,
    )  # fmt: skip
    if processes > 1 or reload:
        supervise(options, processes, watched=Path.cwd() if reload else None)
    else:
        run_here(options)
