"""Locks, on every store."""

from __future__ import annotations

import asyncio

import pytest

from redis_core.client import Client
from redis_core.errors import InvalidKey, LockLost, LockTimeout
from redis_core.locks import Lock, LockEngine, Token
from redis_core.resilience.epoch import EPOCH_KEY


def another(client: Client) -> Client:
    """A client on the same transport with services of its own: as another process is."""
    return Client(client.transport, client.settings)


def holder(client: Client, name: str = "report", **options: object) -> Lock:
    return client.workspace("acme").lock(name, **options)  # type: ignore[arg-type]


async def test_one_has_it_and_the_next_has_a_greater_token(client: Client) -> None:
    tokens = []
    for _ in range(3):
        async with holder(client) as lease:
            assert lease.held
            assert not lease.lost.is_set()
            tokens.append(lease.token)
            with pytest.raises(LockTimeout):
                await holder(client, wait=0).acquire()
        assert not lease.held
    assert tokens == sorted(set(tokens))


async def test_an_uncontended_lock_costs_two_commands_and_one_more_to_release(client: Client) -> None:
    async with holder(client):
        pass
    before = client.stats.commands, client.stats.trips
    lease = await holder(client).acquire()
    assert (client.stats.commands - before[0], client.stats.trips - before[1]) == (2, 1)
    await lease.release()
    assert client.stats.commands - before[0] == 3
    assert (
        await client.exists(
            "ws:{acme}:lock:report", "ws:{acme}:lock-line:report", "ws:{acme}:lock-waiters:report"
        )
        == 0
    )


async def test_who_waits_is_woken_in_the_order_of_asking(client: Client) -> None:
    other = another(client)
    order: list[int] = []

    async def work(number: int) -> None:
        async with holder(other if number % 2 else client, wait=30):
            order.append(number)

    async with holder(client):
        waiting = []
        for number in range(6):
            waiting.append(asyncio.create_task(work(number)))
            while await client.zcard("ws:{acme}:lock-line:report") <= number:
                await asyncio.sleep(0.005)
        assert order == []
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert order == list(range(6))
    await other.service(LockEngine).aclose()


async def test_waiting_costs_nothing_while_nothing_happens(client: Client) -> None:
    async with holder(client, ttl=60):
        waiting = asyncio.create_task(holder(client, wait=30).acquire())
        while await client.zcard("ws:{acme}:lock-line:report") < 1:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        before = client.stats.commands
        await asyncio.sleep(0.5)
        assert client.stats.commands == before
    await (await asyncio.wait_for(waiting, 20)).release()


async def test_a_lease_outlives_its_time_while_it_is_renewed(client: Client) -> None:
    async with holder(client, ttl=0.5) as lease:
        await asyncio.sleep(1.2)
        assert lease.held
        with pytest.raises(LockTimeout):
            await holder(client, wait=0).acquire()


async def test_a_dead_holders_lock_ends_by_its_time(client: Client) -> None:
    dead = holder(client, ttl=0.4)
    await dead.acquire()
    assert dead._renewing is not None
    dead._renewing.cancel()
    lease = await asyncio.wait_for(holder(client, wait=20).acquire(), 20)
    assert lease.token > Token(0, 0)
    await lease.release()


async def test_a_lock_that_was_taken_away_is_lost_and_its_end_says_so(client: Client) -> None:
    with pytest.raises(LockLost, match="report"):
        async with holder(client, ttl=0.6) as lease:
            await client.delete("ws:{acme}:lock:report")
            await asyncio.wait_for(lease.lost.wait(), 20)
            assert not lease.held
            with pytest.raises(LockLost):
                lease.check()


async def test_a_release_after_the_loss_does_not_free_anothers_lock(client: Client) -> None:
    lost = await holder(client, ttl=60).acquire()
    await client.delete("ws:{acme}:lock:report")
    async with holder(another(client)) as lease:
        await lost.release()
        with pytest.raises(LockTimeout):
            await holder(client, wait=0).acquire()
        assert lease.token > Token(0, 0)


async def test_a_waiter_that_gives_up_is_not_waited_for(client: Client) -> None:
    async with holder(client):
        gone = asyncio.create_task(holder(client, wait=30).acquire())
        while await client.zcard("ws:{acme}:lock-line:report") < 1:
            await asyncio.sleep(0.005)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        while await client.zcard("ws:{acme}:lock-line:report"):
            await asyncio.sleep(0.005)
        with pytest.raises(LockTimeout):
            await holder(client, wait=0.1).acquire()
    async with asyncio.timeout(20):
        async with holder(client):
            pass


async def test_tokens_grow_after_the_store_has_lost_everything(client: Client) -> None:
    async with holder(client) as lease:
        first = lease.token
    await client.flushdb()
    async with holder(client) as lease:
        assert lease.token > first


async def test_tokens_grow_after_the_store_went_back_in_time(client: Client) -> None:
    counter = "ws:{acme}:lock-count"
    async with holder(client):
        pass
    old = await client.hgetall(counter)
    for _ in range(3):
        async with holder(client) as lease:
            last = lease.token
    await client.hset(counter, {name.decode(): value for name, value in old.items()})
    await client.set(EPOCH_KEY, str(last.epoch + 1))
    async with holder(another(client)) as lease:
        assert lease.token > last


async def test_workspaces_and_names_do_not_exclude_one_another(client: Client) -> None:
    async with holder(client), holder(client, "other"), client.workspace("globex").lock("report", wait=0):
        pass


async def test_a_lock_object_is_taken_once_and_its_name_is_checked(client: Client) -> None:
    with pytest.raises(InvalidKey):
        holder(client, "a:b")
    with pytest.raises(ValueError, match="ttl"):
        holder(client, ttl=0)
    lock = holder(client)
    with pytest.raises(LockLost):
        _ = lock.token
    async with lock:
        with pytest.raises(RuntimeError):
            await lock.acquire()
    assert "not held" in repr(lock)


async def test_within_a_process_no_store_is_asked(client: Client) -> None:
    before = client.stats.commands
    async with holder(client, scope="process") as lease:
        assert lease.held
        with pytest.raises(LockTimeout):
            await holder(client, scope="process", wait=0.01).acquire()
        waiting = asyncio.create_task(holder(client, scope="process").acquire())
        await asyncio.sleep(0.01)
    second = await waiting
    assert second.token > Token(0, 0)
    await second.release()
    assert client.stats.commands == before
    assert not client.service(LockEngine)._local
