"""What each workspace did through its handles, counted one by one: for usage, where an estimate would not do.

The meter samples a busy process, and counts whatever has a tenant's key. This counts every command that a workspace's handle was answered, and
nothing else: it costs an eighth of a GET, and nothing until somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from redis_core.measuring.attribution import size_of

if TYPE_CHECKING:
    from redis_core.transport.base import Command, Reply

__all__ = ["Tallies", "Tally"]

T = TypeVar("T")


class Tally:
    """One workspace's sums since they were last taken."""

    __slots__ = ("bytes", "commands", "jobs", "live")

    def __init__(self, *, live: bool = True) -> None:
        self.commands = 0
        """That were answered; a script is one."""
        self.bytes = 0
        """Of them and their replies, as `size_of` counts."""
        self.jobs = 0
        """Runs that ended."""
        self.live = live
        """Whether it will be taken again; where it will not, `Tallies.of` has another."""

    def answered(self, batch: Sequence[Command], replies: Sequence[Reply]) -> None:
        """Count commands that were sent together."""
        self.commands += len(batch)
        self.bytes += sum(map(size_of, batch, replies))

    def counting(self, command: Command, decode: Callable[[Any], T]) -> Callable[[Any], T]:
        """A decoder that counts the command when it is answered."""

        def counted(reply: Any) -> T:
            self.commands += 1
            self.bytes += size_of(command, reply)
            return decode(reply)

        return counted


class Tallies:
    """One a client."""

    __slots__ = ("_of", "counting")

    def __init__(self) -> None:
        self.counting = False
        """Whether somebody takes them; until then nothing is counted."""
        self._of: dict[str, Tally] = {}

    def of(self, workspace: str) -> Tally:
        """Where a workspace's sums are, for as long as it is live."""
        tally = self._of.get(workspace)
        if tally is None:
            tally = self._of[workspace] = Tally()
        return tally

    def take(self) -> dict[str, tuple[int, int, int]]:
        """Commands, bytes and jobs since they were last taken, of each workspace that has any. Begins anew."""
        taken: dict[str, tuple[int, int, int]] = {}
        for workspace, tally in list(self._of.items()):
            sums = tally.commands, tally.bytes, tally.jobs
            if any(sums):
                taken[workspace] = sums
                tally.commands = tally.bytes = tally.jobs = 0
            else:
                # Idle since the last time: nobody waits for an answer that long. Its handle asks for another.
                tally.live = False
                del self._of[workspace]
        return taken
