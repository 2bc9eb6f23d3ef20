"""The demo's jobs."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from redis_core.queue import JobContext, task

QUEUE: Final = "demo"
_CHANNELS: Final = ("email", "search", "social", "video")
_PAUSE_SECONDS: Final = 0.4


class Planned(msgspec.Struct):
    """What planning a campaign makes."""

    channels: dict[str, int]
    """Euros a day by channel."""


@task(name="demo.plan", queue=QUEUE, timeout=60, retries=1)
async def plan(budget: int, ctx: JobContext) -> Planned:
    """Divide a budget among channels, a step each, and tell how far it is. Run again after a crash, it goes on where it was."""
    channels: dict[str, int] = {}
    for done, channel in enumerate(_CHANNELS):
        await ctx.progress(done / len(_CHANNELS), f"looking at {channel}")
        channels[channel] = await ctx.step(channel, _ask_the_model, budget)
        await ctx.log(f"{channel} gets {channels[channel]} euros a day")
    await ctx.progress(1.0, "planned")
    return Planned(channels)


async def _ask_the_model(budget: int) -> int:
    """What a model would take its time for: a channel's share of the budget."""
    await asyncio.sleep(_PAUSE_SECONDS)
    return budget // len(_CHANNELS)
