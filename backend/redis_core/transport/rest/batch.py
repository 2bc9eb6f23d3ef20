"""Which commands travel in which request: all that tasks issue in one turn of the event loop go together.

At most so many requests are under way at once. What is issued while all of them are busy waits, gathers, and leaves in the
next one that is free. Commands of one request are done in their order; between two requests that are under way together
there is no order, so a caller whose commands depend on each other awaits them or puts them in one batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from redis_core.errors import DeadlineExceeded, Outcome, StoreError, StoreOverloaded, StoreUnavailable
from redis_core.transport.base import Reply, TransportStats
from redis_core.transport.rest.pieces import Piece
from redis_core.transport.rest.wire import MAX_COMMANDS, MAX_REQUEST_BYTES, PIPELINE, SINGLE, join

__all__ = ["Request", "RequestLimits", "RequestQueue"]

_TICK: Final = 0.01
"""Seconds between two looks for calls that are late, at least: one look serves all of them."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds of one queue. Times in seconds."""

    command_timeout: float = 1.0
    max_requests: int = 50
    max_in_flight: int = 100_000


class Request:
    """One HTTP request and what is known of it."""

    __slots__ = ("body", "calls", "count", "give_up_at", "path", "sent")

    def __init__(self, path: str, body: bytes, count: int, give_up_at: float, calls: Sequence[_Call]) -> None:
        self.path = path
        self.body = body
        self.count = count
        # On the loop's clock: from then on nobody waits for the answer, and silence means a dead link.
        self.give_up_at = give_up_at
        # Set by the HTTP session when the first byte goes out: until then an error is certainly without effect.
        self.sent = False
        self.calls = calls


class _Call:
    """One caller's piece and the future of its replies."""

    __slots__ = ("deadline", "future", "piece", "request", "timeout")

    def __init__(
        self, piece: Piece, future: asyncio.Future[list[Reply]], deadline: float, timeout: float
    ) -> None:
        self.piece = piece
        self.future = future
        self.deadline = deadline
        self.timeout = timeout
        self.request: Request | None = None


