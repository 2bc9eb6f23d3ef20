"""A session from login to logout, on every store: times, budgets, tokens, data, the device page."""

from __future__ import annotations

import msgspec
import pytest

from redis_core.errors import (
    CodecError,
    CommandError,
    InvalidKey,
    SessionError,
    SessionGone,
    SessionTooLarge,
    StaleAuthentication,
    TooManySessions,
)
from redis_core.session import Device, Sessions
from tests.session_stores import rest_gateway, world
from tests.session_world import DAY, HOUR, World, load

__all__ = ["rest_gateway", "world"]


def economy(world: World) -> bool:
    return world.plan == "economy" or (world.plan == "auto" and world.client.mode == "upstash")


# --- what is stored and read ---


async def test_a_login_is_read_by_another_process(world: World) -> None:
    device = Device.of("Firefox", "203.0.113.77")
    made, token = await world.process().create("u1", "acme", {"cart": [1], "n": 5, "name": "Zoë"}, device)
    session = await load(world.process(), token)
    assert (session.user_id, session.workspace, session.handle) == ("u1", "acme", made.handle)
    assert dict(session.data) == {"cart": [1], "n": 5, "name": "Zoë"}
    assert session.device == Device("Firefox", "203.0.113.0/24")
    assert session.created == session.authenticated == session.last_seen == world.clock.time
    assert session.ends == world.clock.time + DAY


