"""The guide's program runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import redis_core
from redis_core.client import Client
from redis_core.locks import Token

GUIDE = Path(redis_core.__file__).parents[2] / "docs" / "locks.md"


async def test_the_program_of_the_guide_runs(memory: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def same_client() -> Client:
        return memory

    async def write_report(fence: Token) -> str:
        return f"written under {fence.counter}"

    monkeypatch.setattr(redis_core, "connect", same_client, raising=False)
    [program] = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "guide", "write_report": write_report}
    exec(compile(program, "locks.md", "exec", dont_inherit=True), names)
    assert await names["nightly_report"]() == "written under 1"