class RequestQueue:
    """The callers' commands on their way to the store.

    Args:
        send: does one request; its replies or a `StoreError`.
        target: the store, for messages.
        limits: bounds.
        stats: the transport's totals, added to.
    """

    def __init__(
        self,
        send: Callable[[Request], Awaitable[list[Reply]]],
        target: str,
        limits: RequestLimits,
        stats: TransportStats,
    ) -> None:
        self._send = send
        self._target = target
        self._limits = limits
        self._stats = stats
        self._waiting: deque[_Call] = deque()
        self._under_way: dict[Request, asyncio.Task[None]] = {}
        self._in_flight = 0
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False

    def submit(self, piece: Piece, timeout: float) -> asyncio.Future[list[Reply]]:
        """Send a piece; the future of one reply for each of its commands. Cancelling it abandons the replies only.

        Args:
            piece: what to send.
            timeout: seconds until the future ends as `DeadlineExceeded`.

        Raises:
            StoreUnavailable: the queue is closed; nothing was sent.
            StoreOverloaded: too many commands wait for an answer; nothing was sent.
        """
        if self._closed:
            raise StoreUnavailable(f"{self._target}: the client is closed")
        if self._in_flight + piece.count > self._limits.max_in_flight and self._in_flight:
            raise StoreOverloaded(
                f"{self._target}: {self._in_flight} commands wait for an answer, REDIS_MAX_IN_FLIGHT is "
                f"{self._limits.max_in_flight}"
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        future: asyncio.Future[list[Reply]] = loop.create_future()
        self._waiting.append(_Call(piece, future, deadline, timeout))
        self._in_flight += piece.count
        self._stats.in_flight += piece.count
        if self._timer is None or deadline < self._timer_at:
            self._set_timer(loop, deadline)
        if not self._flush_due:
            # At the end of this turn: until then other tasks add theirs.
            self._flush_due = True
            loop.call_soon(self._flush)
        return future

    async def aclose(self) -> None:
        """Fail what waits, `not_sent` what never left, and end the requests that are under way."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail(self._waiting, self._lost(), Outcome.NOT_SENT)
        for call in self._waiting:
            self._release(call.piece.count)
        self._waiting.clear()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- from calls to requests ---

    def _flush(self) -> None:
        self._flush_due = False
        while self._waiting and len(self._under_way) < self._limits.max_requests and not self._closed:
            calls = self._next_calls()
            if calls:
                request = self._request(calls)
                task = asyncio.get_running_loop().create_task(self._run(request), name="redis-rest")
                self._under_way[request] = task
                task.add_done_callback(partial(self._cancelled, request))

    def _next_calls(self) -> list[_Call]:
        """The calls of the next request, in order; those that were given up fall away."""
        calls: list[_Call] = []
        count = 0
        size = 2
        waiting = self._waiting
        while waiting:
            call = waiting[0]
            piece = call.piece
            if call.future.done():
                self._release(piece.count)
            elif piece.path != PIPELINE:
                if calls:
                    break
                waiting.popleft()
                return [call]
            else:
                count += piece.count
                size += len(piece.body) + 1
                if calls and (count > MAX_COMMANDS or size > MAX_REQUEST_BYTES):
                    break
                calls.append(call)
            waiting.popleft()
        return calls

    def _request(self, calls: list[_Call]) -> Request:
        """These calls as one request. A single command goes to `/`, where there is no list to unpack."""
        first = calls[0].piece
        count = sum(call.piece.count for call in calls)
        path, body = first.path, first.body
        if path == PIPELINE:
            if count == 1:
                path = SINGLE
            else:
                body = join(body if len(calls) == 1 else b",".join([call.piece.body for call in calls]))
        # A caller in a hurry does not cost the others their connection.
        patience = asyncio.get_running_loop().time() + self._limits.command_timeout
        request = Request(path, body, count, max(patience, *[call.deadline for call in calls]), calls)
        for call in calls:
            call.request = request
        self._stats.commands += count
        self._stats.trips += 1
        return request

    # --- from replies to calls ---

    async def _run(self, request: Request) -> None:
        try:
            replies = await self._send(request)
        except StoreError as error:
            if isinstance(error, StoreUnavailable):
                self._stats.errors += 1
            self._fail(request.calls, error, error.outcome)
        except Exception as error:  # noqa: BLE001 - a defect of ours: those who wait are told, as nobody awaits this task
            for call in request.calls:
                if not call.future.done():
                    call.future.set_exception(error)
        else:
            place = 0
            for call in request.calls:
                count = call.piece.count
                if not call.future.done():
                    call.future.set_result(replies[place : place + count])
                place += count
        finally:
            self._finished(request)

    def _cancelled(self, request: Request, task: asyncio.Task[None]) -> None:
        # Here and not in `_run`, which never starts if it is cancelled early.
        if task.cancelled():
            self._fail(request.calls, self._lost(), _outcome(request))
            self._finished(request)

    def _finished(self, request: Request) -> None:
        if self._under_way.pop(request, None) is not None:
            self._release(request.count)
            if self._waiting and not self._flush_due:
                self._flush()

    def _release(self, count: int) -> None:
        self._in_flight -= count
        self._stats.in_flight -= count

    def _lost(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._target}: the client was closed")

    def _fail(self, calls: Sequence[_Call], error: StoreError, outcome: Outcome) -> None:
        for call in calls:
            if not call.future.done():
                # Each its own: a raised error collects the traceback of whoever raises it.
                call.future.set_exception(type(error)(str(error), outcome=outcome))

    # --- deadlines: one timer for all calls ---

    def _set_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_at(at, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        earliest = float("inf")
        for calls in (self._waiting, *(request.calls for request in self._under_way)):
            for call in calls:
                if call.future.done():
                    continue
                if call.deadline <= now:
                    call.future.set_exception(self._late(call))
                else:
                    earliest = min(earliest, call.deadline)
        if earliest != float("inf"):
            self._set_timer(loop, max(earliest, now + _TICK))

    def _late(self, call: _Call) -> DeadlineExceeded:
        outcome = _outcome(call.request)
        detail = "nothing was sent" if outcome is Outcome.NOT_SENT else "it may have been done"
        return DeadlineExceeded(
            f"{self._target} did not answer within {call.timeout:g} s; {detail}", outcome=outcome
        )


def _outcome(request: Request | None) -> Outcome:
    return Outcome.UNKNOWN if request is not None and request.sent else Outcome.NOT_SENT
