"""The storm: three producers, two workers, one store; links break, and processes are killed, the store's included.

Run alone (`make chaos SEEDS=n` does): `python storm.py SEEDS [SECONDS]`. Everything is drawn from the seed, but for what the
machine's scheduler decides.

The store is Valkey with `appendfsync always`, so that what it has acknowledged outlives its own `kill -9`; a store that forgets what
it acknowledged cannot be made good by anybody who trusted it.

What is held against the files that the processes wrote:

- lost: a job that was acknowledged and has no result in the end;
- doubled: a job that was enqueued twice: one run of it began twice, for a second enqueue counts its runs from one again;
- unfenced: a job whose result is not its last run's: once another run has begun, what an earlier one tells must not count.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
BACKEND = HERE.parents[1]
sys.path.insert(0, str(BACKEND))

from redis_core.client import Client, connect  # noqa: E402 - found by the path above
from redis_core.queueing.job import packed_value  # noqa: E402
from redis_core.testing import FaultProxy  # noqa: E402
from tests.chaos.storm_task import settings_for  # noqa: E402
from tests.server_process import ServerProcess  # noqa: E402
from tests.stores import valkey_binary  # noqa: E402

PRODUCERS, WORKERS = 3, 2
SETTLED_WITHIN = 120.0
_SHOWN = {"kill": "kill -9", "freeze": "freezing"}
FAULTS = "refuse reset stall blackhole half_reply latency slice close_after".split()


@dataclass
class Verdict:
    """What a storm came to."""

    seed: int
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unfenced: list[str] = field(default_factory=list)
    kept: int = 0
    """Of the acknowledged, by a journal."""
    refused: int = 0
    again: int = 0
    """Jobs that were run more than once."""
    overlapped: int = 0
    """Jobs of which two runs went on at the same time."""
    faults: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    seconds_to_settle: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled or let through."""
        return not (self.lost or self.doubled or self.unfenced or self.quarantined)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"seed {self.seed}: acknowledged {self.acknowledged} ({self.kept} by a journal), refused {self.refused}, "
            f"lost {len(self.lost)}, doubled {len(self.doubled)}, unfenced {len(self.unfenced)}, quarantined {self.quarantined}; "
            f"{self.again} run again, {self.overlapped} with overlap; settled in {self.seconds_to_settle:.1f} s; {faults}"
        )


