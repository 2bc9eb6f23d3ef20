"""docs/operations.md has a row for whatever the operations manual names, and each row names the tests that run it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

import redis_core
import redis_core.report
from redis_core.cli.app import app

_ROOT = Path(redis_core.__file__).parents[2]
_PAGE = _ROOT / "docs" / "operations.md"


def _rows() -> list[list[str]]:
    """The cells of every table's rows, heads left out."""
    rows: list[list[str]] = []
    lines = _PAGE.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        is_head = number + 1 < len(lines) and lines[number + 1].startswith("| ---")
        if line.startswith("|") and not line.startswith("| ---") and not is_head:
            rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def _tests_of(file: Path) -> set[str]:
    """The tests of a file; those of a class as `Class::name`."""
    found: set[str] = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        owner = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {
            owner + each.name for each in inside if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }
    return found


def _is_to_come(command: str) -> bool:
    """Whether a row is of a command that this version has not yet; the day it has, its row must name a test."""
    word = re.match(r"`raptorflow (\w+)", command)
    return word is not None and word[1] not in get_command(app).commands  # type: ignore[attr-defined]


def test_every_command_has_a_row() -> None:
    cells = " ".join(row[0] for row in _rows())
    for word in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`raptorflow {word}" in cells, word


def test_every_alarm_has_a_row() -> None:
    source = Path(redis_core.report.__file__).read_text("utf-8")
    codes = set(re.findall(r'"(?:critical|warning)",\s*"([a-z-]+)"', source))
    assert len(codes) >= 10
    assert codes <= {row[0].strip("`") for row in _rows()}


def test_each_row_of_the_page_names_a_test_that_there_is() -> None:
    rows = [row for row in _rows() if not _is_to_come(row[0])]
    assert len(rows) >= 50
    for row in rows:
        proofs = re.findall(r"`([\w/]+\.py)::([\w:]+)`", row[-1])
        assert proofs, f"no test is named in {row}"
        for file, name in proofs:
            path = _ROOT / "backend" / "tests" / file
            assert path.is_file(), f"{file} of {row[0]}"
            assert name in _tests_of(path), f"{name} is not in {file}"


@pytest.mark.parametrize(
    "item",
    [
        *(f"backend/redis_core/{name}.py" for name in (
            "client", "session", "cache", "rate_limit", "rate_limit_config", "queue", "pubsub"
        )),
        "backend/tests/integration/test_redis_integration.py",
        "curl -X GET",
        "/api/v1/health/redis",
        "/api/v1/admin/redis-metrics",
        "/api/v1/admin/redis-stats",
        "/admin/performance",
        "UPSTASH_REDIS_URL",
        "UPSTASH_REDIS_TOKEN",
        "MOCK_REDIS",
        "REDIS_DEFAULT_TTL",
        "REDIS_SESSION_TTL",
        "REDIS_MAX_CONNECTIONS",
        "MockRedisClient",
        "ws:{id}",
        "Redis HIT",
        "Redis MISS",
        "Redis connection failed - falling back to Mock Mode",
        'redis.del("rate:user_id:endpoint")',
        'redis.del("cache:workspace_id:*")',
        'echo "MOCK_REDIS=true" >> backend/.env.production',
        "raptorflow token",
        "raptorflow mock on|off|status",
        "raptorflow keys audit",
        "raptorflow drill blackout",
        "rotation.md",
    ],
)  # fmt: skip
def test_whatever_the_manual_names_has_a_row(item: str) -> None:
    assert any(item in cell for row in _rows() for cell in row[:-1])
