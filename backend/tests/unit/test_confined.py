"""The guard: no command that leaves through a workspace's handle touches a key of another."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.commands import Commands
from redis_core.errors import IsolationError
from redis_core.key_positions import KEYLESS, ONE_KEY, ONLY_KEYS
from redis_core.keys import WorkspaceKeys, queue_key, workspace_of
from redis_core.script import Script
from redis_core.transport.memory import MockRedisClient

MINE = WorkspaceKeys("acme").key("app", "plan")
THEIRS = WorkspaceKeys("globex").key("app", "plan")

LEAVES: list[tuple[Any, ...]] = [
    ("GET", THEIRS),
    ("get", THEIRS),
    (b"GET", THEIRS.encode()),
    ("MGET", MINE, THEIRS),
    ("MGET", MINE.encode(), THEIRS.encode()),
    ("MSET", MINE, "1", THEIRS, "2"),
    ("RENAME", MINE, THEIRS),
    ("COPY", THEIRS, MINE),
    ("BITOP", "OR", MINE, THEIRS),
    ("SINTERSTORE", MINE, MINE, THEIRS),
    ("ZUNIONSTORE", MINE, 2, MINE, THEIRS),
    ("ZUNIONSTORE", THEIRS, 1, MINE),
    ("SINTERCARD", 2, MINE, THEIRS),
    ("XREAD", "COUNT", 1, "STREAMS", MINE, THEIRS, "0", "0"),
    ("XREADGROUP", "GROUP", "STREAMS", "c", "STREAMS", THEIRS, ">"),
    ("OBJECT", "ENCODING", THEIRS),
    ("MEMORY", "USAGE", THEIRS),
    ("EVAL", "return 1", 2, MINE, THEIRS),
    ("EVALSHA", "0" * 40, 1, THEIRS),
    ("PUBLISH", THEIRS, "x"),
    ("PUBLISH", "sys:bus:1", "x"),
    ("SET", "sys:epoch", "1"),
    ("SET", "rate:u1:/api", "1"),
    ("SET", "plain", "1"),
    ("SET", "ws:{acme}x:app", "1"),
    ("SET", "ws:{acme-2}:app:plan", "1"),
    ("SET", " " + MINE, "1"),
    ("SET", 5, "1"),
    ("HGETALL", queue_key("job", "agents", "globex", "j1")),
    ("HGETALL", queue_key("queue-jobs", "agents")),
]
"""Commands that touch what is not acme's."""

UNKNOWN: list[tuple[Any, ...]] = [
    (),
    ("GET",),
    ("MGET",),
    ("DEL",),
    ("SCAN", 0),
    ("KEYS", "*"),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("FLUSHDB",),
    ("FLUSHALL",),
    ("INFO",),
    ("SELECT", 1),
    ("MULTI",),
    ("SUBSCRIBE", MINE),
    ("CONFIG", "GET", "*"),
    ("SCRIPT", "FLUSH"),
    ("CLIENT", "LIST"),
    ("SORT", MINE, "BY", "*->n", "GET", "ws:{globex}:*"),
    ("MIGRATE", "host", 1, MINE, 0, 1),
    ("EVAL", "return redis.call('get', ARGV[1])", 0, THEIRS),
    ("EVAL", "return 1", "many", MINE),
    ("EVAL", "return 1", 9, MINE),
    ("ZUNION", -1, MINE),
    ("XREAD", "STREAMS", MINE),
    ("OBJECT", "HELP"),
    ("SOMETHING.NEW", MINE),
]
"""Commands of which nobody can tell what they touch, or that touch everybody's."""

STAYS: list[tuple[Any, ...]] = [
    ("SET", MINE, THEIRS),
    ("set", MINE.encode(), "1"),
    ("MGET", MINE, MINE),
    ("MSET", MINE, THEIRS),
    ("EXISTS", MINE.encode()),
    ("ECHO", THEIRS),
    ("PING",),
    ("TIME",),
    ("XREAD", "STREAMS", MINE + "-stream", "0"),
    ("PUBLISH", MINE, THEIRS),
    ("HGETALL", queue_key("job", "agents", "acme", "j1")),
]
"""Commands of acme's: a value may say what it likes."""


def shown(command: tuple[Any, ...]) -> str:
    return " ".join(map(str, command)) or "nothing"


def trips(client: Client) -> int:
    return client.stats.trips


