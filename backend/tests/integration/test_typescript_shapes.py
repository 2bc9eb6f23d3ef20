"""The types of topics and jobs hold in TypeScript: the generated file is current, and a wrong shape does not compile."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from redis_core.cli.exit_codes import ExitCode
from tests.frontend import BROWSER, CLIENT, DEMO, ROOT, built

pytestmark = pytest.mark.timeout(300)  # Where this comes first, it installs and builds.
_COMMAND = ["types", "demo.topics", "demo.tasks", "--out"]


def _raptorflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "redis_core", *arguments],
        cwd=ROOT / "backend",
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_demos_types_are_those_of_its_python() -> None:
    made = _raptorflow(*_COMMAND, str(DEMO / "src" / "events.ts"), "--check")
    assert made.returncode == 0, made.stderr


def test_a_file_of_other_types_fails_the_check() -> None:
    other = _raptorflow(*_COMMAND, str(DEMO / "test" / "shapes.ts"), "--check")
    assert other.returncode == ExitCode.SETTINGS
    assert "make it again" in other.stderr


def test_a_module_that_is_not_there_is_told_in_one_line() -> None:
    missing = _raptorflow("types", "demo.nothing")
    assert (missing.returncode, missing.stderr.count("\n")) == (ExitCode.SETTINGS, 1)


def test_a_wrong_shape_does_not_compile_and_a_right_one_does() -> None:
    built()
    program = DEMO / "test" / "shapes.ts"
    ran = subprocess.run(
        ["node_modules/.bin/tsc", "-p", "test", "--pretty", "false"],
        cwd=DEMO,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    errors = {
        (name, int(line))
        for name, line in re.findall(r"^(\S+)\((\d+),\d+\): error", ran.stdout, re.MULTILINE)
    }
    lines = program.read_text("utf-8").splitlines()
    wrong = {("test/shapes.ts", number) for number, line in enumerate(lines, 1) if line.endswith("// wrong")}
    assert len(wrong) > 20
    assert errors == wrong


@pytest.mark.parametrize("folder", [CLIENT, DEMO, BROWSER], ids=lambda folder: folder.name)
def test_the_packages_are_pinned_without_a_host(folder: Path) -> None:
    lock = (folder / "package-lock.json").read_text("utf-8")
    assert "://" not in lock
    assert '"integrity"' in lock


def test_the_clients_own_tests_pass() -> None:
    built()
    for command in (["node_modules/.bin/tsc", "--noEmit"], ["node_modules/.bin/vitest", "run"]):
        ran = subprocess.run(command, cwd=CLIENT, check=False, capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
