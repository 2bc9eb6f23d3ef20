"""A tenant is a wall: every public call of every service, with one tenant's handle and the other's identifiers.

Each row is a call. Afterwards all that the other tenant has is byte for byte what it was, and the answer was the one that an
identifier nobody has would get.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from redis_core.cache import Cache, CacheRegion
from redis_core.caching.engine import CacheEngine
from redis_core.caching.envelope import EnvelopeKeys
from redis_core.client import Client
from redis_core.commands import Commands, scan_iter
from redis_core.confined import Confined
from redis_core.keys import WorkspaceKeys
from redis_core.locks import Lock
from redis_core.pubsub import Presence, PresenceLease, SharedState, SharedText, Topic
from redis_core.queue import JobHandle, Queue
from redis_core.secret import Secret
from redis_core.semantic_cache import Answer, SemanticCache
from redis_core.session import Session, SessionEvent, Sessions
from redis_core.usage import Budget, Usage, UsageEngine
from redis_core.workspace import Workspace
from tests.two_tenants import (
    MINE,
    PEPPERS,
    REGION,
    THEIRS,
    Names,
    Tenants,
    belongings,
    ended,
    position_of,
    succeeds,
)

Call = Callable[[Tenants, Names], Awaitable[object]]


async def _loaded(_: str) -> str:
    return "acme's value"


async def _answer() -> Answer:
    return Answer("acme's answer")


async def _first(updates: Any) -> object:
    async with aclosing(updates):
        async for found in updates:
            return found
    return "nothing"


async def _lock(t: Tenants, n: Names, then: str) -> object:
    lock = t.mine.lock(n.lock, ttl=60, wait=0.0)
    await lock.acquire()
    try:
        if then == "check":
            lock.check()
        return lock.held, type(lock.token), (lock.remaining or 0) > 0
    finally:
        await lock.release()


async def _ask_for(target: object, method: str, *args: object) -> object:
    found = getattr(target, method)(*args)
    if inspect.isasyncgen(found):
        return await _first(found)
    return await found if inspect.isawaitable(found) else found


async def _job(t: Tenants, n: Names, method: str, *args: object) -> object:
    """By the id alone, and with the other's own handle moved to our queue."""
    said: list[object] = []
    for which, name in (("job", n.job), ("done", n.done), ("dead", n.dead)):
        other = n.jobs[which]
        stolen: JobHandle[Any] = JobHandle(t.mine.queue, other.id, other.shard, other.field)
        for job in (t.mine.queue.job("default", name), stolen):
            # What a job tells until it is over would be waited for: of one's own, which there is not.
            if method != "events" or job is stolen:
                said.append(await ended(n, _ask_for, job, method, *args))
    return said


async def _raw(t: Tenants, n: Names, method: str, *args: object) -> object:
    """A method of the queue that takes a handle, with the other's own."""
    return [await ended(n, _ask_for, t.mine.queue, method, job, *args) for job in n.jobs.values()]


async def _depending(t: Tenants, n: Names) -> object:
    return await t.mine.queue.enqueue(succeeds, depends_on=[n.jobs["job"]])


async def _enqueue(t: Tenants, n: Names) -> object:
    queue = t.mine.queue
    said: list[object] = []
    for options in (
        {"unique_key": n.unique},
        {"idempotency_key": n.idempotent},
        {"job_id": n.job},
        {"job_id": n.done},
        {"job_id": n.dead},
    ):
        job = await queue.enqueue(succeeds, delay=3600, **options)  # type: ignore[arg-type]  # one of these each
        said.append(job.is_new)
    said.append(await ended(n, _depending, t, n))
    return said


async def _get_session(t: Tenants, n: Names) -> object:
    return [
        await t.sessions.get(n.token, workspace=MINE),
        await t.sessions.get(n.token, workspace=MINE, consistency="strong"),
        # With our workspace written into it the token is none of ours.
        await t.sessions.get(n.token.replace(f".{THEIRS}.", f".{MINE}."), workspace=MINE),
        await t.sessions.get(n.token.replace(f".{THEIRS}.", f".{MINE}.")),
    ]


