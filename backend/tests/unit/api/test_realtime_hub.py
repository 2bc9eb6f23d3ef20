"""The hub: whose stream is whose, how many there may be, and how they end together."""

from __future__ import annotations

import asyncio

import pytest

from redis_core.api.realtime_frames import Want
from redis_core.api.realtime_hub import Hub, Refused
from redis_core.api.realtime_hubs import Hubs
from redis_core.api.realtime_limits import RealtimeLimits
from redis_core.api.realtime_wire import EventStreamWire
from redis_core.client import Client
from redis_core.pubsub import PresenceLease
from redis_core.realtime import feed
from redis_core.session import Sessions
from redis_core.sessions.event import SessionEvent
from redis_core.sessions.pepper import PepperRing
from redis_core.transport.memory import MockRedisClient
from tests.realtime_world import Connection, HandClock, claims_of, opened, scripted_hub, settle


async def test_a_tenant_gets_nothing_of_another_whatever_it_asks() -> None:
    hub, feeds, clock = scripted_hub()
    _, mine = await opened(hub, claims_of(clock, workspace="acme"), "a", "ws:other:a", "other:a", "other/a")
    feeds.feed("other", "a", "events").publish("secret")
    await settle()
    assert mine.numbers == []
    assert {workspace for workspace, _, _ in feeds.made} == {"acme", "other"}


@pytest.mark.parametrize(("workspace", "user"), [("other", "u1"), ("acme", "u2")])
async def test_a_stream_is_its_users_alone(workspace: str, user: str) -> None:
    hub, _, clock = scripted_hub()
    stream, _ = await opened(hub, claims_of(clock))
    assert hub.find(stream.id, claims_of(clock)) is stream
    with pytest.raises(Refused, match="no such stream"):
        hub.find(stream.id, claims_of(clock, workspace, user))
    with pytest.raises(Refused, match="another workspace or user"):
        hub.authorise(stream, claims_of(clock, workspace, user))


async def test_streams_and_what_they_were_sent_are_measured() -> None:
    hub, feeds, clock = scripted_hub()
    connections = [(await opened(hub, claims_of(clock), "a"))[1] for _ in range(3)]
    feeds.feed("acme", "a", "events").publish("hello")
    await settle()
    taken = hub.client.meter.take()
    assert taken.levels["streams"] == 3
    assert taken.levels["streams_parked"] == 0
    assert taken.counters["stream_messages_total"] == sum(len(one.frames) for one in connections)
    await hub.client.workspace("acme").topic("a").publish("hello")
    assert hub.client.meter.take().counters["topic_updates_total|events"] == 1


async def test_one_workspace_s_cap_is_not_another_s() -> None:
    hub, _, clock = scripted_hub(max_streams=2)
    first, _ = await opened(hub, claims_of(clock))
    await opened(hub, claims_of(clock))
    with pytest.raises(Refused) as refused:
        await opened(hub, claims_of(clock))
    assert (refused.value.status, refused.value.code) == (429, "too-many-connections")
    assert refused.value.retry_after is not None
    await opened(hub, claims_of(clock, workspace="other"))
    hub.close(first)
    await opened(hub, claims_of(clock))


async def test_the_topics_of_all_streams_of_a_workspace_have_a_cap_together() -> None:
    hub, _, clock = scripted_hub(max_topics=3, max_subscriptions=4)
    first, _ = await opened(hub, claims_of(clock), "a", "b", "c")
    second, connection = await opened(hub, claims_of(clock), "a", "b")
    assert [frame["topic"] for frame in connection.of("sub")] == ["a"]
    assert second.subscribe([Want("b"), Want("a")]) == [(Want("b"), "too-many-topics")]
    _, other = await opened(hub, claims_of(clock, workspace="other"), "a", "b", "c")
    assert len(other.of("sub")) == 3
    first.unsubscribe(["c"])
    assert second.subscribe([Want("b")]) == []
    assert second.subscribe([Want("c")]) == [(Want("c"), "too-many-topics")]
    first.end("shutdown", 0)
    hub.close(first)
    assert second.subscribe([Want("c")]) == []
    hub.close(second)
    assert hub.allowance("acme").subscriptions == 0


async def test_drains_with_random_moments_to_come_back_and_takes_no_more() -> None:
    hub, _, clock = scripted_hub(drain_seconds=10)
    connections = [(await opened(hub, claims_of(clock), "a"))[1] for _ in range(30)]
    hub.drain()
    byes = [connection.frames[-1] for connection in connections]
    assert all(bye["t"] == "bye" and bye["reason"] == "shutdown" for bye in byes)
    assert all(0 <= bye["retry"] <= 10_000 for bye in byes)
    assert len({bye["retry"] for bye in byes}) > 10
    assert all(connection.ended for connection in connections)
    with pytest.raises(Refused) as refused:
        hub.open(claims_of(clock), EventStreamWire(), Connection().receive, Connection().send)
    assert refused.value.code == "shutting-down"


