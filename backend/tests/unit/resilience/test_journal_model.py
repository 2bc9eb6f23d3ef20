"""The journal against a list: whatever is appended, carried out, put aside, crashed and adopted, both hold the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from redis_core.resilience.journal import Journal
from redis_core.testing import FakeClock

T = TypeVar("T")

KINDS = st.sampled_from(["job", "session", "usage"])
ORDERS = st.sampled_from(["a", "b"])


class JournalAgainstAList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="rf-journal-"))
        self.clock = FakeClock()
        self.number = 0
        self.waiting: list[tuple[str, str, str]] = []
        self.aside: list[tuple[str, str, str]] = []

    @initialize()
    def begin(self) -> None:
        self.journal = self.opened()

    def opened(self) -> Journal:
        journal = Journal(self.folder, "store", clock=self.clock)
        self.run(journal.adopt())
        return journal

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @rule(kinds=st.lists(KINDS, min_size=1, max_size=5), order=ORDERS)
    def append(self, kinds: list[str], order: str) -> None:
        names = []
        for kind in kinds:
            self.number += 1
            names.append((str(self.number), kind, order))

        async def together() -> None:
            await asyncio.gather(
                *(self.journal.append(kind, order, b"p" * 10, id=name) for name, kind, _ in names)
            )

        self.run(together())
        self.waiting += names

    @rule(limit=st.integers(1, 7), kind=st.none() | KINDS)
    def carry_out(self, limit: int, kind: str | None) -> None:
        expected = [one for one in self.waiting if kind is None or one[1] == kind][:limit]
        batch = self.run(self.journal.pending(limit, kinds=None if kind is None else {kind}))
        assert [(record.id, record.kind, record.order) for record in batch] == expected
        assert self.run(self.journal.done([record.id for record in batch])) == len(batch)
        self.waiting = [one for one in self.waiting if one not in expected]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def put_aside(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waiting))
        assert self.run(self.journal.quarantine([one[0]], "no")) == 1
        self.waiting.remove(one)
        self.aside.append(one)

    @precondition(lambda self: self.aside)
    @rule(data=st.data())
    def let_out(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.aside))
        assert self.run(self.journal.release([one[0]])) == 1
        self.aside.remove(one)
        self.waiting.append(one)
        self.waiting.sort(key=lambda found: int(found[0]))

    @rule(seconds=st.floats(0, 1000))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def process_ends_and_another_adopts(self) -> None:
        self.run(self.journal.aclose())
        self.journal = self.opened()

    @invariant()
    def totals_agree(self) -> None:
        if not hasattr(self, "journal"):
            return
        figures = self.journal.figures
        assert (figures.waiting, figures.quarantined) == (len(self.waiting), len(self.aside))
        for order in ("a", "b"):
            assert self.journal.waiting(order) == any(one[2] == order for one in self.waiting)
        if not self.waiting:
            assert figures.waiting_bytes == 0
            assert figures.oldest_age == 0

    def teardown(self) -> None:
        self.run(self.journal.aclose())
        self.loop.close()
        shutil.rmtree(self.folder)


JournalAgainstAList.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestJournalAgainstAList = JournalAgainstAList.TestCase