class Storm:
    """One storm.

    Args:
        seed: what everything is drawn from.
        seconds: how long it lasts.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        self._draw = random.Random(seed)
        self._seconds = seconds
        self._folder = Path(tempfile.mkdtemp(prefix="rf-storm-"))
        self._journal = self._folder / "journal"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._born: Counter[str] = Counter()
        self.verdict = Verdict(seed)

    async def run(self) -> Verdict:
        """Let it rage, let it settle, and judge."""
        server = ServerProcess(valkey_binary(), "--appendonly", "yes", "--appendfsync", "always")
        address = "127.0.0.1", server.port
        try:
            with server, FaultProxy(address) as left, FaultProxy(address) as right:
                self._links = {"producer": left, "worker": right}
                for name in (
                    *(f"producer{number}" for number in range(PRODUCERS)),
                    *(f"worker{number}" for number in range(WORKERS)),
                ):
                    self._start(name)
                await self._rage(server)
                left.up()
                right.up()
                await self._settle()
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)
        return self.verdict

    # --- processes ---

    def _start(self, name: str) -> None:
        self._born[name] += 1
        kind, label = name.rstrip("0123456789"), f"{name}.{self._born[name]}"
        more = [label, f"{self.verdict.seed} {label}"] if kind == "producer" else []
        script, url = HERE / f"storm_{kind}.py", self._links[kind].url
        command = [sys.executable, str(script), url, str(self._journal), str(self._log(name)), *more]
        environment = {**os.environ, "PYTHONPATH": str(BACKEND)}
        with (self._folder / f"{label}.err").open("wb") as errors:
            self._processes[name] = subprocess.Popen(command, env=environment, stderr=errors)

    def _log(self, name: str) -> Path:
        """What the living process of a name writes down."""
        return self._folder / f"{name}.{self._born[name]}.log"

    # --- the storm ---

    def _events(self) -> list[tuple[float, str, str]]:
        """When what happens to whom, in order. Faults pass, and there is time to recover from most of them."""
        seconds, draw = self._seconds, self._draw
        events = [(draw.uniform(0, seconds), "kill", "store") for _ in range(max(1, round(seconds / 15)))]
        for kind, count, every in (("producer", PRODUCERS, 5), ("worker", WORKERS, 6)):
            for _ in range(max(1, round(seconds / every))):
                events.append((draw.uniform(0, seconds), "kill", f"{kind}{draw.randrange(count)}"))
        for _ in range(max(1, round(seconds / 10))):
            # Longer than a lease: others have its jobs when it goes on.
            at, whom = draw.uniform(0, seconds), f"worker{draw.randrange(WORKERS)}"
            events += [(at, "freeze", whom), (at + draw.uniform(2.5, 4.0), "thaw", whom)]
        for link in self._links:
            for _ in range(max(1, round(seconds / 6))):
                at = draw.uniform(0, seconds)
                events += [(at, draw.choice(FAULTS), link), (at + draw.uniform(0.1, 2.5), "up", link)]
        return sorted(events)

    async def _rage(self, server: ServerProcess) -> None:
        # A process that is killed before it has begun proves nothing.
        await _until(lambda: all(self._log(name).exists() for name in self._processes))
        began = time.monotonic()
        for at, what, whom in self._events():
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            if whom in self._links:
                self._break(self._links[whom], what)
                continue
            if what == "thaw":
                self._processes[whom].send_signal(signal.SIGCONT)
                continue
            if what == "freeze":
                self._processes[whom].send_signal(signal.SIGSTOP)
            elif whom == "store":
                server.kill()
                await asyncio.sleep(self._draw.uniform(0.05, 2.0))
                server.start()
            else:
                process = self._processes[whom]
                process.send_signal(signal.SIGKILL)
                process.wait()
                self._start(whom)
            self.verdict.faults[f"{_SHOWN[what]} of a {whom.rstrip('0123456789')}"] += 1

    def _break(self, link: FaultProxy, fault: str) -> None:
        match fault:
            case "up":
                link.up()
                return
            case "latency":
                link.latency(self._draw.uniform(0.01, 0.7))
            case "slice":
                link.slice(self._draw.randrange(1, 50))
            case "close_after":
                link.close_after(self._draw.randrange(100, 5_000))
            case _:
                getattr(link, fault)()
        self.verdict.faults[fault] += 1

    # --- afterwards ---

    async def _settle(self) -> None:
        """Stop the producers, take over what they left, and wait for the workers."""
        began = time.monotonic()
        for name, process in self._processes.items():
            if name.startswith("producer"):
                process.send_signal(signal.SIGTERM)
        for name, process in self._processes.items():
            if name.startswith("producer"):
                await asyncio.to_thread(process.wait, 60)
        acknowledged = self._acknowledged()
        heir = await connect(settings_for(self._links["producer"].url, self._journal))
        async with heir:
            heir.workspace("acme").queue  # noqa: B018 - who carries out jobs that were kept
            results: dict[str, list[int]] = {}
            until = began + SETTLED_WITHIN
            while time.monotonic() < until:
                results |= await self._results(
                    heir, {n: i for n, i in acknowledged.items() if n not in results}
                )
                if len(results) == len(acknowledged) and not heir.outage.figures.waiting:
                    break
                await asyncio.sleep(0.2)
            self.verdict.quarantined = heir.outage.figures.quarantined
            self.verdict.seconds_to_settle = time.monotonic() - began
            # What nobody was told of runs as well; all of it before it is judged.
            while time.monotonic() < until and await heir.primary.hlen("queue-jobs:{default}"):
                await asyncio.sleep(0.1)
        self._judge(acknowledged, results)

    async def _results(self, client: Client, missing: dict[str, str]) -> dict[str, list[int]]:
        found = {}
        names = list(missing.items())
        for at in range(0, len(names), 500):
            part = names[at : at + 500]
            replies = await client.primary.mget(*(f"job-result:{{default}}:acme:{job}" for _, job in part))
            for (name, _), reply in zip(part, replies, strict=True):
                if reply is not None and reply[:1] == b"d":
                    found[name] = msgspec.msgpack.decode(packed_value(reply), type=list[int])
        return found

    def _acknowledged(self) -> dict[str, str]:
        found = {}
        for what, name, *more in _lines(self._folder.glob("producer*.log")):
            if what == "refused":
                self.verdict.refused += 1
                continue
            self.verdict.kept += what == "kept"
            found[name] = more[0]
        return found

    def _judge(self, acknowledged: dict[str, str], results: dict[str, list[int]]) -> None:
        begun: Counter[tuple[str, int]] = Counter()
        spans: dict[str, dict[int, list[float]]] = {}
        for what, name, run, at in _lines(self._folder.glob("worker*.log")):
            begun[name, int(run)] += what == "begin"
            spans.setdefault(name, {}).setdefault(int(run), []).append(float(at))
        verdict = self.verdict
        verdict.acknowledged = len(acknowledged)
        verdict.lost = sorted(acknowledged.keys() - results.keys())
        verdict.doubled = sorted({name for (name, _), times in begun.items() if times > 1})
        verdict.unfenced = sorted(name for name, (run, _) in results.items() if run != max(spans[name]))
        verdict.again = sum(len(runs) > 1 for runs in spans.values())
        verdict.overlapped = sum(_overlap(runs) for runs in spans.values())


async def _until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(SETTLED_WITHIN):
        while not what():
            await asyncio.sleep(0.02)


def _overlap(runs: dict[int, list[float]]) -> bool:
    """Whether a run began before an earlier one had ended. One without an end was killed, nobody knows when."""
    inside = sorted((times[0], times[1]) for times in runs.values() if len(times) > 1)
    return any(later[0] < earlier[1] for earlier, later in pairwise(inside))


def _lines(files: Iterable[Path]) -> Iterator[list[str]]:
    """The words of all whole lines: a killed process may have left a part of one."""
    for file in files:
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield line.split()


def main(seeds: int, seconds: float = 60.0) -> int:
    """Storms of the seeds from 1; 0 if all were good."""
    acknowledged = lost = doubled = bad = 0
    for seed in range(1, seeds + 1):
        verdict = asyncio.run(Storm(seed, seconds).run())
        sys.stdout.write(f"{verdict}\n")
        sys.stdout.flush()
        acknowledged += verdict.acknowledged
        lost += len(verdict.lost) + verdict.quarantined
        doubled += len(verdict.doubled)
        bad += not verdict.good
    sys.stdout.write(f"acknowledged {acknowledged}, lost {lost}, doubled {doubled}\n")
    return bad


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *map(float, sys.argv[2:])) > 0)
