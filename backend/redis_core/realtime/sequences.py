"""How far the messages of each workspace were heard, as its bus counts them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

__all__ = ["Sequences"]

_KNOWN_AT_MOST: Final = 10_000
"""Workspaces whose highest sequence is kept."""


class Sequences:
    """Of one process. Pure: it is told what was heard and what the store answered."""

    def __init__(self) -> None:
        self._heard: dict[str, int] = {}
        """Of the workspaces that are listened to: up to where nothing is missing."""
        self._highest: dict[str, int] = {}

    def know(self, workspace: str, sequence: int) -> None:
        """The store had this one."""
        if sequence > self.highest(workspace):
            if workspace not in self._highest and len(self._highest) >= _KNOWN_AT_MOST:
                del self._highest[next(iter(self._highest))]
            self._highest[workspace] = sequence

    def highest(self, workspace: str) -> int:
        """The highest that the store is known to have had: one that has less has lost updates. 0 if nothing is known."""
        return self._highest.get(workspace, 0)

    def hear(self, workspace: str, sequence: int) -> None:
        """A message came."""
        self.know(workspace, sequence)
        if self._heard.get(workspace) == sequence - 1:
            # Only without a hole: after one the next look finds a difference, and heals.
            self._heard[workspace] = sequence

    def before(self, workspaces: Collection[str]) -> dict[str, int | None]:
        """What is known as the store is asked. Other workspaces than these are forgotten."""
        for workspace in self._heard.keys() - set(workspaces):
            del self._heard[workspace]
        return {workspace: self._heard.get(workspace) for workspace in workspaces}

    def compare(self, before: Mapping[str, int | None], found: Mapping[str, int]) -> set[str]:
        """The workspaces of which messages are missing, or were lost by the store. They count as heard from now on.

        Args:
            before: what was known as the store was asked: its answer may be older than what was heard meanwhile.
            found: the store's answer.
        """
        news = set[str]()
        for workspace, sequence in found.items():
            known, now = before[workspace], self._heard.get(workspace)
            if known is None or now is None or not known <= sequence <= now:
                news.add(workspace)
                self.know(workspace, sequence)
                self._heard[workspace] = sequence
        return news

    def doubt(self, workspaces: Collection[str]) -> None:
        """What is missing of these could not be read: look again."""
        for workspace in workspaces:
            self._heard.pop(workspace, None)
