"""The gateway's own MONITOR: the commands that pass through it, as they go to the store.

A store's MONITOR would show every client's commands, and would need a connection of its own; this one shows what came through
this gateway process, costs the store nothing, and nothing at all while nobody watches. Lines have MONITOR's form::

    1721284005.242090 [0 203.0.113.7:51034] "GET" "k"

A token with a prefix sees the commands of tokens with the same prefix only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from redis_core.clock import Clock
from redis_core.transport.base import Argument, Command

__all__ = ["Monitors", "Watcher", "monitor_line"]

_BEHIND: Final = 1_000
"""Lines a slow watcher may be behind before it loses the oldest."""

_ESCAPED: Final = {
    **{byte: f"\\x{byte:02x}" for byte in range(256) if not 32 <= byte < 127},  # noqa: PLR2004 - printable ASCII
    ord("\\"): "\\\\",
    ord('"'): '\\"',
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("\a"): "\\a",
    ord("\b"): "\\b",
}


class Watcher:
    """One reader of the monitor: an async iterator of lines.

    Args:
        prefix: the prefix of the token that watches; empty sees all.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._lines: deque[bytes] = deque(maxlen=_BEHIND)
        self._ready = asyncio.Event()

    def put(self, lines: Iterable[bytes]) -> None:
        """Hand over lines; never waits."""
        self._lines.extend(lines)
        self._ready.set()

    async def next(self) -> bytes:
        """The next line."""
        while not self._lines:
            self._ready.clear()
            await self._ready.wait()
        return self._lines.popleft()


class Monitors:
    """Who watches.

    Args:
        clock: the time that lines bear.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watchers: set[Watcher] = set()

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def watch(self, prefix: str) -> Watcher:
        """A new watcher; `leave` ends it."""
        watcher = Watcher(prefix)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Forget a watcher."""
        self._watchers.discard(watcher)

    def show(self, commands: Iterable[Command], prefix: str, client: tuple[str, int] | None) -> None:
        """Show commands to those who may see them.

        Args:
            commands: as they go to the store.
            prefix: of the token that sends them.
            client: its address.
        """
        watchers = [watcher for watcher in self._watchers if watcher.prefix in {"", prefix}]
        if watchers:
            now = self._clock.now()
            address = f"{client[0]}:{client[1]}" if client else "0.0.0.0:0"
            lines = [monitor_line(now, address, command) for command in commands]
            for watcher in watchers:
                watcher.put(lines)


def monitor_line(now: float, address: str, command: Command) -> bytes:
    """A command in MONITOR's form: one line, whatever its bytes are."""
    return f"{now:.6f} [0 {address}] {' '.join(map(_quoted, command))}".encode()


def _quoted(word: Argument) -> str:
    text = word if isinstance(word, bytes) else str(word).encode()
    return f'"{text.decode("latin-1").translate(_ESCAPED)}"'
