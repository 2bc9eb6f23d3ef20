"""`raptorflow drill blackout`: take the store away from a running service for some seconds, and prove that nothing is lost."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Final

import typer
from msgspec import Struct
from rich.table import Table

from redis_core.api.drill import AskRound, AskVerdict
from redis_core.api.mock import MockMode
from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.output import console, mark, print_json
from redis_core.cli.running import RunningService, TokenOption, UrlOption
from redis_core.drill import MOST_JOBS, Round, Verdict
from redis_core.health import Health

__all__ = ["drill"]

drill: Final = typer.Typer(
    name="drill", help="Practise on a running service what must work when it counts.", no_args_is_help=True
)

_BACK_WITHIN: Final = 60.0
"""Seconds after which a service that does not come back has failed the drill."""
_ROUND_EVERY: Final = 0.5
_VERDICT_WITHIN: Final = 60.0


class Step(Struct, frozen=True):
    """One step, and how it went."""

    name: str
    status: str
    """`pass` or `fail`."""
    told: str


class Report(Struct, frozen=True):
    """How the drill went."""

    url: str
    passed: bool
    seconds_away: float
    seconds_to_return: float
    """From the end of mock mode to a healthy service whose journal is empty."""
    jobs: int
    lost: int
    doubled: int
    steps: list[Step]


@drill.callback()
def _drills() -> None:
    """There may be others than the blackout."""


@drill.command()
def blackout(
    url: UrlOption = "",
    token: TokenOption = "",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, max=600.0, help="How long the store is away.")
    ] = 3.0,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=100, help="Jobs that are enqueued each half second.")
    ] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Rehearse a blackout: mock mode on, reads, writes and jobs, mock mode off, and see that nothing was lost.

    Only the process that answers at this URL is taken through it, with keys and a queue of the drill's own; its users see what they
    would see in an outage. Exit code 0 if all steps passed, 1 if not.
    """
    report = _Blackout(RunningService(url, token, _VERDICT_WITHIN), seconds, jobs).run()
    if json:
        print_json(report)
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(ExitCode.UNHEALTHY)


class _Blackout:
    def __init__(self, service: RunningService, seconds: float, jobs: int) -> None:
        self._service = service
        self._seconds = seconds
        self._jobs = jobs
        self._run = secrets.token_hex(6)
        self._steps: list[Step] = []
        self._ids: list[str] = []
        self._during: list[str] = []

    def run(self) -> Report:
        away = returned = 0.0
        verdict: Verdict | None = None
        if self._healthy() and self._before():
            began = time.monotonic()
            try:
                self._switch(on=True)
                self._rounds()
            finally:
                # Whatever went wrong, the service is not left without its store.
                ended = time.monotonic()
                away = ended - began
                self._switch(on=False)
            self._return()
            returned = time.monotonic() - ended
            verdict = self._verdict()
        return Report(
            self._service.url,
            all(step.status == "pass" for step in self._steps),
            round(away, 3),
            round(returned, 3),
            len(self._ids),
            len(verdict.lost) if verdict else 0,
            len(verdict.doubled) if verdict else 0,
            self._steps,
        )

    def _step(self, name: str, told: str, *, passed: bool) -> bool:
        self._steps.append(Step(name, "pass" if passed else "fail", told))
        return passed

    def _healthy(self) -> bool:
        health = self._service.ask("GET", "/health/redis", Health)
        fit = health.status == "pass" and health.mode not in {"memory", "degraded", "recovering"}
        told = f"{health.status}, mode {health.mode}"
        return self._step(
            "identify", told if fit else f"{told}: a drill needs a store that is there", passed=fit
        )

    def _ask_round(self, name: str) -> Round:
        # The last ones may have none: there is a most for all of them together.
        jobs = min(self._jobs, MOST_JOBS - len(self._ids))
        done = self._service.ask(
            "POST", "/admin/drill/rounds", Round, AskRound(run=self._run, name=name, jobs=jobs)
        )
        self._ids += done.jobs
        return done

    def _before(self) -> bool:
        done = self._ask_round("before")
        passed = done.read_back and not done.errors and not done.spooled
        return self._step("before", _told(done), passed=passed)

    def _switch(self, *, on: bool) -> None:
        found = self._service.ask("PUT", f"/admin/mock?on={'true' if on else 'false'}", MockMode)
        self._step("mock on" if on else "mock off", f"mode {found.mode}", passed=found.on == on)

    def _rounds(self) -> None:
        until = time.monotonic() + self._seconds
        while True:
            name = f"away-{len(self._during)}"
            self._during.append(name)
            done = self._ask_round(name)
            passed = (
                done.mode == "degraded"
                and done.read_back
                and not done.errors
                and done.spooled == len(done.jobs)
            )
            self._step(name, _told(done), passed=passed)
            left = until - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(_ROUND_EVERY, left))
        health = self._service.ask("GET", "/health/redis", Health)
        self._step(
            "health while away",
            f"{health.status}, mode {health.mode}, degraded {str(health.degraded).lower()}",
            passed=health.status != "fail" and health.degraded is True,
        )

    def _return(self) -> None:
        until = time.monotonic() + _BACK_WITHIN
        while True:
            found = self._service.ask("GET", "/admin/mock", MockMode)
            back = found.outage.state == "healthy" and not found.outage.waiting
            if back or time.monotonic() > until:
                break
            time.sleep(0.1)
        told = f"{found.outage.state}, {found.outage.waiting} waiting, {found.outage.quarantined} quarantined"
        self._step("return", told, passed=back)

    def _verdict(self) -> Verdict:
        found = self._service.ask(
            "POST", "/admin/drill/verdicts", Verdict, AskVerdict(self._run, self._ids, self._during)
        )
        passed = (
            found.value_kept
            and found.memory_forgotten
            and found.in_order
            and not found.lost
            and not found.doubled
        )
        told = (
            f"{found.ran} of {len(self._ids)} jobs ran, {len(found.lost)} lost, {len(found.doubled)} doubled, "
            f"{'in order' if found.in_order else 'out of order'}; value written before {'kept' if found.value_kept else 'gone'}, "
            f"memory's {'forgotten' if found.memory_forgotten else 'in the store'}"
        )
        self._step("verdict", told, passed=passed)
        return found


def _told(done: Round) -> str:
    told = (
        f"mode {done.mode}, {'read what was written' if done.read_back else 'nothing read back'}, "
        f"{len(done.jobs)} jobs ({done.spooled} in the journal), {done.milliseconds:g} ms"
    )
    return "; ".join([told, *done.errors])


def _show(report: Report) -> None:
    table = Table.grid(padding=(0, 2))
    for step in report.steps:
        table.add_row(step.name, mark(step.status), step.told)
    console.print(table)
    console.print(
        f"{'Passed' if report.passed else 'Failed'}: away {report.seconds_away:.1f} s, back after {report.seconds_to_return:.1f} s, "
        f"{report.jobs} jobs, {report.lost} lost, {report.doubled} doubled"
    )