async def _own_session(t: Tenants, n: Names) -> Session[Any]:
    session, _ = await t.sessions.create(n.user, MINE)
    return session


async def _create(t: Tenants, n: Names) -> object:
    session = await _own_session(t, n)
    return session.workspace, session.user_id, dict(session.data)


async def _listed(t: Tenants, n: Names) -> object:
    return await t.sessions.list(n.user, MINE)


async def _revoke_others(t: Tenants, n: Names) -> object:
    return await t.sessions.revoke_others(await _own_session(t, n))


async def _move(t: Tenants, n: Names, method: str) -> object:
    session = await _own_session(t, n)
    done = await getattr(t.sessions, method)(session)
    return type(done).__name__


async def _touched(t: Tenants, n: Names) -> object:
    return t.sessions.touch_due(await _own_session(t, n))


async def _lost(t: Tenants, n: Names) -> object:
    t.sessions.lost_write(await _own_session(t, n))
    return "said"


async def _change(t: Tenants, n: Names, change: Callable[[Session[Any]], Any]) -> object:
    session = await _own_session(t, n)
    done = change(session)
    said = await done if inspect.isawaitable(done) else done
    await session.save()
    return said


async def _publish(t: Tenants, n: Names) -> object:
    # As new, whatever the other published under the same name and idempotency key.
    return (await t.mine.topic(n.topic).publish("acme's", id=n.once)).offset


async def _said_offset(call: Callable[[], Awaitable[Any]]) -> object:
    return (await call()).offset


async def _state(t: Tenants, n: Names) -> object:
    position, document = await t.mine.state(n.topic).get()
    return position.offset, document


async def _listen(topic: Any, n: Names) -> object:
    found = await _first(topic.listen(after=position_of(n)))
    return type(found).__name__, getattr(getattr(found, "position", None), "offset", None)


async def _range(t: Tenants, _: Names) -> object:
    today = t.client.service(UsageEngine).today()
    return await t.mine.usage.range(today, today)


async def _write(t: Tenants, n: Names) -> object:
    async with t.mine.text(f"{n.topic}-written").writer() as out:
        await out.write("acme's")
    return "written"


async def _ask(t: Tenants, n: Names) -> object:
    semantic = SemanticCache(t.mine, "model")
    return (await semantic.ask(n.key, _answer)).answer.text


async def _batch(t: Tenants, n: Names, kind: str) -> object:
    async with getattr(t.mine.redis, kind)() as batch:
        batch.set(t.mine.keys.key("app", n.key), "1")
        batch.get(WorkspaceKeys(THEIRS).key("app", n.key))
    return "sent"


async def _check(t: Tenants, n: Names) -> object:
    t.mine.redis.check(("GET", WorkspaceKeys(THEIRS).key("app", n.key)))
    return "not refused"


