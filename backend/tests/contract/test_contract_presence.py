"""Presence has no ghosts: a process that dies takes its members with it, and all who listen hear of each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.keys import presence_key
from redis_core.pubsub import Gap, Presence, PresenceLease
from redis_core.realtime import feed

WITHIN = 20.0


@pytest.fixture(autouse=True)
def _listeners_look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_CHECK", 0.05)
    monkeypatch.setattr(feed, "_REAP_WITHIN", 0.0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not holds():
            await asyncio.sleep(0.01)


async def shown_by_another(client: Client, presence: Presence, process: str, *members: str) -> None:
    """As another process would."""
    ours = client.service(PresenceLease)
    other = client._services[PresenceLease] = PresenceLease(client)
    other.process, other._key = process, presence_key(process)
    try:
        for member in members:
            await presence.join(member, {"of": process})
    finally:
        client._services[PresenceLease] = ours
        await other.aclose()


async def fields(client: Client) -> set[str]:
    found: Any = await client.execute("HKEYS", client.workspace("acme").keys.key("presence", "presence", "d"))
    return {field.decode().partition(" ")[2] for field in found}


class Listener:
    """What one who listens has been told, and who is present by it."""

    def __init__(self, presence: Presence) -> None:
        self.present: set[str] = set()
        self.left: list[str] = []
        self._task = asyncio.create_task(self._listen(presence))

    async def _listen(self, presence: Presence) -> None:
        async for item in presence.listen():
            if isinstance(item, Gap):
                continue
            told: Any = item[1].value
            if "members" in told:
                # The whole: at the beginning, and wherever it had to begin anew.
                self.present = set(told["members"])
            self.present |= set(told.get("join", ()))
            self.present -= set(told.get("leave", ()))
            self.left += told.get("leave", ())

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_members_of_a_process_that_died_leave_once(client: Client) -> None:
    presence = client.workspace("acme").presence("d")
    await shown_by_another(client, presence, "dying", "u1", "u2", "u3")
    await presence.join("u3")
    listeners = [Listener(presence) for _ in range(3)]
    await until(lambda: all(one.present == {"u1", "u2", "u3"} for one in listeners))
    await shown_by_another(client, presence, "dying2", "u4")
    await until(lambda: all("u4" in one.present for one in listeners))
    await client.delete(presence_key("dying"), presence_key("dying2"))
    await until(lambda: all(one.present == {"u3"} for one in listeners))
    await presence.join("u5")
    await until(lambda: all(one.present == {"u3", "u5"} for one in listeners))
    assert all(len(one.left) == len(set(one.left)) for one in listeners)
    assert await presence.members() == {"u3": None, "u5": None}
    assert await fields(client) == {"u3", "u5"}
    for one in listeners:
        await one.end()


async def test_who_comes_later_does_not_see_ghosts_and_takes_them_out(client: Client) -> None:
    presence = client.workspace("acme").presence("d")
    await shown_by_another(client, presence, "dead", "u1")
    await client.delete(presence_key("dead"))
    listener = presence.listen()
    first = await anext(listener)
    assert isinstance(first, tuple)
    assert first[1].value == {"members": {}}
    async with asyncio.timeout(WITHIN):
        while await fields(client):
            await asyncio.sleep(0.01)
    await listener.aclose()


async def test_members_are_shown_again_when_the_store_has_forgotten_the_lease(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PresenceLease, "refresh", 0.05)
    presence = client.workspace("acme").presence("d")
    await presence.join("u1", {"x": 1})
    await client.execute("FLUSHALL")
    async with asyncio.timeout(WITHIN):
        while await presence.members() != {"u1": {"x": 1}}:
            await asyncio.sleep(0.01)


async def test_nobody_is_there_for_ever_without_saying_so(client: Client) -> None:
    presence = client.workspace("acme").presence("d")
    await presence.join("u1")
    left = await client.execute("PTTL", client.workspace("acme").keys.key("presence", "presence", "d"))
    assert isinstance(left, int)
    assert 43_200_000 < left <= 86_400_000
