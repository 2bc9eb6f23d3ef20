"""A job in a process of its own: CPU-bound or untrusted work, with limits, that can be killed."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from redis_core.config import plain_environment
from redis_core.errors import InvalidJob
from redis_core.queueing.retry import Retry

if TYPE_CHECKING:
    from redis_core.queueing.task import Task

__all__ = ["IsolatedError", "run_isolated"]

_PACK: Final = msgspec.msgpack.Encoder().encode


_DIE_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class IsolatedError(Exception):
    """What a job in a process of its own raised, or how its process ended."""


async def run_isolated(task: Task[..., Any], arguments: dict[str, Any], *, memory: int | None) -> Any:
    """Run a task's function in a new process; cancelling this kills it. Costs about 0.1 s, the module's own import beside.

    Args:
        task: a function of a module, or there is nothing that the process could import.
        arguments: what msgpack can carry.
        memory: most bytes of address space; None for no limit.

    On Linux the process ends with its worker, however that ends. Of the worker's environment it has what programs need (PATH, HOME, the
    locale, Python's own), and no address or token.

    Raises:
        IsolatedError: the function raised, or the process was killed.
        Retry: the function asked to be run again.
    """
    function = task.function
    if "<" in function.__qualname__:
        raise InvalidJob(f"{task.name} is not importable, so no other process can run it")
    order = _PACK(
        [list(sys.path), function.__module__, function.__qualname__, _PACK(arguments), memory, os.getpid()]
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=-1, stdout=-1, cwd=Path.cwd(), env=plain_environment()
    )
    try:
        answer, _ = await process.communicate(order)
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode or not answer:
        raise IsolatedError(
            f"the process of {task.name} ended with {process.returncode}, -9 is killed or out of memory"
        )
    outcome, value = msgspec.msgpack.decode(answer)
    if outcome == "retry":
        raise Retry(after=value)
    if outcome == "failed":
        raise IsolatedError(value)
    return value


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone; a parent that is gone already is not waited for."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only here, in a process of its own

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _main() -> None:
    path, module, name, arguments, memory, parent = msgspec.msgpack.decode(sys.stdin.buffer.read())
    _end_with(parent)
    # What the job prints must not be taken for its answer.
    answer, sys.stdout = sys.stdout.buffer, sys.stderr
    sys.path[:] = path
    if memory is not None:
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        # The name is the task's, which knows its arguments' types; or the bare function's, of a task that was made elsewhere.
        parameters = getattr(function, "parameters", None)
        decoded = (
            parameters.decode(arguments) if parameters is not None else msgspec.msgpack.decode(arguments)
        )
        value = getattr(function, "function", function)(**decoded)
        if asyncio.iscoroutine(value):
            value = asyncio.run(value)
        reply = _PACK(["done", value])
    except Retry as again:
        reply = _PACK(["retry", again.after])
    except BaseException:  # noqa: BLE001 - it is the answer
        reply = _PACK(["failed", traceback.format_exc()[-4_000:]])
    answer.write(reply)
    answer.flush()


if __name__ == "__main__":
    _main()
