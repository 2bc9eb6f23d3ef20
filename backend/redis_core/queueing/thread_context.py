"""The context of a job that runs in a thread: what `JobContext` does, without `await`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from redis_core.errors import LeaseLost
from redis_core.queueing.context import LONGEST_WAIT, JobContext, decode_step, encode_step

if TYPE_CHECKING:
    from redis_core.queueing.handle import JobHandle
    from redis_core.queueing.task import Call

__all__ = ["ThreadContext"]

R = TypeVar("R")
_LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether there still is a worker that could answer."""


class ThreadContext:
    """Given to a synchronous task that has a parameter annotated with it.

    ::

        @task
        def summarize(doc_id: int, ctx: ThreadContext) -> str:
            text = ctx.step("read", read_document, doc_id)   # runs in this thread
            ctx.progress(0.5, "asking the model")
            return ask_model(text)

    Each call is `JobContext`'s of the same name, with its budget and errors; the worker's event loop carries it out. Nobody can
    interrupt a thread, so each also ends the run, as `JobCancelled`, once that was asked for. For this thread only.

    Args:
        context: the job's.
        loop: the worker's.
    """

    def __init__(self, context: JobContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.id = context.id
        self.workspace = context.workspace
        self.run = context.run
        """Which run this is, from 1."""
        self.failures = context.failures
        """How many of the runs before failed."""

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked to end the job."""
        return self._context.cancelled

    def check_cancelled(self) -> None:
        """End here if that was asked for.

        Raises:
            JobCancelled: it was.
        """
        self._context.check_cancelled()

    def progress(self, value: float, message: str = "") -> None:
        """Tell how far it is, of 0 to 1."""
        self._wait(self._context.progress(value, message))

    def stream(self, token: str) -> None:
        """Tell a piece of what it makes to followers."""
        self._wait(self._context.stream(token))

    def log(self, message: str, **fields: str | float | bool | None) -> None:
        """A line in the worker's log, with the job's ids, and for followers."""
        self._wait(self._context.log(message, **fields))

    def usage(
        self,
        *,
        tokens: int = 0,
        cost: float | None = None,
        model: str = "",
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
    ) -> None:
        """Add to what the job and its workspace have used."""
        self._wait(
            self._context.usage(
                tokens=tokens, cost=cost, model=model, input_tokens=input_tokens,
                output_tokens=output_tokens, cached_tokens=cached_tokens,
            )
        )  # fmt: skip

    def step(self, name: str, function: Callable[..., R], *args: object, **kwargs: object) -> R:
        """Do something once, in this thread: when the job runs again, the stored result is returned instead."""
        field, stored = self._wait(self._context.recall(name))
        if stored is not None:
            found: R = decode_step(stored, function)
            return found
        result = function(*args, **kwargs)
        self._wait(self._context.keep(field, encode_step(name, result)))
        return result

    def sleep(self, seconds: float, name: str = "sleep") -> None:
        """Wait; for more than a second without holding a worker: the job begins anew then, its steps done."""
        self._wait(self._context.sleep(seconds, name))

    @overload
    def wait_for(self, name: str, timeout: float = ...) -> Any: ...
    @overload
    def wait_for(self, name: str, timeout: float = ..., *, type: type[R]) -> R: ...
    def wait_for(self, name: str, timeout: float = LONGEST_WAIT, *, type: Any = Any) -> Any:
        """Wait for `JobHandle.signal(name, value)` without holding a worker; the value."""
        return self._wait(self._context.wait_for(name, timeout, type=type))

    def spawn(self, call: Call[R], name: str | None = None) -> JobHandle[R]:
        """Enqueue a child job, once however often this job runs; its handle is for `gather`."""
        return self._wait(self._context.spawn(call, name))

    def gather(self, *children: JobHandle[R]) -> list[R]:
        """The results of children, waited for without holding a worker."""
        return self._wait(self._context.gather(*children))

    def _wait(self, work: Coroutine[Any, Any, R]) -> R:
        try:
            self._context.check_cancelled()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException as error:
            work.close()
            if isinstance(error, RuntimeError):  # the loop is closed
                raise self._left_behind() from error
            raise
        while True:
            try:
                return future.result(_LOOK_EVERY)
            except TimeoutError:
                if future.done():
                    raise
                if not self._loop.is_running():
                    raise self._left_behind() from None

    def _left_behind(self) -> LeaseLost:
        return LeaseLost(f"job {self.id}: its worker has ended; another one runs it")
