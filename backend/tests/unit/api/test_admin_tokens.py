from __future__ import annotations

import pytest

from redis_core.api.admin_token import actor_of_token, admin_tokens, hash_of
from redis_core.audit import Actor
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.errors import ConfigError
from tests.admin_world import asking, bearer, service

METRICS = "/api/v1/admin/redis-metrics"


def test_several_tokens_are_valid_at_once() -> None:
    text = f"old:admin:{hash_of('one')}, new:admin:{hash_of('two')},eye:viewer:{hash_of('three')}"
    tokens = admin_tokens(load_settings(mock_redis=True, admin_tokens=text))
    assert actor_of_token(tokens, "one") == Actor("old", "admin")
    assert actor_of_token(tokens, "two") == Actor("new", "admin")
    assert actor_of_token(tokens, "three") == Actor("eye", "viewer")
    assert actor_of_token(tokens, "four") is None
    assert actor_of_token(tokens, hash_of("one")) is None


@pytest.mark.parametrize(
    "text", ["x", "a:admin", f"a:root:{'0' * 64}", f"a:admin:{'0' * 63}", f"A:admin:{'0' * 64}", ","]
)
def test_an_entry_that_is_wrong_stops_the_service_and_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="ADMIN_TOKENS") as refused:
        admin_tokens(load_settings(mock_redis=True, admin_tokens=text))
    assert text not in str(refused.value) or text in {"x", ","}


async def test_a_token_opens_the_routes_from_anywhere_even_in_production(memory: Client) -> None:
    async with asking(service(memory)) as http:
        assert (await http.get(METRICS, headers=bearer("viewer"))).status_code == 200
        assert (await http.get("/api/v1/admin/whoami", headers=bearer("operator"))).json() == {
            "who": "operator-1",
            "role": "operator",
        }


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
    ],
)
async def test_who_shows_none_or_another_is_asked_for_one(memory: Client, headers: dict[str, str]) -> None:
    async with asking(service(memory), "127.0.0.1") as http:
        answer = await http.get(METRICS, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("environment", ["development", "test", "production"])
async def test_without_tokens_nobody_may_wherever_he_is_and_wherever_it_runs(
    memory: Client, environment: str
) -> None:
    app = service(memory, tokens=False, environment=environment)
    for peer in ("127.0.0.1", "::1", "10.0.0.9"):
        async with asking(app, peer) as http:
            answer = await http.get(METRICS)
            assert (answer.status_code, answer.json()["code"]) == (403, "admin-off")
            assert (await http.post("/api/v1/admin/cache/flush", json={"workspace": "a"})).status_code == 403
            assert (await http.get("/metrics")).status_code == 403


@pytest.mark.parametrize(
    ("path", "least"),
    [
        ("/api/v1/admin/cache/flush", "operator"),
        ("/api/v1/admin/limits/reset", "operator"),
        ("/api/v1/admin/sessions/revoke", "admin"),
        ("/api/v1/admin/queues/agents/retry", "operator"),
        ("/api/v1/admin/queues/agents/cancel", "operator"),
        ("/api/v1/admin/queues/agents/delete", "admin"),
        ("/api/v1/admin/queues/agents/pause", "operator"),
        ("/api/v1/admin/queues/agents/resume", "operator"),
    ],
)
async def test_each_change_needs_its_role(memory: Client, path: str, least: str) -> None:
    roles = ("viewer", "operator", "admin")
    async with asking(service(memory)) as http:
        for role in roles:
            answer = await http.post(path, headers=bearer(role), json={"workspace": "acme", "user": "u"})
            may = roles.index(role) >= roles.index(least)
            assert (answer.status_code == 403) is not may, (role, answer.text)


async def test_a_role_in_a_session_opens_the_routes_but_not_for_another_sites_page(memory: Client) -> None:
    from redis_core.api.session_cookie import SessionCookie
    from redis_core.api.session_middleware import SessionMiddleware
    from redis_core.session import SessionData, Sessions

    settings = load_settings(mock_redis=True, session_peppers="a:" + "p" * 40)
    sessions = Sessions.from_settings(memory, settings)
    _, member = await sessions.create("u1", "acme", {"name": "x"})
    _, operator = await sessions.create("u2", "acme", {"admin_role": "operator"})
    app = service(memory)
    app.add_middleware(SessionMiddleware[SessionData], sessions=sessions, cookie=SessionCookie())
    name = SessionCookie().name
    async with asking(app) as http:
        for token, headers, status in (
            (member, {}, 401),
            (operator, {}, 200),
            (operator, {"Sec-Fetch-Site": "same-origin"}, 200),
            (operator, {"Sec-Fetch-Site": "cross-site"}, 403),
            (operator, {"Sec-Fetch-Site": "same-site"}, 403),
            (operator, {"Origin": "https://evil.example"}, 403),
        ):
            answer = await http.post(
                "/api/v1/admin/cache/flush",
                json={"workspace": "acme"},
                headers={**headers, "Cookie": f"{name}={token}"},
            )
            assert answer.status_code == status, (headers, answer.text)
    entries = await memory.xrevrange("sys:audit")
    assert len(entries) == 2
    assert b"user:u2" in entries[0][1][b"entry"]
