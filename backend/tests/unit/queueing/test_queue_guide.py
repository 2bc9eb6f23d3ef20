"""The guide's program runs as it stands there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import redis_core
from redis_core.client import Client
from redis_core.queueing.schedule import Schedule
from redis_core.worker import Worker

GUIDE = Path(redis_core.__file__).parents[2] / "docs" / "queue.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


async def test_the_first_program_of_the_guide_runs(
    memory: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def same_client() -> Client:
        return memory

    monkeypatch.setattr(redis_core, "connect", same_client, raising=False)

    async def read_document(doc_id: int) -> str:
        return f"document {doc_id}"

    async def ask_the_model(text: str) -> str:
        return f"summary of {text}"

    names: dict[str, Any] = {
        "__name__": "guide", "read_document": read_document, "ask_the_model": ask_the_model
    }  # fmt: skip
    first, schedule = blocks()
    exec(compile(first, "queue.md", "exec", dont_inherit=True), names)
    worker = Worker(memory, [names["summarize"]])
    working = asyncio.create_task(worker.run())
    await asyncio.wait_for(names["submit"](), 20)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert capsys.readouterr().out == "summary of document 7\n"
    names |= {"Schedule": Schedule, "report": names["summarize"]}
    exec(compile(schedule.replace("report.call()", "report.call(1)"), "queue.md", "exec"), names)
    assert names["daily"].zone == "Europe/Berlin"


def test_the_guide_names_no_option_that_enqueue_does_not_have() -> None:
    import inspect

    from redis_core.queue import Queue

    table = re.search(r"\| option \|.*?\n\n", GUIDE.read_text("utf-8"), re.DOTALL)
    assert table is not None
    told = set(re.findall(r"^\| `(\w+)`", table.group(), re.MULTILINE))
    options = {
        name
        for name, each in inspect.signature(Queue.enqueue).parameters.items()
        if each.kind is each.KEYWORD_ONLY
    }
    assert told == options - {"queue"}
