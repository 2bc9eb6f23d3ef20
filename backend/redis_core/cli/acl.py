"""`raptorflow acl`: the store's users, printed or made."""

from __future__ import annotations

import asyncio
from shlex import join
from typing import Annotated

import typer

from redis_core.acl import (
    ROLES,
    AclUser,
    Applied,
    AppliedUser,
    Role,
    apply_users,
    read_passwords,
    role_user,
    setuser,
    workspace_user,
)
from redis_core.audit import AuditLog, Values
from redis_core.cli.acting import acting_as
from redis_core.cli.output import console, fields, print_json
from redis_core.client import connect
from redis_core.config import load_settings
from redis_core.secret import Secret

__all__ = ["acl"]

acl = typer.Typer(
    help="The store's users: app, worker, auditor, admin, and one for a workspace.", no_args_is_help=True
)

Roles = Annotated[list[str] | None, typer.Argument(help="Roles; all four unless given.")]
Workspaces = Annotated[
    list[str] | None,
    typer.Option("--workspace", help="Also a user for this workspace alone; may be repeated."),
]
Passwords = Annotated[
    typer.FileText | None,
    typer.Option(
        help="A file of lines `user=password`, - for standard input, instead of passwords that are made."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


@acl.command("print")
def show(
    roles: Roles = None,
    workspace: Workspaces = None,
    passwords: Passwords = None,
    upstash: Annotated[
        bool, typer.Option("--upstash", help="In the words that Upstash's ACL knows.")
    ] = False,
    aclfile: Annotated[bool, typer.Option("--aclfile", help="As lines of a server's `aclfile`.")] = False,
    json: Json = False,
) -> None:
    """Print the commands that make the users. Asks no store and shows no password: its SHA-256, or `***` for Upstash."""
    given = _given(passwords)
    users = _users(roles, workspace)
    commands = [
        [
            ">***" if str(word).startswith(">") else str(word)
            for word in setuser(user, given.get(user.name), upstash=upstash)
        ]
        for user in users
    ]
    if json:
        print_json({"commands": commands})
        return
    for command in commands:
        line = " ".join(["user", *command[2:]]) if aclfile else join(command)
        console.print(line, markup=False, soft_wrap=True)


@acl.command()
def apply(
    roles: Roles = None,
    workspace: Workspaces = None,
    passwords: Passwords = None,
    new_passwords: Annotated[
        bool,
        typer.Option(
            "--new-passwords", help="One more password for users that are there; the old stay valid."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make the users in the store, or bring them up to date. Passwords that were made are printed once, here only."""
    users, given = _users(roles, workspace), _given(passwords)
    applied = asyncio.run(_apply(users, given, new_passwords=new_passwords))
    if json:
        print_json({"users": [_document(user) for user in applied.users], "kept": applied.kept})
        return
    table = fields()
    for user in applied.users:
        table.add_row(user.name, "made" if user.created else "brought up to date")
        if user.password is not None:
            table.add_row("", f"password {user.password.reveal()}")
        if user.rest_token is not None:
            table.add_row("", f"REST token {user.rest_token.reveal()}")
    console.print(table)
    if not applied.kept:
        console.print(
            "The server has no aclfile and forgets these users when it starts anew: put what `raptorflow acl print --aclfile "
            "--passwords FILE` prints into one.",
            markup=False,
            soft_wrap=True,
        )


def _given(file: typer.FileText | None) -> dict[str, Secret]:
    return {} if file is None else read_passwords(file.read())


def _users(roles: list[str] | None, workspaces: list[str] | None) -> list[AclUser]:
    wanted: list[Role] = [role for role in ROLES if role in roles] if roles else []
    if roles and (unknown := set(roles) - set(ROLES)):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(ROLES)}")
    if not roles and not workspaces:
        wanted = list(ROLES)
    return [*map(role_user, wanted), *map(workspace_user, workspaces or ())]


async def _apply(users: list[AclUser], passwords: dict[str, Secret], *, new_passwords: bool) -> Applied:
    async with await connect(load_settings(redis_failover=False)) as client:
        applied = await apply_users(client, users, passwords=passwords, new_passwords=new_passwords)
        log = AuditLog(client)
        for user in applied.users:
            after: Values = {"created": user.created, "password_added": user.password is not None}
            await log.record(acting_as(), "acl.apply", user.name, after=after)
        return applied


def _document(user: AppliedUser) -> dict[str, object]:
    return {
        "name": user.name,
        "created": user.created,
        "password": user.password and user.password.reveal(),
        "restToken": user.rest_token and user.rest_token.reveal(),
    }
