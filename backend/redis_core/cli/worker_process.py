"""What `raptorflow worker` runs: one worker here, or several in processes that it looks after."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

from redis_core.client import connect
from redis_core.config import load_settings
from redis_core.errors import ConfigError
from redis_core.exposition import figures_of
from redis_core.log import get_logger
from redis_core.metrics import Metrics
from redis_core.queueing.probe import probe
from redis_core.queueing.schedule import Schedule
from redis_core.queueing.task import Task
from redis_core.usage import UsageEngine
from redis_core.worker import Worker

__all__ = ["Options", "find_tasks", "run_here", "supervise"]

_LOOK_EVERY: Final = 0.2
_RESTART_AFTER: Final = 1.0
"""Seconds a process must have lived to be started anew at once; one that dies sooner waits that long."""
_LOG: Final = get_logger("redis_core.queue")


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options."""

    modules: tuple[str, ...]
    queues: tuple[str, ...]
    concurrency: int
    grace: float
    lease: float | None
    health_file: Path | None
    health_port: int | None

    def words(self) -> list[str]:
        """As a command line has them."""
        words = [*self.modules, "--concurrency", str(self.concurrency), "--grace", str(self.grace)]
        for name, value in (
            ("--queues", ",".join(self.queues)), ("--lease", self.lease), ("--health-file", self.health_file),
            ("--health-port", self.health_port),
        ):  # fmt: skip
            if value is not None and value != "":
                words += [name, str(value)]
        return words


def find_tasks(modules: tuple[str, ...]) -> tuple[list[Task[..., Any]], list[Schedule]]:
    """The tasks and schedules that these modules have as names of their own.

    Raises:
        ConfigError: a module is not there, or none has a task.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    tasks: list[Task[..., Any]] = []
    schedules: list[Schedule] = []
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ConfigError("modules", name, f"no such module from {Path.cwd()}: {error}") from error
        tasks += [value for value in vars(module).values() if isinstance(value, Task)]
        schedules += [value for value in vars(module).values() if isinstance(value, Schedule)]
    if not tasks:
        raise ConfigError("modules", ", ".join(modules), "they have no task: functions under `@task`")
    return list(dict.fromkeys(tasks)), schedules


def run_here(options: Options) -> None:
    """Run one worker in this process until a signal ends it."""
    tasks, schedules = find_tasks(options.modules)
    if sys.platform == "win32":
        asyncio.run(_work(options, tasks, schedules))
        return
    import uvloop  # noqa: PLC0415 - not on Windows

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(options, tasks, schedules))
    if any(thread.name.startswith("job") for thread in threading.enumerate()):
        # Its jobs were handed back, and Python would wait for it as long as it runs.
        _LOG.warning("a job's thread does not end: the process ends without it")
        logging.shutdown()
        os._exit(0)


async def _work(options: Options, tasks: list[Task[..., Any]], schedules: list[Schedule]) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await connect(load_settings()))
        client.service(Metrics).start()
        client.service(UsageEngine).start()
        worker = Worker(
            client,
            tasks,
            queues=options.queues or None,
            concurrency=options.concurrency,
            lease=options.lease,
            grace=options.grace,
            schedules=schedules,
            health_file=options.health_file,
        )
        if options.health_port is not None:
            await stack.enter_async_context(
                probe("0.0.0.0", options.health_port, worker.report, partial(figures_of, client))  # noqa: S104 - for probes from outside
            )
        await worker.run(signals=True)


# --- several ---


class _Child:
    """One process of a worker."""

    def __init__(self, options: Options, number: int) -> None:
        file, port = options.health_file, options.health_port
        if file is not None and number:
            file = file.with_name(f"{file.name}.{number}")
        own = replace(options, health_file=file, health_port=None if port is None else port + number)
        self._command = [sys.executable, "-m", "redis_core", "worker", *own.words()]
        self._not_before = 0.0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self._not_before = time.monotonic() + _RESTART_AFTER
        return subprocess.Popen(self._command)  # noqa: S603 - this program itself

    def look_after(self) -> None:
        """Start it anew if it died."""
        if self.process.poll() is not None and time.monotonic() >= self._not_before:
            _LOG.error(
                "a worker process died and is started anew",
                pid=self.process.pid,
                code=self.process.returncode,
            )
            self.process = self.start()


def supervise(options: Options, processes: int, *, watched: Path | None) -> None:
    """Run workers in processes of their own until a signal ends them.

    Args:
        options: of each.
        processes: how many.
        watched: a folder; when a source file in it changes, all are started anew.

    Raises:
        ConfigError: their modules are wrong; told here, not by each.
    """
    find_tasks(options.modules)
    signals: list[int] = []

    def told(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    children = [_Child(options, number) for number in range(processes)]
    seen = _changes(watched)
    while not signals:
        time.sleep(_LOOK_EVERY)
        now = _changes(watched)
        if now != seen:
            seen = now
            _LOG.info("a source file changed: starting anew")
            _end(children)
            for child in children:
                child.process = child.start()
        for child in children:
            child.look_after()
    _end(children, signals)


def _end(children: list[_Child], signals: list[int] | None = None) -> None:
    """Pass SIGTERM on and wait; each further signal is passed on too."""
    passed = 0
    while any(child.process.poll() is None for child in children):
        told = len(signals) if signals else 1
        while passed < told:
            passed += 1
            for child in children:
                if child.process.poll() is None:
                    child.process.send_signal(signal.SIGTERM)
        time.sleep(_LOOK_EVERY / 4)


def _changes(folder: Path | None) -> float:
    """When a source file of a folder was changed last."""
    if folder is None:
        return 0.0
    latest = 0.0
    for path in folder.rglob("*.py"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        # An editor may replace it just now.
        with suppress(FileNotFoundError):
            latest = max(latest, path.stat().st_mtime)
    return latest
