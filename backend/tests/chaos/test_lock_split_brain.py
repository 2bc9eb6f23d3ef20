"""Two processes that share a store, each through a link of its own that breaks: a lock is never granted twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from redis_core.client import Client, connect
from redis_core.errors import LockLost, LockTimeout, LockUnavailable
from redis_core.locks import Lock, Token
from redis_core.testing import FaultProxy
from tests.server_process import ServerProcess
from tests.stores import valkey_binary

Pair = tuple[tuple[Client, FaultProxy], tuple[Client, FaultProxy]]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    with (
        ServerProcess(valkey_binary()) as server,
        FaultProxy(("127.0.0.1", server.port)) as left,
        FaultProxy(("127.0.0.1", server.port)) as right,
    ):
        one = await connect(redis_url=left.url, redis_command_timeout=0.3, redis_connect_timeout=0.3)
        two = await connect(redis_url=right.url, redis_command_timeout=0.3, redis_connect_timeout=0.3)
        yield (one, left), (two, right)
        left.up()
        right.up()
        await one.aclose()
        await two.aclose()


def lock(client: Client, ttl: float, wait: float | None = None) -> Lock:
    return client.workspace("acme").lock("report", ttl=ttl, wait=wait)


async def test_who_is_cut_off_has_lost_the_lock_before_another_gets_it(pair: Pair) -> None:
    (one, left), (two, _) = pair
    first = await lock(one, ttl=1.5).acquire()
    token = first.token
    left.blackhole()
    waiting = asyncio.create_task(lock(two, ttl=1.5, wait=20).acquire())
    while not waiting.done():
        await asyncio.sleep(0.002)
    assert not first.held
    second = waiting.result()
    await asyncio.wait_for(first.lost.wait(), 5)
    assert second.token > token
    with pytest.raises(LockLost):
        first.check()
    await second.release()


@pytest.mark.parametrize("fault", ["refuse", "reset", "stall", "blackhole"])
async def test_nobody_is_granted_a_lock_while_the_store_is_away(pair: Pair, fault: str) -> None:
    (one, left), _ = pair
    getattr(left, fault)()
    with pytest.raises(LockUnavailable, match="away"):
        await asyncio.wait_for(lock(one, ttl=5, wait=1).acquire(), 20)


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_faults_never_give_it_to_two_at_once(pair: Pair, seed: int) -> None:
    draw = random.Random(seed)
    inside: list[Lock] = []
    tokens: list[Token] = []
    until = asyncio.get_running_loop().time() + 4

    async def use(client: Client) -> None:
        while asyncio.get_running_loop().time() < until:
            try:
                async with lock(client, ttl=0.8, wait=1) as lease:
                    assert not [other for other in inside if other.held], "two at once"
                    inside.append(lease)
                    tokens.append(lease.token)
                    await asyncio.sleep(draw.uniform(0, 0.1))
                    inside.remove(lease)
            except (LockUnavailable, LockTimeout):
                await asyncio.sleep(0.02)
            except LockLost:
                continue

    async def disturb() -> None:
        while asyncio.get_running_loop().time() < until:
            _, proxy = draw.choice(pair)
            getattr(proxy, draw.choice(["refuse", "reset", "stall", "blackhole", "half_reply", "cut"]))()
            await asyncio.sleep(draw.uniform(0.05, 0.4))
            proxy.up()
            await asyncio.sleep(draw.uniform(0.05, 0.3))

    users = [use(client) for client, _ in pair for _ in range(2)]
    await asyncio.wait_for(asyncio.gather(*users, disturb()), 40)
    assert len(tokens) > 5
    assert tokens == sorted(set(tokens)), "each grant has a greater token than those before"
