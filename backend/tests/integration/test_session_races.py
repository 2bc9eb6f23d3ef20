"""Two requests of one session at once: what every peer gets wrong. Each race is run ten times, on every store."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from redis_core.errors import SessionGone
from tests.session_stores import rest_gateway, world
from tests.session_world import World, load

__all__ = ["rest_gateway", "world"]

TRIALS = range(10)


async def test_two_requests_that_change_different_fields_both_keep_their_change(world: World) -> None:
    one, two = world.process(), world.process()
    kept = 0
    for _ in TRIALS:
        _, token = await one.create("u1", "acme", {"a": 0, "b": 0})
        first, second = await load(one, token), await load(two, token)
        first.data["a"] = 1
        second.data["b"] = 1
        second.data["new"] = [1]
        await asyncio.gather(first.save(), second.save())
        kept += dict((await load(one, token)).data) == {"a": 1, "b": 1, "new": [1]}
    assert kept == 10


async def test_a_slow_reader_never_undoes_a_write(world: World) -> None:
    one, two = world.process(), world.process()
    kept = 0
    for _ in TRIALS:
        _, token = await one.create("u1", "acme", {"a": {"n": 0}, "b": [0]})
        reader, writer = await load(one, token), await load(two, token)
        assert dict(reader.data) == {"a": {"n": 0}, "b": [0]}
        writer.data["a"] = {"n": 1}
        await writer.save()
        world.clock.time += 7_200
        await reader.save()
        await one.touch(reader)
        kept += (await load(one, token)).data["a"] == {"n": 1}
    assert kept == 10


@pytest.mark.parametrize("late", ["save", "touch", "incr", "append", "compare_and_set", "rotate"])
async def test_a_session_that_was_logged_out_never_comes_back(world: World, late: str) -> None:
    one, two = world.process(), world.process()
    alive = 0
    for _ in TRIALS:
        _, token = await one.create("u1", "acme", {"a": 0})
        slow = await load(two, token)
        await one.revoke(await load(one, token))
        if late == "touch":
            world.clock.time += 7_200
            assert not await two.touch(slow)
        else:
            slow.data["a"] = 1
            changes = {
                "save": slow.save,
                "incr": lambda slow=slow: slow.incr("a"),
                "append": lambda slow=slow: slow.append("list", 1),
                "compare_and_set": lambda slow=slow: slow.compare_and_set("a", 0, 1),
                "rotate": lambda slow=slow: two.rotate(slow),
            }
            with pytest.raises(SessionGone):
                await changes[late]()  # type: ignore[operator]
        alive += await two.get(token) is not None
    assert alive == 0
    assert not any(":session:" in key for key in await world.keys())
    assert await one.list("u1", "acme") == ()


async def test_logout_and_write_at_the_very_same_time_leave_no_session(world: World) -> None:
    one, two = world.process(), world.process()
    for _ in TRIALS:
        _, token = await one.create("u1", "acme", {"a": 0})
        leaving, slow = await load(one, token), await load(two, token)
        slow.data["a"] = 1
        await asyncio.gather(one.revoke(leaving), slow.save(), return_exceptions=True)
        assert await two.get(token) is None


async def test_a_hash_that_a_late_write_left_behind_is_no_session_and_goes(world: World) -> None:
    sessions = world.process()
    made, token = await sessions.create("u1", "acme", {"a": 0})
    await sessions.revoke(made)
    await world.client.hset(made.place.key, {"a": "1", "_a": made.record.absolute_end, "_t": "1"})
    assert await sessions.get(token) is None
    assert await world.client.exists(made.place.key) == 0


async def test_the_maximum_holds_whatever_logins_run_at_once(world: World) -> None:
    processes = [world.process(policy={"max_sessions": 3}) for _ in range(4)]
    made = await asyncio.gather(*(processes[n % 4].create("u1", "acme") for n in range(10)))
    assert len(await processes[0].list("u1", "acme")) == 3
    alive = [await world.process().get(token) is not None for _, token in made]
    assert sum(alive) == 3
    assert len(world.told("revoked")) == 7


async def test_a_rotation_during_the_revocation_of_the_user_does_not_slip_through(world: World) -> None:
    one, two = world.process(), world.process()
    for _ in TRIALS:
        made = [(await one.create("u1", "acme"))[0] for _ in range(4)]
        rotations = [two.rotate(session) for session in made[:3]]
        results = await asyncio.gather(
            rotations[0], one.revoke_user("u1", "acme"), *rotations[1:], return_exceptions=True
        )
        assert all(isinstance(result, (str, int, SessionGone)) for result in results)
        assert await one.list("u1", "acme") == ()
        assert not any(":session:" in key for key in await world.keys())


async def test_a_read_that_was_under_way_during_a_revocation_does_not_hide_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, other = world.process(), world.process()
    _, token = await sessions.create("u1", "acme")
    guard = getattr(world.client.transport, "guard", None)
    transport = world.client.transport if guard is None else guard.store
    real, late = transport.execute, asyncio.Event()

    async def slow_replies(batch: Any, *, timeout: float | None = None) -> Any:
        replies = await real(batch, timeout=timeout)
        await late.wait()
        return replies

    monkeypatch.setattr(transport, "execute", slow_replies)
    reading = asyncio.create_task(other.get(token))
    await asyncio.sleep(0.02)
    monkeypatch.setattr(transport, "execute", real)
    await other.revoke_user("u1")
    late.set()
    assert await reading is None
    assert await other.get(token) is None


async def test_nothing_in_a_dump_of_the_store_can_be_used_to_log_in(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme", {"a": 1})
    await sessions.revoke_user("u2")
    everything = []
    for key in await world.keys():
        kind = await world.client.type(key)
        read = {"hash": ("HGETALL", key), "zset": ("ZRANGE", key, 0, -1), "string": ("GET", key)}[kind]
        everything += [key, json.dumps(await world.client.execute(*read), default=str)]
    secret, check = token.split(".")[4:]
    assert not any(part in text for part in (secret, check, token) for text in everything)
