"""`raptorflow keys`: whether all keys are as they were declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs
from rich.table import Table
from rich.text import Text

from redis_core.cli.acting import Json, asked, progress_bar
from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import console, print_json
from redis_core.client import Client
from redis_core.key_audit import DEFAULT_RATE, AuditState, FamilyAudit, KeyAudit, KeyAuditor

__all__ = ["keys"]

keys = typer.Typer(name="keys", help="Look after the key space.", no_args_is_help=True)


@keys.callback()
def _nothing() -> None:
    """Keeps `audit` a word of its own, though it is the only one."""


@keys.command()
def audit(
    workspace: Annotated[str | None, typer.Option("--workspace", help="Only this one's keys.")] = None,
    rate: Annotated[int, typer.Option("--rate", min=1, help="Most commands a second.")] = DEFAULT_RATE,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=0, help="Ask of about so many keys only; names are judged of all."),
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", min=1, help="Tell of larger keys; by family unless given.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume", help="Keep in this file how far it got, and go on from there; gone at the end."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compare every key with its family's declaration. Reads only. Exit code 1 if something is wrong."""
    wanted = {"workspace": workspace, "sample": sample, "most_bytes": max_bytes}

    async def look(client: Client) -> KeyAudit:
        state = None if resume is None else _kept(resume, wanted)
        try:
            auditor = KeyAuditor(
                client, workspace=workspace, sample=sample, most_bytes=max_bytes, rate=rate, state=state
            )
        except ValueError as error:
            raise typer.BadParameter(
                str(error), param_hint="--workspace" if state is None else "--resume"
            ) from error
        with progress_bar() as bar:
            # How many keys one workspace has is not known beforehand.
            shown = bar.add_task("Looking at keys", total=None)

            def after_page(state: AuditState) -> None:
                total = None if state.workspace else max(state.keys_total, state.scanned)
                bar.update(shown, completed=state.scanned, total=total)
                if resume is not None:
                    _keep(resume, state)

            found = await auditor.run(after_page=after_page)
        if resume is not None:
            resume.unlink(missing_ok=True)
        return found

    found = asked(look)
    if json:
        print_json(found)
    else:
        _show(found)
    if found.faults:
        raise typer.Exit(ExitCode.UNHEALTHY)


def _kept(file: Path, wanted: dict[str, str | int | None]) -> AuditState | None:
    """How far an audit with these options got; None if there is no such file."""
    try:
        state = AuditState.decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="--resume") from error
    held = structs.asdict(state)
    for name, value in wanted.items():
        if value is not None and held[name] != value:
            raise typer.BadParameter(
                f"{file}: its audit has another {name.replace('_', ' ')}: {held[name]}", param_hint="--resume"
            )
    return state


def _keep(file: Path, state: AuditState) -> None:
    """Replaced as a whole: a process that is killed leaves the state before or the one after."""
    new = file.with_name(f"{file.name}.new")
    try:
        # Names of keys are nobody else's business.
        new.touch(0o600)
        new.write_bytes(state.encode())
        new.replace(file)
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="--resume") from error


def _show(found: KeyAudit) -> None:
    whose = "" if found.workspace is None else f" of {found.workspace}"
    table = Table(
        "family", "keys", "bytes", "fault", "faulty", "such as", title=f"{found.scanned:,} keys{whose}"
    )
    for family in found.families:
        _add_rows(table, family)
    console.print(table)
    if found.examined < found.scanned:
        console.print(f"Type, expiry and size of {found.examined:,} keys; names of all")
    if found.estimated:
        console.print("Sizes were reckoned from lengths: the store does not tell what a key takes")
    console.print("No faults" if not found.faults else f"{found.faults:,} faults")


def _add_rows(table: Table, family: FamilyAudit) -> None:
    head = (family.family, f"{family.keys:,}", f"{family.bytes:,}")
    if not family.findings:
        table.add_row(*head, "", "", "")
    for finding in family.findings:
        # As text: what is in a key is no markup.
        table.add_row(*head, finding.fault, f"{finding.keys:,}", Text("\n".join(finding.examples)))
        head = ("", "", "")
