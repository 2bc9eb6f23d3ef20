"""`raptorflow workspace`, `backup` and `restore`: a tenant, or all of them, as a file; and a tenant gone."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from redis_core.cli.acting import Json, Yes, acting_as, asked, progress_bar
from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import Failure, console, print_failure, print_json
from redis_core.portability import Exported, Imported, Portability, Progress

__all__ = ["backup", "restore", "workspace"]

T = TypeVar("T")

workspace = typer.Typer(name="workspace", help="Move a workspace, or remove it.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The workspace's id.")]
File = Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="The file.")]
Everything = Annotated[
    bool, typer.Option("--all", help="Also what comes again by itself: cached values, counted limits.")
]
Without = Annotated[list[str] | None, typer.Option("--without", metavar="FAMILY", help="Leave a family out.")]
Replace = Annotated[bool, typer.Option("--replace", help="Remove what is there first. Asks, unless --yes.")]


@workspace.command()
def export(
    id: Id, file: File, everything: Everything = False, without: Without = None, json: Json = False
) -> None:
    """Write everything of a workspace to a file. A file there is replaced when the new one is whole."""
    _show_exported(
        _done(lambda move, told: move.export(id, file, everything=everything, without=without or (), progress=told)),
        as_json=json,
    )  # fmt: skip


@workspace.command("import")
def import_(
    file: File,
    as_id: Annotated[
        str | None, typer.Option("--as", metavar="ID", help="Under another id; sessions and cached values stay out.")
    ] = None,
    replace: Replace = False,
    yes: Yes = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Write an exported workspace to the store, and look whether it is there. Cut off, it goes on when run again.

    Exit code 1 if the file is damaged or the store has not what it should, 5 if the workspace has keys and --replace was not said.
    """
    if replace and not yes:
        _ask(f"Remove what the workspace in {file} has in the store now?", as_json=json)
    done = _done(lambda move, told: move.import_(file, workspace=as_id, replace=replace, progress=told))
    _show_imported(done, as_json=json)


@workspace.command()
def erase(id: Id, yes: Yes = False, json: Json = False) -> None:
    """Remove everything of a workspace for good, until the store has nothing of it. Exit code 5 if it was not confirmed.

    Stop what writes for it first. Cut off, it goes on when run again. The audit log keeps the id.
    """
    if not yes:
        if json or not sys.stdin.isatty():
            _declined(f"erase {id}: there is nobody to ask: say --yes", as_json=json)
        if typer.prompt(f"Everything of {id} will be gone. Type its id to go on", err=True) != id:
            raise typer.Exit(ExitCode.DECLINED)
    done = _done(lambda move, told: move.erase(id, progress=told))
    if json:
        print_json(done)
    else:
        console.print(f"{id}: {done.keys} keys and {done.names} other names removed; {done.left} keys left")


def backup(file: File, everything: Everything = False, without: Without = None, json: Json = False) -> None:
    """Write all workspaces, and what is the fleet's own, to a file; with --all also keys of other software."""
    _show_exported(
        _done(lambda move, told: move.backup(file, everything=everything, without=without or (), progress=told)),
        as_json=json,
    )  # fmt: skip


def restore(file: File, replace: Replace = False, yes: Yes = False, json: Json = False) -> None:
    """Write a backup to the store, and look whether it is there. Cut off, it goes on when run again. Exit codes as `workspace import`."""
    if replace and not yes:
        _ask("Remove all that RaptorFlow has in the store now?", as_json=json)
    done = _done(lambda move, told: move.restore(file, replace=replace, progress=told))
    _show_imported(done, as_json=json)


def _done(work: Callable[[Portability, Progress], Awaitable[T]]) -> T:
    """Do it with a bar on standard error."""
    with _bar() as told:
        return asked(lambda client: work(Portability(client, acting_as()), told))


@contextmanager
def _bar() -> Generator[Progress]:
    with progress_bar() as bar:
        task = bar.add_task("looking", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield told


def _ask(question: str, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        _declined(f"{question} There is nobody to ask: say --yes", as_json=as_json)
    if not typer.confirm(question, err=True):
        raise typer.Exit(ExitCode.DECLINED)


def _declined(message: str, *, as_json: bool) -> None:
    print_failure(Failure("declined", message), as_json=as_json)
    raise typer.Exit(ExitCode.DECLINED)


def _show_exported(done: Exported, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    table = Table("family", "type", "keys")
    for family, types in sorted(done.keys.items()):
        for kind, count in sorted(types.items()):
            table.add_row(family, kind, str(count))
    if done.keys:
        console.print(table)
    keys = sum(sum(types.values()) for types in done.keys.values())
    console.print(f"{done.path}: {keys} keys, {done.jobs} unfinished jobs, {done.file_bytes} bytes")
    console.print(f"SHA-256 {done.sha256}")


def _show_imported(done: Imported, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    console.print(
        f"{done.workspace or done.path}: {done.keys} keys written and verified, {done.jobs} jobs taken in"
    )
    if done.refused:
        console.print(f"{done.refused} jobs could not be taken in: others hold their unique keys")
    for why, count in sorted(done.left.items()):
        console.print(f"{count} keys left out: {why}")
