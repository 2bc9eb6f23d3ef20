"""Fencing tokens: which of two holders of one lock came later."""

from __future__ import annotations

from typing import NamedTuple, Self

__all__ = ["Token"]


class Token(NamedTuple):
    """Compares with other tokens of its workspace: a later grant has a greater one, also after the store has lost its data.

    A resource that remembers the greatest token it has seen, and refuses lesser ones, is safe from holders that were paused
    past the end of their lease.
    """

    epoch: int
    """Grows when the store has lost data; in microseconds since the Unix epoch."""
    counter: int
    """Grows with each grant of any lock of the workspace."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `str` wrote.

        Raises:
            ValueError: it is no token.
        """
        epoch, _, counter = text.partition(".")
        return cls(int(epoch), int(counter))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"
