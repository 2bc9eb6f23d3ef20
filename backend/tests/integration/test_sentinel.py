"""Redis Sentinel, for real: a master, its replica and a sentinel; the master dies, and steps down."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from redis_core.address import parse_address
from redis_core.config import load_settings
from redis_core.errors import (
    CredentialsRejected,
    DeadlineExceeded,
    Outcome,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from redis_core.transport.connection import LinkOptions
from redis_core.transport.sentinel import SentinelTransport, open_sentinel
from redis_core.transport.tcp import TcpTransport
from tests.leaks import nothing_leaks
from tests.scripted_server import HELLO, hello_then, scripted_server
from tests.server_process import ServerProcess, free_port
from tests.stores import valkey_binary

LONG = LinkOptions(connect_timeout=20, command_timeout=20)


@dataclass
class Watched:
    first: ServerProcess
    second: ServerProcess
    sentinel: int

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.sentinel}/main"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ServerProcess(valkey_binary(), "--repl-diskless-sync-delay", "0") as first:
        replica = ("--replicaof", f"127.0.0.1 {first.port}")
        with ServerProcess(valkey_binary(), *replica) as second:
            port = free_port()
            config = tmp_path / "sentinel.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nlogfile {tmp_path}/log\n"
                f"sentinel monitor main 127.0.0.1 {first.port} 1\n"
                "sentinel down-after-milliseconds main 400\nsentinel failover-timeout main 3000\n"
            )
            sentinel = subprocess.Popen(
                [valkey_binary(), str(config), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            try:
                asyncio.run(knows_the_replica(port, first.port))
                yield Watched(first, second, port)
            finally:
                sentinel.kill()
                sentinel.wait()


async def knows_the_replica(sentinel: int, master: int) -> None:
    """Until replication runs and the sentinel has seen it."""
    until = time.monotonic() + 30
    for port, command, sign in (
        (master, ("INFO", "replication"), b"state=online"),
        (sentinel, ("SENTINEL", "REPLICAS", "main"), b"slave-priority"),
    ):
        while True:
            link = TcpTransport(parse_address("REDIS_URL", f"redis://127.0.0.1:{port}"), LONG)
            try:
                if sign in repr(await link.execute([command])).encode():
                    break
            except StoreUnavailable:
                pass
            finally:
                await link.aclose()
            assert time.monotonic() < until
            await asyncio.sleep(0.02)


@pytest.fixture
async def transport(watched: Watched) -> AsyncIterator[SentinelTransport]:
    async with nothing_leaks():
        transport = SentinelTransport(parse_address("REDIS_URL", watched.url), LONG)
        try:
            yield transport
        finally:
            await transport.aclose()


async def written(transport: SentinelTransport, key: str, value: str) -> None:
    """Until the write is accepted by a master."""
    async with asyncio.timeout(30):
        while True:
            try:
                if await transport.execute([("SET", key, value)]) == [b"OK"]:
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.02)


async def test_dead_master_is_replaced_by_its_replica(watched: Watched, transport: SentinelTransport) -> None:
    assert await transport.execute([("SET", "k", "v"), ("GET", "k")]) == [b"OK", b"v"]
    assert await transport.transaction([("INCR", "n"), ("INCR", "n")]) == [1, 2]
    feed = await transport.subscribe("news")
    watched.first.kill()
    with pytest.raises(StoreUnavailable):
        await transport.execute([("SET", "k", "lost")])
    await written(transport, "k", "new")
    direct = TcpTransport(parse_address("REDIS_URL", watched.second.url), LONG)
    assert await direct.execute([("GET", "k")]) == [b"new"]
    await direct.aclose()
    async with asyncio.timeout(20):
        assert (await anext(feed)).gap
        await transport.execute([("PUBLISH", "news", "x")])
        message = await anext(feed)
        while message.gap:
            message = await anext(feed)
        assert message.payload == b"x"
    assert transport.mode == "tcp"


async def test_master_that_steps_down_is_not_read_from(
    watched: Watched, transport: SentinelTransport
) -> None:
    await written(transport, "k", "old")
    sentinel = TcpTransport(parse_address("REDIS_URL", f"redis://127.0.0.1:{watched.sentinel}"), LONG)
    async with asyncio.timeout(30):
        # It refuses until it has heard enough of the replica.
        while (await sentinel.execute([("SENTINEL", "FAILOVER", "main")])) != [b"OK"]:
            await asyncio.sleep(0.02)
        while (await sentinel.execute([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")])) != [
            [b"127.0.0.1", str(watched.second.port).encode()]
        ]:
            await asyncio.sleep(0.02)
    await sentinel.aclose()
    await written(transport, "k", "new")
    (role,) = await transport.execute([("ROLE",)])
    assert isinstance(role, list)
    assert role[0] == b"master"
    assert await transport.execute([("GET", "k")]) == [b"new"]


async def test_readonly_answer_makes_it_look_again() -> None:
    with ServerProcess(valkey_binary()) as first, ServerProcess(valkey_binary()) as second:
        master = first

        def answer(command: list[bytes]) -> bytes:
            if command[0] == b"HELLO":
                return HELLO
            port = str(master.port).encode()
            return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)

        async with scripted_server(answer) as url, nothing_leaks():
            address = parse_address("REDIS_URL", url.replace("redis://", "redis+sentinel://") + "/main")
            transport = SentinelTransport(address, LONG)
            assert await transport.execute([("SET", "k", "v")]) == [b"OK"]
            # The connection stays: only the answer tells that it is a replica now.
            await transport.execute([("REPLICAOF", "127.0.0.1", second.port)])
            (reply,) = await transport.execute([("SET", "k", "w")])
            assert isinstance(reply, StoreReadOnly)
            with pytest.raises(StoreUnavailable, match="is not the master") as caught:
                await transport.execute([("SET", "k", "w")])
            assert caught.value.outcome is Outcome.NOT_SENT
            master = second
            assert await transport.execute([("SET", "k", "w")]) == [b"OK"]
            await transport.aclose()


async def test_unknown_master_and_dead_sentinels_are_unavailable(watched: Watched) -> None:
    for url in (
        f"redis+sentinel://127.0.0.1:{watched.sentinel}/other",
        f"redis+sentinel://127.0.0.1:{free_port()}/main",
    ):
        async with nothing_leaks():
            transport = SentinelTransport(parse_address("REDIS_URL", url), LONG)
            with pytest.raises(StoreUnavailable) as caught:
                await transport.execute([("SET", "k", "v")])
            assert caught.value.outcome is Outcome.NOT_SENT
            await transport.aclose()
            with pytest.raises(StoreUnavailable, match="closed"):
                await transport.execute([("SET", "k", "v")])


async def test_silent_sentinel_ends_within_the_deadline() -> None:
    async with scripted_server(lambda command: b"") as url, nothing_leaks():
        address = parse_address("REDIS_URL", url.replace("redis://", "redis+sentinel://") + "/main")
        transport = SentinelTransport(address, LinkOptions(connect_timeout=0.3, command_timeout=0.1))
        with pytest.raises(DeadlineExceeded) as caught:
            await transport.execute([("SET", "k", "v")])
        assert caught.value.outcome is Outcome.NOT_SENT
        await transport.aclose()


async def test_sentinel_that_refuses_us() -> None:
    async with scripted_server(hello_then(b"-NOAUTH Authentication required.\r\n")) as url:
        address = parse_address("REDIS_URL", url.replace("redis://", "redis+sentinel://") + "/main")
        transport = SentinelTransport(address, LONG)
        with pytest.raises(CredentialsRejected):
            await transport.execute([("SET", "k", "v")])
        await transport.aclose()


async def test_closing_while_looking_fails_the_callers_with_a_typed_error() -> None:
    async with scripted_server(lambda command: b"") as url, nothing_leaks():
        address = parse_address("REDIS_URL", url.replace("redis://", "redis+sentinel://") + "/main")
        transport = SentinelTransport(address, LinkOptions(connect_timeout=0.3, command_timeout=20))
        calls = [asyncio.create_task(transport.execute([("GET", "k")])) for _ in range(3)]
        await asyncio.sleep(0.02)
        await transport.aclose()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, StoreError) for error in errors)


async def test_settings_name_sentinels(watched: Watched) -> None:
    settings = load_settings(redis_url=watched.url, redis_command_timeout=20)
    address = settings.store_address()
    assert address is not None
    transport = await open_sentinel(address, settings)
    assert await transport.execute([("ECHO", "x")]) == [b"x"]
    await transport.aclose()
