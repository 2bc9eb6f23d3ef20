"""The memory store's own duties: what fakeredis leaves undone."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import (
    CommandError,
    DeadlineExceeded,
    InvalidKey,
    StoreError,
    StoreReadOnly,
    TransactionAborted,
)
from redis_core.transport.base import Transport
from redis_core.transport.in_memory.engine import Engine
from redis_core.transport.memory import MockRedisClient
from tests.hand_clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock(1_700_000_000.0)


@pytest.fixture
def moved(clock: HandClock) -> Client:
    """A client of a memory store whose time a test moves."""
    return Client(MockRedisClient(clock=clock))


def engine(client: Client) -> Engine:
    assert isinstance(client.transport, MockRedisClient)
    return client.transport._engine


async def test_it_is_a_transport_called_memory(memory: Client) -> None:
    assert isinstance(memory.transport, Transport)
    assert (memory.mode, memory.transport.target, memory.transport.script_header) == ("memory", "memory", "")


@pytest.fixture
def _no_shared() -> Iterator[None]:
    MockRedisClient._shared = None
    yield
    MockRedisClient._shared = None


@pytest.mark.usefixtures("_no_shared")
async def test_a_process_has_one_shared_instance() -> None:
    found: list[MockRedisClient] = []
    threads = [threading.Thread(target=lambda: found.append(MockRedisClient.shared())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert MockRedisClient.shared(max_bytes=5_000_000) is found[0]
    assert await Client(found[0]).execute("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"5000000"]


# --- expiry ---


async def test_expired_keys_are_reclaimed_without_being_read() -> None:
    store = MockRedisClient()
    for start in range(0, 20_000, 1000):
        await store.execute(
            [("SET", f"k{number}", "x" * 50, "PX", 50) for number in range(start, start + 1000)]
        )
    await store.execute([("SET", "stays", "x")])
    while len(store._space._dict) > 1:
        await asyncio.sleep(0.02)
    assert store._space.used < 1000
    assert store._space._expiry_heap == []
    info = await Client(store).info("stats")
    assert int(info["expired_keys"]) == 20_000


async def test_a_store_without_expiring_keys_has_no_timer(memory: Client) -> None:
    await memory.set("a", 1)
    assert isinstance(memory.transport, MockRedisClient)
    link = memory.transport._link()
    assert link.timer is None
    await memory.set("a", 1, ex=100)
    assert link.timer is not None


async def test_a_sooner_expiry_moves_the_timer_forward(memory: Client) -> None:
    await memory.set("late", 1, ex=1000)
    await memory.set("soon", 1, px=20)
    while engine(memory).space.expired_keys == 0:
        await asyncio.sleep(0.02)
    assert "late" in {key.decode() for key in engine(memory).space._dict}


async def test_one_call_removes_a_bounded_number_of_expired_keys(moved: Client, clock: HandClock) -> None:
    await moved.transport.execute([("SET", f"k{number}", 1, "EX", 10) for number in range(100)])
    clock.time += 11
    await moved.get("other")
    assert 0 < engine(moved).space.expired_keys <= 20
    assert await moved.dbsize() == 0


async def test_time_is_the_given_clock_s(moved: Client, clock: HandClock) -> None:
    await moved.set("a", 1, ex=10)
    await moved.hset("h", {"f": 1})
    first = await moved.xadd("s", {"f": 1})
    clock.time += 9.5
    assert (await moved.ttl("a"), await moved.pttl("a")) == (0, 500)
    clock.time += 0.6
    assert await moved.get("a") is None
    assert await moved.time() == pytest.approx(clock.time)
    second = await moved.xadd("s", {"f": 1})
    assert (first, second) == (b"1700000000000-0", b"1700000010100-0")
    assert (await Client(MockRedisClient()).xadd("s", {"f": 1})) > second


# --- memory ---


async def test_a_full_store_evicts_what_expires_soonest() -> None:
    client = Client(MockRedisClient(max_bytes=1_000_000))
    await client.set("kept", "x" * 1000)
    for number in range(100):
        await client.set(f"k{number}", "x" * 20_000, ex=1000 - number)
    assert await client.exists("kept") == 1
    left = [number for number in range(100) if await client.exists(f"k{number}")]
    # The later ones expire sooner: each made room by taking the one written just before it.
    assert left[:40] == list(range(40))
    info = await client.info()
    assert int(info["used_memory"]) <= 1_000_000
    assert int(info["evicted_keys"]) == 100 - len(left)


async def test_a_full_store_that_cannot_evict_refuses_what_grows_and_reads_on() -> None:
    client = Client(MockRedisClient(max_bytes=100_000))
    await client.set("a", "x" * 90_000)
    for call in (
        client.set("b", "x" * 20_000),
        client.rpush("l", "x" * 20_000),
        client.hset("h", {"f": "x" * 20_000}),
    ):
        with pytest.raises(StoreReadOnly, match="OOM command not allowed"):
            await call
    with pytest.raises(StoreReadOnly):
        await client.execute("EVAL", "return redis.call('SET', 'c', string.rep('x', 20000))", 0)
    assert await client.strlen("a") == 90_000
    assert await client.exists("b", "l", "h", "c") == 0
    assert await client.delete("a") == 1
    assert await client.set("b", "x" * 20_000)


async def test_a_transaction_that_does_not_fit_is_refused_whole() -> None:
    client = Client(MockRedisClient(max_bytes=100_000))
    batch = client.transaction()
    batch.set("a", "x" * 10)
    batch.set("b", "x" * 200_000)
    with pytest.raises(StoreReadOnly):
        await batch.send()
    assert await client.dbsize() == 0


@pytest.mark.parametrize(
    "command",
    [
        lambda n: ("SET", f"k{n}", "x" * 300),
        lambda n: ("HSET", f"h{n % 20}", f"field{n}", "x" * 100),
        lambda n: ("RPUSH", f"l{n % 20}", "x" * 90 + str(n)),
        lambda n: ("SADD", f"s{n % 20}", f"member{n}"),
        lambda n: ("ZADD", f"z{n % 20}", n, f"member{n}"),
        lambda n: ("XADD", f"x{n % 20}", "*", "field", "x" * 100),
    ],
    ids=["string", "hash", "list", "set", "zset", "stream"],
)
async def test_the_estimate_is_near_what_python_uses(command: Any) -> None:
    store = MockRedisClient()
    await store.execute([command(10_000)])
    gc.collect()
    tracemalloc.start()
    before, estimated = tracemalloc.get_traced_memory()[0], store._space.used
    for number in range(3000):
        await store.execute([command(number)])
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert used / 1.6 < store._space.used - estimated < used * 1.6


async def test_what_is_removed_weighs_nothing(memory: Client) -> None:
    space = engine(memory).space
    await memory.set("a", "x" * 1000)
    await memory.rpush("l", *["x" * 100] * 50)
    await memory.hset("h", {"f": "x" * 500})
    full = space.used
    await memory.lpop("l")
    assert 0 < space.used < full
    await memory.rename("a", "b")
    await memory.ltrim("l", 1, 0)
    await memory.delete("b", "h")
    assert (space.used, space._sizes) == (0, {})
    await memory.set("a", 1)
    await memory.flushdb()
    assert space.used == 0


# --- the event loop ---


async def test_a_caller_that_never_waits_lets_other_tasks_run(memory: Client) -> None:
    seen = 0

    async def other() -> None:
        nonlocal seen
        while True:
            seen += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(2000):
        await memory.get("a")
    assert seen > 5
    seen = 0
    await memory.transport.execute([("SET", "a", 1)] * 2000)
    assert seen > 5
    task.cancel()


async def test_a_waiting_command_is_served_before_those_that_came_later(memory: Client) -> None:
    waiting = [asyncio.ensure_future(memory.execute("BLPOP", "l", 30)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert (await memory.info("clients"))["blocked_clients"] == "3"
    await memory.rpush("l", 0, 1, 2)
    assert await asyncio.gather(*waiting) == [[b"l", b"%d" % number] for number in range(3)]
    assert (await memory.info("clients"))["blocked_clients"] == "0"


async def test_a_waiting_command_keeps_its_caller_s_deadline_and_can_be_cancelled(memory: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        await memory.within(0.02).execute("BLPOP", "l", 0)
    task = asyncio.ensure_future(memory.execute("BLPOP", "l", 0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await memory.rpush("l", "not lost")
    assert await memory.llen("l") == 1
    assert engine(memory).space.waiting == {}


async def test_a_blocking_command_inside_a_batch_is_refused_and_in_a_transaction_does_not_wait(
    memory: Client,
) -> None:
    async with memory.pipeline() as batch:
        before = batch.set("a", 1)
        refused = batch.execute("BLPOP", "l", 0)
    assert await before
    with pytest.raises(CommandError, match="send it alone"):
        await refused
    async with memory.transaction() as batch:
        popped = batch.execute("BLPOP", "l", 0)
    assert await popped is None


async def test_closing_ends_subscriptions_and_waiting_commands_and_keeps_the_data() -> None:
    client = Client(MockRedisClient())
    await client.set("a", 1, ex=100)
    news = await client.subscribe("news")
    waiting = asyncio.ensure_future(client.execute("BLPOP", "l", 0))
    await asyncio.sleep(0.01)
    await client.aclose()
    await client.aclose()
    assert [message async for message in news] == []
    with pytest.raises(StoreError, match="closed while"):
        await waiting
    assert await client.get("a") == b"1"
    assert await client.publish("news", "x") == 0


def test_the_data_outlives_an_event_loop() -> None:
    store = MockRedisClient()
    asyncio.run(_once(store, ("SET", "a", 1, "EX", 100)))
    asyncio.run(_once(store, ("RPUSH", "l", 1)))
    assert asyncio.run(_once(store, ("GET", "a"))) == b"1"
    assert len(store._links) == 1


async def _once(store: MockRedisClient, command: tuple[Any, ...]) -> object:
    return (await store.execute([command]))[0]


async def test_messages_and_wake_ups_cross_threads() -> None:
    store = MockRedisClient()
    client = Client(store)
    async with await client.subscribe("news", patterns=["n*"]) as news:
        waiting = asyncio.ensure_future(client.execute("BLPOP", "l", 30))
        await asyncio.sleep(0.01)
        heard = await asyncio.to_thread(
            lambda: asyncio.run(_once(store, ("PUBLISH", "news", "from a thread")))
        )
        assert heard == 2
        assert [(await anext(news)).payload for _ in range(2)] == [b"from a thread"] * 2
        await asyncio.to_thread(lambda: asyncio.run(_once(store, ("RPUSH", "l", "x"))))
        assert await waiting == [b"l", b"x"]


# --- answers about itself ---


async def test_info_counts_what_happened(memory: Client) -> None:
    await memory.set("a", 1, ex=100)
    await memory.get("a")
    await memory.get("missing")
    await memory.execute("EVAL", "redis.call('GET', 'a') return redis.call('GET', 'missing')", 0)
    with pytest.raises(CommandError):
        await memory.incr("a", "x")  # type: ignore[arg-type]
    info = await memory.info("everything")
    assert (info["keyspace_hits"], info["keyspace_misses"]) == ("2", "2")
    assert info["db0"] == "keys=1,expires=1,avg_ttl=0"
    assert info["cmdstat_get"] == "calls=4,failed_calls=0"
    assert info["cmdstat_incrby"] == "calls=1,failed_calls=1"
    assert int(info["used_memory"]) > 0
    await memory.execute("CONFIG", "RESETSTAT")
    assert (await memory.info("stats"))["keyspace_hits"] == "0"


async def test_info_answers_the_sections_asked_for(memory: Client) -> None:
    server = await memory.info("server")
    assert server["server_name"] == "raptorflow-memory"
    assert "used_memory" not in server
    assert "cmdstat_info" not in await memory.info()
    assert await memory.info("nosuchsection") == {}


@pytest.mark.parametrize(
    "command",
    [("OBJECT", "ENCODING", "a"), ("SLOWLOG", "GET"), ("LATENCY", "LATEST"), ("DUMP", "a"), ("RESTORE", "a", 0, "x"),
     ("FUNCTION", "LIST"), ("FCALL", "f", 0), ("ACL", "LIST"), ("DEBUG", "SLEEP", 1), ("CONFIG", "SET", "maxmemory", 1),
     ("MEMORY", "DOCTOR"), ("SWAPDB", 0, 1), ("MOVE", "a", 1), ("COPY", "a", "b"), ("BGSAVE",), ("SHUTDOWN",)],
    ids=str,
)  # fmt: skip
async def test_what_memory_does_not_have_says_so(memory: Client, command: tuple[Any, ...]) -> None:
    with pytest.raises(CommandError, match=r"^ERR this command is not available on the memory store$"):
        await memory.execute(*command)


@pytest.mark.parametrize(
    "command",
    [
        ("JSON.SET", "a", "$", "1"),
        ("BF.ADD", "a", "1"),
        ("VADD", "a"),
        ("SADDEX", "a", 1, "m"),
        ("ARGET", "a"),
    ],
)
async def test_other_servers_commands_are_unknown(memory: Client, command: tuple[Any, ...]) -> None:
    with pytest.raises(CommandError, match=r"^ERR unknown command"):
        await memory.execute(*command)


async def test_small_answers_about_the_server(memory: Client) -> None:
    assert await memory.execute("CLIENT", "ID") == 1
    assert await memory.execute("CLIENT", "GETNAME") is None
    assert await memory.execute("CLIENT", "SETINFO", "LIB-NAME", "x") == b"OK"
    assert b"id=1 " in (await memory.execute("CLIENT", "LIST"))  # type: ignore[operator]
    names = await memory.execute("COMMAND", "LIST")
    assert isinstance(names, list)
    assert await memory.execute("COMMAND", "COUNT") == len(names) > 150
    assert await memory.execute("COMMAND") == []
    assert await memory.execute("ROLE") == [b"master", 0, []]
    assert await memory.execute("WAIT", 1, 10) == 0
    assert await memory.execute("TOUCH", "a") == 0
    assert await memory.execute("PUBSUB", "CHANNELS") == []
    async with await memory.subscribe("a", "b", patterns=["c*"]):
        assert await memory.execute("PUBSUB", "CHANNELS", "[ab]") == [b"a", b"b"]
        assert await memory.execute("PUBSUB", "NUMSUB", "a", "x") == [b"a", 1, b"x", 0]
        assert await memory.execute("PUBSUB", "NUMPAT") == 1
    with pytest.raises(CommandError, match="unknown subcommand"):
        await memory.execute("CLIENT", "NOSUCH")
    with pytest.raises(CommandError, match="syntax error"):
        await memory.execute("FLUSHALL", "NOW")
    with pytest.raises(CommandError, match="syntax error"):
        await memory.execute("MEMORY", "USAGE", "a", "DEEPLY")


async def test_a_fault_in_a_command_is_its_error_and_harms_no_other(
    memory: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handler = engine(memory).handlers["get"]
    monkeypatch.setattr(handler, "function", lambda _: 1 // 0)
    async with memory.pipeline() as batch:
        broken = batch.get("a")
        whole = batch.set("a", 1)
    assert await whole
    with pytest.raises(CommandError, match="failed in memory"):
        await broken
    assert "ZeroDivisionError" in caplog.text


async def test_a_transaction_says_what_was_wrong(memory: Client) -> None:
    with pytest.raises(TransactionAborted, match="unknown command 'NOSUCH'"):
        await memory.transport.transaction([("SET", "a", 1), ("NOSUCH",)])
    with pytest.raises(InvalidKey):
        await memory.transport.transaction([("SET", "a", 1), ("SET", "b", None)])  # type: ignore[list-item]
    assert await memory.exists("a") == 0


async def test_subclasses_of_words_go_in_as_what_they_are(memory: Client) -> None:
    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    await memory.set(Name("a"), Number(7))
    assert await memory.get("a") == b"7"


# --- at the moment of failure ---

_OFFLINE = """
import asyncio, sys
import redis_core.transport.memory as memory
import redis_core.client, redis_core.errors, redis_core.script
import encodings.idna  # what printing and reading the environment may load is the interpreter's affair

