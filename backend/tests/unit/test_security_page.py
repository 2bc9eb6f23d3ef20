"""docs/security.md names tests that there are, and SECURITY.md what a reporter looks for."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import redis_core

ROOT = Path(redis_core.__file__).parents[2]
TESTS = ROOT / "backend" / "tests"


def rows() -> list[tuple[str, str]]:
    """First and last cell of each row that is to name tests."""
    held, _, _ = (ROOT / "docs" / "security.md").read_text("utf-8").partition("## Left to others")
    cells = [line.strip("|").split("|") for line in held.splitlines() if line.startswith("|")]
    found = [(row[0].strip(), row[-1].strip()) for row in cells]
    return [row for row in found if row[1] != "tests" and set(row[1]) != {"-"}]


@cache
def names_in(file: str) -> frozenset[str]:
    """The tests of a file; those of a class as `Class::name`."""
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    plain = {node.name for node in tree.body if isinstance(node, functions)}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    inner = {
        f"{owner.name}::{node.name}"
        for owner in classes
        for node in owner.body
        if isinstance(node, functions)
    }
    return frozenset(plain | inner)


@pytest.mark.parametrize(("what", "cell"), rows())
def test_each_row_names_tests_that_there_are(what: str, cell: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::([\w:]+)`", cell)
    assert named, f"no test is named for {what}"
    assert len(named) == cell.count("::test_")
    for file, name in named:
        assert (TESTS / file).is_file(), file
        assert name in names_in(file), f"{name} is not in {file}"


def test_the_requirements_that_concern_a_store_have_rows() -> None:
    numbers = " ".join(what for what, _ in rows())
    for number in (
        "1.5.2", "3.5.1", "7.2.3", "7.3.1", "7.4.1", "8.4.1", "8.4.2", "11.2.4", "11.5.1", "12.3.2", "13.1.2", "13.2.1", "13.2.2",
        "13.3.1", "13.3.4", "15.2.3", "15.4.2", "16.2.5", "16.4.1", "16.5.2", "16.5.3",
    ):  # fmt: skip
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", numbers), number


def test_every_requirement_that_a_session_test_is_named_for_has_a_row() -> None:
    tests = {path: names_in(str(path.relative_to(TESTS))) for path in TESTS.rglob("test_session_*.py")}
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = {name for names in tests.values() for name in names if name.startswith("test_asvs_")}
    assert len(named) >= 18
    assert {name for name in named if name not in page} == set()


def test_the_policy_says_what_is_supported_how_to_report_and_what_is_not_covered() -> None:
    policy = (ROOT / "SECURITY.md").read_text("utf-8")
    for heading in (
        "## Supported versions",
        "## Reporting a vulnerability",
        "## Threat model",
        "### What is not covered",
    ):
        assert f"\n{heading}\n" in policy
    major_minor = ".".join(redis_core.__version__.split(".")[:2])
    assert f"| {major_minor} " in policy


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/security.md", "docs/acl.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", path.read_text("utf-8"))
    assert links
    for link in links:
        assert (path.parent / link).exists(), link