@pytest.mark.parametrize(
    "command", LEAVES + UNKNOWN, ids=lambda command: " ".join(map(str, command)) or "nothing"
)
async def test_a_command_that_would_leave_the_workspace_is_not_sent(
    memory: Client, command: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = trips(memory)
    redis = memory.workspace("acme").redis
    with caplog.at_level(logging.ERROR, "redis_core.isolation"), pytest.raises(IsolationError) as refused:
        await redis.execute(*command)
    assert trips(memory) == before
    assert "globex" not in str(refused.value)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "globex" not in repr(vars(caplog.records[0]))


@pytest.mark.parametrize("command", STAYS, ids=shown)
async def test_a_command_of_the_workspaces_own_keys_is_sent(memory: Client, command: Any) -> None:
    before = trips(memory)
    await memory.workspace("acme").redis.execute(*command)
    assert trips(memory) == before + 1


@pytest.mark.parametrize("name", ["EVAL", "eval", "EVAL_RO", "EVALSHA", "FCALL"])
async def test_a_script_nobody_answers_for_is_not_run(memory: Client, name: str) -> None:
    redis = memory.workspace("acme").redis
    text = f"return redis.call('GET', '{THEIRS}')"
    with pytest.raises(IsolationError):
        await redis.execute(name, text, 1, MINE)
    batch = redis.pipeline()
    batch.execute(name, text, 1, MINE)
    with pytest.raises(IsolationError):
        await batch.send()
    with pytest.raises(IsolationError):
        await redis.run(Script("theirs", text), [MINE])
    with pytest.raises(IsolationError):
        await redis.run(Script("no keys", "return 1", confined=True))


async def test_a_script_whose_author_answers_for_it_runs_alone_and_with_others(memory: Client) -> None:
    redis = memory.workspace("acme").redis
    add = Script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])", confined=True)
    assert await redis.run(add, [MINE], [2]) == 2
    await memory.execute("SCRIPT", "FLUSH")
    async with redis.pipeline() as batch:
        added = batch.run(add, [MINE], [3])
    assert await added == 5
    with pytest.raises(IsolationError):
        await redis.run(add, [THEIRS], [1])


async def test_the_refusal_is_the_same_whether_or_not_the_key_exists(memory: Client) -> None:
    redis = memory.workspace("acme").redis

    async def told() -> str:
        with pytest.raises(IsolationError) as refused:
            await redis.get(THEIRS)
        return str(refused.value)

    absent = await told()
    await memory.set(THEIRS, "pro")
    assert await told() == absent


async def test_typed_commands_are_looked_at_as_well(memory: Client) -> None:
    redis = memory.workspace("acme").redis
    assert await redis.set(MINE, "pro")
    assert await redis.get(MINE) == b"pro"
    calls: list[Callable[[], Any]] = [
        lambda: redis.scan(),
        lambda: redis.mget(MINE, THEIRS),
        lambda: redis.rename(MINE, THEIRS),
        lambda: redis.publish("sys:bus:1", "x"),
        lambda: redis.flushdb(),
        lambda: redis.info(),
    ]
    for call in calls:
        with pytest.raises(IsolationError):
            await call()


@pytest.mark.parametrize("kind", ["pipeline", "transaction"])
async def test_nothing_of_a_batch_is_sent_if_one_command_would_leave(memory: Client, kind: str) -> None:
    redis = memory.workspace("acme").redis
    with pytest.raises(IsolationError):
        async with getattr(redis, kind)() as batch:
            batch.set(MINE, "1")
            batch.set(THEIRS, "2")
    assert await memory.exists(MINE, THEIRS) == 0
    async with getattr(redis, kind)() as batch:
        batch.set(MINE, "1")
        found = batch.get(MINE)
    assert await found == b"1"


async def test_a_script_names_keys_and_only_its_workspaces(memory: Client) -> None:
    redis = memory.workspace("acme").redis
    script = Script("touch", "return redis.call('incr', KEYS[1])", confined=True)
    assert await redis.run(script, [MINE]) == 1
    for keys in ([], [THEIRS], [MINE, THEIRS]):
        before = trips(memory)
        with pytest.raises(IsolationError):
            await redis.run(script, keys)
        with pytest.raises(IsolationError):
            async with redis.pipeline() as batch:
                batch.run(script, keys)
        assert trips(memory) == before


async def test_a_service_may_share_what_it_names_and_nothing_else(memory: Client) -> None:
    redis = memory.confined(WorkspaceKeys("acme"), "sys:shared")
    assert await redis.set("sys:shared", "1")
    with pytest.raises(IsolationError):
        await redis.set("sys:other", "1")
    with pytest.raises(IsolationError):
        await redis.set(THEIRS, "1")


words = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.integers(-3, 9),
    st.sampled_from(
        [MINE, THEIRS, "STREAMS", "GROUP", "COUNT", "BLOCK", "ws:{acme}:", "ws:{acme}", "ws:{globex}:app:x"]
    ),
)
names = st.one_of(
    st.text(max_size=12),
    st.sampled_from(sorted(ONE_KEY | KEYLESS)),
    st.sampled_from(
        "MGET DEL EVAL EVALSHA FCALL XREAD XREADGROUP ZUNION ZUNIONSTORE LMPOP MSET BITOP COPY JSON.MSET JSON.MGET OBJECT XINFO".split()
    ),
)


class Wire(MockRedisClient):
    """A store in memory that tells what reached it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[Any, ...]] = []

    async def execute(self, batch: Any, *, timeout: float | None = None) -> Any:
        self.sent += batch
        return await super().execute(batch, timeout=timeout)


@settings(max_examples=200, deadline=None)
@given(names, st.lists(words, max_size=8))
async def test_whatever_a_command_looks_like_it_changes_only_the_workspaces_keys(
    name: str, rest: list[Any]
) -> None:
    wire = Wire()
    async with Client(wire) as client:
        await client.set(THEIRS, "pro")
        try:
            await client.workspace("acme").redis.execute(name, *rest)
        except IsolationError:
            assert len(wire.sent) == 1
            return
        except Exception:
            pass  # what the store says to nonsense is another matter
        keys: Any = await client.execute("KEYS", "*")
        assert {workspace_of(key.decode("utf-8", "replace")) for key in keys} <= {"acme", "globex"}
        assert await client.get(THEIRS) == b"pro"
        assert await client.dbsize() == 1 + sum(key.startswith(b"ws:{acme}:") for key in keys)


HARMLESS = {"ping", "echo", "time"}
"""Methods of `Commands` that have to do with no key."""
ARGUMENTS: dict[str, Any] = {
    "mset": ({THEIRS: "1"},),
    "run": (Script("one", "return 1"), [THEIRS]),
    "execute": ("GET", THEIRS),
    "scan": (),
    "dbsize": (),
    "info": (),
    "flushdb": (),
    "echo": ("x",),
    "ping": (),
    "time": (),
    "zadd": (THEIRS, {"m": 1.0}),
}
"""What methods take that `_arguments` cannot guess."""


def _arguments(method: Callable[..., Any]) -> list[Any]:
    """Something for each argument that must be given; the first is a key of the other's."""
    values: dict[str, Any] = {"values": {"f": "1"}, "fields": {"f": "1"}}
    given: list[Any] = []
    for name, parameter in list(inspect.signature(method).parameters.items())[1:]:
        if parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            several = parameter.kind is parameter.VAR_POSITIONAL
            given.append(THEIRS if not given else "1" if several else values.get(name, 1))
    return given


@pytest.mark.parametrize(
    "name", sorted(n for n, _ in inspect.getmembers(Commands, inspect.isfunction) if n[0] != "_")
)
async def test_no_typed_command_reaches_anothers_key(memory: Client, name: str) -> None:
    await memory.set(THEIRS, "pro")
    method = getattr(memory.workspace("acme").redis, name)
    arguments = ARGUMENTS[name] if name in ARGUMENTS else _arguments(getattr(Commands, name))
    before = trips(memory)
    if name in HARMLESS:
        await method(*arguments)
        return
    with pytest.raises(IsolationError):
        await method(*arguments)
    assert trips(memory) == before
    assert await memory.get(THEIRS) == b"pro"


ids = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,6}[A-Za-z0-9])?", fullmatch=True)
one_part = st.from_regex(r"[!-)+-9;->@-Z^-z|~]{1,8}", fullmatch=True)


@settings(max_examples=100, deadline=None)
@given(ids, ids, one_part, st.sampled_from(sorted(ONE_KEY | ONLY_KEYS)))
def test_the_guard_lets_through_what_the_handle_makes_and_nobody_elses(
    one: str, other: str, part: str, name: str
) -> None:
    guard = Client(MockRedisClient()).confined(WorkspaceKeys(one))
    for family in ("cache", "session", "app"):
        guard.check((name, WorkspaceKeys(one).key(family, part)))
        guard.check((name.lower(), WorkspaceKeys(one).key(family, part).encode()))
        if other != one:
            for key in (
                WorkspaceKeys(other).key(family, part),
                WorkspaceKeys(other).key(family, part).encode(),
            ):
                with pytest.raises(IsolationError):
                    guard.check((name, key))
    if other != one:
        with pytest.raises(IsolationError):
            guard.check(("MGET", WorkspaceKeys(one).key("app", part), WorkspaceKeys(other).key("app", part)))
