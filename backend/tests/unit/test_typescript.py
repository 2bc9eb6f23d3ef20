"""Types become TypeScript as they are on the wire."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, Literal

import msgspec
import pytest

from redis_core.queue import task
from redis_core.realtime.registry import Registry
from redis_core.typescript import typescript


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct):
    name: str
    tags: list[str | int] = []
    place: tuple[int, str] = (0, "")
    counts: dict[str, float] = {}
    colour: Colour = Colour.RED
    size: Literal["s", "m"] | None = None
    anything: Any = None


class Point(msgspec.Struct, array_like=True):
    x: int
    y: int = 0


class Renamed(msgspec.Struct, rename="kebab"):
    """What it is. */ Not the end of a comment.

    Not told.
    """

    made_at: dt.datetime
    parts: dict[str, Part]
    points: list[Point]


class Added(msgspec.Struct, tag=True):
    id: str


class Removed(msgspec.Struct, tag=True):
    id: str


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.events("part:*")(Added)
    registry.events("part:*")(Removed)
    registry.state("exact")(Renamed)
    registry.presence("*")(Part)
    registry.text("odd`:*")
    return registry


def test_each_type_is_an_interface_of_its_wire_form(registry: Registry) -> None:
    text = typescript(registry)
    assert '  readonly "made-at": string;\n  readonly parts: Readonly<Record<string, Part>>;\n' in text
    assert "  readonly points: readonly Point[];" in text
    assert "export type Point = readonly [number, number?" in text
    assert "/** What it is. * / Not the end of a comment. */\nexport interface Renamed {" in text
    assert "Not told" not in text
    for member in (
        "readonly name: string;",
        "readonly tags?: readonly (string | number)[];",
        "readonly place?: readonly [number, string];",
        "readonly counts?: Readonly<Record<string, number>>;",
        "readonly colour?: Colour;",
        "readonly anything?: unknown;",
    ):
        assert f"  {member}\n" in text
    assert 'export type Colour = "blue" | "red";' in text


def test_topics_are_keys_by_kind(registry: Registry) -> None:
    text = typescript(registry)
    assert "    [topic: `part:${string}`]: Added | Removed;" in text
    assert '  readonly type: "Added";' in text
    assert '    "exact": Renamed;' in text
    assert "    [topic: string]: Part;" in text
    assert "    [topic: `odd\\`:${string}`]: string;" in text


def test_what_nobody_registered_has_no_names() -> None:
    text = typescript(Registry())
    assert text.count("Record<never, never>") == 5


def test_jobs_tell_their_results() -> None:
    @task(name="b.second")
    async def second(x: int) -> list[Part]:
        raise NotImplementedError

    @task(name="a.first")
    def first() -> None: ...

    text = typescript(Registry(), [second, first])
    assert '  "a.first": { result: null };\n  "b.second": { result: readonly Part[] };\n' in text


def test_the_same_types_make_the_same_text(registry: Registry) -> None:
    assert typescript(registry) == typescript(registry)


@pytest.mark.parametrize("pattern", ["", "a b", "a*b", "x{y}", "x?"])
def test_what_names_no_topics_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="neither a topic's name"):
        Registry().text(pattern)


def test_a_document_has_one_type() -> None:
    registry = Registry()
    registry.state("doc:*")(Added)
    with pytest.raises(ValueError, match="have a type already"):
        registry.state("doc:*")(Removed)
