"""The code of docs/sessions.md runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from redis_core.transport.memory import MockRedisClient
from tests.session_browser import Browser

GUIDE = Path(__file__).parents[4] / "docs" / "sessions.md"
WEB, PLAIN, TYPED = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, str(GUIDE), "exec", dont_inherit=True), names)
    return names


@pytest.fixture(autouse=True)
def _a_memory_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MockRedisClient, "_shared", None)


@pytest.mark.parametrize("code", [PLAIN, TYPED], ids=["plain", "typed"])
def test_the_example_runs(code: str) -> None:
    run(code)


async def test_the_fastapi_example_logs_in_and_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_REDIS", "true")
    app = run(WEB)["app"]
    browser = Browser(app)
    async with app.router.lifespan_context(app):
        assert (await browser.get("/me"))[0] == 401
        assert (await browser.get("/login", method="POST"))[0] == 200
        visits = [json.loads((await browser.get("/me"))[2]) for _ in range(2)]
        assert visits == [{"user": "ada", "visits": 1}, {"user": "ada", "visits": 2}]
        assert (await browser.get("/password", method="POST"))[2] == b"0"
        assert "clear-site-data" in (await browser.get("/logout", method="POST"))[1]
        assert (await browser.get("/me"))[0] == 401
