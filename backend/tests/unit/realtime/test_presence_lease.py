"""No ghosts without a crash: what failed is taken out as soon as it can be, and a leave never overtakes the join after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import StoreUnavailable
from redis_core.pubsub import Presence, PresenceLease
from redis_core.realtime.publisher import Publisher
from redis_core.transport.memory import MockRedisClient
from tests.realtime_world import HandClock, claims_of, opened, scripted_hub, settle

_Run = Callable[..., Awaitable[Any]]


class Wire:
    """The way of updates to the store: it can lose them or their replies, or hold them back."""

    def __init__(self, client: Client) -> None:
        publisher = client.service(Publisher)
        self._run: _Run = publisher._run
        publisher._run = self  # type: ignore[method-assign, assignment]  # as a link would behave
        self.lost: str | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, *publishing: Any) -> Any:
        if self.lost == "request":
            raise StoreUnavailable("the store is away")
        position = await self._run(*publishing)
        await self.open.wait()
        if self.lost == "reply":
            raise StoreUnavailable("the reply was lost")
        return position


@pytest.fixture(autouse=True)
def _refreshed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PresenceLease, "refresh", 0.01)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(MockRedisClient()) as client:
        yield client


async def only(presence: Presence, *members: str) -> None:
    async with asyncio.timeout(20):
        while set(await presence.members()) != set(members):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_a_leave_that_failed_is_tried_again_though_others_keep_the_lease(
    client: Client, lost: str
) -> None:
    wire, presence = Wire(client), client.workspace("acme").presence("room")
    await presence.join("stays")
    await presence.join("goes")
    wire.lost = lost
    with pytest.raises(StoreUnavailable):
        await presence.leave("goes")
    wire.lost = None
    async with asyncio.timeout(20):
        while client.service(PresenceLease).leaving:
            await asyncio.sleep(0.005)
    await only(presence, "stays")


async def test_a_join_whose_reply_was_lost_leaves_no_ghost(client: Client) -> None:
    wire, presence = Wire(client), client.workspace("acme").presence("room")
    await presence.join("stays")
    wire.lost = "reply"
    with pytest.raises(StoreUnavailable):
        await presence.join("lost")
    assert set(await presence.members()) == {"stays", "lost"}
    wire.lost = None
    await only(presence, "stays")


async def test_who_joins_again_before_the_leave_is_repeated_stays(client: Client) -> None:
    wire, presence = Wire(client), client.workspace("acme").presence("room")
    await presence.join("u1")
    wire.lost = "request"
    with pytest.raises(StoreUnavailable):
        await presence.leave("u1")
    wire.lost = None
    await presence.join("u1", {"again": True})
    assert not client.service(PresenceLease).leaving
    assert await presence.members() == {"u1": {"again": True}}


async def test_a_join_that_failed_lets_the_member_be_as_it_was(client: Client) -> None:
    wire, presence = Wire(client), client.workspace("acme").presence("room")
    await presence.join("u1", 1)
    wire.lost = "request"
    with pytest.raises(StoreUnavailable):
        await presence.join("u1", 2)
    wire.lost = None
    assert await presence.members() == {"u1": 1}
    assert not client.service(PresenceLease).leaving


async def test_the_lease_is_taken_anew_by_who_comes_after_nobody_was_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence, lease = client.workspace("acme").presence("room"), client.service(PresenceLease)
    await presence.join("u1")
    await presence.leave("u1")
    await client.delete(lease._key)
    monkeypatch.setattr(lease, "_held_until", 0.0)
    monkeypatch.setattr(PresenceLease, "refresh", 3_600)
    await presence.join("u2")
    assert await presence.members() == {"u2": None}


async def test_a_member_who_comes_back_while_the_old_stream_ends_is_there() -> None:
    hub, _, clock = scripted_hub()
    wire, presence = Wire(hub.client), hub.client.workspace("acme").presence("room")
    claims = claims_of(clock, write=["*"])
    old, new = [(await opened(hub, claims))[0] for _ in range(2)]
    await hub.join(old, "room", "u1:tab", None)
    wire.open.clear()
    joining = asyncio.create_task(hub.join(new, "room", "u1:tab", None))
    await settle()
    hub.close(old)
    await settle()
    wire.open.set()
    await joining
    await settle()
    assert set(await presence.members()) == {"u1:tab"}
    hub.close(new)
    await only(presence)
    await hub.aclose()


async def test_a_member_who_comes_back_after_the_old_stream_ended_is_there() -> None:
    hub, _, clock = scripted_hub()
    wire, presence = Wire(hub.client), hub.client.workspace("acme").presence("room")
    claims = claims_of(clock, write=["*"])
    old, new = [(await opened(hub, claims))[0] for _ in range(2)]
    await hub.join(old, "room", "u1:tab", None)
    wire.open.clear()
    hub.close(old)
    await settle()
    joining = asyncio.create_task(hub.join(new, "room", "u1:tab", None))
    await settle()
    wire.open.set()
    await joining
    await settle()
    assert set(await presence.members()) == {"u1:tab"}
    await hub.aclose()


async def test_a_stream_whose_leave_or_join_failed_leaves_no_ghost() -> None:
    hub, _, clock = scripted_hub()
    wire, presence = Wire(hub.client), hub.client.workspace("acme").presence("room")
    stays, goes, fails = [(await opened(hub, _writer(clock)))[0] for _ in range(3)]
    await hub.join(stays, "room", "u1:stays", None)
    await hub.join(goes, "room", "u1:goes", None)
    wire.lost = "request"
    hub.close(goes)
    await settle()
    wire.lost = "reply"
    with pytest.raises(StoreUnavailable):
        await hub.join(fails, "room", "u1:fails", None)
    await settle()
    wire.lost = None
    await only(presence, "u1:stays")
    assert not fails.presences
    assert set(hub._members) == {("acme", "room", "u1:stays")}
    await hub.aclose()


def _writer(clock: HandClock) -> Any:
    return claims_of(clock, write=["*"])