CALLS: dict[tuple[type, str], Call] = {
    (Cache, "get"): lambda t, n: t.mine.cache.get(REGION, n.key, tags=[n.tag]),
    (Cache, "get_entry"): lambda t, n: t.mine.cache.get_entry(REGION, n.key, tags=[n.tag]),
    (Cache, "get_many"): lambda t, n: t.mine.cache.get_many(REGION, [n.key], tags=[n.tag]),
    (Cache, "get_or_load"): lambda t, n: t.mine.cache.get_or_load(REGION, n.key, _loaded, tags=[n.tag]),
    (Cache, "get_entry_or_load"): lambda t, n: _value(
        t.mine.cache.get_entry_or_load(REGION, n.key + "2", _loaded)
    ),
    (Cache, "set"): lambda t, n: t.mine.cache.set(REGION, n.key, "acme's", tags=[n.tag]),
    (Cache, "delete"): lambda t, n: t.mine.cache.delete(REGION, n.key),
    (Cache, "delete_many"): lambda t, n: t.mine.cache.delete_many(REGION, [n.key]),
    (Cache, "flush_tag"): lambda t, n: t.mine.cache.flush_tag(n.tag),
    (Cache, "flush"): lambda t, _: t.mine.cache.flush(),
    (Queue, "job"): lambda t, n: _job(t, n, "status"),
    (Queue, "dead"): lambda t, _: t.mine.queue.dead("default"),
    (Queue, "redrive"): lambda t, n: t.mine.queue.redrive("default", ids=[n.dead, n.job, n.done]),
    (Queue, "delete_dead"): lambda t, n: t.mine.queue.delete_dead("default", [n.dead, n.job, n.done]),
    (Queue, "depth"): lambda t, _: _depth(t),
    (Queue, "pause"): lambda t, _: t.mine.queue.pause("default"),
    (Queue, "resume"): lambda t, _: t.mine.queue.resume("default"),
    (Queue, "limit"): lambda t, _: t.mine.queue.limit("default", running=5, weight=2.0),
    (Queue, "events"): lambda t, n: _raw(t, n, "events"),
    (Queue, "raw_result"): lambda t, n: _raw(t, n, "raw_result", 10.0),
    (Queue, "shard_of"): lambda t, n: _raw(t, n, "shard_of"),
    (JobHandle, "status"): lambda t, n: _job(t, n, "status"),
    (JobHandle, "result"): lambda t, n: _job(t, n, "result", 10.0),
    (JobHandle, "cancel"): lambda t, n: _job(t, n, "cancel"),
    (JobHandle, "signal"): lambda t, n: _job(t, n, "signal", "approval", "yes"),
    (JobHandle, "events"): lambda t, n: _job(t, n, "events"),
    (Lock, "acquire"): lambda t, n: _lock(t, n, "acquire"),
    (Lock, "check"): lambda t, n: _lock(t, n, "check"),
    (Lock, "release"): lambda t, n: _lock(t, n, "release"),
    (Topic, "publish"): _publish,
    (Topic, "listen"): lambda t, n: _listen(t.mine.topic(n.topic + "-other"), n),
    (SharedState, "get"): _state,
    (SharedState, "set"): lambda t, n: _said_offset(lambda: t.mine.state(n.topic).set("acme's", version=0)),
    (SharedState, "patch"): lambda t, n: _said_offset(lambda: t.mine.state(n.topic).patch({"a": 1})),
    (SharedState, "listen"): lambda t, n: _listen(t.mine.state(n.topic), n),
    (SharedText, "append"): lambda t, n: _said_offset(lambda: t.mine.text(n.topic).append("acme's")),
    (SharedText, "end"): lambda t, n: _said_offset(lambda: t.mine.text(n.topic).end()),
    (SharedText, "listen"): lambda t, n: _listen(t.mine.text(n.topic), n),
    (Presence, "members"): lambda t, n: t.mine.presence(n.topic).members(),
    (Presence, "leave"): lambda t, n: _said_offset(lambda: t.mine.presence(n.topic).leave(n.member)),
    (Presence, "join"): lambda t, n: _said_offset(lambda: t.mine.presence(n.topic).join(n.member)),
    (Presence, "listen"): lambda t, n: _listen(t.mine.presence(n.topic), n),
    (Sessions, "get"): _get_session,
    (Sessions, "list"): _listed,
    (Sessions, "create"): _create,
    (Sessions, "revoke_handle"): lambda t, n: t.sessions.revoke_handle(n.user, MINE, n.handle),
    (Sessions, "revoke_others"): _revoke_others,
    (Sessions, "revoke_user"): lambda t, n: t.sessions.revoke_user(n.user, MINE),
    (Sessions, "revoke_workspace"): lambda t, _: t.sessions.revoke_workspace(MINE),
    (Sessions, "revoke"): lambda t, n: _move(t, n, "revoke"),
    (Sessions, "renew"): lambda t, n: _move(t, n, "renew"),
    (Sessions, "rotate"): lambda t, n: _move(t, n, "rotate"),
    (Sessions, "touch"): lambda t, n: _move(t, n, "touch"),
    (Sessions, "touch_due"): _touched,
    (Sessions, "lost_write"): _lost,
    (Session, "append"): lambda t, n: _change(t, n, lambda session: session.append("seen", n.key)),
    (Session, "incr"): lambda t, n: _change(t, n, lambda session: session.incr("count")),
    (Session, "compare_and_set"): lambda t, n: _change(
        t, n, lambda session: session.compare_and_set("of", None, "acme")
    ),
    (Session, "save"): lambda t, n: _change(t, n, lambda session: session.data.__setitem__("of", "acme")),
    (Session, "require_fresh"): lambda t, n: _change(t, n, lambda session: session.require_fresh(600)),
    (SemanticCache, "ask"): _ask,
    (Confined, "pipeline"): lambda t, n: _batch(t, n, "pipeline"),
    (Confined, "transaction"): lambda t, n: _batch(t, n, "transaction"),
    (Confined, "check"): _check,
    (Usage, "spent"): lambda t, _: t.mine.usage.spent(),
    (Usage, "check"): lambda t, _: t.mine.usage.check(),
    (Usage, "budget"): lambda t, _: t.mine.usage.budget(),
    (Usage, "day"): lambda t, _: t.mine.usage.day(),
    (Usage, "range"): _range,
    (Usage, "add"): lambda t, _: t.mine.usage.add(cost=1.0, id="g-globex"),
    (Usage, "set_budget"): lambda t, _: t.mine.usage.set_budget(Budget(day=1.0)),
    (Queue, "arrival"): lambda t, n: _raw(t, n, "arrival"),
    (Queue, "spooled"): lambda t, n: _raw(t, n, "spooled"),
    (SharedText, "writer"): _write,
    (Presence, "reap"): lambda t, n: t.mine.presence(n.topic).reap(t.client.service(PresenceLease).process),
    (Queue, "enqueue_many"): lambda t, _: _many(t),
    (Queue, "enqueue"): _enqueue,
}
"""A call for each public method, those that read before those that write: what we keep under the other's names would hide what
is found of theirs. Those of `Confined` that it shares with the client are driven in `test_confined.py`."""

