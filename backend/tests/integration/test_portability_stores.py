"""What was moved from store to store is of use where it arrives: people are logged in, jobs run, documents go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redis_core.audit import Actor, AuditLog
from redis_core.cache import CacheRegion
from redis_core.client import Client, connect
from redis_core.config import load_settings
from redis_core.errors import TargetNotEmpty, TransferError, TransferUnverified
from redis_core.keys import metrics_key, queue_key
from redis_core.measuring.batch import Batch, Slow, Usage, decode_batch, encode_batch
from redis_core.portability import Portability
from redis_core.pubsub import Gap
from redis_core.queue import Backoff, JobContext, QueueControl, Retry, task
from redis_core.queueing.control import QueueControl as Control
from redis_core.resilience.epoch import EPOCH_KEY
from redis_core.session import Sessions
from redis_core.transfer.selection import keys_of
from redis_core.transport.memory import MockRedisClient
from redis_core.worker import Worker
from tests.contract.rest import rest_client, running_gateway
from tests.session_world import PEPPERS, load

WITHIN = 20.0
PROFILE = CacheRegion("profile", str)
ran: list[str] = []


@task
async def note(word: str) -> str:
    ran.append(word)
    return word


@task(retries=Retry(1, backoff=Backoff(base=0.0)))
async def fails(word: str) -> None:
    raise ValueError(word)


@task
async def hangs(ctx: JobContext) -> int:
    ran.append(f"hangs {ctx.run}")
    if ctx.run == 1:
        await asyncio.sleep(WITHIN)
    return ctx.run


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


@pytest.fixture(scope="module")
def gateway(valkey_socket: str) -> Iterator[str]:
    with running_gateway(valkey_socket) as url:
        yield url


@pytest.fixture
async def rest(gateway: str) -> AsyncIterator[Client]:
    async with await rest_client(gateway) as client:
        await client.flushdb()
        yield client


def portability(client: Client) -> Portability:
    return Portability(client, Actor("test", "admin"))


def sessions(client: Client) -> Sessions[Any]:
    return Sessions(client, PEPPERS)


@asynccontextmanager
async def working(client: Client) -> AsyncIterator[Worker]:
    worker = Worker(client, [note, fails, hangs])
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(running, WITHIN)


async def until(what: Any) -> None:
    async with asyncio.timeout(WITHIN):
        while not what():
            await asyncio.sleep(0.005)


async def keys_in(client: Client, workspace: str) -> set[str]:
    return {key async for key in keys_of(client, workspace)}


async def test_a_tenant_moves_from_upstash_to_redis_to_memory(
    rest: Client, redis7: Client, memory: Client, tmp_path: Path
) -> None:
    acme = rest.workspace("acme")
    await QueueControl(rest).pause("default")
    first = await acme.queue.enqueue(note, "first")
    after = await acme.queue.enqueue(note, "after", depends_on=[first])
    await acme.queue.enqueue(note, "after that", depends_on=[after, first])
    await acme.queue.enqueue(note, "urgent", priority=2)
    once = await acme.queue.enqueue(note, "once", unique_key="k")
    later = await acme.queue.enqueue(note, "later", delay=600)
    await rest.workspace("other").queue.enqueue(note, "another tenant's")
    _, token = await sessions(rest).create("u1", "acme", {"cart": [1]})
    _, revoked = await sessions(rest).create("u2", "acme")
    await sessions(rest).revoke_user("u2", "acme")
    await acme.state("doc").set({"title": "Plan"})
    seen = await acme.topic("news").publish({"n": 1})
    await acme.topic("news").publish({"n": 2})
    await acme.cache.set(PROFILE, "1", "cached")
    await portability(rest).export("acme", tmp_path / "1")

    await portability(redis7).import_(tmp_path / "1")
    await portability(redis7).export("acme", tmp_path / "2")
    done = await portability(memory).import_(tmp_path / "2")
    assert (done.jobs, done.refused) == (6, 0)

    moved = memory.workspace("acme")
    assert (await load(sessions(memory), token)).data == {"cart": [1]}
    assert await sessions(memory).get(revoked) is None
    assert (await moved.state("doc").get())[1] == {"title": "Plan"}
    assert (await moved.state("doc").patch({"more": 1})).offset == 2
    # Another epoch than before: who has seen updates that the file has not must not take later ones for them.
    heard = [item async for item in _first(moved.topic("news").listen(after=seen), 1)]
    assert isinstance(heard[0], Gap)
    assert (await moved.topic("news").publish({"n": 3})).offset == 3
    again = await moved.queue.enqueue(note, "once", unique_key="k")
    assert again.id == once.id
    assert (await moved.queue.job("default", later.id).status()).state == "delayed"
    async with working(memory):
        await until(lambda: len(ran) == 5)
    assert ran[0] == "urgent"
    assert ran.index("first") < ran.index("after") < ran.index("after that")
    assert await moved.queue.depth("default") == 1
    assert await keys_in(memory, "other") == set()


async def _first(items: Any, count: int) -> AsyncIterator[Any]:
    async with asyncio.timeout(WITHIN):
        async for item in items:
            yield item
            count -= 1
            if not count:
                return


async def test_a_job_that_runs_is_moved_as_one_that_waits(
    valkey: Client, memory: Client, tmp_path: Path
) -> None:
    await valkey.workspace("acme").queue.enqueue(hangs)
    async with working(valkey):
        await until(lambda: ran == ["hangs 1"])
        await portability(valkey).export("acme", tmp_path / "f")
        await portability(valkey).erase("acme")
    assert await keys_in(valkey, "acme") == set()
    await portability(memory).import_(tmp_path / "f")
    async with working(memory):
        await until(lambda: ran == ["hangs 1", "hangs 2"])


async def test_dead_letters_limits_and_pauses_move_too(
    valkey: Client, memory: Client, tmp_path: Path
) -> None:
    acme = valkey.workspace("acme")
    job = await acme.queue.enqueue(fails, "broken")
    async with working(valkey), asyncio.timeout(WITHIN):
        while not await acme.queue.dead("default"):
            await asyncio.sleep(0.01)
    await acme.queue.limit("default", running=3, weight=2.0)
    await acme.queue.pause("default")
    await portability(valkey).export("acme", tmp_path / "f")
    await portability(memory).import_(tmp_path / "f")
    moved = memory.workspace("acme").queue
    assert [dead.id for dead in await moved.dead("default")] == [job.id]
    limits = queue_key("queue-limits", "default")
    assert await memory.hget(limits, "acme") == await valkey.hget(limits, "acme")
    assert await moved.redrive("default") == 1


async def test_an_erased_tenant_is_named_nowhere_but_in_the_audit_log(valkey: Client) -> None:
    for workspace in ("acme", "acme2", "zacme"):
        handle = valkey.workspace(workspace)
        first = await handle.queue.enqueue(note, "a")
        await handle.queue.enqueue(note, "b", depends_on=[first], unique_key="u")
        await handle.queue.enqueue(note, "c", delay=60)
        await handle.queue.limit("default", running=1)
        await handle.cache.set(PROFILE, "secret-name", "v")
        await handle.cache.delete("profile", "secret-name")
        await sessions(valkey).create("u1", workspace)
        await handle.topic("t").publish(1)
        async with handle.lock("l"):
            pass
    erased = await portability(valkey).erase("acme")
    assert erased.left == 0
    assert erased.keys > 0
    assert await keys_in(valkey, "acme") == set()
    entries = (await AuditLog(valkey).page()).entries
    assert (entries[0].action, entries[0].target, entries[0].after) == (
        "workspace.erase", "acme", {"keys": erased.keys, "names": erased.names, "left": 0},
    )  # fmt: skip
    assert len(entries) == 2, "that it began is written down before"
    named = []
    async for key in _all(valkey):
        kind = await valkey.type(key)
        if kind == "hash":
            found: Any = [word for item in (await valkey.hgetall(key)).items() for word in item]
        elif kind == "zset":
            found = await valkey.zrange(key, 0, -1)
        elif kind == "list":
            found = await valkey.lrange(key, 0, -1)
        elif kind == "stream":
            found = [value for _, fields in await valkey.xrange(key) for value in fields.values()]
        else:
            found = [await valkey.get(key)]
        words = [word for word in found if b"acme" in word.replace(b"acme2", b"").replace(b"zacme", b"")]
        if words and key != b"sys:audit":
            named.append((key, words))
    assert [key for key, _ in named] == [b"sys:cache-bus"], "the flush that processes have yet to hear of"
    assert b"secret-name" not in named[0][1][0]
    for other in ("acme2", "zacme"):
        assert await valkey.workspace(other).queue.depth("default") == 3
        assert await keys_in(valkey, other)
    async with working(valkey):
        await until(lambda: sorted(ran) == ["a", "a", "b", "b"])


async def _all(client: Client) -> AsyncIterator[bytes]:
    from redis_core.commands import scan_iter

    async for key in scan_iter(client):
        yield key


async def test_jobs_that_a_paused_task_holds_back_are_moved_and_erased(
    valkey: Client, memory: Client, tmp_path: Path
) -> None:
    await QueueControl(valkey).pause_task(note)
    held = queue_key("queue-held", "default", note.name)
    for workspace in ("acme", "acme", "beta"):
        await valkey.workspace(workspace).queue.enqueue(note, workspace)
    async with working(valkey), asyncio.timeout(WITHIN):
        while await valkey.llen(held) < 3:
            await asyncio.sleep(0.01)
    await portability(valkey).export("acme", tmp_path / "f")
    await portability(valkey).erase("acme")
    assert [each.partition(b":")[0] for each in await valkey.lrange(held, 0, -1)] == [b"beta"]
    await portability(memory).import_(tmp_path / "f")
    async with working(memory):
        await until(lambda: ran == ["acme", "acme"])
    await QueueControl(valkey).resume_task(note)
    async with working(valkey):
        await until(lambda: ran == ["acme", "acme", "beta"])


async def test_erasing_under_a_writer_that_does_not_stop_is_told(valkey: Client) -> None:
    workspace = valkey.workspace("acme")

    async def write() -> None:
        number = 0
        while True:
            number += 1
            await valkey.set(workspace.keys.key("app", f"n{number}"), "1")

    writer = asyncio.create_task(write())
    try:
        with pytest.raises(TransferUnverified, match="somebody writes for it"):
            await portability(valkey).erase("acme")
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    assert (await portability(valkey).erase("acme")).left == 0


async def test_a_backup_of_all_tenants_is_restored_elsewhere(
    valkey: Client, redis7: Client, memory: Client, tmp_path: Path
) -> None:
    tokens = {}
    for workspace in ("acme", "beta"):
        handle = valkey.workspace(workspace)
        _, tokens[workspace] = await sessions(valkey).create("u1", workspace, {"of": workspace})
        await handle.queue.enqueue(note, workspace)
        await handle.cache.set(PROFILE, "1", "v")
    await Control(valkey).limit("default", running=7)
    await valkey.set("somebody-elses", "1")
    await valkey.set("rate:u1:/api", "1")
    await valkey.set(EPOCH_KEY, "before")
    backup = await portability(valkey).backup(tmp_path / "b")
    assert backup.jobs == 2
    assert "cache" not in backup.keys
    assert "rate" not in backup.keys
    whole = await portability(valkey).backup(tmp_path / "all", everything=True)
    assert whole.keys["cache"] == {"string": 2}
    assert whole.keys["foreign"] == {"string": 1}

    await redis7.set(EPOCH_KEY, "of the other store")
    await redis7.set("not-ours", "stays")
    restored = await portability(redis7).restore(tmp_path / "b")
    assert (restored.jobs, restored.refused) == (2, 0)
    for workspace, token in tokens.items():
        assert (await load(sessions(redis7), token)).data == {"of": workspace}
    assert await redis7.get(EPOCH_KEY) not in {None, b"before", b"of the other store"}
    with pytest.raises(TargetNotEmpty, match="the store is not empty"):
        await portability(redis7).restore(tmp_path / "b")
    await redis7.set(redis7.workspace("gamma").keys.key("app", "new"), "1")
    await portability(redis7).restore(tmp_path / "b", replace=True)
    assert await keys_in(redis7, "gamma") == set()
    assert await redis7.get("not-ours") == b"stays"
    assert len((await AuditLog(redis7).page()).entries) == 2, "the audit log is not replaced"

    await portability(memory).restore(tmp_path / "b")
    async with working(memory):
        await until(lambda: sorted(ran) == ["acme", "beta"])


async def test_cached_values_are_hits_where_they_are_carried(
    valkey: Client, redis7: Client, tmp_path: Path
) -> None:
    for client in (valkey, redis7):
        await client.workspace("acme").cache.set(PROFILE, "1", f"of {client is valkey}")
    await portability(valkey).export("acme", tmp_path / "f", everything=True)
    assert (await redis7.workspace("acme").cache.get(PROFILE, "1")) == "of False"
    await portability(redis7).import_(tmp_path / "f", replace=True)
    assert (await redis7.workspace("acme").cache.get(PROFILE, "1")) == "of True"


async def test_a_family_can_be_left_out(valkey: Client, memory: Client, tmp_path: Path) -> None:
    acme = valkey.workspace("acme")
    _, token = await sessions(valkey).create("u1", "acme")
    await acme.queue.enqueue(note, "a")
    await acme.state("doc").set(1)
    without = ["session", "session-index", "job"]
    exported = await portability(valkey).export("acme", tmp_path / "f", without=without)
    assert (exported.jobs, sorted(exported.keys)) == (0, ["bus", "topic", "topic-meta"])
    await portability(memory).import_(tmp_path / "f")
    assert await sessions(memory).get(token) is None
    assert (await memory.workspace("acme").state("doc").get())[1] == 1


async def test_values_that_are_too_large_for_one_reply_come_in_several(gateway: str, tmp_path: Path) -> None:
    settings = load_settings(
        upstash_redis_url=gateway, upstash_redis_token="contract", redis_max_reply_bytes=1_000_000,
        redis_command_timeout=20, redis_connect_timeout=20,
    )  # fmt: skip
    async with await connect(settings) as rest:
        await rest.flushdb()
        name = rest.workspace("acme").keys.key
        for number in range(30):
            await rest.set(name("app", f"k{number}"), b"v" * 150_000)
        exported = await portability(rest).export("acme", tmp_path / "f")
        assert exported.bytes > 30 * 150_000
        await portability(rest).erase("acme")
        assert (await portability(rest).import_(tmp_path / "f")).verified


async def test_a_rollback_does_not_undo_that_sessions_were_ended(valkey: Client, tmp_path: Path) -> None:
    _, token = await sessions(valkey).create("u1", "acme")
    _, other = await sessions(valkey).create("u2", "acme")
    await portability(valkey).backup(tmp_path / "b")
    await sessions(valkey).revoke_user("u1")
    await sessions(valkey).revoke_workspace("acme")
    restored = await portability(valkey).restore(tmp_path / "b", replace=True)
    assert restored.verified
    assert await sessions(valkey).get(token) is None
    assert await sessions(valkey).get(other) is None


async def test_the_file_says_what_it_is_for(memory: Client, tmp_path: Path) -> None:
    await memory.set(memory.workspace("acme").keys.key("app", "a"), "1")
    await portability(memory).export("acme", tmp_path / "one")
    await portability(memory).backup(tmp_path / "all")
    with pytest.raises(TransferError, match="raptorflow restore"):
        await portability(memory).import_(tmp_path / "all")
    with pytest.raises(TransferError, match="raptorflow workspace import"):
        await portability(memory).restore(tmp_path / "one")
    with pytest.raises(TransferError, match="there is no family 'sesion'"):
        await portability(memory).export("acme", tmp_path / "f", without=["sesion"])


async def test_what_has_expired_meanwhile_is_left_out(memory: Client, tmp_path: Path) -> None:
    name = memory.workspace("acme").keys.key
    await memory.set(name("app", "short"), "1", px=20)
    await memory.hset(name("app", "kept"), {"a": "1"})
    await memory.execute("XADD", name("app", "stream"), "1-1", "a", "1")
    await memory.pexpire(name("app", "stream"), 20)
    await portability(memory).export("acme", tmp_path / "f")
    while await memory.exists(name("app", "short"), name("app", "stream")):
        await asyncio.sleep(0.01)
    done = await portability(memory).import_(tmp_path / "f", replace=True)
    assert done.left.get("expired", 0) == done_expired(tmp_path / "f")
    assert await keys_in(memory, "acme") == {name("app", "kept"), name("gen")}


def done_expired(path: Path) -> int:
    """Keys of a file that had an expiry."""
    from redis_core.transfer.format import FileReader
    from redis_core.transfer.records import Piece

    return sum(
        isinstance(record, Piece) and bool(record.expires)
        for _, records in FileReader(path).frames()
        for record in records
    )


async def test_what_was_measured_does_not_name_an_erased_tenant(memory: Client) -> None:
    usage = {"acme": Usage(1), "beta": Usage(2)}
    slow = [Slow(1.0, 5.0, "GET", "app", "acme"), Slow(2.0, 5.0, "GET", "app", "beta")]
    refused = {"ws:{acme}:rate:/api": 3, "rate:u1:/api": 4}
    key = metrics_key("minutes", 1_800_000_000)
    await memory.hset(key, {"p1": encode_batch(Batch(workspaces=usage, slow=slow, refused=refused))})
    await memory.hset(key, {"p2": encode_batch(Batch(counters={"n": 1.0}))})
    await memory.hset(key, {"p3": b"of another version: acme"})
    assert (await portability(memory).erase("acme")).names == 2
    assert (await memory.hgetall(key)).keys() == {b"p1", b"p2"}
    left = decode_batch((await memory.hgetall(key))[b"p1"])
    assert list(left.workspaces) == ["beta"]
    assert [call.workspace for call in left.slow] == ["beta"]
    assert left.refused == {"rate:u1:/api": 4}


async def test_a_fleet_of_another_number_of_shards_takes_the_jobs(tmp_path: Path) -> None:
    def store(shards: int) -> Client:
        return Client(MockRedisClient(), load_settings(mock_redis=True, queue_shards={"default": shards}))

    async with store(4) as many, store(1) as one:
        for workspace in ("w1", "w2", "w3", "w4", "w5"):
            await many.workspace(workspace).queue.enqueue(note, workspace)
            broken = await many.workspace(workspace).queue.enqueue(fails, workspace)
            await many.workspace(workspace).queue.pause("default")
        async with working(many):
            await many.workspace("w1").queue.resume("default")
            await until(lambda: ran == ["w1"])
            async with asyncio.timeout(WITHIN):
                while not await many.workspace("w1").queue.dead("default"):
                    await asyncio.sleep(0.01)
        await portability(many).backup(tmp_path / "b")
        await portability(one).restore(tmp_path / "b")
        assert [job.task for job in await one.workspace("w1").queue.dead("default")] == [fails.name]
        for workspace in ("w2", "w3", "w4", "w5"):
            assert await one.workspace(workspace).queue.depth("default") == 2
            await one.workspace(workspace).queue.resume("default")
        assert (await one.workspace("w5").queue.job("default", broken.id).status()).state == "waiting"
        async with working(one):
            await until(lambda: sorted(ran) == ["w1", "w2", "w3", "w4", "w5"])


async def test_what_another_writes_meanwhile_is_found(valkey: Client, tmp_path: Path) -> None:
    name = valkey.workspace("acme").keys.key
    for number in range(3):
        await valkey.rpush(name("app", f"list{number}"), "a", "b")
    await portability(valkey).export("acme", tmp_path / "f")
    await portability(valkey).erase("acme")

    async def meddle() -> None:
        while True:
            # Only once the import has made it.
            await valkey.execute("RPUSHX", name("app", "list1"), "c")

    meddling = asyncio.create_task(meddle())
    try:
        with pytest.raises(TransferUnverified, match="1 keys are not as .* such as ws:{acme}:app:list1"):
            await portability(valkey).import_(tmp_path / "f")
    finally:
        meddling.cancel()
        await asyncio.gather(meddling, return_exceptions=True)
    done = await portability(valkey).import_(tmp_path / "f", replace=True)
    assert (done.keys, done.resumed) == (3, False)


async def test_an_import_costs_five_commands_a_key(valkey: Client, tmp_path: Path) -> None:
    name = valkey.workspace("acme").keys.key
    for number in range(300):
        await valkey.hset(name("app", f"k{number}"), {"a": "1"})
    await portability(valkey).export("acme", tmp_path / "f")
    await portability(valkey).erase("acme")
    before = valkey.stats.commands, valkey.stats.trips
    await portability(valkey).import_(tmp_path / "f")
    commands, trips = valkey.stats.commands - before[0], valkey.stats.trips - before[1]
    # For 300 keys DEL, HSET, and a read, HLEN and PTTL to look.
    assert 1500 <= commands <= 1500 + 25
    assert trips <= 25


async def test_an_export_costs_three_commands_a_key(valkey: Client, tmp_path: Path) -> None:
    name = valkey.workspace("acme").keys.key
    for number in range(300):
        await valkey.set(name("app", f"k{number}"), "v")
    before = valkey.stats.commands, valkey.stats.trips
    await portability(valkey).export("acme", tmp_path / "f")
    commands, trips = valkey.stats.commands - before[0], valkey.stats.trips - before[1]
    # For 300 keys 900; for each 100 keys TIME; one SCAN for keys and one for queues; the audit's.
    assert commands == 900 + 3 + 1 + 1 + 1
    assert trips <= 2 * 3 + 3
