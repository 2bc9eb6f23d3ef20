"""`raptorflow rotate`: replace a secret without a restart, step by step."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from redis_core.api.admin_token import ROLES
from redis_core.cli.acting import Json, Yes
from redis_core.cli.rotation.accepted import (
    finish_gateway,
    finish_peppers,
    rotate_admin,
    rotate_gateway,
    rotate_pepper,
)
from redis_core.cli.rotation.rest_token import rotate_token
from redis_core.cli.rotation.store_password import rotate_password
from redis_core.cli.rotation.walk import Walk
from redis_core.config import load_settings
from redis_core.secret import Secret

__all__ = ["rotate"]

rotate = typer.Typer(
    name="rotate",
    help="Replace a secret without a restart: the new one is accepted before the old one is taken away.",
    no_args_is_help=True,
)

Show = Annotated[bool, typer.Option("--show", help="Show the new secret, once.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for processes to follow.")]
Finish = Annotated[bool, typer.Option("--finish", help="Take the old ones away.")]
Url = Annotated[str, typer.Option("--url", help="Where it runs; this host unless given.")]
_WAIT = 180.0


@rotate.command()
def redis(
    admin_url: Annotated[
        str,
        typer.Option("--admin-url", envvar="REDIS_ADMIN_URL", help="The store, with a user who may use ACL."),
    ] = "",
    wait: Wait = _WAIT,
    show: Show = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """The store's password over TCP, kept where REDIS_PASSWORD says."""
    walk = Walk("REDIS_PASSWORD", yes=yes, as_json=json, show=show, wait=wait)
    asyncio.run(rotate_password(load_settings(), walk, admin_url))


@rotate.command()
def upstash(wait: Wait = _WAIT, show: Show = False, yes: Yes = False, json: Json = False) -> None:
    """The REST token, kept where UPSTASH_REDIS_TOKEN says. The new one is read from standard input."""
    if sys.stdin.isatty():
        text = typer.prompt("The new token (of ACL RESTTOKEN, or the console)", hide_input=True, err=True)
    else:
        text = sys.stdin.readline().strip()
    if not text:
        raise typer.BadParameter("give the new token on standard input")
    walk = Walk("UPSTASH_REDIS_TOKEN", yes=yes, as_json=json, show=show, wait=wait)
    asyncio.run(rotate_token(load_settings(), walk, Secret(text)))


@rotate.command()
def admin(
    name: Annotated[str, typer.Argument(help="Whose token: the name of its entry.")],
    role: Annotated[str, typer.Option("--role", help="Of the first token of a name.")] = "",
    url: Url = "",
    wait: Wait = _WAIT,
    finish: Finish = False,
    show: Show = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """An admin token, kept where ADMIN_TOKENS says."""
    if role and role not in ROLES:
        raise typer.BadParameter(f"role must be one of {', '.join(ROLES)}")
    if not finish and not show:
        raise typer.BadParameter(
            "say --show: only the hash of a token is kept, so that it is seen now or never"
        )
    settings = load_settings()
    walk = Walk("ADMIN_TOKENS", yes=yes, as_json=json, show=show, wait=wait)
    place = _url(url, settings.raptorflow_port)
    asyncio.run(rotate_admin(settings, walk, name, place, role=role, finish=finish))


@rotate.command()
def pepper(
    realtime: Annotated[
        bool, typer.Option("--realtime", help="REALTIME_KEYS, instead of SESSION_PEPPERS.")
    ] = False,
    wait: Wait = _WAIT,
    finish: Finish = False,
    show: Show = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """The keys of session tokens, kept where SESSION_PEPPERS says."""
    variable = "REALTIME_KEYS" if realtime else "SESSION_PEPPERS"
    walk = Walk(variable, yes=yes, as_json=json, show=show, wait=wait)
    asyncio.run((finish_peppers if finish else rotate_pepper)(load_settings(), walk, variable=variable))


@rotate.command()
def gateway(
    read_only: Annotated[bool, typer.Option("--read-only", help="GATEWAY_READONLY_TOKEN.")] = False,
    url: Url = "",
    wait: Wait = _WAIT,
    finish: Finish = False,
    show: Show = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """The gateway's tokens, kept where GATEWAY_TOKEN says."""
    settings = load_settings()
    variable = "GATEWAY_READONLY_TOKEN" if read_only else "GATEWAY_TOKEN"
    walk = Walk(variable, yes=yes, as_json=json, show=show, wait=wait)
    place = _url(url, settings.gateway_port)
    asyncio.run((finish_gateway if finish else rotate_gateway)(settings, walk, place, variable=variable))


def _url(url: str, port: int) -> str:
    if not url:
        return f"http://127.0.0.1:{port}"
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter("give a URL that begins with http:// or https://", param_hint="--url")
    return url.rstrip("/")