async def test_nobody_has_a_session_before_the_login(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create(None, data={"basket": 1})
    session = await load(sessions, token)
    assert (session.user_id, session.workspace, session.authenticated) == (None, "_", 0)
    assert not any("session-index" in key for key in await world.keys())


async def test_every_key_has_an_expiry_and_ends_after_the_session(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme", {"a": 1})
    await sessions.revoke_workspace("other")
    await sessions.revoke_user("u2")
    session = await load(sessions, token)
    session.data["b"] = 2
    await session.save()
    keys = await world.keys()
    assert len(keys) == 4
    for key in keys:
        assert await world.client.ttl(key) > DAY, key


class Profile(msgspec.Struct):
    plan: str
    seen: list[str] = []


async def test_typed_data(world: World) -> None:
    sessions: Sessions[Profile] = world.process(data=Profile)
    _, token = await sessions.create("u1", "acme", Profile("free"))
    session = await sessions.get(token)
    assert session is not None
    session.data.seen.append("intro")
    assert await session.save()
    session.data = msgspec.structs.replace(session.data, plan="pro")
    assert await session.save()
    assert not await session.save()
    again = await sessions.get(token)
    assert again is not None
    assert again.data == Profile("pro", ["intro"])
    await again.append("seen", "tour")
    assert again.data.seen == ["intro", "tour"]


async def test_what_does_not_decode_is_an_error_and_stays(world: World) -> None:
    sessions = world.process()
    made, token = await sessions.create("u1", "acme", {"a": [1]})
    await world.client.hset(made.place.key, {"a": "\x01pickle"})
    session = await load(sessions, token)
    with pytest.raises(CodecError):
        _ = session.data["a"]
    assert await world.client.hget(made.place.key, "a") == b"\x01pickle"
    await world.client.hset(made.place.key, {"_t": "yesterday"})
    with pytest.raises(CodecError):
        await sessions.get(token)


@pytest.mark.parametrize("data", [{"big": "x" * 33_000}, {f"f{n}": n for n in range(65)}])
async def test_more_than_32_kib_or_64_fields_is_refused_and_changes_nothing(
    world: World, data: dict[str, object]
) -> None:
    sessions = world.process()
    with pytest.raises(SessionTooLarge):
        await sessions.create("u1", "acme", data)
    _, token = await sessions.create("u1", "acme", {"kept": 1})
    session = await load(sessions, token)
    session.data.update(data)
    with pytest.raises(SessionTooLarge):
        await session.save()
    with pytest.raises(SessionTooLarge):
        await session.append("list", "x" * 33_000)
    assert dict((await load(sessions, token)).data) == {"kept": 1}


@pytest.mark.parametrize(
    ("user", "workspace"), [("a:b", "acme"), ("", "acme"), ("u1", "a}b"), ("u1", ""), ("u\n", "acme")]
)
async def test_ids_that_may_not_stand_in_a_key_are_refused(world: World, user: str, workspace: str) -> None:
    with pytest.raises(InvalidKey):
        await world.process().create(user, workspace)
    assert await world.keys() == set()


# --- budgets ---


async def test_a_read_costs_one_command_and_one_trip(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    assert await world.cost(lambda: sessions.get(token)) == (1, 1)
    # A process that has not asked for the epochs of the workspace and of the user asks for them in the same trip.
    fresh = world.process()
    assert await world.cost(lambda: fresh.get(token)) == (3, 1)
    assert await world.cost(lambda: fresh.get(token)) == (1, 1)
    world.clock.time += 31
    assert await world.cost(lambda: fresh.get(token)) == (3, 1)
    # A strong read asks for all, whatever is known; over REST by a script, which a store has to be told once.
    await fresh.get(token, consistency="strong")
    assert await world.cost(lambda: fresh.get(token, consistency="strong")) == (3, 1)


async def test_a_change_costs_at_most_two_commands_and_one_trip_after_the_read(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme", {"a": 1})
    await (await load(sessions, token)).compare_and_set("a", 1, 2)
    for script_is_known in (False, True):
        session = await load(sessions, token)
        session.data["a"] = f"{script_is_known}"
        session.data["b"] = [script_is_known]
        commands, trips = await world.cost(session.save)
        if economy(world):
            assert (commands, trips) == (2, 1)
        elif script_is_known:
            assert (commands, trips) == (1, 1)
        assert await world.cost(session.save) == (0, 0)


async def test_a_login_costs_two_trips(world: World) -> None:
    sessions = world.process()
    await sessions.create("u0", "acme")
    assert await world.cost(lambda: sessions.create("u1", "acme", {"a": 1})) == (4, 2)


async def test_a_token_that_we_did_not_make_costs_nothing(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    for foreign in (
        "",
        "sid",
        "v1.acme.k1.-." + "A" * 43 + "." + "A" * 8,
        token[:-1],
        token.replace("acme", "evil"),
    ):
        assert await world.cost(lambda foreign=foreign: sessions.get(foreign)) == (0, 0)  # type: ignore[misc]
        assert await sessions.get(foreign) is None
    assert len(world.told("foreign_id")) == 10


# --- time ---


async def test_it_ends_after_24_hours_without_use_to_the_millisecond(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    start = world.clock.time
    world.clock.time = start + DAY - 0.001
    assert await sessions.get(token, touch=False) is not None
    world.clock.time = start + DAY
    assert await sessions.get(token, touch=False) is None
    assert [event.user_id for event in world.told("expired")] == ["u1"]
    assert not any(":session:" in key for key in await world.keys())


async def test_it_ends_after_30_days_however_much_it_is_used(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    start = world.clock.time
    while world.clock.time < start + 30 * DAY - 12 * HOUR:
        world.clock.time += 12 * HOUR
        assert await sessions.get(token) is not None
    world.clock.time = start + 30 * DAY - 0.001
    assert (await load(sessions, token)).ends == start + 30 * DAY
    world.clock.time = start + 30 * DAY
    assert await sessions.get(token) is None


async def test_use_keeps_it_alive_and_is_written_at_most_24_times_a_day(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    touches = 0
    for _ in range(24 * 6):
        world.clock.time += 600
        session = await sessions.get(token, touch=False)
        assert session is not None
        touches += await sessions.touch(session)
    assert touches == 24
    world.clock.time += DAY - 1
    assert await sessions.get(token) is not None


async def test_parallel_requests_touch_once(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    world.clock.time += 2 * HOUR
    read = [await sessions.get(token, touch=False) for _ in range(5)]
    assert [await sessions.touch(session) for session in read if session is not None] == [
        True,
        False,
        False,
        False,
        False,
    ]
    if not economy(world):
        # Another process' touch is seen by the script.
        other = await world.process().get(token, touch=False)
        assert other is not None
        assert not await world.process().touch(other)


async def test_a_touch_renews_the_expiry_and_the_index(world: World) -> None:
    sessions = world.process()
    made, token = await sessions.create("u1", "acme")
    await world.client.pexpire(made.place.key, 60_000)
    world.clock.time += 2 * HOUR
    assert await sessions.get(token) is not None
    assert await world.client.ttl(made.place.key) > DAY
    (info,) = await sessions.list("u1", "acme")
    assert (info.last_seen, info.ends) == (world.clock.time, world.clock.time + DAY)


# --- tokens ---


async def test_rotation_ends_the_old_token_at_once_and_keeps_the_data(world: World) -> None:
    sessions, other = world.process(), world.process()
    _, old = await sessions.create("u1", "acme", {"a": 1})
    session = await load(sessions, old)
    session.data["b"] = 2
    world.clock.time += 60
    new = await sessions.rotate(session)
    assert await other.get(old) is None
    again = await load(other, new)
    assert (dict(again.data), again.authenticated, again.created) == (
        {"a": 1},
        world.clock.time,
        world.clock.time - 60,
    )
    assert await session.save()
    assert dict((await load(other, new)).data) == {"a": 1, "b": 2}
    assert [info.handle for info in await sessions.list("u1", "acme")] == [session.handle]


async def test_a_change_of_rights_rotates_without_an_authentication(world: World) -> None:
    sessions = world.process()
    session, _ = await sessions.create("u1", "acme")
    start = world.clock.time
    world.clock.time += 60
    await sessions.rotate(session, reauthenticated=False)
    assert session.authenticated == start


async def test_of_two_rotations_at_once_one_wins_and_the_other_is_told(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    first, second = await load(sessions, token), await load(sessions, token)
    new = await sessions.rotate(first)
    with pytest.raises(SessionGone):
        await sessions.rotate(second)
    assert await sessions.get(new) is not None


async def test_a_login_takes_what_nobodys_session_held(world: World) -> None:
    sessions = world.process()
    session, old = await sessions.create(None, "acme", {"basket": [1]})
    new = await sessions.rotate(session, user_id="u1", device=Device("Firefox"))
    assert await sessions.get(old) is None
    again = await load(sessions, new)
    assert (again.user_id, dict(again.data), again.authenticated) == ("u1", {"basket": [1]}, world.clock.time)
    assert [info.device.user_agent for info in await sessions.list("u1", "acme")] == ["Firefox"]
    with pytest.raises(SessionError, match="another"):
        await sessions.rotate(again, user_id="u2")


async def test_a_session_goes_on_in_another_workspace(world: World) -> None:
    sessions = world.process()
    session, old = await sessions.create("u1", data={"a": 1})
    session.data["b"] = 2
    end = session.record.absolute_end
    new = await sessions.rotate(session, workspace="acme", reauthenticated=False)
    assert await sessions.get(old) is None
    again = await load(sessions, new)
    assert (again.workspace, again.user_id, dict(again.data)) == ("acme", "u1", {"a": 1, "b": 2})
    assert again.record.absolute_end == end
    assert await sessions.list("u1") == ()
    assert len(await sessions.list("u1", "acme")) == 1
    await sessions.revoke(again)
    with pytest.raises(SessionGone):
        await sessions.rotate(again, workspace="other")


async def test_a_token_renewed_in_passing_is_accepted_for_15_seconds(world: World) -> None:
    if world.plan == "economy":
        with pytest.raises(ValueError, match="renewed"):
            world.process(policy={"renew_after": 3600})
        return
    sessions = world.process(policy={"renew_after": 3600})
    _, old = await sessions.create("u1", "acme", {"a": 1})
    slow, session = await load(sessions, old), await load(sessions, old)
    assert await sessions.renew(session) is None
    world.clock.time += 3601
    new = await sessions.renew(session)
    assert new is not None
    # A parallel request that read before: it does not renew again, and its change is kept.
    assert await sessions.renew(slow) is None
    slow.data["b"] = 2
    await slow.save()
    assert await slow.incr("n") == 1
    late = await load(sessions, old)
    assert late.renewed
    assert await sessions.renew(late) is None
    assert dict((await load(sessions, new)).data) == {"a": 1, "b": 2, "n": 1}
    (pointer,) = [
        key for key in await world.keys() if ":session:" in key and not key.endswith(session.token.mac)
    ]
    assert 0 < await world.client.pttl(pointer) <= 15_000
    await world.client.delete(pointer)
    assert await sessions.get(old) is None
    await sessions.revoke(await load(sessions, new))
    assert await sessions.get(new) is None


# --- helpers that change at once ---


async def test_increments_all_count(world: World) -> None:
    import asyncio

    sessions = world.process()
    _, token = await sessions.create("u1", "acme", {"n": 40, "text": "x"})
    copies = [await load(sessions, token) for _ in range(5)]
    assert sorted(await asyncio.gather(*(copy.incr("n") for copy in copies))) == [41, 42, 43, 44, 45]
    assert await copies[0].incr("n", -50) == copies[0].data["n"] == -5
    with pytest.raises(CommandError):
        await copies[0].incr("text")
    assert (await load(sessions, token)).data["n"] == -5


async def test_appends_all_stay(world: World) -> None:
    import asyncio

    sessions = world.process()
    _, token = await sessions.create("u1", "acme", {"text": "x"})
    copies = [await load(sessions, token) for _ in range(6)]
    await asyncio.gather(*(copy.append("list", place) for place, copy in enumerate(copies)))
    assert sorted((await load(sessions, token)).data.typed("list", list[int])) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(CodecError, match="str"):
        await copies[0].append("text", 1)


async def test_compare_and_set(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    one, two = await load(sessions, token), await load(sessions, token)
    assert await one.compare_and_set("step", None, "first")
    assert not await two.compare_and_set("step", None, "second")
    assert two.data["step"] == "first"
    assert await two.compare_and_set("step", "first", None)
    assert "step" not in two.data
    assert not await one.compare_and_set("step", "first", "again")


# --- many sessions ---


async def test_the_device_page_shows_who_where_and_when_and_can_end_one(world: World) -> None:
    sessions = world.process()
    phone, phone_token = await sessions.create(
        "u1", "acme", device=Device("Phone", "198.51.100.0/24", "my phone")
    )
    world.clock.time += 10
    laptop, laptop_token = await sessions.create("u1", "acme", device=Device("Laptop"))
    await sessions.create("u2", "acme")
    await sessions.create("u1", "other")
    shown = await sessions.list("u1", "acme", current=phone)
    assert [(info.handle, info.device.label, info.current) for info in shown] == [
        (laptop.handle, "", False),
        (phone.handle, "my phone", True),
    ]
    assert not any(secret in str(shown) for secret in (phone_token, laptop_token, phone_token.split(".")[4]))
    assert await sessions.revoke_handle("u1", "acme", laptop.handle)
    assert not await sessions.revoke_handle("u1", "acme", laptop.handle)
    assert not await sessions.revoke_handle("u2", "acme", phone.handle)
    assert await sessions.get(laptop_token) is None
    assert await sessions.get(phone_token) is not None


async def test_at_the_maximum_the_one_used_longest_ago_ends(world: World) -> None:
    sessions = world.process(policy={"max_sessions": 2})
    tokens = []
    for _ in range(3):
        tokens.append((await sessions.create("u1", "acme"))[1])
        world.clock.time += HOUR
        await sessions.get(tokens[0])
    alive = [await sessions.get(token) is not None for token in tokens]
    assert alive == [True, False, True]
    assert [event.reason for event in world.told("revoked")] == ["evicted"]
    assert await sessions.create("u2", "acme")


async def test_at_the_maximum_a_login_is_refused_if_the_policy_says_so(world: World) -> None:
    sessions = world.process(policy={"max_sessions": 1, "at_max": "refuse"})
    session, token = await sessions.create("u1", "acme")
    with pytest.raises(TooManySessions):
        await sessions.create("u1", "acme")
    nobody, _ = await sessions.create(None, "acme")
    with pytest.raises(TooManySessions):
        await sessions.rotate(nobody, user_id="u1")
    assert await sessions.get(token) is not None
    token = await sessions.rotate(session)
    await sessions.revoke(session)
    await sessions.create("u1", "acme")


async def test_dead_sessions_do_not_count(world: World) -> None:
    sessions = world.process(policy={"max_sessions": 1, "at_max": "refuse"})
    session, _ = await sessions.create("u1", "acme")
    await world.client.delete(session.place.key)
    await sessions.create("u1", "acme")
    await sessions.revoke_user("u1")
    world.clock.time += 1
    await sessions.create("u1", "acme")
    world.clock.time += DAY
    await sessions.create("u1", "acme")


async def test_a_recent_authentication_can_be_required(world: World) -> None:
    sessions = world.process()
    session, _ = await sessions.create("u1", "acme")
    world.clock.time += 300
    session.require_fresh(300)
    world.clock.time += 1
    with pytest.raises(StaleAuthentication) as caught:
        session.require_fresh(300)
    assert caught.value.max_age == 300
    await sessions.rotate(session)
    session.require_fresh(300)
    nobody, _ = await sessions.create(None)
    with pytest.raises(StaleAuthentication, match="never"):
        nobody.require_fresh(300)


# --- ending many ---


async def test_all_sessions_of_a_user_in_one_workspace_end_at_once_everywhere(world: World) -> None:
    sessions, other = world.process(), world.process()
    tokens = [(await sessions.create("u1", "acme"))[1] for _ in range(3)]
    _, elsewhere = await sessions.create("u1", "other")
    assert [await other.get(token) is not None for token in tokens] == [True] * 3
    assert await sessions.revoke_user("u1", "acme") == 3
    assert [await other.get(token) for token in tokens] == [None] * 3
    assert await other.get(elsewhere) is not None
    assert await sessions.revoke_user("u1", "acme") == 0


async def test_all_sessions_of_a_user_in_all_workspaces_end_within_30_seconds(world: World) -> None:
    sessions, other = world.process(), world.process()
    tokens = [(await sessions.create("u1", workspace))[1] for workspace in ("acme", "other")]
    _, another = await sessions.create("u2", "acme")
    assert [await other.get(token) is not None for token in tokens] == [True, True]
    await sessions.revoke_user("u1")
    assert [await sessions.get(token) for token in tokens] == [None, None]
    assert await other.get(another) is not None
    world.clock.time += 30
    assert [await other.get(token) for token in tokens] == [None, None]
    _, anew = await sessions.create("u1", "acme")
    assert await other.get(anew) is not None


async def test_a_strong_read_knows_a_revocation_at_once(world: World) -> None:
    sessions, other = world.process(), world.process()
    _, token = await sessions.create("u1", "acme")
    assert await other.get(token) is not None
    await sessions.revoke_user("u1")
    assert await other.get(token) is not None
    assert await other.get(token, consistency="strong") is None


async def test_all_sessions_of_a_workspace_end(world: World) -> None:
    sessions, other = world.process(), world.process()
    _, mine = await sessions.create("u1", "acme")
    _, nobodys = await sessions.create(None, "acme")
    _, elsewhere = await sessions.create("u1", "other")
    await sessions.revoke_workspace("acme")
    assert [await other.get(token) for token in (mine, nobodys)] == [None, None]
    assert await other.get(elsewhere) is not None
    assert await sessions.list("u1", "acme") == ()
    _, anew = await sessions.create("u1", "acme")
    assert await other.get(anew) is not None


async def test_a_revocation_holds_although_the_clocks_disagree(world: World) -> None:
    ahead, behind = world.process(), world.process()
    await ahead.revoke_user("u1")
    _, token = await ahead.create("u1", "acme")
    world.clock.time -= 5
    await behind.revoke_user("u1")
    assert await behind.get(token) is None
    assert await world.process().get(token) is None


async def test_the_other_sessions_of_a_user_end_but_this_one(world: World) -> None:
    sessions = world.process()
    others = [(await sessions.create("u1", "acme"))[1] for _ in range(3)]
    mine, token = await sessions.create("u1", "acme")
    assert await sessions.revoke_others(mine) == 3
    assert await sessions.get(token) is not None
    assert [await sessions.get(other) for other in others] == [None] * 3
    nobody, _ = await sessions.create(None, "acme")
    assert await sessions.revoke_others(nobody) == 0


async def test_a_pepper_is_rotated_without_logging_anybody_out(world: World) -> None:
    from redis_core.secret import Secret
    from redis_core.session import PepperRing

    first, second = "k1:0123456789abcdef0123456789abcdef", "k2:fedcba9876543210fedcba9876543210"
    _, token = await world.process().create("u1", "acme")
    world.peppers = PepperRing(Secret(f"{second},{first}"))
    both = world.process()
    assert await both.get(token) is not None
    session, new = await both.create("u1", "acme")
    assert new.split(".")[2] == "k2"
    await both.revoke_user("u1")
    assert [await both.get(each) for each in (token, new)] == [None, None]
    assert session.user_id == "u1"
    world.peppers = PepperRing(Secret(second))
    assert await world.process().get(token) is None
