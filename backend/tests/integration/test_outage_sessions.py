"""Sessions without their store, on real sockets: who stays in, what is kept, and that what was ended never comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core.errors import SessionGone, StoreUnavailable
from redis_core.session import Session, SessionPolicy, Sessions
from redis_core.sessions import keeper
from tests.outage_world import OutageProcess, OutageWorld, outage_world, until
from tests.session_world import PEPPERS

__all__ = ["outage_world"]


def sessions_of(process: OutageProcess, **policy: Any) -> Sessions[Any]:
    return Sessions(process.client, PEPPERS, policy=SessionPolicy(**policy))


async def present(sessions: Sessions[Any], token: str) -> Session[Any]:
    session = await sessions.get(token)
    assert session is not None
    return session


async def by_and_by(sessions: Sessions[Any], token: str) -> Session[Any] | None:
    """What it is when everybody is back: not known yet is neither there nor gone."""
    for _ in range(2000):
        try:
            return await sessions.get(token)
        except StoreUnavailable:
            await asyncio.sleep(0.005)
    raise AssertionError("it never became known")


async def test_who_was_seen_stays_in_and_nobody_is_taken_for_logged_out(outage_world: OutageWorld) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here, there = sessions_of(one), sessions_of(other)
    _, known = await here.create("ann", "acme", {"theme": "dark"})
    _, unknown = await there.create("bob", "acme")
    await one.cut_off()
    session = await present(here, known)
    assert session.degraded
    assert session.user_id == "ann"
    assert session.data["theme"] == "dark"
    with pytest.raises(StoreUnavailable, match="has not ended"):
        await here.get(unknown)
    assert await here.get("nonsense") is None
    with pytest.raises(StoreUnavailable):
        await here.get(known, consistency="strong")
    await one.heal()
    assert not (await present(here, known)).degraded
    assert await by_and_by(here, unknown)


async def test_a_copy_is_read_for_a_bounded_time(outage_world: OutageWorld) -> None:
    one = await outage_world.process()
    here = sessions_of(one, away=0)
    _, token = await here.create("ann", "acme")
    await one.cut_off()
    with pytest.raises(StoreUnavailable):
        await here.get(token)


async def test_changes_are_kept_field_by_field(outage_world: OutageWorld) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here, there = sessions_of(one), sessions_of(other)
    _, token = await here.create("ann", "acme", {"a": 1, "b": 1, "c": 1})
    await one.cut_off()
    session = await present(here, token)
    session.data["a"] = 2
    session.data["b"] = 2
    del session.data["c"]
    assert await session.save()
    assert dict((await present(here, token)).data) == {"a": 2, "b": 2}
    meanwhile = await present(there, token)
    meanwhile.data["b"] = 3
    meanwhile.data["d"] = 3
    await meanwhile.save()
    with pytest.raises(StoreUnavailable):
        await session.incr("a")
    await one.heal()
    # b was changed by both; the one that the store has already stays.
    assert dict((await present(there, token)).data) == {"a": 2, "b": 3, "d": 3}
    assert dict((await present(here, token)).data) == {"a": 2, "b": 3, "d": 3}


async def test_a_logout_of_the_outage_holds_here_at_once_and_everywhere_afterwards(
    outage_world: OutageWorld,
) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here, there = sessions_of(one), sessions_of(other)
    _, token = await here.create("ann", "acme", {"a": 1})
    await present(there, token)
    await one.cut_off()
    session = await present(here, token)
    late = await present(here, token)
    await here.revoke(session)
    assert await here.get(token) is None
    late.data["a"] = 2
    with pytest.raises(SessionGone):
        await late.save()
    one.link.up()
    while not one.client.outage.available:
        assert await here.get(token) is None
        await asyncio.sleep(0.002)
    assert await by_and_by(here, token) is None
    assert await by_and_by(there, token) is None


@pytest.mark.parametrize("whose", ["user", "workspace"])
async def test_a_revocation_of_all_holds_and_spares_later_logins(
    outage_world: OutageWorld, whose: str
) -> None:
    one = await outage_world.process()
    here = sessions_of(one, epoch_cache=0)
    _, before = await here.create("ann", "acme")
    await one.cut_off()
    if whose == "user":
        await here.revoke_user("ann")
    else:
        await here.revoke_workspace("acme")
    assert await here.get(before) is None
    _, after = await here.create("ann", "acme")
    assert await here.get(after) is not None
    await one.heal()
    there = sessions_of(await outage_world.process())
    assert await by_and_by(there, before) is None
    assert await by_and_by(there, after) is not None


async def test_who_was_ended_elsewhere_meanwhile_is_not_accepted_after_healing(
    outage_world: OutageWorld,
) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here, there = sessions_of(one), sessions_of(other)
    _, token = await here.create("ann", "acme", {"a": 1})
    await one.cut_off()
    await there.revoke(await present(there, token))
    changed = await present(here, token)
    assert changed.degraded, "nobody can know of it here"
    changed.data["a"] = 2
    assert await changed.save()
    await one.heal()
    # The store is asked again, and a change that was kept does not bring back what was ended.
    assert await by_and_by(here, token) is None
    assert await there.get(token) is None


async def test_a_login_of_the_outage_is_known_everywhere_afterwards(outage_world: OutageWorld) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here, there = sessions_of(one), sessions_of(other)
    await one.cut_off()
    await other.cut_off()
    session, token = await here.create("ann", "acme", {"a": 1})
    session.data["a"] = 2
    await session.save()
    new = await here.rotate(session)
    assert await here.get(token) is None
    assert (await present(here, new)).data["a"] == 2
    await other.heal()
    with pytest.raises(StoreUnavailable):
        await there.get(new)
    await one.heal()
    found = await by_and_by(there, new)
    assert found is not None
    assert found.data["a"] == 2
    assert await by_and_by(there, token) is None
    assert [info.handle for info in await there.list("ann", "acme")] == [found.handle]


async def test_the_call_on_which_the_outage_shows_answers_from_here(outage_world: OutageWorld) -> None:
    one = await outage_world.process()
    here = sessions_of(one)
    _, token = await here.create("ann", "acme")
    session = await present(here, token)
    one.link.blackhole()
    assert (await present(here, token)).degraded
    session.data["a"] = 1
    assert await session.save()
    await here.revoke(session)
    assert await here.get(token) is None
    await one.heal()
    await until(lambda: not one.client.outage.figures.waiting)
    assert await by_and_by(sessions_of(await outage_world.process()), token) is None


async def test_a_store_that_comes_back_empty_has_its_sessions_again_but_those_that_were_ended(
    outage_world: OutageWorld,
) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here, there = sessions_of(one), sessions_of(other)
    _, kept = await here.create("ann", "acme", {"a": 1})
    _, revoked = await here.create("bob", "acme")
    _, everywhere = await here.create("cid", "acme")
    # The other process ends two of them; this one still has a copy of what it last saw.
    await there.revoke(await present(there, revoked))
    await there.revoke_user("cid")
    await outage_world.empty()
    assert (await present(here, kept)).data["a"] == 1, "nobody has noticed yet, and still"
    await other.client.ping()
    found = await by_and_by(there, kept)
    assert found is not None
    await other.seen_loss()
    await until(lambda: all(_restored(process) for process in (one, other)))
    for sessions in (here, there):
        assert await by_and_by(sessions, revoked) is None
    fresh = sessions_of(await outage_world.process())
    assert await fresh.get(revoked) is None
    assert await fresh.get(everywhere) is None
    assert [info.user_id for info in [await present(fresh, kept)]] == ["ann"]
    # Ended after it was stored again, it is not stored a second time, whoever has a copy.
    await fresh.revoke(await present(fresh, kept))
    assert not await one.client.service(keeper.SessionKeeper).restored(await _token_mac(kept))
    assert await fresh.get(kept) is None


async def test_a_crash_before_the_return_loses_no_logout(outage_world: OutageWorld) -> None:
    one = await outage_world.process()
    here = sessions_of(one)
    _, token = await here.create("ann", "acme")
    _, stays = await here.create("ann", "acme")
    await one.cut_off()
    await here.revoke(await present(here, token))
    await one.client.aclose()
    heir = await outage_world.process(heir_of=one)
    sessions = sessions_of(heir)
    await until(lambda: heir.client.outage.figures.replayed_total > 0)
    assert await sessions.get(token) is None
    assert await sessions.get(stays) is not None


def _restored(process: OutageProcess) -> bool:
    task = process.client.service(keeper.SessionKeeper)._restoring
    return task is not None and task.done()


async def _token_mac(token: str) -> str:
    from redis_core.sessions.token import read_token

    parts = read_token(PEPPERS, token)
    assert parts is not None
    return parts.mac
