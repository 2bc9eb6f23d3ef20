"""Secrets replaced ten times under load, without a restart and without a call that fails: TCP, REST, and the sessions' peppers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from redis_core import Client, connect, secret_watch
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.errors import CredentialsRejected
from redis_core.gateway import GatewayToken, create_gateway
from redis_core.secret import Secret
from redis_core.session import Sessions
from redis_core.sessions.pepper import PepperRing
from tests.secret_file import put
from tests.server_process import ServerProcess
from tests.stores import clean_client

ROTATIONS = 10


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_watch, "POLL", 0.05)


@asynccontextmanager
async def under_load(client: Client, callers: int = 20) -> AsyncIterator[Callable[[], int]]:
    """Callers that never stop; how many calls were answered. One that fails ends the test."""
    answered = 0
    stop = asyncio.Event()

    async def call(number: int) -> None:
        nonlocal answered
        while not stop.is_set():
            await client.incr(f"sys:load:{number}")
            answered += 1

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(call(number))
        yield lambda: answered
        stop.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def uses(client: Client, variable: str, secret: str) -> Callable[[], bool]:
    assert client.secrets is not None
    watch = client.secrets
    return lambda: watch._current[variable] == Secret(secret)


async def test_a_password_is_replaced_ten_times_under_load_and_old_ones_are_revoked(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("first")
    with ServerProcess("redis-server") as server:
        async with await connect(redis_url=server.url) as admin:
            await admin.execute("ACL", "SETUSER", "app", "on", ">first", "~*", "&*", "+@all")
            url = f"redis://app:ignored@127.0.0.1:{server.port}"
            async with await connect(redis_url=url, redis_password=Secret(f"file://{path}")) as client:
                old = "first"
                subscription = await client.subscribe("news")
                async with under_load(client) as answered:
                    for _ in range(ROTATIONS):
                        new = secrets.token_hex(8)
                        await admin.execute("ACL", "SETUSER", "app", f">{new}")
                        put(path, new)
                        await until(uses(client, "REDIS_PASSWORD", new))
                        before = answered()
                        await until(lambda before=before: answered() > before + 50)  # type: ignore[misc]
                        await admin.execute("ACL", "SETUSER", "app", f"<{old}")
                        old = new
                assert answered() > ROTATIONS * 50
                # Each connection that is left was opened under the last password: the subscription's, renewed, too.
                await until(lambda: client.transport.stats.connects > 2 * ROTATIONS)
                async with asyncio.timeout(20):
                    while True:
                        await admin.publish("news", "still here")
                        if (await anext(subscription)).payload == b"still here":
                            break


async def test_a_token_is_replaced_ten_times_under_load(valkey_socket: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first-token")
    async with await clean_client(valkey_socket) as behind:
        gateway = create_gateway(behind.transport, [GatewayToken(Secret("first-token"))])
        with bind("127.0.0.1", 0, port_variable="GATEWAY_PORT") as listener:
            async with serve([Site(gateway, listener, gateway.close_streams)]):
                reference = Secret(f"file://{path}")
                async with await connect(
                    upstash_redis_url=url_of(listener), upstash_redis_token=reference
                ) as client:
                    old = "first-token"
                    async with under_load(client) as answered:
                        for _ in range(ROTATIONS):
                            new = secrets.token_hex(8)
                            gateway.accept([GatewayToken(Secret(new)), GatewayToken(Secret(old))])
                            put(path, new)
                            await until(uses(client, "UPSTASH_REDIS_TOKEN", new))
                            gateway.accept([GatewayToken(Secret(new))])
                            before = answered()
                            await until(lambda before=before: answered() > before + 20)  # type: ignore[misc]
                            old = new
                    assert answered() > ROTATIONS * 20


async def test_a_secret_that_was_taken_away_too_early_is_looked_for_at_the_first_refusal(
    valkey_socket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_watch, "POLL", 3600.0)
    path = tmp_path / "token"
    path.write_text("first-token")
    async with await clean_client(valkey_socket) as behind:
        gateway = create_gateway(behind.transport, [GatewayToken(Secret("first-token"))])
        with bind("127.0.0.1", 0, port_variable="GATEWAY_PORT") as listener:
            async with serve([Site(gateway, listener, gateway.close_streams)]):
                reference = Secret(f"file://{path}")
                async with await connect(
                    upstash_redis_url=url_of(listener), upstash_redis_token=reference
                ) as client:
                    await client.ping()
                    put(path, "second-token")
                    gateway.accept([GatewayToken(Secret("second-token"))])
                    assert await asyncio.gather(*(client.incr("sys:count") for _ in range(20))) == list(
                        range(1, 21)
                    )
                    gateway.accept([GatewayToken(Secret("third-token"))])
                    with pytest.raises(CredentialsRejected):
                        await client.ping()


async def test_a_new_secret_that_the_store_refuses_is_not_taken_into_use(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("right")
    with ServerProcess("redis-server", "--requirepass", "right") as server:
        async with await connect(redis_url=server.url, redis_password=Secret(f"file://{path}")) as client:
            await client.ping()
            put(path, "wrong")
            assert client.secrets is not None
            assert not await client.secrets.refresh("REDIS_PASSWORD")
            assert await client.ping()


async def test_sessions_outlive_ten_peppers(valkey: Client) -> None:
    ring = PepperRing(Secret("p0:" + "0" * 32))
    sessions = Sessions(valkey, ring)
    _, token = await sessions.create("ada", "acme")
    for number in range(1, ROTATIONS + 1):
        keys = [f"p{one}:" + str(one % 10) * 32 for one in range(number, -1, -1)]
        ring.replace(Secret(",".join(keys)))
        found = await sessions.get(token)
        assert found is not None
        assert found.user_id == "ada"
        assert ring.current == f"p{number}"
    ring.replace(Secret("other:" + "x" * 32))
    assert await sessions.get(token) is None