async def test_draining_flushes_what_a_parked_client_is_owed_when_it_reads_and_cuts_it_off_when_not() -> None:
    hub, feeds, clock = scripted_hub()
    reading = (await opened(hub, claims_of(clock), "a"))[1]
    silent_stream, silent = await opened(hub, claims_of(clock), "a")
    for connection in (reading, silent):
        connection.pause()
    for number in range(3):
        feeds.feed("acme", "a", "events").publish(number)
    hub.drain()
    reading.resume()
    await settle()
    assert reading.numbers == [0, 1, 2]
    assert reading.frames[-1]["t"] == "bye"
    assert reading.ended
    clock.time += 2
    silent_stream.tick(clock.time)
    assert silent.aborted


async def test_ends_the_streams_of_one_user_when_told() -> None:
    hub, _, clock = scripted_hub()
    mine = (await opened(hub, claims_of(clock)))[1]
    other = (await opened(hub, claims_of(clock, user="u2")))[1]
    assert hub.disconnect("acme", "u1") == 1
    assert mine.ended
    assert not other.ended


async def test_an_idle_browser_costs_no_command_however_often_it_is_pinged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a process asks for by itself, whatever the number of its browsers, waits meanwhile.
    monkeypatch.setattr(feed, "_CHECK", 3_600.0)
    monkeypatch.setattr(PresenceLease, "refresh", 3_600.0)
    clock = HandClock()
    async with Client(MockRedisClient()) as client:
        hub = Hub(client, RealtimeLimits(heartbeat=25), clock)
        connections = []
        for number in range(100):
            stream, connection = await opened(hub, claims_of(clock, user=f"u{number}"))
            stream.subscribe([Want("a", kind) for kind in ("events", "state", "append", "presence")])
            connections.append(connection)
            await hub.join(stream, "a", f"u{number}", None)
        async with asyncio.timeout(20):
            while any(len(connection.of("sub")) < 4 for connection in connections):
                await asyncio.sleep(0.01)
        before = client.stats.commands
        for _ in range(100):
            clock.time += 1
            hub._tick()
            await settle()
        assert all(len(connection.of("ping")) >= 4 for connection in connections)
        assert client.stats.commands == before
        await hub.aclose()


@pytest.mark.parametrize(
    ("event", "ended"),
    [
        (SessionEvent("revoked", 0.0, "acme", "u1", "h" * 8, "logout"), {"acme u1"}),
        (SessionEvent("revoked", 0.0, "acme", None, None, "workspace"), {"acme u1", "acme u2"}),
        (SessionEvent("revoked", 0.0, None, "u1", None, "user"), {"acme u1", "other u1"}),
        (SessionEvent("revoked", 0.0, "acme", None, "h" * 8, "logout"), set[str]()),
        (SessionEvent("rotated", 0.0, "acme", "u1", "h" * 8), set[str]()),
    ],
    ids=["a session", "a workspace", "a user everywhere", "a session of nobody", "no end"],
)
async def test_streams_end_with_the_session_and_not_with_their_token(
    event: SessionEvent, ended: set[str]
) -> None:
    hub, _, clock = scripted_hub()
    hubs = hub.client.service(Hubs)
    hubs.add(hub)
    owners = [("acme", "u1"), ("acme", "u2"), ("other", "u1")]
    connections = {
        f"{workspace} {user}": (await opened(hub, claims_of(clock, workspace, user), "a"))[1]
        for workspace, user in owners
    }
    hubs.on_session_event(event)
    assert {name for name, connection in connections.items() if connection.ended} == ended
    assert all(connections[name].frames[-1]["reason"] == "expired" for name in ended)
    await hubs.aclose()


async def test_who_logs_out_has_no_stream_any_more() -> None:
    hub, _, clock = scripted_hub()
    hubs = hub.client.service(Hubs)
    hubs.add(hub)
    sessions = Sessions(hub.client, PepperRing.random(), on_event=hubs.on_session_event)
    session, _ = await sessions.create("u1", "acme")
    connection = (await opened(hub, claims_of(clock), "a"))[1]
    await sessions.revoke(session)
    assert connection.ended
    await hubs.aclose()


async def test_forgets_workspaces_that_are_gone() -> None:
    hub, _, clock = scripted_hub()
    for number in range(1_500):
        clock.time += 0.01
        hub.allowance(f"w{number}").take(1)
    assert len(hub._allowances) < 1_200
