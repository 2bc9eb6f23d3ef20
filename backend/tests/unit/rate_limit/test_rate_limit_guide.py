"""The code of docs/rate-limits.md runs as it stands, and says what the guide says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import redis_core.rate_limit_config as config
from redis_core.rate_limit import Rule
from redis_core.transport.memory import MockRedisClient

GUIDE = Path(__file__).parents[4] / "docs" / "rate-limits.md"
TEXT = GUIDE.read_text(encoding="utf-8")
WEB, PLAIN = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, str(GUIDE), "exec", dont_inherit=True), names)
    return names


@pytest.fixture(autouse=True)
def _a_memory_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MockRedisClient, "_shared", None)


def test_the_example_without_http_runs() -> None:
    assert run(PLAIN)["SAID"] == ["runs: 0 left", "refused by runs"]


async def test_the_application_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_REDIS", "true")
    app = run(WEB)["app"]
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as web,
    ):
        responses = [await web.get(f"/agents/{n}", headers={"x-user": "ann"}) for n in range(6)]
        assert [response.status_code for response in responses] == [200] * 5 + [429]
        for name, title in (("ratelimit-policy", "RateLimit-Policy"), ("ratelimit", "RateLimit")):
            assert f"    {title}: {responses[0].headers[name]}\n" in TEXT
        assert responses[5].json()["violated-policies"] == ["sliding"]
        assert [(await web.post("/export", headers={"x-user": "bob"})).status_code for _ in range(2)] == [
            200,
            429,
        ]
        assert (await web.post("/chat", headers={"x-user": "ann"})).json() == {"tokens": 120}


def test_every_argument_of_a_rule_is_in_the_guide() -> None:
    table = TEXT.partition("| argument of a `Rule`")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE))
    assert named == set(Rule.__dataclass_fields__)
    assert 'Rule("sliding", "100/min")' in Path(config.__file__).read_text("utf-8")
