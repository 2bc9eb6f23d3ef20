"""A blackout under load: `raptorflow up` with the demo, visitors who go on asking, and a store that is gone for some seconds.

Run alone: `python blackout_load.py [REQUESTS_A_SECOND] [SECONDS_AWAY]`. It prints what the visitors saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

BACKEND = Path(__file__).parents[2]
sys.path.insert(0, str(BACKEND))

from redis_core.testing import FaultProxy  # noqa: E402 - found by the path above
from tests.server_process import ServerProcess, free_port  # noqa: E402
from tests.stores import valkey_binary  # noqa: E402

PHASES = "before", "first second", "away", "after"


@dataclass
class Seen:
    """What visitors saw."""

    statuses: dict[str, Counter[str]] = field(default_factory=lambda: {phase: Counter() for phase in PHASES})
    """By phase: how often each status was answered, of which path where it was an error of the service."""
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})
    seconds_to_return: float = 0.0
    """From when the store was back until the service was healthy and its journal empty."""
    modes: set[str] = field(default_factory=set)
    """Modes that health told while the store was away."""

    @property
    def failures(self) -> dict[str, int]:
        """Answers of 5xx, and requests that were not answered, by status, path and phase."""
        return {
            f"{status} {phase}": count
            for phase, found in self.statuses.items()
            for status, count in found.items()
            if not status.isdigit()
        }

    def percentile(self, phase: str, share: float) -> float:
        """Milliseconds within which this share of the requests was answered."""
        found = sorted(self.milliseconds[phase])
        return found[min(len(found) - 1, int(len(found) * share))] if found else 0.0

    def __str__(self) -> str:
        lines = [
            f"{phase}: {sum(self.statuses[phase].values())} requests, {dict(self.statuses[phase])}, "
            f"p50 {self.percentile(phase, 0.5):.1f} ms, p99 {self.percentile(phase, 0.99):.1f} ms"
            for phase in PHASES
        ]
        return "\n".join(
            [
                *lines,
                f"back to normal after {self.seconds_to_return:.1f} s; 5xx: {sum(self.failures.values())}",
            ]
        )


class Load:
    """Visitors of a demo, each of an address and a workspace of its own, or limits would be what is measured."""

    def __init__(self, url: str, rate: float, visitors: int) -> None:
        self._url = url
        self._rate = rate
        self._visitors = visitors
        self.phase = "before"
        self.seen = Seen()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Log in, then ask until it is to stop."""
        waiting = [asyncio.Event() for _ in range(self._visitors)]
        async with asyncio.TaskGroup() as group:
            for number, logged_in in enumerate(waiting):
                group.create_task(self._visit(number, logged_in, ready, stop))
            for each in waiting:
                await each.wait()
            ready.set()

    async def _visit(
        self, number: int, logged_in: asyncio.Event, ready: asyncio.Event, stop: asyncio.Event
    ) -> None:
        draw = random.Random(number)
        address = f"127.0.{1 + number // 200}.{1 + number % 200}", 0
        connector = aiohttp.TCPConnector(local_addr=address)
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(self._url, connector=connector, cookie_jar=jar) as http:
            await self._ask(
                http, "POST", "/demo/api/login", {"user": f"u{number}", "workspace": f"w{number}"}
            )
            made = await self._ask(
                http, "POST", "/demo/api/campaigns", {"name": "Launch", "channel": "video"}
            )
            paths = [
                "/demo/api/me",
                "/demo/api/campaigns",
                "/demo/api/report",
                f"/demo/api/campaigns/{made['id']}",
            ]
            for path in paths:
                await self._ask(http, "GET", path)
            logged_in.set()
            await ready.wait()
            count = 0
            while not stop.is_set():
                await asyncio.sleep(draw.expovariate(self._rate / self._visitors))
                count += 1
                if count % 10 == 0:
                    plan = {"job": f"job-{number}-{count}", "budget": 100}
                    await self._ask(http, "POST", "/demo/live/plans", plan)
                else:
                    await self._ask(http, "GET", draw.choice(paths))

    async def _ask(
        self, http: aiohttp.ClientSession, method: str, path: str, body: object = None
    ) -> dict[str, str]:
        phase, began = self.phase, time.perf_counter()
        try:
            async with http.request(method, path, json=body) as answer:
                text = await answer.text()
                status = str(answer.status)
        except aiohttp.ClientError as error:
            text, status = "", type(error).__name__
        self.seen.milliseconds[phase].append((time.perf_counter() - began) * 1000)
        shown = path if path.count("/") < 4 else path.rpartition("/")[0]
        self.seen.statuses[phase][status if status[0] in "234" else f"{status} {method} {shown}"] += 1
        found: dict[str, str] = json.loads(text) if status == "201" else {}
        return found


