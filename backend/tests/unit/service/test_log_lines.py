"""The lines that the manual looks for, and what no line shows."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from redis_core.api.admin_token import hash_of
from redis_core.cache import CacheRegion
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.log_format import configure_logs
from redis_core.session import Sessions
from tests.admin_world import TOKENS, asking, bearer, service

PROFILES = CacheRegion("profile", dict[str, int], ttl=60)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs(stream, json=True, level="debug")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("redis_core").setLevel(logging.NOTSET)
    structlog.reset_defaults()


async def test_hits_and_misses_are_told_as_the_manual_says(memory: Client, lines: io.StringIO) -> None:
    cache = memory.workspace("acme").cache
    assert await cache.get(PROFILES, "1") is None
    await cache.set(PROFILES, "1", {"n": 1})
    assert await cache.get(PROFILES, "1") == {"n": 1}
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    events = [
        (line["event"], line["workspace"], line["region"])
        for line in found
        if line["event"].startswith("Redis ")
    ]
    assert events == [("Redis MISS", "acme", "profile"), ("Redis HIT", "acme", "profile")]


async def test_no_line_shows_a_token_of_a_session_or_of_an_admin(memory: Client, lines: io.StringIO) -> None:
    settings = load_settings(mock_redis=True, session_peppers="a:" + "p" * 40)
    sessions = Sessions.from_settings(memory, settings)
    session, token = await sessions.create("u1", "acme")
    await sessions.get(token)
    await sessions.revoke(session)
    await sessions.get(token)
    await sessions.get("forged-" + "x" * 40)
    async with asking(service(memory)) as http:
        await http.get("/api/v1/admin/whoami", headers=bearer("admin"))
        await http.get("/api/v1/admin/whoami", headers={"Authorization": "Bearer some-other-token"})
        await http.post("/api/v1/admin/cache/flush", headers=bearer("admin"), json={"workspace": "acme"})
    logging.getLogger("other").info(
        "asked", extra={"authorization": f"Bearer {TOKENS['admin']}", "session_token": token}
    )
    logging.getLogger("other").info("Authorization: Bearer %s", TOKENS["admin"])
    text = lines.getvalue()
    assert "changed by an operator" in text
    assert "revoked" in text
    for secret in (
        token,
        session.token.mac,
        "some-other-token",
        "forged-",
        TOKENS["admin"],
        hash_of(TOKENS["admin"]),
    ):
        assert secret not in text, secret
