"""Hears that the process is asked to end before its server does, which would wait for open streams."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

__all__ = ["before_exit"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def before_exit(callback: Callable[[], None]) -> Callable[[], None]:
    """Have a callback called in the running loop when SIGINT or SIGTERM comes; whoever handled them still does, after it.

    Only signals that Python code handles already are heard, and only in the main thread: elsewhere there is nobody to come before.
    uvicorn tells applications of its end when all responses are over, and a stream never is.

    Args:
        callback: must not wait.

    Returns:
        What stops listening.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop = asyncio.get_running_loop()
    ours = {}
    for number in _SIGNALS:
        previous = signal.getsignal(number)
        if not callable(previous) or previous is signal.default_int_handler:
            continue

        def handler(
            signum: int, frame: FrameType | None, then: Callable[[int, FrameType | None], object] = previous
        ) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback)
            then(signum, frame)

        signal.signal(number, handler)
        ours[number] = (handler, previous)

    def stop() -> None:
        for number, (handler, previous) in ours.items():
            # Somebody else's by now, unless it is ours: theirs stays.
            if signal.getsignal(number) is handler:
                signal.signal(number, previous)

    return stop
