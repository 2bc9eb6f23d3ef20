"""docs/metrics.md and docs/admin.md tell what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import redis_core
from redis_core.api.app import create_app
from redis_core.cli.app import app
from redis_core.cli.exit_codes import ExitCode
from redis_core.config import load_settings
from redis_core.metrics import CATALOGUE

_DOCS = Path(redis_core.__file__).parents[2] / "docs"


def test_every_metric_stands_in_the_guide_as_it_is() -> None:
    page = (_DOCS / "metrics.md").read_text("utf-8").splitlines()
    for metric in CATALOGUE.values():
        assert f"| `{metric.name}` | {metric.kind} | {metric.label} | {metric.help} |" in page


def test_every_admin_route_stands_in_the_guide() -> None:
    page = (_DOCS / "admin.md").read_text("utf-8")
    paths = create_app(load_settings(mock_redis=True)).openapi()["paths"]
    admin = [path.removeprefix("/api/v1/admin") for path in paths if path.startswith("/api/v1/admin/")]
    for path in admin:
        assert path in page or f"`/{path.rsplit('/', 1)[-1]}`" in page, path


def test_every_command_line_of_the_guide_is_understood() -> None:
    page = (_DOCS / "admin.md").read_text("utf-8")
    lines = re.findall(r"^raptorflow (.+)$", page, re.MULTILINE)
    assert len(lines) >= 10
    for line in lines:
        words = re.sub(r"[\[].*", "", line).split()
        for command in words[1].split("|") if len(words) > 1 and words[1].islower() else [""]:
            shown = CliRunner().invoke(app, [words[0], *([command] if command else []), "--help"])
            assert shown.exit_code == 0, line


def test_every_exit_code_stands_in_the_guide() -> None:
    page = (_DOCS / "admin.md").read_text("utf-8")
    for code in ExitCode:
        assert f"| {code.value} |" in page


@pytest.mark.parametrize("word", ["metrics", "stats", "token", "cache", "limits", "queue", "sessions"])
def test_there_is_a_command(word: str) -> None:
    assert word in get_command(app).commands  # type: ignore[attr-defined]
