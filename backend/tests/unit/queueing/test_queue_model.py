"""The queue's scripts against their model: no job lost, none acknowledged twice, none run after it was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from redis_core.client import Client
from redis_core.keys import queue_key
from redis_core.queueing.shard import Acknowledgement, EnqueueRow, Shard, Turn
from redis_core.transport.memory import MockRedisClient
from tests.store_users import clean_client_as
from tests.unit.queueing.queue_model import Job, QueueModel

T = TypeVar("T")
WORKSPACES = st.sampled_from(["a", "b", "c"])
WORKERS = st.sampled_from(["w1", "w2"])
TASKS = ["fast", "slow"]
MOST = 30
"""Unfinished jobs that a workspace may have."""


class _Clock:
    def __init__(self, model: QueueModel) -> None:
        self._model = model

    def now(self) -> float:
        return self._model.now / 1000

    def monotonic(self) -> float:
        return self.now()

    async def sleep(self, seconds: float) -> None:
        self._model.now += int(seconds * 1000)


class QueueMachine(RuleBasedStateMachine):
    socket: str | None = None
    """Of a real server; None is memory."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.model = QueueModel()
        self.model.order_of = {}
        self.client = self.do(self._client())
        self.shard = Shard(self.client, "q", _Clock(self.model))
        self.number = 0
        self.held: dict[str, dict[str, int]] = {"w1": {}, "w2": {}}
        """What each worker believes to run, with the run."""
        self.uncertain: set[str] = set()
        self.doubts = {"w1": 0, "w2": 0}
        self.late: list[tuple[str, int, str, list[Acknowledgement], int]] = []
        """Turns that are still on their way, though their workers have given them up."""
        self.acknowledged: set[tuple[str, int]] = set()
        self.cancelled: set[str] = set()
        self.stale: set[tuple[str, int]] = set()

    async def _client(self) -> Client:
        return (
            Client(MockRedisClient()) if self.socket is None else await clean_client_as("worker", self.socket)
        )

    def do(self, work: Awaitable[T]) -> T:
        async def waiting() -> T:
            return await work

        return self.loop.run_until_complete(waiting())

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.do(self.client.aclose())
            self.loop.close()

    def any_job(self, data: st.DataObject) -> str | None:
        names = sorted({*self.model.jobs, *self.model.ended})
        return data.draw(st.sampled_from(names)) if names else None

    # --- rules ---

    @rule(ws=WORKSPACES, data=st.data())
    def enqueue(self, ws: str, data: st.DataObject) -> None:
        rows: list[EnqueueRow] = []
        twins: list[tuple[Job, int, list[str]]] = []
        siblings = sorted(
            job.id for job in [*self.model.jobs.values(), *self.model.ended.values()] if job.workspace == ws
        )
        for _ in range(data.draw(st.sampled_from([1, 2, 3, 12]))):
            again = bool(siblings) and data.draw(st.booleans())
            self.number += 1
            chosen = data.draw(st.sampled_from(siblings)) if again else f"j{self.number}"
            if f"{ws}:{chosen}" in self.model.dead or (again and f"{ws}:{chosen}" in self.model.ended):
                continue
            level, task = data.draw(st.integers(0, 4)), data.draw(st.sampled_from(TASKS))
            delay = data.draw(st.sampled_from([0, 0, 0, 5_000]))
            unique = data.draw(st.sampled_from(["", "", "u"]))
            parents = (
                data.draw(st.lists(st.sampled_from(siblings), max_size=2, unique=True)) if siblings else []
            )
            parents = [parent for parent in parents if parent != chosen]
            payload = f"{level}{task}\t{unique}\nbody of {chosen}"
            rows.append(
                EnqueueRow(chosen, level, delay, unique, "".join(f"{p}\n" for p in parents), payload.encode())
            )
            twins.append((Job(f"{ws}:{chosen}", level, task, unique, payload), delay, parents))
        if rows:
            taken, refused = self.do(self.shard.enqueue(ws, rows, most=MOST))
            assert (taken, refused) == self.model.enqueue(twins, MOST)

    @rule(
        worker=WORKERS,
        free=st.sampled_from([0, 1, 2, 3, 5, 12, 30]),
        flags=st.sampled_from(["", "b", "e"]),
        lost=st.sampled_from(["", "", "", "reply", "late"]),
        data=st.data(),
    )
    def turn(self, worker: str, free: int, flags: str, lost: str, data: st.DataObject) -> None:
        held = self.held[worker]
        done = data.draw(st.lists(st.sampled_from(sorted(held)), max_size=4, unique=True)) if held else []
        acks = [(name, held[name], *data.draw(self.outcome(name))) for name in done]
        if len(self.stale) > 0 and data.draw(st.booleans()):
            # What comes back after it was taken for dead: its run is another one's now, even if the worker is the same.
            name, run = data.draw(st.sampled_from(sorted(self.stale)))
            if name not in done:
                acks.append((name, run, "d", 60_000, "d"))
        self.take_turn(worker, free, flags, acks, lost=lost)

    def take_turn(  # noqa: C901 - one turn, and all that must hold of it
        self,
        worker: str,
        free: int,
        flags: str,
        acks: list[tuple[str, int, str, int, str]],
        *,
        lost: str = "",
    ) -> None:
        held = self.held[worker]
        before = dict(held)
        for name, run, *_ in acks:
            if held.get(name) == run:
                del held[name]
        if held or acks:
            flags += "o"
        if worker in self.uncertain:
            flags += "u"
            acks = [*acks, *((name, run, "k", 0, "") for name, run in held.items())]
        for each in ("w1", "w2"):
            stored = self.do(self.client.hgetall(queue_key("queue-run", "q", each)))
            self.model.order_of[each] = [name.decode() for name in stored]
        words = [
            Acknowledgement(
                name.encode(),
                run,
                cast("Any", kind),
                1,
                self.unique_of(name),
                number,
                self.text(kind, text),
                b"f{}",
            )
            for name, run, kind, number, text in acks
        ]
        sent = worker, free, flags, words, self.doubts[worker]
        if lost:
            self.doubts[worker] += 1
        if lost == "late":
            held.update(before)
            self.uncertain.add(worker)
            self.late.append(sent)
            return
        turn = self.send(*sent)
        expected = self.model.turn(worker, free, flags, acks)
        assert [claim[:4] for claim in turn.claims] == [
            (c.field.encode(), c.run, c.failures, c.deaths) for c in expected.claims
        ]
        assert [name.decode() for name in turn.refused] == expected.refused
        assert (turn.event, turn.lost, turn.left) == (expected.event, expected.lost, expected.left)
        assert sorted(name.decode() for name in turn.cancelled) == expected.cancelled
        for name, run, kind, *_ in acks:
            if kind != "k" and name not in expected.refused:
                assert (name, run) not in self.acknowledged
                self.acknowledged.add((name, run))
        for claim in turn.claims:
            job = self.model.jobs[claim.field.decode()]
            assert claim.payload.decode() == job.payload
            assert claim.field.decode() not in self.cancelled
        if lost:
            self.uncertain.add(worker)
            return
        if turn.lost:
            self.stale |= set(held.items())
            held.clear()
        if worker in self.uncertain:
            for name in expected.refused:
                held.pop(name, None)
        self.uncertain.discard(worker)
        held.update((claim.field.decode(), claim.run) for claim in turn.claims)

    def send(
        self, worker: str, free: int, flags: str, acknowledgements: list[Acknowledgement], doubts: int
    ) -> Turn:
        return self.do(
            self.shard.turn(
                worker,
                lease=QueueModel.LEASE,
                free=free,
                flags=flags,
                most_deaths=QueueModel.MOST_DEATHS,
                doubts=doubts,
                acknowledgements=acknowledgements,
            )
        )

    @rule()
    def a_late_turn_does_nothing(self) -> None:
        for sent in [each for each in self.late if each[0] not in self.uncertain]:
            self.late.remove(sent)
            turn = self.send(*sent)
            assert (turn.claims, turn.refused, turn.lost) == ([], [], False)

    def outcome(self, name: str) -> st.SearchStrategy[tuple[str, int, str]]:
        ws = name.split(":", maxsplit=1)[0]
        others = sorted(
            job.id for job in self.model.jobs.values() if job.workspace == ws and job.field != name
        )
        ways = [
            st.sampled_from(
                [("d", 60_000, "d"), ("c", 60_000, "c"), ("x", 60_000, "{}"), ("h", 0, ""), ("l", 3_000, "")]
            ),
            st.tuples(st.just("r"), st.integers(0, 9_000), st.just("{}")),
            st.tuples(st.just("w"), st.just(20_000), st.sampled_from(["s1", "s2"])),
        ]
        if others:
            # Only those that do not wait for this one in turn: circles are the caller's mistake, and wait for ever.
            free = [each for each in others if self.model.jobs[f"{ws}:{each}"].place != "blocked"]
            if free:
                ways.append(st.tuples(st.just("b"), st.just(0), st.sampled_from(free)))
        return st.one_of(ways)

    def unique_of(self, name: str) -> str:
        job = self.model.jobs.get(name) or self.model.ended.get(name)
        return "" if job is None else job.unique

    @staticmethod
    def text(kind: str, text: str) -> str:
        return text + "\n" if kind == "b" else text

    @rule(ms=st.sampled_from([1, 100, 4_000, 8_000, 16_000]))
    def time_passes(self, ms: int) -> None:
        self.model.now += ms

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = self.any_job(data)
        if name is not None:
            done = self.model.cancel(name)
            assert self.do(self.shard.cancel(name, "told to", 60_000)) == done
            if done == 1:
                self.cancelled.add(name)

    @rule(data=st.data(), word=st.sampled_from(["s1", "s2"]))
    def signal(self, data: st.DataObject, word: str) -> None:
        name = self.any_job(data)
        if name is not None:
            assert self.do(self.shard.signal(name, word, b"yes")) == self.model.signal(name, word)

    @rule(
        what=st.sampled_from(["queue", "default", "workspace", "task"]),
        how=st.sampled_from(["limit", "limit", "pause", "resume"]),
        ws=WORKSPACES,
        task=st.sampled_from(TASKS),
        most=st.sampled_from([None, 1, 2]),
        weight=st.sampled_from([None, 0.5, 4.0]),
    )
    def limit(self, what: str, how: str, ws: str, task: str, most: int | None, weight: float | None) -> None:
        name = {"workspace": ws, "task": task}.get(what, "")
        if what == "default":
            how = "limit"
        if what != "workspace" or how != "limit":
            weight = None
        self.model.limit(what, name, how, most, weight)
        self.do(self.shard.limit(what, name, how, most, weight))

    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        if self.model.dead:
            name = data.draw(st.sampled_from(sorted(self.model.dead)))
            ws, _, chosen = name.partition(":")
            self.acknowledged = {(field, run) for field, run in self.acknowledged if field != name}
            assert self.do(self.shard.redrive(ws, [chosen])) == self.model.redrive(name)

    # --- what always holds ---

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        if not hasattr(self, "shard"):
            return
        places: dict[str, int] = dict.fromkeys(self.model.jobs, 0)
        for name in self.do(self._places()):
            places[name] = places.get(name, 0) + 1
        assert places == dict.fromkeys(self.model.jobs, 1)

    async def _places(self) -> list[str]:
        found: list[str] = []
        batch = self.client.pipeline()
        lines = [
            (ws, batch.execute("LRANGE", queue_key("queue-wait", "q", ws, str(level)), 0, -1))
            for ws in "abc"
            for level in range(5)
        ]
        held = [batch.execute("LRANGE", queue_key("queue-held", "q", task), 0, -1) for task in TASKS]
        run = [batch.execute("HKEYS", queue_key("queue-run", "q", worker)) for worker in self.held]
        later = batch.execute("ZRANGE", queue_key("queue-later", "q"), 0, -1)
        blocked = batch.execute("HKEYS", queue_key("queue-blocked", "q"))
        payloads = batch.execute("HKEYS", queue_key("queue-jobs", "q"))
        depth = batch.hgetall(queue_key("queue-depth", "q"))
        running = batch.hgetall(queue_key("queue-running", "q"))
        await batch.send()
        for ws, line in lines:
            found += [f"{ws}:{each.decode()}" for each in await line]  # type: ignore[union-attr]
        for names in [*held, *run, later, blocked]:
            # A name with a line's end has the time at which the blocked job is due.
            found += [name.decode() for name in await names if not name.endswith(b"\n")]  # type: ignore[union-attr]
        assert sorted(name.decode() for name in await payloads) == sorted(self.model.jobs)  # type: ignore[union-attr]
        assert {ws.decode(): int(count) for ws, count in (await depth).items()} == {
            ws: count for ws in "abc" if (count := self.model.depth(ws))
        }
        assert int((await running).get(b"*", 0)) == self.model.running()
        return found


def _run(socket: str | None, examples: int, steps: int) -> None:
    machine = type("Machine", (QueueMachine,), {"socket": socket})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
                HealthCheck.large_base_example,
            ],
        ),
    )


def test_whatever_happens_the_scripts_do_as_the_model_in_memory() -> None:
    _run(None, 10, 25)


def test_whatever_happens_the_scripts_do_as_the_model_on_valkey(valkey_socket: str) -> None:
    _run(valkey_socket, 80, 40)


def test_whatever_happens_the_scripts_do_as_the_model_on_redis_7(redis7_socket: str) -> None:
    _run(redis7_socket, 40, 40)