redis_core.client.Client(memory.MockRedisClient())  # there is a client before its store fails

class Nothing:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(f"{name} is loaded only now")

sys.meta_path.insert(0, Nothing())
sys.path.clear()

async def main():
    client = redis_core.client.Client(memory.MockRedisClient.shared())
    await client.set("a", 1, ex=100)
    await client.incrbyfloat("f", 1.5)
    await client.bitfield("b", "INCRBY", "u8", 0, 1)
    await client.hset("h", {"f": 1}); await client.zadd("z", {"m": 1}); await client.xadd("s", {"f": 1})
    await client.rpush("l", 1); await client.sadd("t", 1); await client.execute("PFADD", "p", 1)
    await client.execute("GEOADD", "g", 1, 2, "m"); await client.execute("SORT", "l")
    script = redis_core.script.Script("x", "return cjson.encode({cmsgpack.pack(1), redis.call('GET', KEYS[1])})")
    await client.run(script, ["a"])
    async with await client.subscribe("c", patterns=["c*"]) as feed:
        await client.publish("c", "x")
        await anext(feed)
    async with client.transaction() as batch:
        batch.incr("a")
    await client.execute("BLPOP", "l", 1)
    await client.info("everything"); await client.scan(match="*")
    try:
        await client.incr("h")
    except redis_core.errors.WrongType:
        print("done")

asyncio.run(main())
"""


def test_nothing_is_loaded_at_the_moment_of_failure() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
