"""The guide's program runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import redis_core
from redis_core.client import Client
from redis_core.usage import Budget

GUIDE = Path(redis_core.__file__).parents[2] / "docs" / "usage.md"


async def test_the_program_of_the_guide_runs(
    memory: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def same_client() -> Client:
        return memory

    async def ask_the_model(prompt: str) -> tuple[str, int, int]:
        return f"about {prompt}", 1_000_000, 100_000

    monkeypatch.setattr(redis_core, "connect", same_client, raising=False)
    [program] = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "guide", "ask_the_model": ask_the_model}
    exec(compile(program, "usage.md", "exec", dont_inherit=True), names)
    assert await names["ask"]("whales") == "about whales"
    assert capsys.readouterr().out == "$3.5000 of $3.5000 today 100000\n"


async def test_the_guide_says_how_a_budget_stops(memory: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def same_client() -> Client:
        return memory

    async def ask_the_model(_prompt: str) -> tuple[str, int, int]:
        return "", 100_000_000, 0

    monkeypatch.setattr(redis_core, "connect", same_client, raising=False)
    [program] = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "guide", "ask_the_model": ask_the_model}
    exec(compile(program, "usage.md", "exec", dont_inherit=True), names)
    other = memory.workspace("globex").usage
    await other.set_budget(Budget(day=1.0))
    assert await names["ask"]("all of it") == ""
    assert (await names["ask"]("more")).startswith("back in ")
    await other.check()
