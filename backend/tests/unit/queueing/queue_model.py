"""The queue's scripts, in plain Python: what they should answer, whatever is done in whatever order."""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass

__all__ = ["Claimed", "Job", "QueueModel", "TurnReply"]


@dataclass
class Job:
    """All that is known of one job."""

    field: str
    level: int
    task: str
    unique: str
    payload: str
    place: str = ""
    """waiting, later, blocked, held, running, or ended."""
    runs: int = 0
    failures: int = 0
    deaths: int = 0
    cancel: bool = False
    cancelled: bool = False
    """It was cancelled, and only its name is left in a list."""
    result: str = ""
    signals: set[str] = dataclasses.field(default_factory=set)
    awaits: str = ""
    due: int = 0
    """When it may run, once those are over that it waits for."""

    @property
    def workspace(self) -> str:
        return self.field.split(":")[0]

    @property
    def id(self) -> str:
        return self.field.split(":")[1]


@dataclass
class Claimed:
    field: str
    run: int
    failures: int
    deaths: int


@dataclass
class TurnReply:
    event: int
    lost: bool
    left: bool
    refused: list[str]
    cancelled: list[str]
    claims: list[Claimed]


class QueueModel:
    """One shard."""

    LEASE = 15_000
    MOST_DEATHS = 2

    def __init__(self) -> None:
        self.now = 1_800_000_000_000
        self.order_of: dict[str, list[str]] = {}
        self.jobs: dict[str, Job] = {}
        """The unfinished, and those that are cancelled and still stand in a list."""
        self.ended: dict[str, Job] = {}
        self.waiting: dict[tuple[str, int], deque[str]] = {}
        self.ring: dict[str, float] = {}
        self.parked: dict[str, float] = {}
        self.later: dict[str, int] = {}
        self.blocked: dict[str, int] = {}
        self.after: dict[str, list[tuple[str, str]]] = {}
        self.held: dict[str, deque[str]] = {}
        self.unique: dict[str, str] = {}
        self.leases: dict[str, int] = {}
        self.run: dict[str, set[str]] = {}
        self.dead: dict[str, Job] = {}
        self.virtual = 0.0
        self.paused = False
        self.most: int | None = None
        self.most_each: int | None = None
        self.limits: dict[str, tuple[float, int | None, bool]] = {}
        self.gates: dict[str, tuple[int | None, bool]] = {}

    # --- places ---

    def ordered_ring(self) -> list[tuple[float, str]]:
        return sorted((score, ws) for ws, score in self.ring.items())

    def present(self) -> float:
        return self.ordered_ring()[0][0] if self.ring else self.virtual

    def push(self, job: Job, *, front: bool = False) -> None:
        job.place = "waiting"
        line = self.waiting.setdefault((job.workspace, job.level), deque())
        if not line:
            self.ring.setdefault(job.workspace, self.virtual_now)
        if front:
            line.appendleft(job.id)
        else:
            line.append(job.id)

    def running(self, *, ws: str | None = None, task: str | None = None) -> int:
        return sum(
            job.place == "running" and ws in {None, job.workspace} and task in {None, job.task}
            for job in self.jobs.values()
        )

    def depth(self, ws: str) -> int:
        return sum(job.workspace == ws for job in self.jobs.values())

    def live(self, name: str) -> Job | None:
        job = self.jobs.get(name)
        return None if job is None or job.cancelled else job

    # --- scripts ---

    def begin(self) -> None:
        """A script computes the present virtual time once, when it first needs it."""
        self._virtual: float | None = None

    @property
    def virtual_now(self) -> float:
        if self._virtual is None:
            self._virtual = self.present()
        return self._virtual

    def enqueue(self, rows: list[tuple[Job, int, list[str]]], most: int) -> tuple[int, dict[int, str]]:  # noqa: C901 - the script in its order
        self.begin()
        refused: dict[int, str] = {}
        known = {job.field for job, _, _ in rows if job.field in self.jobs}
        taken: list[tuple[Job, int, list[str]]] = []
        new: set[str] = set()
        for place, (job, delay, parents) in enumerate(rows):
            over = [
                self.ended[f"{job.workspace}:{p}"] for p in parents if f"{job.workspace}:{p}" in self.ended
            ]
            missing = [
                p for p in parents if self.live(f"{job.workspace}:{p}") or f"{job.workspace}:{p}" in new
            ]
            failed = any(each.result != "d" for each in over if each.id not in missing)
            key = f"{job.workspace}:{job.unique}"
            if job.field in known or job.field in new:
                refused[place] = "known"
            elif job.unique and key in self.unique:
                refused[place] = self.unique[key]
            elif len(taken) >= most - self.depth_before(job.workspace, new):
                refused[place] = "full"
            elif failed:
                refused[place] = "dependency"
            else:
                if job.unique:
                    self.unique[key] = job.id
                new.add(job.field)
                taken.append((job, delay, missing))
        for job, _, _ in taken:
            self.jobs[job.field] = job
            self.ended.pop(job.field, None)
        for job, delay, missing in taken:
            if missing:
                job.place = "blocked"
                self.blocked[job.field] = len(missing)
                job.due = self.now + delay if delay else 0
                for parent in missing:
                    self.follow(f"{job.workspace}:{parent}", "-", job.id)
            elif delay:
                job.place = "later"
        for job, delay, missing in taken:
            if not missing and not delay:
                self.push(job)
        for job, delay, missing in taken:
            if delay and not missing:
                self.later[job.field] = self.now + delay
        return len(taken), refused

    def depth_before(self, ws: str, new: set[str]) -> int:
        return self.depth(ws) - len(new & self.jobs.keys())

    def follow(self, name: str, kind: str, id: str) -> None:
        entries = self.after.setdefault(name, [])
        if (kind, id) not in entries:
            entries.append((kind, id))

    def over(self, ended: list[tuple[Job, str]]) -> None:
        for job, result in ended:
            self.jobs.pop(job.field, None)
            job.place, job.result = "ended", result
            self.ended[job.field] = job
            if job.unique and self.unique.get(f"{job.workspace}:{job.unique}") == job.id:
                del self.unique[f"{job.workspace}:{job.unique}"]
            for kind, other in self.after.pop(job.field, []):
                name = f"{job.workspace}:{other}"
                if name not in self.blocked:
                    continue
                if kind == "-" and result != "d":
                    del self.blocked[name]
                    ended.append((self.jobs[name], "c"))
                else:
                    self.blocked[name] -= 1
                    if self.blocked[name] <= 0:
                        del self.blocked[name]
                        released = self.jobs[name]
                        if released.due > self.now:
                            released.place = "later"
                            self.later[name] = released.due
                        else:
                            self.push(released)
                        released.due = 0

    def turn(  # noqa: C901 - the script in its order
        self, worker: str, free: int, flags: str, acks: list[tuple[str, int, str, int, str]]
    ) -> TurnReply:
        """Acks are field, run, kind, number, text."""
        self.begin()
        mine = self.run.setdefault(worker, set())
        deadline = self.leases.get(worker)
        lost = "o" in flags and deadline is None
        if deadline is not None and "o" in flags and deadline - self.now < self.LEASE * 0.75:
            deadline = self.leases[worker] = self.now + self.LEASE
        refused: list[str] = []
        kept: set[str] = set()
        ended: list[tuple[Job, str]] = []
        freed: list[Job] = []
        for name, run, kind, number, text in acks:
            job = self.jobs.get(name)
            if name not in mine or job is None or job.runs != run:
                refused.append(name)
                continue
            kept.add(name)
            if kind != "k":
                mine.discard(name)
                freed.append(job)
                self.settle(job, kind, number, text, ended)
        if "u" in flags or "x" in flags:
            for name in self.stored_order(worker, mine - kept):
                job = self.jobs[name]
                mine.discard(name)
                freed.append(job)
                if job.cancel:
                    ended.append((job, "c"))
                else:
                    self.push(job, front=True)
        orphaned = lost
        while orphaned or self.leases:
            until, dead = (
                (0, worker) if orphaned else min((until, each) for each, until in self.leases.items())
            )
            if until > self.now:
                break
            orphaned = False
            last = self.MOST_DEATHS - 1
            suspected = any(self.jobs[name].deaths >= last for name in self.run.get(dead, set()))
            for name in self.stored_order(dead, self.run.get(dead, set())):
                job = self.jobs[name]
                freed.append(job)
                job.deaths += bool(job.deaths >= last or not suspected)
                if job.cancel:
                    ended.append((job, "c"))
                elif job.deaths >= self.MOST_DEATHS:
                    self.dead[job.field] = job
                    ended.append((job, "f"))
                else:
                    self.push(job, front=True)
            self.run[dead] = set()
            self.leases.pop(dead, None)
            if dead == worker:
                deadline = None
        mine = self.run[worker]
        self.over(ended)
        for name in sorted(
            (n for n, due in self.later.items() if due <= self.now), key=lambda n: (self.later[n], n)
        ):
            del self.later[name]
            self.push(self.jobs[name])
        first = min(self.later.values(), default=None)
        if self.most_each is not None or self.limits:
            for ws in {job.workspace for job in freed}:
                self.unpark(ws)
        for task in {job.task for job in freed}:
            most = self.gate(task)
            if most is not None:
                for _ in range(most - self.running(task=task)):
                    if not self.held.get(task):
                        break
                    job = self.jobs[self.held[task].popleft()]
                    if job.cancelled:
                        del self.jobs[job.field]
                    else:
                        self.push(job, front=True)
        open_ = not self.paused
        if self.most is not None:
            left_of_all = self.most - self.running()
            free = max(min(free, left_of_all), 0)
            open_ = open_ and left_of_all > 0
        claims: list[Job] = []
        if open_:
            free = self.claim(free, claims)
        for job in claims:
            job.runs += 1
            mine.add(job.field)
        if claims and not (deadline is not None and deadline - self.now >= self.LEASE * 0.75):
            self.leases[worker] = self.now + self.LEASE
        others = [until for name, until in self.leases.items() if name != worker]
        if "x" in flags or ("e" in flags and not mine):
            self.leases.pop(worker, None)
        events = others + ([first] if first is not None else [])
        return TurnReply(
            max(min(events) - self.now, 0) if events else -1,
            lost,
            open_ and free == 0 and bool(self.ring),
            refused,
            sorted(name for name in mine if self.jobs[name].cancel) if "b" in flags else [],
            [Claimed(job.field, job.runs, job.failures, job.deaths) for job in claims],
        )

    def stored_order(self, worker: str, names: set[str]) -> list[str]:
        """The order in which a hash lists its fields is the store's affair; the machine tells it."""
        return sorted(names, key=self.order_of.get(worker, []).index) if len(names) > 1 else list(names)

    def settle(self, job: Job, kind: str, number: int, text: str, ended: list[tuple[Job, str]]) -> None:
        if kind in "dc":
            ended.append((job, kind))
        elif kind == "x":
            self.dead[job.field] = job
            ended.append((job, "f"))
        elif job.cancel:
            ended.append((job, "c"))
        elif kind == "h":
            self.push(job, front=True)
        elif kind == "b":
            missing = [c for c in text.split() if self.live(f"{job.workspace}:{c}")]
            for child in missing:
                self.follow(f"{job.workspace}:{child}", "+", job.id)
            if missing:
                job.place = "blocked"
                self.blocked[job.field] = len(missing)
            else:
                self.push(job, front=True)
        elif kind == "w" and text in job.signals:
            self.push(job, front=True)
        else:
            job.failures += kind == "r"
            job.awaits = text if kind == "w" else ""
            job.place = "later"
            self.later[job.field] = self.now + number

    def gate(self, task: str) -> int | None:
        most, paused = self.gates.get(task, (None, False))
        return 0 if paused else most

    def claim(self, free: int, claims: list[Job]) -> int:  # noqa: C901 - the script in its order
        served = None
        while free > 0 and self.ring:
            asked = min(free + 1, 32)
            ranked = self.ordered_ring()[:asked]
            for _, ws in ranked:
                del self.ring[ws]
            horizon = ranked[-1][0] if len(ranked) == asked else None
            share = max(1, min(8, free // len(ranked)))
            while free > 0 and ranked and not (horizon is not None and ranked[0][0] > horizon):
                score, ws = ranked.pop(0)
                weight, cap = 1.0, self.most_each
                if ws in self.limits:
                    own_weight, own_cap, paused = self.limits[ws]
                    weight, cap = own_weight, 0 if paused else own_cap if own_cap is not None else cap
                n = free
                if ranked:
                    n = min(n, 8, max(share, int((ranked[0][0] - score) * weight // 1) + 1))
                if cap is not None:
                    n = min(n, cap - self.running(ws=ws))
                    if n <= 0:
                        self.parked.setdefault(ws, score)
                        continue
                line = next((line for level in range(5) if (line := self.waiting.get((ws, level)))), None)
                if not line:
                    continue
                taken = 0
                for name in [line.popleft() for _ in range(min(n, len(line)))]:
                    job = self.jobs[f"{ws}:{name}"]
                    if job.cancelled:
                        del self.jobs[job.field]
                        continue
                    most = self.gate(job.task)
                    if most is not None and self.running(task=job.task) >= most:
                        job.place = "held"
                        self.held.setdefault(job.task, deque()).append(job.field)
                        continue
                    job.place = "running"
                    claims.append(job)
                    taken += 1
                free -= taken
                if taken:
                    served = score
                ranked = sorted([*ranked, (score + taken / weight, ws)])
            self.ring.update((ws, score) for score, ws in ranked)
        if served is not None:
            self.virtual = served
        return free

    def cancel(self, name: str) -> int:
        self.begin()
        job = self.live(name)
        if job is None:
            return 0
        if job.place == "running":
            job.cancel = True
            return 2
        stands = job.place in {"waiting", "held"}
        self.later.pop(name, None)
        self.blocked.pop(name, None)
        self.over([(job, "c")])
        if stands:
            # Its name stays in a list, so it is known until that comes up.
            self.jobs[name] = job
            job.cancelled = True
        return 1

    def signal(self, name: str, word: str) -> int:
        self.begin()
        job = self.live(name)
        if job is None:
            return 0
        if word in job.signals:
            return 2
        job.signals.add(word)
        if job.awaits == word and name in self.later:
            del self.later[name]
            job.awaits = ""
            self.push(job, front=True)
        return 1

    def limit(self, what: str, name: str, how: str, most: int | None, weight: float | None) -> None:  # noqa: C901 - the script in its order
        self.begin()
        if what == "queue":
            if how == "limit":
                self.most = most
            else:
                self.paused = how == "pause"
        elif what == "default":
            self.most_each = most
            for ws in list(self.parked):
                self.unpark(ws)
        elif what == "workspace":
            old_weight, old_most, paused = self.limits.pop(name, (1.0, None, False))
            if how == "limit":
                old_weight, old_most = weight or 1.0, most
            else:
                paused = how == "pause"
            if (old_weight, old_most, paused) != (1.0, None, False):
                self.limits[name] = (old_weight, old_most, paused)
            self.unpark(name)
        else:
            old, paused = self.gates.pop(name, (None, False))
            old, paused = (most, paused) if how == "limit" else (old, how == "pause")
            if (old, paused) != (None, False):
                self.gates[name] = (old, paused)
            for held in reversed(self.held.pop(name, deque())):
                job = self.jobs[held]
                if job.cancelled:
                    del self.jobs[held]
                else:
                    self.push(job, front=True)

    def unpark(self, ws: str) -> None:
        if ws in self.parked:
            self.ring[ws] = max(self.parked.pop(ws), self.virtual_now, self.ring.get(ws, 0.0))

    def redrive(self, name: str) -> int:
        self.begin()
        job = self.dead.get(name)
        if job is not None and job.unique:
            key = f"{job.workspace}:{job.unique}"
            if self.unique.setdefault(key, job.id) != job.id:
                return 0
        self.dead.pop(name, None)
        if job is None or name in self.jobs:
            return 0
        self.ended.pop(name, None)
        job.failures = job.deaths = 0
        job.cancel = False
        self.jobs[name] = job
        self.push(job)
        return 1
