"""The documentation is true: its programs run on a real store, and its links lead somewhere.

A block that begins with three backticks and `python run` is run, each in a folder of its own and on an empty store that is set as
`REDIS_URL`; `await` may stand outside of functions. What it prints must be what the comments `# -> ...` say, one a line, in order.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import redis_core
from redis_core import sync

_ROOT = Path(redis_core.__file__).parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("**/*.md"))]
_BLOCK = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    program: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(_ROOT)}:{self.line}"

    @property
    def prints(self) -> list[str]:
        return re.findall(r"# -> (.*)$", self.program, re.MULTILINE)


def blocks() -> list[Block]:
    found: list[Block] = []
    for page in _PAGES:
        text = page.read_text("utf-8")
        found += [
            Block(page, text[: match.start()].count("\n") + 2, match[1]) for match in _BLOCK.finditer(text)
        ]
    return found


def run(block: Block) -> None:
    # Line numbers as in the page, so that a traceback leads there.
    code = compile(
        "\n" * (block.line - 1) + block.program, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    names: dict[str, object] = {"__name__": "__main__"}
    if code.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(code, names)

        asyncio.run(main())
    else:
        exec(code, names)


def test_the_readme_has_a_program_to_run() -> None:
    assert any(block.page.name == "README.md" and block.prints for block in blocks())


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_a_program_of_the_documentation_prints_what_it_says(
    block: Block,
    valkey_socket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", f"unix://{valkey_socket}")
    with sync.connect(redis_command_timeout=20) as redis:
        redis.execute("FLUSHALL")
    monkeypatch.setenv("REDIS_COMMAND_TIMEOUT", "20")
    run(block)
    assert capsys.readouterr().out.splitlines() == block.prints


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    targets = [target for target in _LINK.findall(page.read_text("utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readmes_commands_are_in_the_makefile() -> None:
    commands = set(
        re.findall(r"(?:^ {4}|`)make ([a-z-]+)", (_ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    )
    targets = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"run", "test"} <= commands <= targets
