"""What tests of an outage share: a real store, and processes that reach it through links of their own, each with a journal of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.resilience.monitor import Monitor
from redis_core.resilience.outage import State
from redis_core.testing import FaultProxy
from tests.server_process import ServerProcess
from tests.stores import valkey_binary

__all__ = ["OutageProcess", "OutageWorld", "outage_world", "until"]


async def until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it never came"
        await asyncio.sleep(0.005)


@dataclass
class OutageProcess:
    """One process: its client, and the link that can be broken."""

    client: Client
    link: FaultProxy
    journal: str

    @property
    def state(self) -> State:
        return self.client.outage.state

    async def cut_off(self) -> None:
        """Until this process knows that the store is away."""
        self.link.refuse()
        while self.state is not State.DEGRADED:
            await self.client.get("poke")
            await asyncio.sleep(0.005)

    async def heal(self) -> None:
        """Until it is back, everything that was kept carried out."""
        self.link.up()
        await until(lambda: self.state is State.HEALTHY)

    async def seen_loss(self, losses: int = 1) -> None:
        """Until it has noticed so many losses of data."""
        await until(lambda: self.client.outage.figures.losses_total >= losses)


class OutageWorld:
    """One store, and as many processes as a test wants."""

    def __init__(self, server: ServerProcess, folder: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self._folder = folder
        self._stack = stack
        self._count = 0
        self.direct: Client

    @classmethod
    async def begin(cls, server: ServerProcess, folder: Path, stack: AsyncExitStack) -> Self:
        world = cls(server, folder, stack)
        world.direct = await stack.enter_async_context(
            await connect(Settings(_env_file=None, redis_url=server.url, redis_failover=False))  # type: ignore[call-arg]
        )
        return world

    async def process(self, heir_of: OutageProcess | None = None) -> OutageProcess:
        """A process that knows the store.

        Args:
            heir_of: one that is gone, whose link and journal it takes over.
        """
        self._count += heir_of is None
        if heir_of is None:
            link = self._stack.enter_context(FaultProxy(("127.0.0.1", self.server.port)))
        else:
            link = heir_of.link
            link.up()
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            redis_url=link.url,
            journal_path=self._folder / (f"journal-{self._count}" if heir_of is None else heir_of.journal),
            redis_command_timeout=0.5,
            mock_redis=False,
        )
        client = await self._stack.enter_async_context(await connect(settings))
        await client.ping()
        probe = client.outage._probe  # type: ignore[attr-defined]
        await until(lambda: bool(probe.knows_store))
        return OutageProcess(client, link, Path(settings.journal_path or "").name)

    async def empty(self) -> None:
        """The store loses everything, as one that is restarted without persistence."""
        self.server.kill()
        self.server.start()


@pytest.fixture
async def outage_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OutageWorld]:
    monkeypatch.setattr(Monitor, "SETTLE", 0.05)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(ServerProcess(valkey_binary()))
        yield await OutageWorld.begin(server, tmp_path, stack)
