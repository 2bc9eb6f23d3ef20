"""`raptorflow env`: what has to be set where the service is to run."""

from __future__ import annotations

from typing import Annotated

import typer

from redis_core.cli.output import console, print_json
from redis_core.config import load_settings
from redis_core.deployment import Platform, commands_for, variables_of

__all__ = ["env"]


def env(
    platform: Annotated[Platform, typer.Option("--for", help="Where the service is to run.")],
    json: Annotated[bool, typer.Option("--json", help="Print the variables as JSON.")] = False,
) -> None:
    """Print what to set on a platform, by the settings here. Never prints a secret."""
    variables = variables_of(load_settings())
    commands = commands_for(platform, variables)
    if json:
        print_json({"platform": platform, "variables": variables, "commands": commands})
        return
    for command in commands:
        console.print(command, markup=False, soft_wrap=True)
    missing = [variable.name for variable in variables if not variable.set]
    if missing:
        console.print(f"\nNot set here, and needed there: {', '.join(missing)}", markup=False)
