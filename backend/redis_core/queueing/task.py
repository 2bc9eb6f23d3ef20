"""Tasks: functions that jobs run, with how they are to be run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from redis_core.errors import InvalidJob
from redis_core.queueing.parameters import Parameters
from redis_core.queueing.retry import Retry

if TYPE_CHECKING:
    from redis_core.queueing.context import JobContext

__all__ = ["Call", "Executor", "Gate", "Task", "check_queue", "task"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Executor = Literal["loop", "thread", "process"]
"""Where a function runs: on the worker's event loop, in a thread, or in a process of its own with limits."""

Gate = Callable[["JobContext"], Awaitable[float]]
"""Asked before a job begins: seconds that it has to wait, 0 to begin. A job that waits has not failed."""

_QUEUE: Final = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?", re.ASCII)
_NAME: Final = re.compile(r"[!-~]{1,200}", re.ASCII)


def check_queue(name: str) -> str:
    """The name itself, if it may name a queue.

    Raises:
        InvalidJob: it is not 1 to 64 of `a-z 0-9 _ . -` with a letter or digit at both ends.
    """
    if _QUEUE.fullmatch(name) is None:
        raise InvalidJob(
            f"queue {name!r} must be 1 to 64 of a-z 0-9 _ . - and begin and end with a letter or digit"
        )
    return name


@dataclass(frozen=True, slots=True)
class Call(Generic[R_co]):
    """A task with its arguments, checked: what `enqueue` and `enqueue_many` take."""

    task: Task[..., R_co]
    arguments: bytes


class Task(Generic[P, R]):
    """A function that jobs run; made by `task`. Calling it runs the function here and now, without a queue.

    Args:
        function: async or sync.
        name: by which jobs find it; the function's module and name unless given. Renaming orphans the jobs that wait.
        queue: where its jobs go.
        timeout: seconds one run may take; None for no limit.
        retries: what happens when it fails; a number is that many times with the usual backoff.
        result_ttl: seconds its result is kept; 0 keeps none.
        executor: where it runs; None is the loop for an async function and a thread for another.
        memory: bytes a process of its own may use.
        gate: asked before each run.
    """

    def __init__(
        self,
        function: Callable[P, Any],
        *,
        name: str | None = None,
        queue: str = "default",
        timeout: float | None = 300.0,
        retries: Retry | int = 3,
        result_ttl: float = 3600.0,
        executor: Executor | None = None,
        memory: int | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.function: Callable[..., Any] = function
        self.name = (
            name or f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
        )
        if _NAME.fullmatch(self.name) is None:
            raise InvalidJob(f"task {self.name!r} must be 1 to 200 visible characters of ASCII")
        self.queue = check_queue(queue)
        self.timeout = timeout
        self.retries = retries if isinstance(retries, Retry) else Retry(retries)
        self.result_ttl = result_ttl
        self.is_async = inspect.iscoroutinefunction(function)
        self.executor: Executor = executor or ("loop" if self.is_async else "thread")
        self.memory = memory
        self.gate = gate
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    @cached_property
    def parameters(self) -> Parameters:
        """What its jobs carry.

        Raises:
            InvalidJob: it is to be given a context that it cannot use where it runs.
        """
        from redis_core.queueing.context import JobContext  # noqa: PLC0415 - the context is made of tasks
        from redis_core.queueing.thread_context import ThreadContext  # noqa: PLC0415 - as above

        found = Parameters(self.function, JobContext, ThreadContext)
        if self.executor == "process" and (found.context is not None or found.depends):
            raise InvalidJob(
                f"{self.name}: a process of its own has no `JobContext`, `ThreadContext` or `Depends`; run it in a thread or on the loop"
            )
        if found.context_type is ThreadContext and self.executor != "thread":
            raise InvalidJob(
                f"{self.name}: `ThreadContext` is for a function in a thread; on the loop take `JobContext`"
            )
        return found

    def call(self, *args: object, **kwargs: object) -> Call[R]:
        """The task with these arguments.

        Raises:
            InvalidJob: they are not what it takes.
        """
        return Call(self, self.encode(args, kwargs))

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """These arguments as a job carries them."""
        return self.parameters.encode(self.name, args, kwargs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """What the function returns: for an async one, what is to be awaited."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, queue={self.queue!r})"


class _Decorator(Protocol):
    """What `task` with options is."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    timeout: float | None = 300.0,
    retries: Retry | int = 3,
    result_ttl: float = 3600.0,
    executor: Executor | None = None,
    memory: int | None = None,
    gate: Gate | None = None,
) -> _Decorator: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task: `@task` or `@task(queue="agents", retries=Retry(5))`; the options are those of `Task`."""
    if function is not None:
        return Task(function)
    return lambda decorated: Task(decorated, **options)
