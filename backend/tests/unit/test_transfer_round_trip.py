"""Whatever a workspace holds arrives as it was, wherever a run before was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_core.audit import Actor
from redis_core.client import Client
from redis_core.errors import StoreReadOnly, TransferError
from redis_core.portability import Portability
from redis_core.transfer import format as file_format
from redis_core.transfer import reading
from redis_core.transfer.batches import send
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient

WORDS = st.binary(max_size=6)
SEVERAL = st.lists(WORDS, min_size=1, max_size=9)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=9)
SCORES = st.lists(st.tuples(st.floats(allow_nan=False), WORDS), min_size=1, max_size=9)
COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("SET"), WORDS.map(lambda word: (word,))),
        st.tuples(st.just("RPUSH"), SEVERAL),
        st.tuples(st.just("SADD"), SEVERAL),
        st.tuples(st.just("HSET"), PAIRS.map(lambda pairs: [word for pair in pairs for word in pair])),
        st.tuples(st.just("ZADD"), SCORES.map(lambda pairs: [word for pair in pairs for word in pair])),
        st.tuples(st.just("XADD"), st.tuples(st.just("*"), WORDS, WORDS)),
    ),
    max_size=12,
)


class Cut(MockRedisClient):
    """Memory that takes nothing after some batches, until it does again. An error that is not asked again costs the test no wait."""

    left = 1_000_000

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self.left -= 1
        if self.left < 0:
            raise StoreReadOnly("the store takes nothing for now")
        return await super().execute(batch, timeout=timeout)


async def everything(client: Client) -> dict[str, object]:
    found: dict[str, object] = {}
    reply = await client.execute("KEYS", "ws:{acme}:app:*")
    assert isinstance(reply, list)
    for key in reply:
        assert isinstance(key, bytes)
        kind = await client.type(key)
        value: object
        match kind:
            case "string":
                value = await client.get(key)
            case "list":
                value = await client.lrange(key, 0, -1)
            case "set":
                value = await client.smembers(key)
            case "hash":
                value = await client.hgetall(key)
            case "zset":
                value = await client.zrange_with_scores(key, 0, -1)
            case _:
                value = await client.xrange(key)
        found[key.decode()] = (kind, value, await client.pttl(key) > 0)
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    commands=COMMANDS,
    expires=st.lists(st.booleans(), min_size=12, max_size=12),
    cuts=st.lists(st.integers(2, 40), max_size=4),
)
async def test_it_arrives_as_it_was(
    tmp_path: Path, commands: list[tuple[str, list[bytes]]], expires: list[bool], cuts: list[int]
) -> None:
    async with Client(MockRedisClient()) as source:
        for number, (verb, words) in enumerate(commands):
            key = source.workspace("acme").keys.key("app", f"{number}")
            await send(source, [(verb, key, *words)])
            if expires[number]:
                await source.expire(key, 1000)
        page, frame = reading.PAGE, file_format.FRAME_BYTES
        # Small enough for several pages a key, and several frames.
        reading.PAGE, file_format.FRAME_BYTES = 2, 40  # type: ignore[misc]
        try:
            await Portability(source, Actor("test", "admin")).export("acme", tmp_path / "f")
        finally:
            reading.PAGE, file_format.FRAME_BYTES = page, frame  # type: ignore[misc]
        before = await everything(source)
    store = Cut()
    async with Client(store) as target:
        for cut in cuts:
            store.left = cut
            try:
                await Portability(target, Actor("test", "admin")).import_(tmp_path / "f")
            except StoreReadOnly:
                continue
            except TransferError:
                # It was through at the last time, all but for a word of it.
                break
            break
        store.left = 1_000_000
        if await everything(target) != before or not cuts:
            await Portability(target, Actor("test", "admin")).import_(tmp_path / "f")
        assert await everything(target) == before


class Changing(MockRedisClient):
    """Memory in which something happens between what a key is and what it holds."""

    between: Sequence[Command] = ()

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        replies = await super().execute(batch, timeout=timeout)
        if any(command[0] == "TYPE" for command in batch):
            happens, self.between = self.between, ()
            await super().execute(happens)
        return replies


async def test_keys_that_go_or_change_while_they_are_read_are_no_error(tmp_path: Path) -> None:
    store = Changing()
    async with Client(store) as client:
        name = client.workspace("acme").keys.key
        await send(
            client,
            [
                ("SET", name("app", "string"), "1"),
                ("SET", name("app", "empty"), ""),
                ("HSET", name("app", "hash"), "a", "1"),
                ("XADD", name("app", "stream"), "1-1", "a", "1"),
                ("RPUSH", name("app", "changes"), "a"),
                ("SET", name("app", "ends"), "1", "EX", 100),
            ],
        )
        gone = [name("app", each) for each in ("string", "hash", "stream", "changes", "ends")]
        store.between = [("DEL", *gone), ("SADD", name("app", "changes"), "b")]
        exported = await Portability(client, Actor("test", "admin")).export("acme", tmp_path / "f")
        assert exported.keys == {"app": {"string": 1, "set": 1}}
        before = await everything(client)
        done = await Portability(client, Actor("test", "admin")).import_(tmp_path / "f", replace=True)
        assert done.keys == 2
        assert await everything(client) == before
