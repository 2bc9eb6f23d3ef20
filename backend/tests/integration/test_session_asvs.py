"""OWASP ASVS 5.0, chapter 7 and what else of it concerns sessions: one test a requirement, named after its number.

3.3.1 to 3.3.5 are in test_session_cookie.py, 7.2.3 in test_session_token.py, 6.5.2 in test_session_pepper.py, 7.1.1 in
test_session_policy.py, the headers of the cheat sheet in test_session_middleware.py.
"""

from __future__ import annotations

import logging

import pytest

from redis_core.errors import StaleAuthentication, TooManySessions
from redis_core.session import Device
from redis_core.sessions.token import mint_token
from tests.session_stores import rest_gateway, world
from tests.session_world import DAY, PEPPERS, World

__all__ = ["rest_gateway", "world"]


async def test_asvs_7_1_2_the_number_of_sessions_is_limited_and_what_happens_then_is_chosen(
    world: World,
) -> None:
    evicting, refusing = (
        world.process(policy={"max_sessions": 1, "at_max": at}) for at in ("evict-oldest", "refuse")
    )
    _, first = await evicting.create("u1", "acme")
    _, second = await evicting.create("u1", "acme")
    assert (await evicting.get(first), (await evicting.get(second)) is not None) == (None, True)
    with pytest.raises(TooManySessions):
        await refusing.create("u1", "acme")


async def test_asvs_7_2_1_a_token_is_verified_in_the_back_end(world: World) -> None:
    sessions = world.process()
    text, _ = mint_token(PEPPERS, "acme", "u1")
    # Well formed and under the right key, but nobody logged in with it.
    assert await sessions.get(text) is None
    assert [event.kind for event in world.events] == ["absent"]


async def test_asvs_7_2_2_tokens_are_made_anew_at_every_login(world: World) -> None:
    sessions = world.process()
    tokens = {(await sessions.create("u1", "acme"))[1] for _ in range(20)}
    assert len(tokens) == 20


async def test_asvs_7_2_4_a_new_token_at_login_and_re_authentication_and_the_old_one_is_dead(
    world: World,
) -> None:
    sessions = world.process()
    session, anonymous = await sessions.create(None, "acme")
    login = await sessions.rotate(session, user_id="u1")
    again = await sessions.rotate(session)
    assert len({anonymous, login, again}) == 3
    assert [await sessions.get(token) is not None for token in (anonymous, login, again)] == [
        False,
        False,
        True,
    ]


async def test_the_cheat_sheets_strict_ids_a_foreign_id_is_never_adopted(world: World) -> None:
    sessions = world.process()
    for trial in range(10):
        chosen = f"v1.acme.k1.-.{'A' * 42}{trial}.AAAAAAAA"
        assert await sessions.get(chosen) is None
    assert await world.keys() == set()
    assert len(world.told("foreign_id")) == 10


