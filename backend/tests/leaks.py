"""Whether a piece of a test leaves tasks or sockets behind."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["nothing_leaks"]


def _sockets() -> int:
    """How many sockets this process has open. Other files come and go with the event loop and its threads."""
    count = 0
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names, some of them gone by now
        try:
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
        except OSError:
            continue
    return count


def _tasks() -> set[asyncio.Task[object]]:
    # A fixture is set up and torn down in tasks of its own.
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@asynccontextmanager
async def nothing_leaks() -> AsyncIterator[None]:
    """At the end there are no more tasks and open sockets than at the beginning; a few turns of the loop are given."""
    await asyncio.sleep(0)
    tasks, sockets = _tasks(), _sockets()
    yield
    for _ in range(100):
        if _tasks() <= tasks and _sockets() <= sockets:
            return
        await asyncio.sleep(0.01)
    assert _tasks() <= tasks
    assert _sockets() <= sockets
