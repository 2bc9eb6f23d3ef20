"""What the tests of rate limits share: the stores and plans, a clock to move, and a count of commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject, limits_of
from redis_core.transport.memory import MockRedisClient
from tests.contract.rest import rest_client, running_gateway
from tests.hand_clock import HandClock
from tests.store_users import clean_client_as

__all__ = ["START", "USER", "Clock", "Limited", "limited", "limits", "one_rule", "rate_gateway", "timed"]

START = 1_800_000_000.0
"""The beginning of a minute, an hour and a sixteenth of an hour; where virtual time begins."""
USER = Subject(user="u1", workspace="acme", ip="203.0.113.7")


class Clock(HandClock):
    """A clock at the beginning of a window."""

    def __init__(self, time: float = START) -> None:
        super().__init__(time)


def limits(*rates: str | Rule) -> RateLimits:
    """Limits by user at each endpoint."""
    return limits_of(rates)


def one_rule(rate: str, **arguments: Any) -> RateLimits:
    return RateLimits(rules=(Rule("only", rate, **arguments),))


@dataclass
class Limited:
    """An empty store, a plan, and as many processes as a test wants: each `process()` is a limiter that remembers by itself."""

    client: Client
    plan: Any
    clock: Clock | None = None

    def process(self, rates: RateLimits, **changes: Any) -> RateLimiter:
        arguments: dict[str, Any] = {"plan": self.plan, "timeout": 20.0}
        if self.clock is not None:
            arguments["clock"] = self.clock
        return RateLimiter(self.client, rates, **(arguments | changes))

    async def cost(self, work: Callable[[], Awaitable[object]]) -> tuple[int, int]:
        """Commands and trips of some work, on the client's side."""
        stats = self.client.stats
        before = stats.commands, stats.trips
        await work()
        return stats.commands - before[0], stats.trips - before[1]

    async def keys(self) -> set[str]:
        reply = await self.client.execute("KEYS", "*")
        assert isinstance(reply, list)
        return {key.decode() for key in reply if isinstance(key, bytes)}

    async def without_expiry(self) -> set[str]:
        return {key for key in await self.keys() if await self.client.pttl(key) < 0}


STORES = {
    "memory-exact": (None, "exact"),
    "memory-economy": (None, "economy"),
    "valkey9-app-exact": ("valkey_socket", "exact"),
    "valkey9-app-economy": ("valkey_socket", "economy"),
    "redis7-app-exact": ("redis7_socket", "exact"),
    "rest-exact": ("rate_gateway", "exact"),
    "rest-auto": ("rate_gateway", "auto"),
}
"""Where a store is, and the plan: on REST `auto` is the economy plan. On `-app` all is done as the ACL user of that name."""


@pytest.fixture(scope="session")
def rate_gateway(valkey_socket: str) -> Iterator[str]:
    """The URL of a gateway in front of Valkey 9."""
    with running_gateway(valkey_socket) as url:
        yield url


@pytest.fixture(params=STORES)
async def limited(request: pytest.FixtureRequest) -> AsyncIterator[Limited]:
    """An empty store, whichever, with both plans, by the real clock."""
    place, plan = STORES[request.param]
    if place is None:
        client = Client(MockRedisClient())
    elif place == "rate_gateway":
        client = await rest_client(request.getfixturevalue(place))
        await client.execute("FLUSHDB")
        await client.execute("SCRIPT", "FLUSH")
    else:
        client = await clean_client_as("app", request.getfixturevalue(place))
    async with client:
        yield Limited(client, plan)


@pytest.fixture(params=["exact", "economy"])
async def timed(request: pytest.FixtureRequest) -> AsyncIterator[Limited]:
    """A memory store and a limiter whose time a test moves."""
    clock = Clock()
    async with Client(MockRedisClient(clock=clock)) as client:
        yield Limited(client, request.param, clock)