NOT_A_CALL = {
    (Sessions, "from_settings"): "makes the service",
    (Session, "changes"): "what is to be saved; asks nothing",
    (Session, "reissued"): "tells the object of its new token; asks nothing",
}
"""Public methods that take nothing from outside and send nothing."""


async def _value(entry: Awaitable[Any]) -> object:
    return (await entry).value


async def _many(t: Tenants) -> object:
    return [
        job.is_new for job in await t.mine.queue.enqueue_many([succeeds.call(), succeeds.call()], delay=3600)
    ]


async def _depth(t: Tenants) -> object:
    return type(await t.mine.queue.depth("default"))


SERVICES: tuple[type, ...] = (
    Cache, Queue, JobHandle, Lock, Topic, SharedState, SharedText, Presence, Sessions, Session, SemanticCache, Confined, Usage,
)  # fmt: skip


def _public(service: type) -> set[str]:
    return {
        name
        for name, _ in inspect.getmembers(service, inspect.isroutine)
        if not name.startswith("_") and not (service is Confined and hasattr(Commands, name))
    }


def test_every_public_method_of_every_service_has_its_row() -> None:
    public = {(service, name) for service in SERVICES for name in _public(service)}
    assert public == set(CALLS) | set(NOT_A_CALL)


def test_every_service_of_a_workspace_is_among_them() -> None:
    given = set()
    for name, member in inspect.getmembers(Workspace):
        if name.startswith("_") or name == "id":
            continue
        function = member if inspect.isfunction(member) else member.func
        given.add(inspect.signature(function).return_annotation)
    assert given <= {service.__name__ for service in SERVICES}


