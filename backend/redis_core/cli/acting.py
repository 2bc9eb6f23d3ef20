"""What commands that change something share: who acts, the question before it, the bar while it runs, the line after it."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from msgspec import structs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from redis_core.audit import Actor
from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import Failure, console, print_failure, print_json
from redis_core.client import Client, connect
from redis_core.config import load_settings
from redis_core.errors import InvalidJob, InvalidKey
from redis_core.measuring.documents import Done
from redis_core.operations import Operations

__all__ = ["DryRun", "Json", "Yes", "acting_as", "asked", "change", "progress_bar", "show_done"]

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is done.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what it would change.")]


def asked(question: Callable[[Client], Awaitable[T]]) -> T:
    """Ask the store something; an id that cannot be one is a wrong argument.

    The store itself, or nobody: what memory answered for it would be told as done, and its journal would have nobody to carry it out.

    Args:
        question: what to ask; the client is closed after it.
    """

    async def ask() -> T:
        async with await connect(load_settings(redis_failover=False)) as client:
            return await question(client)

    try:
        return asyncio.run(ask())
    except (InvalidKey, InvalidJob) as error:
        raise typer.BadParameter(str(error)) from error


def change(
    work: Callable[[Operations, bool], Awaitable[Done]],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    even_none: bool = False,
) -> None:
    """Count, ask, do, and tell; the change is in the audit log as `cli:<user of this system>`.

    Args:
        work: does it, or only counts if its second argument is true.
        dry_run: only count.
        yes: do not ask. Without a terminal there is nobody to ask, and nothing is changed.
        as_json: tell it to a program.
        even_none: do it although nothing was counted, where the count cannot see all.
    """

    async def attempt(client: Client, *, only_count: bool) -> Done:
        return await work(Operations(client, acting_as()), only_count)

    counted = asked(lambda client: attempt(client, only_count=True))
    if dry_run or not (counted.matched or even_none):
        show_done(structs.replace(counted, dry_run=dry_run), as_json=as_json)
        return
    if not yes:
        _confirm(counted, as_json=as_json)
    show_done(asked(lambda client: attempt(client, only_count=False)), as_json=as_json)


def acting_as() -> Actor:
    """Who acts, as the audit log names them: this system's user."""
    return Actor(f"cli:{_user()}", "admin")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user often has no name.
        return str(os.getuid())


def _confirm(counted: Done, *, as_json: bool) -> None:
    question = f"{counted.action} {counted.target}: {counted.matched} to change. Go on?"
    if as_json or not sys.stdin.isatty():
        message = f"{question} There is nobody to ask: say --yes, or --dry-run to count"
        print_failure(Failure("declined", message), as_json=as_json)
        raise typer.Exit(ExitCode.DECLINED)
    if not typer.confirm(question, err=True):
        raise typer.Exit(ExitCode.DECLINED)


def show_done(done: Done, *, as_json: bool) -> None:
    """Tell what was done, or would be."""
    if as_json:
        print_json(done)
    elif done.dry_run:
        console.print(f"{done.action} {done.target}: would change {done.matched}; nothing was changed")
    elif not done.matched:
        console.print(f"{done.action} {done.target}: there is nothing to change")
    else:
        console.print(f"{done.action} {done.target}: changed {done.changed} of {done.matched}")


def progress_bar() -> Progress:
    """A bar on standard error; nothing where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