async def test_asvs_7_3_1_a_session_ends_without_use(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    world.clock.time += DAY
    assert await sessions.get(token) is None


async def test_asvs_7_3_2_a_session_ends_at_an_absolute_time(world: World) -> None:
    sessions = world.process(policy={"absolute": DAY / 2})
    session, token = await sessions.create("u1", "acme")
    await sessions.rotate(session)
    world.clock.time += DAY / 2
    assert await sessions.get(token) is None


async def test_asvs_7_4_1_after_logout_the_token_is_of_no_use(world: World) -> None:
    sessions, other = world.process(), world.process()
    session, token = await sessions.create("u1", "acme")
    assert await other.get(token) is not None
    await sessions.revoke(session)
    assert [await other.get(token) for _ in range(3)] == [None] * 3


async def test_asvs_7_4_2_all_sessions_of_a_disabled_account_end(world: World) -> None:
    sessions = world.process()
    tokens = [(await sessions.create("u1", workspace))[1] for workspace in ("acme", "other", "acme")]
    await sessions.revoke_user("u1", reason="disabled")
    assert [await sessions.get(token) for token in tokens] == [None] * 3


async def test_asvs_7_4_3_all_other_sessions_can_end_after_a_change_of_a_factor(world: World) -> None:
    sessions = world.process()
    _, stolen = await sessions.create("u1", "acme")
    mine, _ = await sessions.create("u1", "acme")
    new = await sessions.rotate(mine)
    assert await sessions.revoke_others(mine) == 1
    assert await sessions.get(stolen) is None
    assert await sessions.get(new) is not None


async def test_asvs_7_4_5_an_administrator_ends_the_sessions_of_one_user_or_of_all(world: World) -> None:
    sessions = world.process()
    tokens = [(await sessions.create(user, "acme"))[1] for user in ("u1", "u2", "u3")]
    await sessions.revoke_user("u1", "acme")
    assert [await sessions.get(token) is not None for token in tokens] == [False, True, True]
    await sessions.revoke_workspace("acme")
    assert [await sessions.get(token) is not None for token in tokens] == [False, False, False]


@pytest.mark.parametrize("number", ["7.5.1", "7.5.3"])
async def test_asvs_7_5_1_and_7_5_3_what_is_sensitive_needs_a_recent_authentication(
    world: World, number: str
) -> None:
    sessions = world.process()
    session, _ = await sessions.create("u1", "acme")
    world.clock.time += 601
    with pytest.raises(StaleAuthentication):
        session.require_fresh(600)
    await sessions.rotate(session)
    session.require_fresh(600)


async def test_asvs_7_5_2_users_see_and_end_their_sessions(world: World) -> None:
    sessions = world.process()
    await sessions.create("u1", "acme", device=Device("Phone"))
    mine, _ = await sessions.create("u1", "acme", device=Device("Laptop"))
    (phone,) = [info for info in await sessions.list("u1", "acme", current=mine) if not info.current]
    assert phone.device.user_agent == "Phone"
    assert await sessions.revoke_handle("u1", "acme", phone.handle)
    assert [info.device.user_agent for info in await sessions.list("u1", "acme")] == ["Laptop"]


async def test_asvs_11_2_4_a_token_is_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    import hmac

    from redis_core import secret
    from redis_core.sessions import token as tokens

    assert secret.is_same is hmac.compare_digest
    compared: list[tuple[str, str]] = []

    def spying(a: str, b: str) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(tokens, "is_same", spying)
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    await sessions.get(token)
    assert any(token.split(".")[5] in pair for pair in compared)


async def test_asvs_15_3_4_a_forwarded_address_is_not_believed(world: World) -> None:
    from redis_core.api.session_middleware import RequestSession, SessionMiddleware

    async def app(scope: object, receive: object, send: object) -> None: ...

    sessions = world.process()
    headers = [(b"x-forwarded-for", b"1.1.1.1"), (b"forwarded", b"for=1.1.1.1"), (b"user-agent", b"curl")]
    scope = {"type": "http", "client": ("203.0.113.9", 5), "headers": headers}
    plain = RequestSession(SessionMiddleware(app, sessions), sessions, scope)
    assert plain.device == Device("curl", "203.0.113.0/24")
    behind_proxy = SessionMiddleware(app, sessions, client_ip=lambda scope: "2001:db8:1:2::3")
    assert RequestSession(behind_proxy, sessions, scope).device.ip == "2001:db8:1::/48"


async def test_the_cheat_sheets_logs_tell_what_happened_with_a_handle_and_never_a_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "redis_core.session")
    sessions = world.process()
    session, first = await sessions.create("u1", "acme", {"card": "4111"})
    second = await sessions.rotate(session)
    await sessions.get(second, workspace="other")
    await sessions.get("v1.forged")
    await sessions.revoke(session)
    await sessions.get(second)
    kinds = ["created", "rotated", "tenant_mismatch", "foreign_id", "revoked", "absent"]
    assert [event.kind for event in world.events] == kinds
    assert [kind for kind, text in zip(kinds, caplog.messages, strict=True) if kind in text] == kinds
    told = caplog.text + repr(world.events) + repr(session) + repr(sessions)
    for token in (first, second):
        assert not any(part in told for part in (token, *token.split(".")[4:]))
    assert session.handle in told
    assert len(session.handle) == 8
    assert "4111" not in told


async def test_a_writer_to_the_store_cannot_become_another_user_or_mint_a_session(world: World) -> None:
    sessions = world.process()
    mine, token = await sessions.create("mallory", "acme")
    core = await world.client.hget(mine.place.key, "_s")
    assert core is not None
    assert b'"mallory"' in core
    await world.client.hset(mine.place.key, {"_s": core.replace(b"mallory", b"admin")})
    assert await sessions.get(token) is None
    assert [event.kind for event in world.events][-1] == "tampered"
    stored = await world.client.hgetall(mine.place.key)
    await world.client.hset(
        mine.place.key.replace("{acme}", "{other}"), {name.decode(): value for name, value in stored.items()}
    )
    assert await sessions.get(token.replace(".acme.", ".other.")) is None


async def test_a_failing_hook_is_logged_and_undoes_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: object) -> None:
        raise RuntimeError("audit is down")

    sessions = world.process(on_event=broken)
    _, token = await sessions.create("u1", "acme")
    assert await sessions.get(token) is not None
    assert "audit is down" in caplog.text
