"""The one thread that writes a process' journal: what was asked for meanwhile is one transaction, and one flush of the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from msgspec import Struct

from redis_core.errors import JournalBroken
from redis_core.log import get_logger
from redis_core.resilience.journal_file import JournalDamaged, is_damage
from redis_core.resilience.journal_files import Holding, JournalFiles

__all__ = ["JournalThread", "State"]

T = TypeVar("T")

_GROUP: Final = 100
"""Most pieces of work in one transaction: a bound on how long the first of them waits."""
_LOG: Final = get_logger("redis_core.journal")


class State(Struct, frozen=True):
    """What the thread tells after each transaction."""

    first: float | None
    """When the oldest waiting record was accepted."""
    holding: Holding | None = None
    """Everything counted anew, after what made the running totals doubtful."""
    damaged: int = 0
    """Files that were just set aside."""


class _Work(Struct, eq=False):
    do: Callable[[JournalFiles], Any]
    future: asyncio.Future[Any]
    settle: Callable[[Any], None]
    recount: bool


class JournalThread:
    """Runs work on the files, in the order it was asked for. Started by the first of it.

    Args:
        files: what it owns.
        told: called in the event loop after each transaction, before the results of its work are there.
    """

    def __init__(self, files: JournalFiles, told: Callable[[State], None]) -> None:
        self._files = files
        self._told = told
        self._asked: queue.SimpleQueue[list[_Work] | None] = queue.SimpleQueue()
        self._turn: list[_Work] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    @property
    def running(self) -> bool:
        """Whether there is anything to end."""
        return self._thread is not None

    def submit(
        self,
        do: Callable[[JournalFiles], T],
        settle: Callable[[T | None], None] = lambda _: None,
        *,
        recount: bool = False,
    ) -> asyncio.Future[T]:
        """Have work done. What one turn of the loop asks for goes to the thread together.

        Args:
            do: the work; what it changes is on the disk when the future is done.
            settle: called in the event loop with the result, None if it failed, whether or not anybody still waits.
            recount: whether everything is to be counted anew after it; such work has a transaction of its own.
        """
        if self._process != os.getpid():
            raise RuntimeError("this journal was opened before a fork: make a client after it")
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._loop = loop
            self._thread = threading.Thread(target=self._run, name="redis-core-journal", daemon=True)
            self._thread.start()
        work = _Work(do, loop.create_future(), settle, recount)
        self._turn.append(work)
        if len(self._turn) == 1:
            loop.call_soon(self._hand_over)
        return work.future

    async def stop(self) -> None:
        """Finish what was asked for, give the files back and end. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._hand_over()
            self._asked.put(None)
            await asyncio.to_thread(thread.join)

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        if turn:
            self._asked.put(turn)

    # --- in the thread ---

    def _run(self) -> None:
        waiting: list[_Work] = []
        ending = False
        while True:
            if not waiting and not ending:
                ending = self._receive(waiting, block=True)
            while len(waiting) < _GROUP and not ending:
                try:
                    ending = self._receive(waiting, block=False)
                except queue.Empty:
                    break
            if not waiting:
                break
            size = _first_group(waiting)
            self._transact(waiting[:size])
            del waiting[:size]
        try:
            self._files.close()
        except (sqlite3.Error, OSError) as error:
            _LOG.error("journal could not be closed in good order", error=str(error))

    def _receive(self, waiting: list[_Work], *, block: bool) -> bool:
        """Take over what one turn of the loop asked for; whether that was the end."""
        turn = self._asked.get(block=block)
        if turn is None:
            return True
        waiting += turn
        return False

    def _transact(self, group: list[_Work]) -> None:
        try:
            results = [work.do(self._files) for work in group]
            self._files.commit()
            state = State(self._files.first(), self._files.holding() if group[0].recount else None)
        except Exception as error:  # noqa: BLE001 - told to everyone who waits for it
            failure = _failure(error)
            self._deliver([(work, None, failure) for work in group], self._recover(error))
        else:
            self._deliver([(work, result, None) for work, result in zip(group, results, strict=True)], state)

    def _recover(self, error: Exception) -> State | None:
        """Get back to a state that can be written to, and count what is there."""
        self._files.rollback()
        try:
            damaged = self._files.replace_damaged() if is_damage(error) else 0
            return State(self._files.first(), self._files.holding(), damaged)
        except (sqlite3.Error, OSError, JournalBroken, JournalDamaged) as again:
            _LOG.error("journal cannot be read", error=str(again))
            return None

    def _deliver(self, outcomes: list[tuple[_Work, Any, Exception | None]], state: State | None) -> None:
        def deliver() -> None:
            if state is not None:
                self._told(state)
            for work, result, error in outcomes:
                work.settle(result)
                if work.future.cancelled():
                    continue
                if error is None:
                    work.future.set_result(result)
                else:
                    work.future.set_exception(error)

        assert self._loop is not None  # noqa: S101 - set before the thread is started
        with contextlib.suppress(RuntimeError):  # the loop was closed under us: nobody waits any more
            self._loop.call_soon_threadsafe(deliver)


def _first_group(waiting: list[_Work]) -> int:
    """How much of it goes into the next transaction."""
    if waiting[0].recount:
        return 1
    alone = (place for place, work in enumerate(waiting) if work.recount)
    return min(next(alone, len(waiting)), _GROUP)


def _failure(error: Exception) -> Exception:
    """What callers are told."""
    if (
        isinstance(error, sqlite3.Error)
        and (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL
    ):
        return JournalBroken(
            "the journal's disk is full: free space on it, or set JOURNAL_PATH to a folder of another"
        )
    if is_damage(error):
        return JournalBroken(
            f"the journal's file is damaged ({error}): it is set aside and a new one begun, try again"
        )
    if isinstance(error, sqlite3.Error | OSError):
        return JournalBroken(f"the journal cannot be written: {error}; see JOURNAL_PATH")
    return error
