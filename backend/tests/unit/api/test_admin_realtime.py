"""How the dashboard is told when to look: by a topic of the process itself, that opens nothing of a tenant and costs no command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from redis_core import realtime_token
from redis_core.api.realtime_access import Access
from redis_core.api.realtime_frames import PresenceRequest, PublishRequest, Want
from redis_core.api.realtime_hub import Hub, Refused
from redis_core.api.realtime_hubs import Hubs
from redis_core.api.realtime_limits import RealtimeLimits
from redis_core.api.realtime_publish import be_present, publish
from redis_core.api.realtime_wire import EventStreamWire
from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK
from redis_core.config import load_settings
from redis_core.errors import InvalidKey
from redis_core.realtime.fleet import FLEET, FleetFeed
from redis_core.realtime.history import Position
from redis_core.realtime_token import Claims
from redis_core.resilience.outage import Change, Outage, State
from redis_core.transport.memory import MockRedisClient
from tests.admin_world import asking, bearer, service
from tests.realtime_world import KEYS, Connection, settle


class SteppedClock:
    """Sleeps end when the test says so."""

    def __init__(self) -> None:
        self._steps = asyncio.Semaphore(0)

    def now(self) -> float:
        return SYSTEM_CLOCK.now()

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._steps.acquire()

    async def step(self) -> None:
        self._steps.release()
        await settle()


class ScriptedOutage(Outage):
    """Changes when the test says so."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []

    def watch(self, listener: Any) -> Any:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


class World:
    """A hub, the fleet's feed by a clock that is stepped, and streams of it."""

    def __init__(self) -> None:
        self.client = Client(MockRedisClient())
        self.clock = SteppedClock()
        self.outage = ScriptedOutage()
        feed = FleetFeed(self.client, self.clock)
        feed._outage = self.outage
        self.client._services[FleetFeed] = feed
        self.hub = Hub(self.client, RealtimeLimits())

    def claims(self) -> Claims:
        claims = realtime_token.read(
            KEYS, realtime_token.issue_fleet("bob", topic="dashboard", seconds=600, keys=KEYS)
        )
        assert claims is not None
        return claims

    async def listener(self, topic: str = "dashboard") -> tuple[Any, Connection]:
        connection = Connection()
        stream = self.hub.open(self.claims(), EventStreamWire(), connection.receive, connection.send)
        await self.hub.greet(stream)
        stream.subscribe([Want(topic)])
        await settle()
        return stream, connection


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.hub.aclose()
    await world.client.aclose()


@pytest.fixture
async def http(memory: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(service(memory, environment="test")) as client:
        yield client


async def test_all_who_listen_are_told_when_there_may_be_new_figures(world: World) -> None:
    before = world.client.stats.commands
    _, one = await world.listener()
    _, two = await world.listener()
    await world.clock.step()
    await world.clock.step()
    assert one.numbers == two.numbers == [{"type": "figures"}] * 2
    assert world.client.stats.commands == before


async def test_an_outage_is_told_at_once(world: World) -> None:
    _, one = await world.listener()
    for listener in list(world.outage.listeners):
        listener(Change(State.HEALTHY, State.DEGRADED))
    await settle()
    assert one.numbers == [{"type": "outage", "state": "degraded"}]


async def test_nothing_runs_while_nobody_listens_and_it_begins_anew(world: World) -> None:
    stream, one = await world.listener()
    world.hub.close(stream)
    await settle()
    assert world.outage.listeners == []
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "fleet-feed"]
    await world.clock.step()
    _, two = await world.listener()
    await world.clock.step()
    assert one.numbers == []
    assert two.numbers


async def test_who_comes_back_is_told_whether_something_was_missed() -> None:
    client = Client(MockRedisClient())
    feed = FleetFeed(client, SteppedClock())
    start, seat = await feed.join(lambda _: None, None)
    position = Position(start.epoch, start.offset)
    assert start.recovered
    seat.leave()
    seat.leave()
    same, _ = await feed.join(lambda _: None, position)
    feed._publish({"type": "figures"})
    late, _ = await feed.join(lambda _: None, position)
    assert (same.recovered, late.recovered) == (True, False)
    await feed.aclose()
    await client.aclose()


async def test_the_fleets_token_opens_no_other_topic_and_writes_nothing(world: World) -> None:
    stream, _ = await world.listener()
    ((_, code),) = stream.subscribe([Want("campaign:1")])
    assert code == "forbidden"
    claims = world.claims()
    with pytest.raises(Refused, match="token"):
        await publish(world.hub, claims, PublishRequest("dashboard", "events", data=cast("Any", b"1")), 1)
    with pytest.raises(Refused, match="token"):
        await be_present(world.hub, stream, claims, PresenceRequest(stream.id, "dashboard"), 1)


def test_no_application_can_issue_the_fleets_token_by_a_workspaces_name() -> None:
    with pytest.raises(InvalidKey):
        realtime_token.issue(FLEET, "bob", read=["*"], keys=KEYS)


async def test_a_viewer_gets_a_token_and_who_has_no_credential_gets_none(http: httpx.AsyncClient) -> None:
    assert (await http.post("/api/v1/admin/realtime/token", json={})).status_code == 401
    answer = await http.post("/api/v1/admin/realtime/token", json={}, headers=bearer("viewer"))
    assert answer.status_code == 200
    session = await http.post(
        "/api/v1/realtime/session", json={}, headers={"Authorization": f"Bearer {answer.json()['token']}"}
    )
    told = session.json()
    assert (told["workspace"], told["read"], told["write"]) == (FLEET, ["dashboard"], [])
    assert told["expires"] == answer.json()["expires"]


async def test_without_keys_in_production_the_dashboard_is_told_that_there_is_none() -> None:
    settings = load_settings(redis_url="redis://127.0.0.1:1", mock_redis=False, raptorflow_env="production")
    async with Client(MockRedisClient(), settings) as client, asking(service(client)) as http:
        answer = await http.post("/api/v1/admin/realtime/token", json={}, headers=bearer("viewer"))
    assert (answer.status_code, answer.json()["code"]) == (503, "not-configured")


async def test_the_figures_are_of_the_process_that_answers(http: httpx.AsyncClient, memory: Client) -> None:
    hub = Hub(memory, RealtimeLimits())
    memory.service(Hubs).add(hub)
    claims = Access(KEYS).verified(realtime_token.issue("acme", "u1", read=["*"], keys=KEYS))
    connection = Connection()
    stream = hub.open(claims, EventStreamWire(), connection.receive, connection.send)
    stream.subscribe([Want("campaign:1")])
    while not (told := (await http.get("/api/v1/admin/realtime", headers=bearer("viewer"))).json())["topics"]:
        await settle()
    assert (told["streams"], told["opened_total"], told["topics_total"]) == (1, 1, 1)
    assert told["topics"] == [{"workspace": "acme", "topic": "campaign:1", "kind": "events", "listeners": 1}]
    assert memory.meter.activity()
    await hub.aclose()
