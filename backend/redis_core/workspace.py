"""The handle of one tenant: all its keys, and every service, scoped to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final

from redis_core.cache import Cache
from redis_core.keys import WorkspaceKeys
from redis_core.locks import Lock, LockEngine, Scope
from redis_core.pubsub import Presence, SharedState, SharedText, Topic
from redis_core.queue import Queue
from redis_core.queueing.engine import QueueEngine
from redis_core.quotas import Quotas
from redis_core.realtime.publisher import Publisher
from redis_core.usage import Usage, UsageEngine

if TYPE_CHECKING:
    from redis_core.client import Client, Service
    from redis_core.confined import Confined

__all__ = ["KEEPERS", "Workspace"]


KEEPERS: Final[tuple[Callable[[Client], Service], ...]] = (Publisher, QueueEngine, UsageEngine)
"""The services that carry out what was kept in an outage, for a process that has not used them itself."""


class Workspace:
    """One workspace on one store, made by `Client.workspace()`. It holds nothing that cannot be made again.

    Args:
        client: the store's client.
        workspace: the workspace's id.

    Raises:
        InvalidKey: the id may not name a workspace.
    """

    def __init__(self, client: Client, workspace: str) -> None:
        self.client = client
        self.keys = WorkspaceKeys(workspace)
        # What a plan allows holds from the first command on, also where no service asks for it.
        client.service(Quotas)

    @property
    def id(self) -> str:
        """The workspace's id."""
        return self.keys.workspace

    @cached_property
    def redis(self) -> Confined:
        """Redis commands on keys of this workspace: `await ws.redis.get(ws.keys.key("app", "plan"))`."""
        return self.client.confined(self.keys)

    @cached_property
    def cache(self) -> Cache:
        """What this workspace has cached."""
        return Cache(self.client, self.keys)

    @cached_property
    def queue(self) -> Queue:
        """What this workspace has to do."""
        return Queue(self.client, self.keys)

    @cached_property
    def usage(self) -> Usage:
        """What this workspace has used, and may spend."""
        return Usage(self.client.service(UsageEngine), self.keys)

    def lock(
        self, name: str, *, ttl: float = 30.0, wait: float | None = None, scope: Scope = "store"
    ) -> Lock:
        """A lock over all processes: `async with ws.lock("report") as lease:`.

        Args:
            name: which lock.
            ttl: seconds it outlives a process that dies; renewed by itself while it is held.
            wait: seconds to wait for it; None for as long as it takes.
            scope: `process` is among the tasks of this process alone, and needs no store.
        """
        return Lock(self.client.service(LockEngine), self.keys, name, ttl=ttl, wait=wait, scope=scope)

    def topic(self, name: str) -> Topic:
        """Events of this name."""
        return Topic(self.client, self.keys, name)

    def state(self, name: str) -> SharedState:
        """The shared document of this name."""
        return SharedState(self.client, self.keys, name)

    def text(self, name: str) -> SharedText:
        """The growing text of this name."""
        return SharedText(self.client, self.keys, name)

    def presence(self, name: str) -> Presence:
        """Who is at the place of this name."""
        return Presence(self.client, self.keys, name)

    def __repr__(self) -> str:
        return f"Workspace({self.id!r})"