def _id(row: tuple[type, str]) -> str:
    return f"{row[0].__name__}.{row[1]}"


async def test_no_call_touches_what_is_anothers_or_tells_that_it_is_there(tenants: Tenants) -> None:
    before = await belongings(tenants.client, THEIRS)
    assert len([name for name in before if f"{{{THEIRS}}}" in name]) > 12
    told: list[str] = []
    for row, call in CALLS.items():
        # First for what is there: had the call left its workspace, the second one would find another world.
        answers = [await ended(names, call, tenants, names) for names in (tenants.known, tenants.unknown)]
        assert answers[0] == answers[1], _id(row)
        told += map(str, answers)
        assert await belongings(tenants.client, THEIRS) == before, _id(row)
    for answer in told:
        assert "globex's" not in answer


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
async def test_a_cached_value_of_another_workspace_is_a_miss_wherever_it_lies(
    client: Client, encrypt: bool, caplog: pytest.LogCaptureFixture
) -> None:
    region = CacheRegion("moved", str, ttl=600, encrypt=encrypt, memory_ttl=0)
    engine = CacheEngine(client, keys=EnvelopeKeys({1: Secret("11" * 32)}))
    mine, theirs = (Cache(client, WorkspaceKeys(name), engine=engine) for name in (MINE, THEIRS))
    await theirs.set(region, "k", "globex's")
    theirs_now = [name.decode() async for name in scan_iter(client, f"{WorkspaceKeys(THEIRS).prefix}*")]
    assert len(theirs_now) == 3  # the value, and the generations that it must be of
    for name in theirs_now:
        value = await client.get(name)
        assert value is not None
        # As a fault of the store or of a program might.
        await client.set(name.replace(THEIRS, MINE), value, ex=600)
    assert await theirs.get(region, "k") == "globex's"
    with caplog.at_level(logging.ERROR, "redis_core.isolation"):
        assert await mine.get(region, "k") is None
    assert region.figures.corrupt == 1
    assert encrypt or "another workspace" in caplog.text
    assert await mine.get_or_load(region, "k", _loaded) == "acme's value"
    await engine.aclose()


async def test_a_session_of_another_workspace_is_none_wherever_it_lies(client: Client) -> None:
    events: list[SessionEvent] = []
    sessions = Sessions(client, PEPPERS, on_event=events.append)
    ours, token = await sessions.create("u1", MINE, {"of": "acme"})
    others, _ = await sessions.create("u1", THEIRS, {"of": "globex"})
    await client.unlink(ours.place.key)
    await client.hset(ours.place.key, await client.hgetall(others.place.key))  # type: ignore[arg-type]  # bytes do
    assert await sessions.get(token, workspace=MINE) is None
    assert events[-1].kind == "tampered"
    assert await sessions.list("u1", MINE) == ()
    assert (await sessions.list("u1", THEIRS))[0].handle == others.handle


_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')


async def test_no_command_of_a_call_or_of_its_scripts_names_what_is_anothers(
    valkey: Client, valkey_socket: str
) -> None:
    """The server tells what it is asked, what scripts ask it included."""
    both = Tenants(valkey)
    await both.settle()
    reader, writer = await asyncio.open_unix_connection(valkey_socket, limit=2**24)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    for call in CALLS.values():
        for names in (both.known, both.unknown):
            await ended(names, call, both, names)
    end = secrets.token_hex(8)
    await valkey.echo(end)
    theirs = WorkspaceKeys(THEIRS)
    told = inner = 0
    async with asyncio.timeout(20):
        while end.encode() not in (line := await reader.readline()):
            words = _WORD.findall(line)
            told += 1
            inner += b" lua] " in line[:60]
            assert not any(theirs.owns(word) or theirs.owns_in_queue(word) for word in words), line
            assert not any(
                word == THEIRS.encode() or word.startswith(f"{THEIRS}:".encode()) for word in words
            ), line
    assert told > inner > 100
    writer.close()
    await writer.wait_closed()
    await both.leave()
