"""Redis Cluster, against three real masters: routing, redirections, a slot that moves, a master that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import hiredis
import pytest

from redis_core.address import parse_address
from redis_core.audit import Actor
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.errors import CommandError, ConfigError, StoreUnavailable
from redis_core.key_audit import AuditState, KeyAuditor
from redis_core.portability import Portability
from redis_core.queue import task
from redis_core.script import Script
from redis_core.transfer.selection import keys_of
from redis_core.transport.cluster import ClusterTransport
from redis_core.transport.cluster_slots import key_slot
from redis_core.transport.connection import LinkOptions
from redis_core.transport.tcp import TcpTransport
from tests.leaks import nothing_leaks
from tests.server_process import ServerProcess, free_port
from tests.stores import valkey_binary

LONG = LinkOptions(connect_timeout=20, command_timeout=20)
# One key a master: slots 0-5460, 5461-10922, 10923-16383.
FIRST, SECOND, THIRD = "b", "c", "a"


@task
async def moved(word: str) -> str:
    return word


def cluster_port() -> int:
    """A port whose bus port, 10,000 above, is a port as well."""
    while True:
        port = free_port()
        if port < 55_000:
            return port


def ask(server: ServerProcess, *command: str | int) -> object:
    """One command, without any of our own code."""
    import socket

    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        link.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]
        reader = hiredis.Reader()
        while (reply := reader.gets()) is False:
            reader.feed(link.recv(65536))
        return reply


def node_id(server: ServerProcess) -> str:
    said = ask(server, "CLUSTER", "MYID")
    assert isinstance(said, bytes)
    return said.decode()


@pytest.fixture(scope="module")
def masters() -> Iterator[list[ServerProcess]]:
    options = (
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--cluster-require-full-coverage",
        "no",
    )
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ServerProcess(valkey_binary(), *options, port=cluster_port()))
            for _ in range(3)
        ]
        for number, server in enumerate(servers):
            assert (
                ask(server, "CLUSTER", "ADDSLOTSRANGE", *[(0, 5460), (5461, 10922), (10923, 16383)][number])
                == b"OK"
            )
            ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            ask(servers[0], "CLUSTER", "MEET", "127.0.0.1", server.port)
        settle(servers)
        yield servers


def settle(servers: list[ServerProcess]) -> None:
    """Until every node knows every slot."""
    import time

    until = time.monotonic() + 30
    while True:
        known = [str(ask(server, "CLUSTER", "INFO")) for server in servers]
        signs = ("cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3")
        if all(sign in info for info in known for sign in signs):
            return
        assert time.monotonic() < until, known
        time.sleep(0.02)


@pytest.fixture
async def cluster(masters: list[ServerProcess]) -> AsyncIterator[ClusterTransport]:
    async with nothing_leaks():
        address = parse_address("REDIS_URL", f"redis+cluster://127.0.0.1:{masters[0].port}")
        transport = ClusterTransport(address, LONG)
        await transport.execute([("FLUSHALL",)])
        try:
            yield transport
        finally:
            await transport.aclose()


async def test_keys_go_to_the_master_that_has_their_slot(
    cluster: ClusterTransport, masters: list[ServerProcess]
) -> None:
    for key in (FIRST, SECOND, THIRD):
        assert await cluster.execute([("SET", key, f"v-{key}")]) == [b"OK"]
    for server, key in zip(masters, (FIRST, SECOND, THIRD), strict=True):
        assert ask(server, "GET", key) == f"v-{key}".encode()
    assert cluster.mode == "cluster"


@pytest.mark.parametrize(
    "key", ["a", "", "{acme}:x", "ws:{acme}:session:1", "{}x", "x{", "}{a}", "{a}{b}", "é", "a{b}c"]
)
async def test_our_slots_are_the_servers(cluster: ClusterTransport, key: str) -> None:
    assert await cluster.execute([("CLUSTER", "KEYSLOT", key)]) == [key_slot(key)]


async def test_batch_is_split_by_node_and_merged_in_order(cluster: ClusterTransport) -> None:
    keys = [f"k{n}" for n in range(300)]
    assert await cluster.execute([("SET", key, key) for key in keys]) == [b"OK"] * 300
    assert await cluster.execute([("GET", key) for key in keys]) == [key.encode() for key in keys]


async def test_errors_stay_at_their_place(cluster: ClusterTransport) -> None:
    replies = await cluster.execute(
        [("SET", "b", "x"), ("INCR", "b"), ("ECHO", "e"), ("GET", "c"), ("SELECT", 1)]
    )
    assert replies[0] == b"OK"
    assert isinstance(replies[1], CommandError)
    assert replies[2:4] == [b"e", None]
    assert isinstance(replies[4], CommandError)


async def test_commands_of_the_whole_key_space(cluster: ClusterTransport) -> None:
    keys = {f"key:{n}".encode() for n in range(500)}
    await cluster.execute([("SET", key, "x") for key in keys])
    assert await cluster.execute([("DBSIZE",)]) == [500]
    client = Client(cluster)
    seen: list[bytes] = []
    cursor: int | bytes = 0
    steps = 0
    while True:
        cursor, found = await client.scan(cursor, count=50)
        seen += found
        steps += 1
        if cursor == b"0":
            break
    assert set(seen) == keys
    assert steps > 3
    (listed,) = await cluster.execute([("KEYS", "key:*")])
    assert isinstance(listed, list)
    assert {key for key in listed if isinstance(key, bytes)} == keys
    replies = await cluster.execute([("SET", "a", 1), ("FLUSHDB",), ("SET", "b", 1), ("DBSIZE",)])
    assert replies == [b"OK", b"OK", b"OK", 1]
    assert isinstance((await cluster.execute([("SCAN", "x")]))[0], CommandError)


async def test_a_key_audit_walks_all_masters(cluster: ClusterTransport) -> None:
    client = Client(cluster)
    async with client.pipeline() as batch:
        for number in range(600):
            batch.set(client.workspace(f"w{number}").keys.key("cache", "r", "k"), "1")
    state = None
    while state is None or not state.complete:
        auditor = KeyAuditor(client, rate=1_000_000, state=state)
        audit = await auditor.run(keys=250)
        state = AuditState.decode(auditor.state.encode())
    assert (audit.keys_total, audit.scanned, audit.examined, audit.faults) == (600, 600, 600, 600)


async def test_transaction_in_one_slot(cluster: ClusterTransport) -> None:
    assert await cluster.transaction([("SET", "{t}a", 1), ("INCR", "{t}a"), ("ZADD", "{t}z", 1, "m")]) == [
        b"OK",
        2,
        1,
    ]
    assert await cluster.transaction([("ZRANGE", "{t}z", 0, -1, "WITHSCORES")]) == [[b"m", b"1"]]


async def test_transaction_over_several_slots_is_refused_before_anything_is_sent(
    cluster: ClusterTransport,
) -> None:
    with pytest.raises(CommandError, match="CROSSSLOT"):
        await cluster.transaction([("SET", FIRST, 1), ("SET", SECOND, 1)])
    assert await cluster.execute([("EXISTS", FIRST), ("EXISTS", SECOND)]) == [0, 0]


async def test_multi_key_command_over_several_slots_is_the_servers_error(cluster: ClusterTransport) -> None:
    (reply,) = await cluster.execute([("MGET", FIRST, SECOND)])
    assert isinstance(reply, CommandError)
    assert reply.code == "CROSSSLOT"


async def test_scripts_run_where_their_keys_are(cluster: ClusterTransport) -> None:
    client = Client(cluster)
    script = Script("test", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
    for key in (FIRST, SECOND, THIRD):
        assert await client.run(script, [key], [5]) == 5
        assert await client.run(script, [key], [5]) == 10
    assert await client.run(Script("none", "return 7")) == 7


async def test_keys_stand_elsewhere_than_first(cluster: ClusterTransport) -> None:
    for key in (FIRST, SECOND, THIRD):
        assert await cluster.execute([("XGROUP", "CREATE", key, "STREAMS", "$", "MKSTREAM")]) == [b"OK"]
        (entry,) = await cluster.execute([("XADD", key, "*", "f", "v")])
        read = ("XREADGROUP", "GROUP", "STREAMS", "c", "COUNT", 1, "STREAMS", key, ">")
        assert await cluster.execute([read]) == [[[key.encode(), [[entry, [b"f", b"v"]]]]]]
        assert (await cluster.execute([("OBJECT", "ENCODING", key)])) == [b"stream"]
        assert (await cluster.execute([("BITOP", "NOT", f"{{{key}}}2", f"{{{key}}}3")])) == [0]
        assert (await cluster.execute([("ZUNION", 1, f"{{{key}}}z")])) == [[]]


async def test_command_that_no_table_has_is_asked_for_its_keys(
    cluster: ClusterTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_core.transport.command_keys._FIRST", frozenset())
    for key in (FIRST, SECOND, THIRD):
        assert await cluster.execute([("SET", key, "x")]) == [b"OK"]
    (reply,) = await cluster.execute([("NOSUCH", "x")])
    assert isinstance(reply, CommandError)


async def test_blocking_pops_wait_on_their_node(cluster: ClusterTransport) -> None:
    waiting = [asyncio.create_task(cluster.execute([("BLPOP", key, 0)])) for key in (FIRST, SECOND, THIRD)]
    await asyncio.sleep(0.02)
    for key in (FIRST, SECOND, THIRD):
        await cluster.execute([("RPUSH", key, "x")])
    assert await asyncio.gather(*waiting) == [[[key.encode(), b"x"]] for key in (FIRST, SECOND, THIRD)]


async def test_messages_reach_a_subscriber_wherever_they_are_published(
    cluster: ClusterTransport, masters: list[ServerProcess]
) -> None:
    async with await cluster.subscribe("news", patterns=["al*"]) as feed, asyncio.timeout(20):
        for number, server in enumerate(masters):
            ask(server, "PUBLISH", "news", number)
            assert (await anext(feed)).payload == str(number).encode()
        await cluster.execute([("PUBLISH", "alpha", "x")])
        assert (await anext(feed)).pattern == b"al*"


async def test_wrong_map_is_put_right_by_moved(cluster: ClusterTransport) -> None:
    await cluster.execute([("SET", FIRST, "x")])
    wrong = cluster._slots[key_slot(SECOND)]
    cluster._slots[key_slot(FIRST)] = wrong
    assert await cluster.execute([("GET", FIRST), ("ECHO", "x")]) == [b"x", b"x"]
    assert cluster._slots[key_slot(FIRST)] != wrong
    cluster._slots[key_slot(FIRST)] = wrong
    assert await cluster.transaction([("GET", FIRST)]) == [b"x"]


async def test_slot_that_moves_while_it_is_used(
    cluster: ClusterTransport, masters: list[ServerProcess]
) -> None:
    slot = key_slot("{move}")
    keys = [f"{{move}}{n}" for n in range(30)]
    await cluster.execute([("SET", key, key) for key in keys])
    owner = next(server for server in masters if ask(server, "EXISTS", keys[0]) == 1)
    target = next(server for server in masters if server is not owner)
    owner_id, target_id = node_id(owner), node_id(target)
    wrong: list[object] = []
    stop = False

    async def use() -> None:
        while not stop:
            for key in keys[:10]:
                (reply,) = await cluster.execute([("GET", key)])
                if reply != key.encode():
                    wrong.append(reply)
            await cluster.execute([("INCR", "{move}count")])
            counted.append(1)

    counted: list[int] = []
    users = [asyncio.create_task(use()) for _ in range(3)]
    assert ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", owner_id) == b"OK"
    assert ask(owner, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id) == b"OK"
    for key in [*keys[:15], "{move}count"]:
        await asyncio.to_thread(ask, owner, "MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    # Half of the keys are there: ASK. Not there at all, and not of one node: TRYAGAIN.
    assert await cluster.execute([("GET", keys[3]), ("GET", keys[20])]) == [
        keys[3].encode(),
        keys[20].encode(),
    ]
    (reply,) = await cluster.execute([("MGET", keys[3], keys[20])])
    assert isinstance(reply, StoreUnavailable)
    with pytest.raises(StoreUnavailable, match="being moved"):
        await cluster.transaction([("GET", keys[3])])
    for key in keys[15:]:
        await asyncio.to_thread(ask, owner, "MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    for server in (target, owner, *masters):
        ask(server, "CLUSTER", "SETSLOT", slot, "NODE", target_id)
    assert await cluster.execute([("GET", key) for key in keys]) == [key.encode() for key in keys]
    stop = True
    await asyncio.gather(*users)
    assert wrong == []
    assert await cluster.execute([("GET", "{move}count")]) == [str(len(counted)).encode()]
    assert cluster._slots[slot] == ("127.0.0.1", target.port)


async def test_master_that_restarts(cluster: ClusterTransport, masters: list[ServerProcess]) -> None:
    await cluster.execute([("SET", key, "x") for key in (FIRST, SECOND, THIRD)])
    masters[2].kill()
    with pytest.raises(StoreUnavailable):
        await cluster.execute([("GET", THIRD)])
    assert await cluster.execute([("GET", FIRST), ("GET", SECOND)]) == [b"x", b"x"]
    masters[2].start()
    async with asyncio.timeout(30):
        while True:
            try:
                (reply,) = await cluster.execute([("SET", THIRD, "again")])
            except StoreUnavailable:
                reply = None
            if reply == b"OK":
                break
            await asyncio.sleep(0.05)
    await asyncio.to_thread(settle, masters)


async def test_seeds_that_are_away_are_passed_over(masters: list[ServerProcess]) -> None:
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{masters[1].port}"
    async with nothing_leaks():
        transport = ClusterTransport(parse_address("REDIS_URL", url), LONG)
        assert await transport.execute([("ECHO", "x")]) == [b"x"]
        await transport.aclose()


async def test_no_seed_at_all_is_unavailable() -> None:
    async with nothing_leaks():
        transport = ClusterTransport(
            parse_address("REDIS_URL", f"redis+cluster://127.0.0.1:{free_port()}"), LONG
        )
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await transport.execute([("GET", "a")])
        await transport.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await transport.execute([("GET", "a")])


async def test_server_that_is_no_cluster_says_so(valkey_socket: str) -> None:
    with ServerProcess(valkey_binary()) as server:
        transport = ClusterTransport(
            parse_address("REDIS_URL", f"redis+cluster://127.0.0.1:{server.port}"), LONG
        )
        with pytest.raises(CommandError, match="cluster support disabled"):
            await transport.execute([("GET", "a")])
        await transport.aclose()


async def test_settings_name_a_cluster(masters: list[ServerProcess]) -> None:
    settings = load_settings(redis_url=f"redis+cluster://127.0.0.1:{masters[0].port}")
    address = settings.store_address()
    assert address is not None
    transport = ClusterTransport.from_settings(address, settings)
    assert transport.target.startswith("redis+cluster://127.0.0.1")
    await transport.aclose()
    wrong = parse_address("REDIS_URL", "redis+cluster://h/3")
    with pytest.raises(ConfigError, match="number 0"):
        ClusterTransport.from_settings(wrong, settings)


async def test_plain_transport_shows_moved_as_an_error(masters: list[ServerProcess]) -> None:
    transport = TcpTransport(parse_address("REDIS_URL", masters[0].url), LONG)
    (reply,) = await transport.execute([("GET", THIRD)])
    assert isinstance(reply, CommandError)
    assert reply.code == "MOVED"
    await transport.aclose()


async def test_a_workspace_is_moved_and_erased_over_all_masters(
    cluster: ClusterTransport, tmp_path: Path
) -> None:
    client = Client(cluster)
    for queue in ("q1", "q2", "q3", "q4"):
        job = await client.workspace("acme").queue.enqueue(moved, queue, queue=queue)
        assert (await job.status()).state == "waiting"
        await client.workspace("acme").queue.pause(queue)
    name = client.workspace("acme").keys.key("app", "a")
    await client.rpush(name, "x", "y")
    move = Portability(client, Actor("test", "admin"))
    assert (await move.export("acme", tmp_path / "f")).jobs == 4
    assert (await move.erase("acme")).left == 0
    assert not [key async for key in keys_of(client, "acme")]
    assert (await move.import_(tmp_path / "f")).jobs == 4
    assert await client.lrange(name, 0, -1) == [b"x", b"y"]
    await move.backup(tmp_path / "all")
    assert (await move.restore(tmp_path / "all", replace=True)).jobs == 4
