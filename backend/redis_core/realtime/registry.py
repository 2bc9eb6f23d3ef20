"""Which shape each topic has, for Python and for browsers: `raptorflow types` writes it down as TypeScript.

::

    @topics.events("campaign:*")
    class CampaignChanged(msgspec.Struct, tag=True):
        id: str
        name: str

    @topics.state("doc:*")
    class Document(msgspec.Struct):
        title: str = ""
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

__all__ = ["Registry", "Shape", "topics"]

T = TypeVar("T", bound=type)
TypedKind = Literal["events", "state", "append", "presence"]

_PATTERN: Final = re.compile(r"[!-)+->@-Z^-z|~]{0,200}\*?")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the topics of one pattern and kind carry."""

    kind: TypedKind
    pattern: str
    """A name, or the beginning of names and `*`."""
    type: Any
    """What msgspec encodes and decodes; a union where several were registered."""


class Registry:
    """Topics with their types, in the order in which they were registered."""

    def __init__(self) -> None:
        self._types: dict[tuple[TypedKind, str], list[Any]] = {}

    def __iter__(self) -> Iterator[Shape]:
        for (kind, pattern), types in self._types.items():
            union = types[0]
            for other in types[1:]:
                union |= other
            yield Shape(kind, pattern, union)

    def events(self, pattern: str) -> Callable[[T], T]:
        """A class of events of these topics. Several classes are a union: give each `tag=True`.

        Args:
            pattern: a topic's name, or the beginning of names and `*`.

        Raises:
            ValueError: it is no pattern.
        """
        return self._class("events", pattern)

    def state(self, pattern: str) -> Callable[[T], T]:
        """The class of the documents of these topics."""
        return self._class("state", pattern)

    def presence(self, pattern: str) -> Callable[[T], T]:
        """The class of what is told of a member of these topics."""
        return self._class("presence", pattern)

    def text(self, pattern: str) -> None:
        """Topics of text that grows."""
        self._add("append", pattern, str)

    def _class(self, kind: TypedKind, pattern: str) -> Callable[[T], T]:
        def register(shape: T) -> T:
            self._add(kind, pattern, shape)
            return shape

        return register

    def _add(self, kind: TypedKind, pattern: str, shape: object) -> None:
        if not pattern or _PATTERN.fullmatch(pattern) is None:
            raise ValueError(f"{pattern!r} is neither a topic's name nor the beginning of names and '*'")
        known = self._types.setdefault((kind, pattern), [])
        if known and kind != "events":
            raise ValueError(f"the {kind} topics {pattern!r} have a type already")
        known.append(shape)


topics: Final = Registry()
"""The process' registry, filled as the application's modules are imported."""
