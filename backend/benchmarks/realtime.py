"""Realtime beside sse-starlette, and beside what @upstash/realtime asks of its store.

python backend/benchmarks/realtime.py [--quick] [--json]

Servers are uvicorn with one worker each, browsers a process of their own. The server's CPU and memory are read from /proc.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import BACKEND, Row, Server, cpu_seconds, free_port, main, peer, row, running, valkey_server

from redis_core import realtime_token
from redis_core.client import Client, connect

HERE = Path(__file__).parent
UPSTASH = "@upstash/realtime 1.1"
UPSTASH_PER_BROWSER_DAY = 2_304
"""Its pricing page: a PUBLISH each 60 s and 3 commands each 300 s of an open connection."""
UPSTASH_PER_MESSAGE = 3
"""XADD, EXPIRE and PUBLISH (its source, 1.1, with an expiry set); not atomic."""
IDLE_SECONDS = 8.0
"""Every stream is pinged several times meanwhile: its server's heartbeat is a second, not 25."""


class Browsers:
    """The process of `realtime_clients.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "realtime_clients.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the browsers' process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def browsers() -> Iterator[Browsers]:
    """Browsers, gone at the end of the block."""
    process = Browsers()
    try:
        yield process
    finally:
        process.close()


@contextmanager
def server(factory: str, store: Server, **others: str) -> Iterator[Server]:
    """One of `realtime_servers.py` under uvicorn, with other settings."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", f"realtime_servers:{factory}", "--factory", "--app-dir", str(HERE),
        "--port", str(port), "--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "1",
        "--backlog", "4096",
    ]  # fmt: skip
    settings = {
        "PYTHONPATH": f"{BACKEND}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "RAPTORFLOW_ENV": "test",
        "REDIS_URL": store.url, "UPSTASH_REDIS_URL": "", "MOCK_REDIS": "false", **others,
    }  # fmt: skip
    with running(command, port, **settings) as process:
        yield Server(port, process.pid, f"http://127.0.0.1:{port}")


