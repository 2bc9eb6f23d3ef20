"""What every benchmark has: its rows, rounds that take turns, the servers, and how the result is printed.

A benchmark measures the CPU time its process spends on an operation, all threads included, because on a shared machine that moves
less than the clock does. Ours and the peer's rounds take turns in one process and on one event loop, so that what disturbs one
disturbs the other, and the least of the rounds counts: disturbance only adds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

BACKEND = Path(__file__).resolve().parent.parent
if str(BACKEND) not in sys.path:
    sys.path.insert(0, str(BACKEND))

from redis_core.transport.embedding.place import find_server  # noqa: E402 - the line above finds it

__all__ = [
    "BACKEND", "Cost", "Row", "Server", "callers", "closing", "compare", "cpu_seconds", "free_port", "gateway_process", "least",
    "listening", "main", "one_core", "peer", "row", "running", "valkey_server",
]  # fmt: skip

_STARTS_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result. `ratio` above 1 means that ours is better, whatever the unit."""

    what: str
    ours: float
    unit: str
    peer: str
    theirs: float
    ratio: float
    target: float | None
    """The ratio that is wanted; None for a line that only tells."""
    met: bool | None


def row(
    what: str,
    ours: float,
    unit: str,
    peer: str,
    theirs: float,
    *,
    target: float | None,
    higher_is_better: bool = False,
) -> Row:
    """A line, its ratio computed: a limit is a peer too, with a target of 1.

    Args:
        what: the line's name, by which others look it up.
        ours: our figure.
        unit: of both figures.
        peer: what is compared with, and its version.
        theirs: its figure.
        target: the least ratio that is wanted.
        higher_is_better: whether a larger figure is better, as of rates.
    """
    ratio = ours / theirs if higher_is_better else theirs / ours
    return Row(
        what=what,
        ours=round(ours, 3),
        unit=unit,
        peer=peer,
        theirs=round(theirs, 3),
        ratio=round(ratio, 3),
        target=target,
        met=None if target is None else ratio >= target,
    )


# --- measuring ---


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round cost."""

    cpu_us: float
    """Microseconds of CPU time of this process an operation, all threads."""
    rate: float
    """Operations a second by the clock."""


def least(rounds: Sequence[Cost]) -> Cost:
    """The least CPU time and the highest rate of several rounds."""
    return Cost(min(cost.cpu_us for cost in rounds), max(cost.rate for cost in rounds))


async def callers(operation: Callable[[], Awaitable[object]], *, concurrent: int, each: int) -> int:
    """Run an operation from so many tasks at once, `each` times one after the other; how often it ran."""

    async def caller() -> None:
        for _ in range(each):
            await operation()

    await asyncio.gather(*(caller() for _ in range(concurrent)))
    return concurrent * each


async def compare(*sides: Callable[[], Awaitable[int]], rounds: int) -> list[Cost]:
    """What an operation costs each side, their rounds taking turns; the first round of each warms up and does not count.

    Args:
        sides: run one round and return how many operations it was.
        rounds: how many rounds of each count.
    """
    costs: list[list[Cost]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        for side, kept in zip(sides, costs, strict=True):
            gc.collect()
            cpu, clock = time.process_time(), time.perf_counter()
            count = await side()
            cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
            if turn:
                kept.append(Cost(cpu * 1e6 / count, count / clock))
    return [least(kept) for kept in costs]


@contextmanager
def one_core(*pids: int) -> Generator[bool]:
    """Put this thread and these processes on one core while the block runs; False where the system cannot.

    A caller that waits for each reply lets its core fall idle. To wake an idle virtual core costs 30 to 90 us of system time,
    which a bare blocking socket pays as well and which would drown what is measured. On one core nothing falls idle.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    threads = (0, *pids)
    before = [os.sched_getaffinity(thread) for thread in threads]
    core = {min(before[0])}
    for thread in threads:
        os.sched_setaffinity(thread, core)
    try:
        yield True
    finally:
        for thread, cores in zip(threads, before, strict=True):
            os.sched_setaffinity(thread, cores)


def peer(module: str, package: str) -> tuple[ModuleType, str]:
    """A peer's module, and its name with version.

    Args:
        module: what is imported.
        package: what is installed.
    """
    try:
        return import_module(module), f"{package} {version(package)}"
    except (ImportError, PackageNotFoundError) as error:
        sys.exit(
            f"{package} is not installed: `make setup`, or pip install 'raptorflow-redis[bench]' ({error})"
        )


