"""The same API, blocking: for Flask, Django, scripts and shells.

There is one implementation, the async one. A client made here runs it on an event loop in a thread of its own; what threads
ask for at the same time leaves as one batch. It may be used from any thread, and inside a running event loop too (which it
blocks). The types of this module are in `sync.pyi`, generated from the async classes by `scripts/sync_stub.py`.

::

    from redis_core.sync import connect

    with connect() as redis:
        redis.set("greeting", "hello", ex=60)
        with redis.pipeline() as batch:
            greeting = batch.get("greeting")
        print(greeting.result())
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self, TypeVar

from redis_core import client as _client
from redis_core.cache import Cache
from redis_core.commands import Commands
from redis_core.locks import Lock
from redis_core.pipeline import Pending
from redis_core.pubsub import Presence, SharedState, SharedText, TextWriter, Topic
from redis_core.queue import JobHandle, Queue
from redis_core.transport.base import Subscription
from redis_core.usage import Usage
from redis_core.workspace import Workspace

__all__ = ["connect"]

T = TypeVar("T")


class _LoopThread:
    """An event loop in a daemon thread, and the way into it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        # Held while a call is handed over: whatever is handed over comes before the loop's end, and so gets an answer.
        self._handing_over = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="redis-core-sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_end_calls())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more: ended, or left behind in the process that forked this one."""
        return self._stopping or self._process != os.getpid()

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable in the loop and block until it is done; an interrupt cancels it."""
        if threading.current_thread() is self._thread:
            _discard(awaitable)
            raise RuntimeError(
                "a blocking call inside the sync client's own event loop would wait for itself"
            )
        if self._process != os.getpid():
            _discard(awaitable)
            raise RuntimeError(
                "this sync client was made before a fork, which its thread did not survive: connect after it"
            )
        with self._handing_over:
            if self._stopping:
                _discard(awaitable)
                raise RuntimeError("this sync client is closed")
            future = asyncio.run_coroutine_threadsafe(_as_coroutine(awaitable), self._loop)
        try:
            return future.result()
        except CancelledError:
            if self._stopping:
                raise RuntimeError("this sync client was closed") from None
            raise
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread. Idempotent."""
        with self._handing_over:
            if not self._stopping and self._process == os.getpid():
                self._stopping = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _end_calls() -> None:
    """End the calls that other threads made while the client was being closed."""
    # Each begins first: a task that is cancelled before leaves its coroutine unawaited.
    await asyncio.sleep(0)
    late = asyncio.all_tasks() - {asyncio.current_task()}
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _discard(awaitable: Awaitable[object]) -> None:
    if isinstance(awaitable, Coroutine):
        awaitable.close()


_FACED = (
    Commands, Workspace, Cache, Queue, JobHandle, Lock, Topic, SharedState, SharedText, TextWriter, Presence, Usage, Subscription,
    AsyncGenerator,
)  # fmt: skip
"""What has methods that wait, and so needs a face of its own."""


def _off_the_loop(argument: Any) -> Any:
    """A caller's function as the loop may call it: in a thread, for it will block."""
    if not inspect.isroutine(argument) or inspect.iscoroutinefunction(argument):
        return argument

    def in_thread(*args: Any) -> Coroutine[Any, Any, Any]:
        return asyncio.to_thread(argument, *args)

    return in_thread


def _loader_off_the_loop(argument: Any) -> Any:
    """As `_off_the_loop`, for what a cache is given: whatever can be called there is a loader."""
    call = getattr(argument, "__call__", None)  # noqa: B004 - its own, to see whether that is async
    if call is None or inspect.iscoroutinefunction(argument) or inspect.iscoroutinefunction(call):
        return argument

    async def in_thread(*args: Any) -> Any:
        made = await asyncio.to_thread(argument, *args)
        return await made if inspect.isawaitable(made) else made

    return in_thread


class _Face:
    """A blocking face of an async object: its methods, waited for; what they return, with a face of its own."""

    def __init__(self, target: Any, thread: _LoopThread) -> None:
        self._target = target
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._target, "aclose" if name == "close" else name)
        return self._blocking(value) if inspect.isroutine(value) else self._dress(value)

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        loads = isinstance(self._target, Cache)
        taken = _loader_off_the_loop if loads else _off_the_loop

        def call(*args: Any, **kwargs: Any) -> Any:
            named = {name: _undress(value) for name, value in kwargs.items()}
            if loads:
                named = {name: _loader_off_the_loop(value) for name, value in named.items()}
            result = method(*(taken(_undress(value)) for value in args), **named)
            if isinstance(result, Pending):
                return result
            return self._dress(self._thread.wait(result) if inspect.isawaitable(result) else result)

        call.__doc__ = method.__doc__
        return call

    def _dress(self, value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], _FACED):
            return [_Face(each, self._thread) for each in value]
        return _Face(value, self._thread) if isinstance(value, _FACED) else value

    def __len__(self) -> int:
        return len(self._target)

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self._dress(self._thread.wait(anext(self._target)))
            except StopAsyncIteration:
                return

    def __enter__(self) -> Self:
        self._thread.wait(self._target.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.wait(self._target.__aexit__(kind, error, trace))

    def __repr__(self) -> str:
        return f"<blocking {self._target!r}>"


def _undress(argument: Any) -> Any:
    """An argument as the async method takes it: jobs without their faces."""
    if isinstance(argument, _Face):
        return argument._target  # noqa: SLF001 - what it is a face of
    if isinstance(argument, list | tuple) and any(isinstance(each, _Face) for each in argument):
        return [_undress(each) for each in argument]
    return argument


class _ClientFace(_Face):
    """The face that owns the thread: closing it ends the thread."""

    def close(self) -> None:
        """Let go of the store and end the thread. Idempotent."""
        if not self._thread.closed:
            try:
                self._thread.wait(self._target.aclose())
            finally:
                self._thread.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(settings: Any = None, **overrides: object) -> Any:
    """A blocking client of the store that the settings name; see `redis_core.connect`."""
    thread = _LoopThread()
    try:
        client = thread.wait(_client.connect(settings, **overrides))
    except BaseException:
        thread.stop()
        raise
    return _ClientFace(client, thread)