def request() -> str:
    """What a browser sends to open its stream."""
    from realtime_servers import KEYS

    token = realtime_token.issue("acme", "u1", read=["*"], seconds=3_600, keys=KEYS)
    body = json.dumps({"topics": [{"topic": "bench", "kind": "events"}]})
    return (
        "POST /api/v1/realtime/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def memory_kb(pid: int) -> int:
    """Resident memory of a process in KB."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(pid)


async def measure(quick: bool) -> list[Row]:
    """All rows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    streams, messages = (1_000, 10) if quick else (5_000, 10)
    _, name = peer("sse_starlette", "sse-starlette")
    with valkey_server() as store:
        async with await connect(redis_url=store.url, raptorflow_env="test") as client:
            with server("ours", store) as site:
                mine = await crowd(site, streams, messages, client)
            with server("sse_starlette", store) as site:
                theirs = await crowd(site, streams, messages, None)
            with server("ours", store, REALTIME_HEARTBEAT="1") as site:
                idle = await idle_cost(site, streams, client)
            fast, slow = latencies(store, quick)
    return [
        row("kb per stream", mine["kb"], "KB", "the target", 12, target=1),
        row("kb per stream vs sse-starlette", mine["kb"], "KB", name, theirs["kb"], target=None),
        row("cpu per delivery vs sse-starlette", mine["us"], "us", name, theirs["us"], target=4),
        row("last of all browsers has it", mine["last"], "ms", name, theirs["last"], target=None),
        counted("redis commands per idle browser per day", idle, UPSTASH_PER_BROWSER_DAY, target=2_304),
        counted("redis commands per message", mine["commands"], UPSTASH_PER_MESSAGE, target=None),
        row("publish to browser p50", fast["p50"], "ms", name, slow["p50"], target=None),
        row("publish to browser p99", fast["p99"], "ms", name, slow["p99"], target=None),
    ]


def counted(what: str, ours: float, theirs: float, *, target: float | None) -> Row:
    """A line of commands, of which ours may be none: the ratio is then theirs."""
    ratio = theirs / max(ours, 1.0)
    met = None if target is None else ratio >= target
    return Row(what, round(ours, 3), "commands", UPSTASH, theirs, round(ratio, 3), target, met)


async def crowd(site: Server, streams: int, messages: int, store: Client | None) -> dict[str, float]:
    """Memory, CPU and commands with so many browsers."""
    with browsers() as crowd:
        # The first ones pay for what a server needs once.
        crowd.do("open", port=site.port, count=50, request=request())
        crowd.do("burst", port=site.port, messages=2)
        before = memory_kb(site.pid)
        crowd.do("open", port=site.port, count=streams, request=request())
        kb = (memory_kb(site.pid) - before) / streams
        figures = []
        commands = 0.0
        for _ in range(3):
            count = 0 if store is None else await issued(store)
            cpu = cpu_seconds(site.pid)
            answer = crowd.do("burst", port=site.port, messages=messages)
            cpu = cpu_seconds(site.pid) - cpu
            if store is not None:
                commands = (await issued(store) - count) / messages
            if answer["lost"]:
                sys.exit(f"{answer['lost']} browsers lost their stream")
            figures.append((cpu * 1e6 / answer["deliveries"], answer["seconds"] * 1e3 / messages))
    return {
        "kb": kb,
        "us": min(cpu for cpu, _ in figures),
        "last": min(last for _, last in figures),
        "commands": commands,
    }


async def idle_cost(site: Server, streams: int, store: Client) -> float:
    """Commands a day for each browser that is open, and pinged, while nothing is published."""
    with browsers() as crowd:
        crowd.do("open", port=site.port, count=1, request=request())
        alone = await idle_commands(store)
        crowd.do("open", port=site.port, count=streams, request=request())
        pinged = crowd.do("told")["pings"]
        idle = await idle_commands(store)
        pinged = crowd.do("told")["pings"] - pinged
    if pinged < 3 * streams:
        sys.exit(f"{streams} browsers were pinged {pinged} times: too few to see what a ping costs")
    # What the process itself asks for, whatever its browsers, is in both figures.
    return max(0.0, idle - alone) * 86_400 / streams


async def issued(store: Client) -> int:
    """Commands that the store has done, those within scripts too, as Upstash bills them."""
    report = str(await store.execute("INFO", "commandstats"), "utf-8")
    return sum(
        int(line.partition("calls=")[2].partition(",")[0])
        for line in report.splitlines()
        if line.startswith("cmdstat_") and not line.startswith(("cmdstat_info", "cmdstat_ping"))
    )


async def idle_commands(store: Client) -> float:
    """Commands a second while nothing is published."""
    before = await issued(store)
    began = time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (await issued(store) - before) / (time.monotonic() - began)


def latencies(store: Server, quick: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Time from publish to a browser, at 100 messages a second to 20 of them: ours and theirs, the best of rounds that take turns."""
    rounds, messages = (2, 200) if quick else (5, 500)
    with (
        server("ours", store) as our_site,
        server("sse_starlette", store) as their_site,
        browsers() as our_crowd,
        browsers() as their_crowd,
    ):
        sides = ((our_site, our_crowd), (their_site, their_crowd))
        figures: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
        for site, crowd in sides:
            crowd.do("open", port=site.port, count=20, request=request())
            crowd.do("burst", port=site.port, messages=20)
        for _ in range(rounds):
            for (site, crowd), kept in zip(sides, figures, strict=True):
                kept.append(crowd.do("paced", port=site.port, messages=messages, rate=100.0))
    best = [{name: min(one[name] for one in kept) for name in ("p50", "p99")} for kept in figures]
    return best[0], best[1]


if __name__ == "__main__":
    main(
        "realtime",
        measure,
        "Commands within scripts are counted; those of a process with no browser at all are not the browsers'.",
    )
