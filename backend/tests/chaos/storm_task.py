"""What the storm's producers and workers share: the task, and how they reach the store."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from redis_core.config import Settings
from redis_core.queue import JobContext, task

LOG: list[int] = []
"""The descriptor that runs are written down to, in a worker."""


def settings_for(url: str, journal: Path) -> Settings:
    return Settings(  # type: ignore[call-arg]  # pydantic-settings' own argument
        _env_file=None,
        redis_url=url,
        journal_path=journal,
        redis_command_timeout=0.5,
        redis_connect_timeout=0.5,
    )


@task(name="storm.work", retries=1_000)
async def work(ctx: JobContext, name: str, seconds: float) -> list[int]:
    """Begin and end are written down before anything else is told: the times of all processes are one clock's."""
    os.write(LOG[0], f"begin {name} {ctx.run} {time.monotonic()}\n".encode())
    try:
        await asyncio.sleep(seconds)
        return [ctx.run, os.getpid()]
    finally:
        os.write(LOG[0], f"end {name} {ctx.run} {time.monotonic()}\n".encode())
