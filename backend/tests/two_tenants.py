"""Two tenants on one store: what belongs to the one, byte by byte, and how the other's calls end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from redis_core.cache import CacheRegion
from redis_core.client import Client
from redis_core.commands import scan_iter
from redis_core.keys import WorkspaceKeys
from redis_core.locks import Lock
from redis_core.pubsub import Position
from redis_core.queue import JobHandle, task
from redis_core.secret import Secret
from redis_core.session import PepperRing, Session, Sessions
from redis_core.sessions.token import mint_token
from redis_core.usage import Budget
from redis_core.worker import Worker
from redis_core.workspace import Workspace

__all__ = ["MINE", "THEIRS", "Names", "Tenants", "belongings", "ended"]

MINE, THEIRS = "acme", "globex"
"""Who asks, and whose things are asked for."""

REGION = CacheRegion("profile", str, ttl=600)
PEPPERS = PepperRing(Secret("k1:0123456789abcdef0123456789abcdef"))


@task
async def succeeds() -> str:
    return "globex's result"


@task(retries=0)
async def dies() -> None:
    raise ValueError("globex's error")


@dataclass
class Names:
    """Identifiers to ask with: all of one tenant's, or all of nobody's."""

    job: str
    done: str
    dead: str
    unique: str
    idempotent: str
    key: str
    tag: str
    topic: str
    epoch: str
    once: str
    lock: str
    member: str
    user: str
    token: str
    handle: str
    jobs: dict[str, JobHandle[Any]]
    """The other's own handles, as if one had reached us."""
    session: Session[Any] | None = None


@dataclass
class Tenants:
    """The store, both tenants, and what is theirs."""

    client: Client
    mine: Workspace = field(init=False)
    theirs: Workspace = field(init=False)
    sessions: Sessions[Any] = field(init=False)
    held: Lock = field(init=False)
    known: Names = field(init=False)
    unknown: Names = field(init=False)

    async def settle(self) -> None:
        """Give the other tenant one of everything."""
        self.mine, self.theirs = self.client.workspace(MINE), self.client.workspace(THEIRS)
        self.sessions = Sessions(self.client, PEPPERS)
        theirs = self.theirs
        await theirs.redis.set(theirs.keys.key("app", "plan"), "globex's plan")
        await theirs.cache.set(REGION, "k-globex", "globex's value", tags=["t-globex"])
        done = await theirs.queue.enqueue(succeeds)
        dead = await theirs.queue.enqueue(dies)
        await Worker(self.client, [succeeds, dies]).drain()
        job = await theirs.queue.enqueue(succeeds, delay=3600, unique_key="u-globex", job_id="j-globex")
        once = await theirs.queue.enqueue(succeeds, delay=3600, idempotency_key="i-globex")
        position = await theirs.topic("x-globex").publish("globex's event", id="o-globex")
        await theirs.state("x-globex").set({"of": "globex"})
        await theirs.text("x-globex").append("globex's text")
        await theirs.presence("x-globex").join("m-globex", {"of": "globex"})
        await theirs.usage.set_budget(Budget(day=5.0))
        await theirs.usage.add(model="gpt-4o", input_tokens=1_000, id="g-globex")
        self.held = theirs.lock("l-globex", ttl=3600)
        await self.held.acquire()
        session, token = await self.sessions.create("s-globex", THEIRS, {"of": "globex"})
        nobody, parts = mint_token(PEPPERS, THEIRS, "s-nobody")
        self.known = Names(
            job.id, done.id, dead.id, "u-globex", "i-globex", "k-globex", "t-globex", "x-globex", position.epoch, "o-globex",
            "l-globex", "m-globex", "s-globex", token, session.handle,
            {"job": job, "done": done, "dead": dead, "once": once}, session,
        )  # fmt: skip
        invented = theirs.queue.job("default", "j-nobody")
        self.unknown = Names(
            "j-nobody", "d-nobody", "b-nobody", "u-nobody", "i-nobody", "k-nobody", "t-nobody", "x-nobody", "0" * 12, "o-nobody",
            "l-nobody", "m-nobody", "s-nobody", nobody, parts.handle, dict.fromkeys(self.known.jobs, invented),
        )  # fmt: skip

    async def leave(self) -> None:
        """Give back what is held."""
        await self.held.release()


async def belongings(client: Client, workspace: str) -> dict[str, Any]:
    """All that the store has of a workspace: its keys with their values and ends, and its entries in what the queue shares."""
    keys = WorkspaceKeys(workspace)
    found: dict[str, Any] = {}
    async for raw in scan_iter(client, count=1000):
        name = raw.decode()
        value, end = await _read(client, name), await client.execute("PEXPIRETIME", name)
        if value is not None and (keys.owns(name) or keys.owns_in_queue(name)):
            found[name] = value, end
        elif entries := _entries_of(workspace, value):
            found[name] = entries
    return found


async def _read(client: Client, name: str) -> Any:
    kind = await client.type(name)
    if kind == "string":
        return await client.get(name)
    if kind == "hash":
        return await client.hgetall(name)
    if kind == "list":
        return await client.lrange(name, 0, -1)
    if kind == "set":
        return await client.smembers(name)
    if kind == "zset":
        return await client.zrange_with_scores(name, 0, -1)
    if kind == "stream":
        return await client.xrange(name)
    assert kind == "none", kind
    return None  # gone since the scan: another's, or it will be missed


def _entries_of(workspace: str, value: Any) -> Any:
    # `globex`, `globex:<id>`, `w:globex`; but not another's entry that only mentions it.
    own = re.compile(rb"(?<![-\w])" + workspace.encode() + rb"(?![-\w])")

    def its(entry: Any) -> bool:
        return own.search(entry[0] if isinstance(entry, tuple) else entry) is not None

    entries = value.items() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [entry for entry in entries if its(entry)]


async def ended(names: Names, call: Callable[..., Awaitable[object]], *args: object) -> str:
    """What a call said, without the identifiers it was asked with: its value, or its error's type and text."""
    try:
        async with asyncio.timeout(20):
            said = await call(*args)
    except Exception as error:
        said = type(error).__name__, str(error)
    text = repr(said)
    words = [word for word in vars(names).values() if isinstance(word, str)]
    words += [job.id for job in names.jobs.values()]
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, "<it>")
    return text


def position_of(names: Names) -> Position:
    """Where the other tenant's reader is."""
    return Position(names.epoch, 1)
