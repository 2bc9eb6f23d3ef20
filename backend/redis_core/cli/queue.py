"""`raptorflow queue`: queues and their jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal

import typer
from rich.table import Table

from redis_core.cli.acting import DryRun, Json, Yes, asked, change, progress_bar, show_done
from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import console, fields, print_json
from redis_core.client import Client
from redis_core.job_operations import JobOperations, Progress
from redis_core.measuring.documents import Done, JobPage, QueueFigures
from redis_core.operations import Operations
from redis_core.queueing.inspection import QueueInspection

__all__ = ["queue"]

queue = typer.Typer(name="queue", help="Look after queues and their jobs.", no_args_is_help=True)

_LOOK_EVERY: Final = 0.5

QueueName = Annotated[str, typer.Argument(help="The queue's name.")]
Workspace = Annotated[str, typer.Argument(help="Whose jobs.")]
Ids = Annotated[
    list[str] | None, typer.Argument(help="Only these jobs; all that the options leave unless given.")
]
OfTask = Annotated[str | None, typer.Option("--task", help="Only of this task.")]
InWorkspace = Annotated[str | None, typer.Option("--workspace", "-w", help="Only of this workspace.")]
UnfinishedState = Literal["waiting", "delayed", "blocked", "running"]
State = Literal["waiting", "delayed", "blocked", "running", "dead"]


@queue.command("ls")
def list_(
    name: Annotated[str | None, typer.Argument(help="A queue; all of them unless given.")] = None,
    workspace: Annotated[str | None, typer.Argument(help="Show this workspace's jobs.")] = None,
    state: Annotated[State | None, typer.Option("--state", help="Only in this state.")] = None,
    task: OfTask = None,
    most: Annotated[int, typer.Option("--most", min=1, max=1_000, help="About how many jobs.")] = 50,
    json: Json = False,
) -> None:
    """Show queues, or the jobs of one workspace in one queue."""
    if name is None or workspace is None:
        _show_queues(name, as_json=json)
        return

    async def ask(client: Client) -> JobPage:
        return await QueueInspection(client).jobs(name, workspace, state=state, task=task, most=most)

    page = asked(ask)
    if json:
        print_json(page)
        return
    table = Table("id", "task", "state", "enqueued", "due", "error")
    for job in page.jobs:
        error = job.errors[-1] if job.errors else ""
        table.add_row(job.id, job.task, job.state, job.enqueued, job.due, error)
    console.print(table if page.jobs else f"{workspace} has no such jobs in {name}")


def _show_queues(name: str | None, *, as_json: bool) -> None:
    async def ask(client: Client) -> list[QueueFigures]:
        inspection = QueueInspection(client)
        return [await inspection.queue(name)] if name is not None else (await inspection.queues()).queues

    found = asked(ask)
    if as_json:
        print_json({"queues": found})
        return
    table = Table("queue", "unfinished", "running", "delayed", "dead", "workers", "")
    for each in found:
        figures = (each.unfinished, each.running, each.delayed, each.dead, each.workers)
        table.add_row(each.queue, *(f"{figure:,}" for figure in figures), "paused" if each.paused else "")
    console.print(table if found else "There are no queues")


@queue.command()
def show(
    name: QueueName,
    workspace: Workspace,
    id: Annotated[str, typer.Argument(help="The job's id.")],
    json: Json = False,
) -> None:
    """Show one job. Exit code 1 if there is none."""
    job = asked(lambda client: QueueInspection(client).job(name, workspace, id))
    if json:
        print_json(job)
    else:
        table = fields()
        for label, value in (
            ("id", job.id), ("task", job.task), ("state", job.state), ("enqueued", job.enqueued), ("due", job.due),
            ("ended", job.ended), ("progress", None if job.progress is None else f"{job.progress:.0%}"), ("message", job.message),
        ):  # fmt: skip
            if value is not None:
                table.add_row(label, value)
        for error in job.errors:
            table.add_row("error", error)
        console.print(table)
    if job.state == "unknown":
        raise typer.Exit(ExitCode.UNHEALTHY)


@queue.command()
def retry(
    name: QueueName,
    workspace: Workspace,
    ids: Ids = None,
    task: OfTask = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Send dead letters to the queue again. Exit code 5 if it was not confirmed."""

    def work(jobs: JobOperations, count: bool, progress: Progress) -> Awaitable[Done]:
        return jobs.retry(ids or None, task=task, dry_run=count, progress=progress)

    _change_jobs(name, workspace, "Sending jobs again", work, dry_run=dry_run, yes=yes, as_json=json)


