"""The walk through a rotation: each step is told as it ends, asked for where it changes something, and waited for where it takes time."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NoReturn

import typer
from msgspec import Struct
from rich.text import Text

from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import Failure, console, print_failure, print_json
from redis_core.cli.rotation.place import Place
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.secret import Secret

__all__ = ["Rotation", "Step", "Walk"]

_LOOK: Final = 1.0
"""Seconds between two looks at what is waited for."""
_STYLES: Final = {"done": "green", "by hand": "yellow", "failed": "bold red"}


class Step(Struct, frozen=True):
    """One step and what came of it."""

    step: str
    status: Literal["done", "by hand", "failed"]
    detail: str


class Rotation(Struct, frozen=True):
    """The whole walk."""

    variable: str
    ok: bool
    """Whether every step was done or left to the operator."""
    steps: list[Step]
    made: str | None = None
    """The new secret, if it was asked for."""


class Walk:
    """One rotation.

    Args:
        variable: the setting whose secret is replaced.
        yes: do not ask.
        as_json: tell it to a program, at the end.
        show: show the new secret, once.
        wait: seconds to wait for what takes time.
        clock: what is waited by.
    """

    def __init__(
        self,
        variable: str,
        *,
        yes: bool,
        as_json: bool,
        show: bool,
        wait: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._variable = variable
        self._yes = yes
        self._as_json = as_json
        self._show = show
        self._wait = wait
        self._clock = clock
        self._steps: list[Step] = []
        self._made: str | None = None

    def done(self, step: str, detail: str) -> None:
        """Tell a step that is done."""
        self._tell(Step(step, "done", detail))

    def by_hand(self, step: str, detail: str) -> None:
        """Tell a step that only the operator can do or know."""
        self._tell(Step(step, "by hand", detail))

    def stop(self, step: str, detail: str) -> NoReturn:
        """Tell a step that failed, and end. What was accepted before still is."""
        self._tell(Step(step, "failed", detail))
        self._end(ok=False)
        raise typer.Exit(ExitCode.UNHEALTHY)

    def finish(self) -> None:
        """The end, all steps done."""
        self._end(ok=True)

    def show_made(self, secret: Secret) -> None:
        """Show the new secret if that was asked for: once, and nowhere else."""
        if not self._show:
            return
        if self._as_json:
            self._made = secret.reveal()
        else:
            console.print(Text(secret.reveal()), soft_wrap=True)

    def ask(self, question: str) -> None:
        """Go on only if the operator says so. Without a terminal there is nobody to ask."""
        if self._yes:
            return
        if self._as_json or not sys.stdin.isatty():
            message = f"{question} There is nobody to ask: say --yes"
            print_failure(Failure("declined", message), as_json=self._as_json)
            raise typer.Exit(ExitCode.DECLINED)
        if not typer.confirm(question, err=True):
            raise typer.Exit(ExitCode.DECLINED)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """Look again and again until a condition holds; False if it does not within the time to wait."""
        end = self._clock.monotonic() + self._wait
        while not await condition():
            if self._clock.monotonic() >= end:
                return False
            await self._clock.sleep(_LOOK)
        return True

    async def put(self, place: Place, new: Secret) -> None:
        """Put a secret into its place: a file is written, for Secret Manager the operator is told how and waited for."""
        step = f"put it into {place.name}"
        if place.is_file:
            await place.put(new)
            self.done(step, "written, with its owner and rights")
            return
        if not self._show or self._as_json:
            self.stop(step, f"say --show, without --json: the value is printed, for `{place.how()}`")
        console.print(f"Give this to the standard input of: {place.how()}", markup=False, soft_wrap=True)
        self.show_made(new)

        async def there() -> bool:
            return await place.read() == new

        if not await self.until(there):
            self.stop(step, f"it is not there after {self._wait:g} s; start again when it is")
        self.done(step, "it is there")

    def _tell(self, step: Step) -> None:
        self._steps.append(step)
        if not self._as_json:
            line = Text.assemble((f"{step.status:<8}", _STYLES[step.status]), f"{step.step}: {step.detail}")
            console.print(line, soft_wrap=True)

    def _end(self, *, ok: bool) -> None:
        if self._as_json:
            print_json(Rotation(self._variable, ok, self._steps, self._made))
