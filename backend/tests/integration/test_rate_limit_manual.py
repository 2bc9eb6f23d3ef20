"""The operations manual's `redis.del("rate:user_id:endpoint")` clears a user's limits, on every store and plan."""

from __future__ import annotations

import pytest

from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from tests.contract.rest import rest_client, running_gateway
from tests.stores import clean_client

LIMITS = RateLimits(rules=(Rule("sliding", "2/min"),))
ENDPOINT = "/api/v1/agents"


@pytest.mark.parametrize("store", ["tcp", "rest"])
async def test_the_manuals_command_clears_a_user(store: str, valkey_socket: str) -> None:
    async with await clean_client(valkey_socket) as direct:
        assert await direct.dbsize() == 0
        with running_gateway(valkey_socket) as url:
            opened = await (rest_client(url) if store == "rest" else clean_client(valkey_socket))
            async with opened as client:
                limiter = RateLimiter(client, LIMITS, remember_refusals=0, timeout=20)
                ann, bob = Subject(user="ann"), Subject(user="bob")
                for user in (ann, bob):
                    decisions = [(await limiter.check(user, ENDPOINT)).allowed for _ in range(3)]
                    assert decisions == [True, True, False]
                assert await client.delete(f"rate:ann:{ENDPOINT}") >= 1
                assert (await limiter.check(ann, ENDPOINT)).allowed
                assert not (await limiter.check(bob, ENDPOINT)).allowed
                await limiter.aclose()
