"""A workspace goes into a file and comes back as it was, on every store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redis_core.audit import Actor
from redis_core.client import Client
from redis_core.errors import TargetNotEmpty, TransferError
from redis_core.portability import Portability
from redis_core.queue import JobContext, Task, task
from redis_core.transfer.batches import send
from redis_core.transfer.format import FileReader
from redis_core.transfer.reading import PAGE, STRING_PAGE, read_keys
from redis_core.transfer.selection import bytes_of, keys_of
from redis_core.worker import Worker

LARGE = PAGE * 3 + 7
FAR = 4_000_000_000_000
"""Unix milliseconds, far away."""


def portability(client: Client) -> Portability:
    return Portability(client, Actor("test", "admin"))


async def fill(client: Client, workspace: str = "acme") -> None:
    """Keys of all types: empty, binary, of one page and of several, with an expiry and without."""
    name = client.workspace(workspace).keys.key
    raw = bytes(range(256))
    await send(
        client,
        [
            ("SET", name("app", "text"), raw),
            ("SET", name("app", "empty"), b""),
            ("SET", name("app").encode() + b":\xff\xfe", b"a key that is no text"),
            ("SET", name("app", "long"), raw * (STRING_PAGE // 256 * 2 + 3), "PXAT", FAR),
            ("HSET", name("app", "hash"), raw, raw, b"", b""),
            ("HSET", name("app", "large-hash"), *(w for i in range(LARGE) for w in (f"f{i}", f"v{i}"))),
            ("RPUSH", name("app", "list"), b"b", raw, b"a", b"b", b""),
            ("RPUSH", name("app", "large-list"), *(f"{i % 7}" for i in range(LARGE))),
            ("SADD", name("app", "set"), raw, b""),
            ("SADD", name("app", "large-set"), *(f"m{i}" for i in range(LARGE))),
            ("ZADD", name("app", "zset"), "-inf", raw, "inf", b"up", "0.1", b"", "1e300", b"high"),
            ("ZADD", name("app", "large-zset"), *(w for i in range(LARGE) for w in (i / 3, f"m{i}"))),
            ("XADD", name("app", "stream"), "5-1", raw, raw, "b", "2"),
            ("XADD", name("app", "stream"), "5-2", "c", ""),
            ("XADD", name("app", "stream"), "9-0", "gone", "1"),
            ("XDEL", name("app", "stream"), "9-0"),
            *(("XADD", name("app", "large-stream"), f"{i + 1}-0", "n", i) for i in range(LARGE)),
            ("PEXPIREAT", name("app", "zset"), FAR),
            ("PEXPIREAT", name("app", "large-stream"), FAR),
            ("XGROUP", "CREATE", name("app", "stream"), "workers", "0"),
            ("XREADGROUP", "GROUP", "workers", "one", "COUNT", 1, "STREAMS", name("app", "stream"), ">"),
            ("XGROUP", "CREATE", name("app", "no-entry"), "workers", "0", "MKSTREAM"),
        ],
    )


async def content(client: Client, workspace: str) -> list[object]:
    """Everything of a workspace's keys, without their prefix; what is unordered sorted, expiries to 10 seconds."""
    found: list[object] = []
    for key in sorted({key async for key in keys_of(client, workspace)}):
        kind = ""
        async for record in read_keys(client, [bytes_of(key)]):
            rows = getattr(record, "rows", None)
            kind = getattr(record, "type", kind)
            one = (
                key.partition("}:")[2], type(record).__name__, kind, round(record.expires, -4),
                rows if kind not in {"set", "hash"} else [],
                [(p[0], p[1], p[3]) for p in getattr(record, "pending", [])],
                getattr(record, "last_id", b""),
            )  # fmt: skip
            # Into how many pieces a scan cuts what is unordered is up to the server.
            if one not in found[-1:]:
                found.append(one)
        if kind == "hash":
            found.append((key.partition("}:")[2], sorted((await client.hgetall(key)).items())))
        if kind == "set":
            found.append((key.partition("}:")[2], sorted(await client.smembers(key))))
    return found