def cpu_seconds(pid: int) -> float:
    """CPU time that another process has used, user and system, in seconds; in steps of 10 ms on most systems."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        # No /proc: macOS. `ps` shows [days-][hours:]minutes:seconds.
        shown = subprocess.run(
            ["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout
        days, _, clock = shown.strip().rpartition("-")
        seconds = float(days or 0) * 86_400
        for place, part in enumerate(reversed(clock.split(":"))):
            seconds += float(part) * 60**place
        return seconds
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- servers ---


def free_port() -> int:
    """A port of the loopback address that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(process: subprocess.Popen[Any], port: int) -> None:
    """Wait until a process that was started listens on its port."""
    until = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{process.args!r} did not start")
            time.sleep(0.02)
        else:
            return


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; it is there when its port answers.

    Args:
        command: the program and its arguments.
        port: where it will listen, on 127.0.0.1.
        environment: variables beside those of this process.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        listening(process, port)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs for a benchmark."""

    port: int
    pid: int
    url: str


@contextmanager
def valkey_server(*options: str) -> Generator[Server]:
    """A Valkey (or the `redis-server` of the PATH) on a port of its own, nothing persisted."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="rf-bench-")
    command = [
        find_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir", folder, "--logfile", str(Path(folder) / "log"), *options,
    ]  # fmt: skip
    try:
        with running(command, port) as process:
            yield Server(port, process.pid, f"redis://127.0.0.1:{port}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def gateway_process(store: Server, token: str) -> Generator[Server]:
    """Our gateway under uvicorn, a process of its own, in front of a store."""
    port = free_port()
    command = [sys.executable, "-m", "redis_core", "gateway", "--port", str(port)]
    settings = {
        "PYTHONPATH": str(BACKEND), "RAPTORFLOW_ENV": "test", "REDIS_URL": store.url, "UPSTASH_REDIS_URL": "",
        "MOCK_REDIS": "false", "GATEWAY_TOKEN": token,
    }  # fmt: skip
    with running(command, port, **settings) as process:
        yield Server(port, process.pid, f"http://127.0.0.1:{port}")


@asynccontextmanager
async def closing(thing: Any) -> AsyncGenerator[Any]:
    """A peer's client, closed at the end whatever its closing method is called."""
    try:
        yield thing
    finally:
        await (getattr(thing, "aclose", None) or thing.close)()


# --- the program ---


def machine() -> str:
    """What the figures were measured on."""
    loop = "uvloop" if _uvloop() is not None else "asyncio"
    return (
        f"{os.cpu_count()} CPUs ({_processor()}), {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {loop}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _uvloop() -> ModuleType | None:
    try:
        return import_module("uvloop")
    except ImportError:
        return None


def run_loop(main: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    """Run a benchmark on uvloop where it is installed, else on asyncio's own loop."""
    uvloop = _uvloop()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop is not None else None) as runner:
        return runner.run(main)


def main(benchmark: str, measure: Callable[[bool], Coroutine[Any, Any, list[Row]]], *notes: str) -> None:
    """The whole program: arguments, the run, and the result as a table or as JSON.

    Args:
        benchmark: its name.
        measure: measures; is told whether it must be quick (45 s in all).
        notes: what a reader of the table has to know.
    """
    parser = argparse.ArgumentParser(description=f"The figures of {benchmark}, peers beside us.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: at most 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    rows = run_loop(measure(arguments.quick))
    if arguments.json:
        result = {"benchmark": benchmark, "machine": machine(), "rows": [asdict(line) for line in rows]}
        print(json.dumps(result))
    else:
        print(f"{benchmark}: {machine()}\n")
        print(table(rows))
        for note in notes:
            print(f"\n{note}")


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    head = ("what", "ours", "peer", "theirs", "unit", "ratio", "target", "met")
    lines = [head, *(_cells(line) for line in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(text)


def _cells(line: Row) -> tuple[str, ...]:
    return (
        line.what,
        _number(line.ours),
        line.peer,
        _number(line.theirs),
        line.unit,
        f"{line.ratio:.1f}" if line.ratio >= 1.95 else f"{line.ratio:.2f}",
        "" if line.target is None else f">= {line.target:g}",
        {True: "yes", False: "NO", None: ""}[line.met],
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
