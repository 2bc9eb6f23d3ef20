"""One workspace with 100,000 jobs and twenty with ten each: when are the twenty done? Measured, and drawn as docs/queue-fairness.svg.

With one place and equal jobs it shows who was served, not how rounds fell: beside the flood the fair share of the twenty is 20 of 21. What
the flood was served meanwhile is counted too: the clock of a busy machine says less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from harness import Row, row

from redis_core.client import Client
from redis_core.queue import task
from redis_core.worker import Worker

TENANTS, EACH, PLACES, SECONDS = 20, 10, 1, 0.05
DRAWING = Path(__file__).resolve().parents[2] / "docs" / "queue-fairness.svg"


async def fairness(client: Client, lines: list[Row], *, quick: bool) -> None:
    """The rows, and the drawing when it is not quick."""
    flood = 5_000 if quick else 100_000
    (alone, _), (beside, served) = await one_run(client, 0), await one_run(client, flood)
    fair = alone[-1] * (TENANTS + 1) / TENANTS
    lines.append(
        row(
            f"20 tenants beside {flood:,} jobs",
            beside[-1],
            "s",
            "alone x fair share + 2 %",
            fair * 1.02,
            target=1,
        )
    )
    lines.append(
        row("jobs of the flood meanwhile", served, "jobs", "a fair share, and one", EACH + 1, target=1)
    )
    if not quick:
        DRAWING.write_text(drawing(alone, beside, fair), "utf-8")


async def one_run(client: Client, flood: int) -> tuple[list[float], int]:
    """When each of the twenty's jobs was done, in seconds from the worker's start, and how many of the flood were by then."""
    await client.execute("FLUSHALL", "SYNC")
    done: list[float] = []
    served = 0
    began = 0.0
    over = asyncio.Event()

    @task(name="equal", result_ttl=0)
    async def equal(counted: bool) -> None:
        nonlocal served
        await asyncio.sleep(SECONDS)
        if not counted:
            served += not over.is_set()
        else:
            done.append(time.perf_counter() - began)
            if len(done) == TENANTS * EACH:
                over.set()

    await client.workspace("flood").queue.enqueue_many([equal.call(counted=False)] * flood)
    for number in range(TENANTS):
        await client.workspace(f"tenant-{number}").queue.enqueue_many([equal.call(counted=True)] * EACH)
    worker = Worker(client, [equal], concurrency=PLACES, grace=0)
    began = time.perf_counter()
    running = asyncio.create_task(worker.run())
    await over.wait()
    worker.stop()
    await running
    return done, served


def drawing(alone: Sequence[float], beside: Sequence[float], fair: float) -> str:
    """Jobs of the twenty that are done, over time."""
    width, height, left, top = 640, 300, 56, 24
    longest = max(*alone, *beside, fair) * 1.05

    def x(seconds: float) -> float:
        return left + seconds / longest * width

    def line(times: Sequence[float], colour: str) -> str:
        points = " ".join(
            f"{x(at):.1f},{top + height - (n + 1) / len(times) * height:.1f}" for n, at in enumerate(times)
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{x(0):.1f},{top + height} {points}"/>'

    texts = [
        (left + 8, top + 16, "#0969da", f"alone: {alone[-1]:.2f} s"),
        (left + 8, top + 34, "#bc4c00", f"beside a flood: {beside[-1]:.2f} s"),
        (left + 8, top + 52, "#57606a", f"alone x 21 / 20: {fair:.2f} s (dashed)"),
        (
            left,
            top + height + 36,
            "#57606a",
            f"seconds; {TENANTS} workspaces with {EACH} jobs of {SECONDS} s each, one place",
        ),
        (4, top + 10, "#57606a", f"{len(alone)} jobs"),
    ]
    ticks = "".join(
        f'<text x="{x(n * longest / 5):.0f}" y="{top + height + 18}" fill="#57606a">{n * longest / 5:.1f}</text>'
        for n in range(6)
    )
    words = "".join(f'<text x="{a}" y="{b}" fill="{colour}">{text}</text>' for a, b, colour, text in texts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 24} {top + height + 48}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#8c959f"/>'
        f'<path d="M{x(fair):.1f} {top}V{top + height}" stroke="#8c959f" stroke-dasharray="4 4"/>'
        f"{line(alone, '#0969da')}{line(beside, '#bc4c00')}{ticks}{words}</svg>\n"
    )