async def test_all_types_come_back_as_they_were(client: Client, tmp_path: Path) -> None:
    await fill(client)
    await fill(client, "other")
    before, others = await content(client, "acme"), await content(client, "other")
    exported = await portability(client).export("acme", tmp_path / "acme.rft")
    assert exported.keys["app"] == {"string": 4, "hash": 2, "list": 2, "set": 2, "zset": 2, "stream": 3}
    erased = await portability(client).erase("acme")
    assert (erased.keys, erased.left) == (16, 0)  # the flush of the cache made one more
    assert [key async for key in keys_of(client, "acme")] == []
    imported = await portability(client).import_(tmp_path / "acme.rft")
    assert (imported.keys, imported.left, imported.verified) == (15, {}, True)
    await client.unlink(client.workspace("acme").keys.key("gen"))
    assert await content(client, "acme") == before
    assert await content(client, "other") == others


async def test_a_workspace_that_is_there_is_not_written_over(client: Client, tmp_path: Path) -> None:
    await fill(client)
    await portability(client).export("acme", tmp_path / "f")
    await client.set(client.workspace("acme").keys.key("app", "later"), "1")
    before = await content(client, "acme")
    with pytest.raises(TargetNotEmpty, match="--replace"):
        await portability(client).import_(tmp_path / "f")
    assert await content(client, "acme") == before
    await portability(client).import_(tmp_path / "f", replace=True)
    await client.unlink(client.workspace("acme").keys.key("gen"))
    assert await content(client, "acme") == [each for each in before if each[0] != "app:later"]  # type: ignore[index]


async def test_it_goes_under_another_id(client: Client, tmp_path: Path) -> None:
    await fill(client)
    before = await content(client, "acme")
    await client.hset(client.workspace("acme").keys.key("session", "mac"), {"a": "1"})
    await portability(client).export("acme", tmp_path / "f")
    imported = await portability(client).import_(tmp_path / "f", workspace="new")
    assert imported.left == {"named": 1}, (
        "a session is of use only under the id that its token has under its MAC"
    )
    await client.unlink(client.workspace("new").keys.key("gen"))
    assert await content(client, "new") == before
    await client.set(client.workspace("acme").keys.key("app", "pointer"), "see ws:{acme}:app:text")
    await portability(client).export("acme", tmp_path / "g")
    with pytest.raises(TransferError, match="only be imported under that id"):
        await portability(client).import_(tmp_path / "g", workspace="third")
    assert [key async for key in keys_of(client, "third")] == []


@task(name="portable.long")
async def long_text(letter: str) -> str:
    return letter * (STRING_PAGE * 2 + 5)


@task(name="portable.gathers", result_ttl=600)
async def gathers(ctx: JobContext) -> int:
    texts = await ctx.gather(await ctx.spawn(long_text.call("g")))
    await ctx.wait_for("go")
    return len(texts[0])


@pytest.mark.parametrize("name", ["n", "a-name-that-is-longer"])
async def test_results_go_with_their_jobs_under_another_id(client: Client, tmp_path: Path, name: str) -> None:
    tasks: list[Task[..., Any]] = [long_text, gathers]
    acme = client.workspace("acme").queue
    done = await acme.enqueue(long_text, "x")
    waits = await acme.enqueue(gathers)
    await Worker(client, tasks).drain()
    assert (await waits.status()).state != "done"
    await portability(client).export("acme", tmp_path / "f")
    await portability(client).erase("acme")
    assert (await portability(client).import_(tmp_path / "f", workspace=name)).verified
    there = client.workspace(name).queue
    assert await there.job("default", done.id, str).result(10) == "x" * (STRING_PAGE * 2 + 5)
    moved = there.job("default", waits.id, int)
    await moved.signal("go", 1)
    await Worker(client, tasks).drain()
    assert await moved.result(10) == STRING_PAGE * 2 + 5


async def test_a_frame_that_is_written_twice_is_as_if_written_once(client: Client, tmp_path: Path) -> None:
    await fill(client)
    before = await content(client, "acme")
    await portability(client).export("acme", tmp_path / "f")
    reader = FileReader(tmp_path / "f")
    from redis_core.transfer.records import Group, Piece, Tail
    from redis_core.transfer.writing import Writing

    for _, records in reader.frames():
        for _ in range(2):
            writing = Writing(client)
            for record in records:
                if isinstance(record, Piece | Tail | Group):
                    await writing.add(record)
            await writing.flush()
    assert await content(client, "acme") == before
