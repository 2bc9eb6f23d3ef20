"""A job in a process of its own: CPU-bound or untrusted work, with limits, that can be killed."""

from __future__ import annotations

import asyncio
import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from redis_core.errors import InvalidJob

if TYPE_CHECKING:
    from redis_core.queueing.task import Task

__all__ = ["IsolatedError", "run_isolated"]

_PACK: Final = msgspec.msgpack.Encoder().encode


class IsolatedError(Exception):
    """What a job in a process of its own raised, or how its process ended."""


async def run_isolated(task: Task[..., Any], arguments: dict[str, Any], *, memory: int | None) -> Any:
    """Run a task's function in a new process; cancelling this kills it. Costs about 0.1 s, the module's own import beside.

    Args:
        task: a function of a module, or there is nothing that the process could import.
        arguments: what msgpack can carry.
        memory: most bytes of address space; None for no limit.

    Raises:
        IsolatedError: the function raised, or the process was killed.
    """
    function = task.function
    if "<" in function.__qualname__:
        raise InvalidJob(f"{task.name} is not importable, so no other process can run it")
    order = _PACK([list(sys.path), function.__module__, function.__qualname__, _PACK(arguments), memory])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=-1, stdout=-1, cwd=Path.cwd()
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
    done, value = msgspec.msgpack.decode(answer)
    if not done:
        raise IsolatedError(value)
    return value


def _main() -> None:
    path, module, name, arguments, memory = msgspec.msgpack.decode(sys.stdin.buffer.read())
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
        reply = _PACK([True, value])
    except BaseException:  # noqa: BLE001 - it is the answer
        reply = _PACK([False, traceback.format_exc()[-4_000:]])
    answer.write(reply)
    answer.flush()


if __name__ == "__main__":
    _main()