@asynccontextmanager
async def service(store: str, folder: Path) -> AsyncIterator[tuple[str, str]]:
    """`raptorflow up` with its demo; its address, and its admin token."""
    settings = {
        "REDIS_URL": store,
        "RAPTORFLOW_ENV": "test",
        "RAPTORFLOW_STATE_DIR": str(folder / "state"),
        "RAPTORFLOW_PORT": str(free_port()),
        "GATEWAY_PORT": str(free_port()),
        "PYTHONPATH": str(BACKEND),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "redis_core", "up", "--demo", "--no-traffic", "--json",
        cwd=folder, env={**os.environ, **settings}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        addresses = json.loads(await process.stdout.readline())
        yield addresses["api"], addresses["tokens"]["ADMIN_TOKEN"]
    finally:
        process.terminate()
        await process.wait()


async def blackout(
    rate: float, away: float, *, before: float = 3.0, after: float = 3.0, visitors: int = 40
) -> Seen:
    """Take the store away from a service under load, and give it back.

    Args:
        rate: requests a second, of all visitors.
        away: seconds without the store.
        before: seconds with it before that.
        after: seconds with it after the service is back to normal.
        visitors: how many there are.
    """
    with (
        tempfile.TemporaryDirectory(prefix="rf-blackout-") as folder,
        ServerProcess(valkey_binary()) as server,
        FaultProxy(("127.0.0.1", server.port)) as proxy,
    ):
        async with (
            service(proxy.url, Path(folder)) as (url, token),
            aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as http,
        ):
            load = Load(url, rate, visitors)
            ready, stop = asyncio.Event(), asyncio.Event()
            loading = asyncio.create_task(load.run(ready, stop))
            await asyncio.wait({loading, asyncio.ensure_future(ready.wait())}, return_when="FIRST_COMPLETED")
            await asyncio.sleep(before)
            proxy.refuse()
            load.phase = "first second"
            await asyncio.sleep(min(1.0, away / 2))
            load.phase = "away"
            load.seen.modes.add((await _document(http, "/api/v1/health/redis"))["mode"])
            await asyncio.sleep(away - min(1.0, away / 2))
            proxy.up()
            began = time.monotonic()
            while not await _normal(http):
                assert time.monotonic() - began < 60, "it did not come back"
                await asyncio.sleep(0.05)
            load.seen.seconds_to_return = time.monotonic() - began
            load.phase = "after"
            await asyncio.sleep(after)
            stop.set()
            await loading
    return load.seen


async def _document(http: aiohttp.ClientSession, path: str) -> dict[str, str]:
    async with http.get(path) as answer:
        found: dict[str, str] = await answer.json(content_type=None)
        return found


async def _normal(http: aiohttp.ClientSession) -> bool:
    mock = await _document(http, "/api/v1/admin/mock")
    outage: dict[str, object] = dict(mock["outage"])  # type: ignore[arg-type]  # a document within
    return outage["state"] == "healthy" and not outage["waiting"]


if __name__ == "__main__":
    asked = [float(word) for word in sys.argv[1:]]
    seen = asyncio.run(blackout(*(asked or [200.0, 10.0])))
    sys.stdout.write(f"{seen}\n")
    sys.exit(bool(seen.failures))