@queue.command()
def delete(
    name: QueueName,
    workspace: Workspace,
    ids: Ids = None,
    task: OfTask = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove dead letters for good. Exit code 5 if it was not confirmed."""

    def work(jobs: JobOperations, count: bool, progress: Progress) -> Awaitable[Done]:
        return jobs.delete(ids or None, task=task, dry_run=count, progress=progress)

    _change_jobs(name, workspace, "Deleting jobs", work, dry_run=dry_run, yes=yes, as_json=json)


@queue.command()
def cancel(
    name: QueueName,
    workspace: Workspace,
    ids: Ids = None,
    task: OfTask = None,
    state: Annotated[UnfinishedState | None, typer.Option("--state", help="Only in this state.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Cancel unfinished jobs. Exit code 5 if it was not confirmed."""

    def work(jobs: JobOperations, count: bool, progress: Progress) -> Awaitable[Done]:
        return jobs.cancel(ids or None, task=task, state=state, dry_run=count, progress=progress)

    _change_jobs(name, workspace, "Cancelling jobs", work, dry_run=dry_run, yes=yes, as_json=json)


def _change_jobs(
    name: str,
    workspace: str,
    title: str,
    work: Callable[[JobOperations, bool, Progress], Awaitable[Done]],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    async def with_a_bar(act: Operations, count: bool) -> Done:
        with progress_bar() as bar:
            line = bar.add_task(title, total=None)
            return await work(
                JobOperations(act, name, workspace),
                count,
                lambda done, total: bar.update(line, completed=done, total=total),
            )

    change(with_a_bar, dry_run=dry_run, yes=yes, as_json=as_json)


@queue.command()
def pause(name: QueueName, workspace: InWorkspace = None, yes: Yes = False, json: Json = False) -> None:
    """Let no further job of a queue begin; those that run go on. Exit code 5 if it was not confirmed."""

    async def work(act: Operations, count: bool) -> Done:
        target = name if workspace is None else f"{name}:{workspace}"
        counted = Done("queue.pause", target, dry_run=True, matched=1, changed=0)
        return counted if count else await act.pause(name, workspace)

    change(work, dry_run=False, yes=yes, as_json=json)


@queue.command()
def resume(name: QueueName, workspace: InWorkspace = None, json: Json = False) -> None:
    """End a pause. It destroys nothing, so it does not ask."""

    async def work(act: Operations, count: bool) -> Done:
        target = name if workspace is None else f"{name}:{workspace}"
        counted = Done("queue.resume", target, dry_run=True, matched=1, changed=0)
        return counted if count else await act.resume(name, workspace)

    change(work, dry_run=False, yes=True, as_json=json)


@queue.command()
def drain(
    name: QueueName,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = 300.0,
    json: Json = False,
) -> None:
    """Wait until a queue has no unfinished job, as before a change of its shards. Exit code 1 if it still has some."""

    async def wait(client: Client) -> tuple[int, int]:
        inspection = QueueInspection(client)
        first = left = (await inspection.queue(name)).unfinished
        ends = asyncio.get_running_loop().time() + timeout
        with progress_bar() as bar:
            line = bar.add_task(f"Waiting for {name}", total=first)
            while left and asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(_LOOK_EVERY)
                left = (await inspection.queue(name)).unfinished
                bar.update(line, completed=max(first - left, 0))
        return first, left

    first, left = asked(wait)
    show_done(Done("queue.drain", name, False, first, max(first - left, 0)), as_json=json)
    if left:
        raise typer.Exit(ExitCode.UNHEALTHY)
