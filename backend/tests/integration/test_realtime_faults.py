"""Links that are cut or half open, a store that is killed, a process that is killed: nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

import redis_core
from redis_core import Workspace
from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import StoreError, VersionConflict
from redis_core.pubsub import BEGINNING, Gap, Position, merge_patch
from redis_core.realtime import feed
from redis_core.testing import FaultProxy
from tests.server_process import ServerProcess
from tests.stores import clean_client, valkey_binary

WITHIN = 50.0
# What was acknowledged survives the server's death.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(url: str, *, timeout: float = 2.0) -> AsyncIterator[Client]:
    settings = Settings(  # type: ignore[call-arg]  # pydantic-settings' own argument
        _env_file=None,
        redis_url=url,
        redis_command_timeout=timeout,
        redis_connect_timeout=timeout,
        redis_failover=False,
    )
    async with await connect(settings) as client:
        yield client


class Listener:
    """Has events, the document and the text as it hears them."""

    def __init__(self, workspace: Workspace) -> None:
        self.events: list[Any] = []
        self.document: Any = None
        self.numbers: list[int] = []
        self.text = ""
        self.gaps: list[str] = []
        self._tasks = [
            asyncio.create_task(self._hear(topic, take))
            for topic, take in (
                (workspace.topic("t"), self._event),
                (workspace.state("t"), self._patch),
                (workspace.text("t"), self._piece),
            )
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _hear(self, topic: Any, take: Callable[[str, Any], None]) -> None:
        after = BEGINNING if topic._kind == "events" else None
        while True:
            # As a program would: who cannot begin tries again from where it was.
            try:
                async for item in topic.listen(after=after):
                    if isinstance(item, Gap):
                        self.gaps.append(topic._kind)
                        after = item.position
                    else:
                        after = item[0]
                        take(item[1].type, item[1].value)
            except StoreError:
                await asyncio.sleep(0.1)

    def _event(self, _type: str, event: Any) -> None:
        self.events.append(event)

    def _patch(self, type: str, data: Any) -> None:
        self.document = data if type == "snap" else merge_patch(self.document, data)
        self.numbers.append(max((self.document or {}).values(), default=0))

    def _piece(self, _type: str, piece: Any) -> None:
        at = piece["from"]
        assert at <= len(self.text.encode())
        self.text = self.text.encode()[:at].decode() + piece["text"]


class Publisher:
    """Publishes one thing after another, each until it is known to be there."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.published = 0
        self.text = ""
        self.document: dict[str, int] = {}
        self._version = 0

    async def run(self, times: int) -> None:
        async with self.workspace.text("t").writer(frame=0.01, patience=WITHIN) as out:
            for number in range(self.published + 1, self.published + times + 1):
                await self._once(self._publish, number)
                await self._once(self._patch, number)
                self.document |= {f"k{number % 5}": number}
                self.text += f"é{number} "
                await out.write(f"é{number} ")
                self.published = number

    async def past(self, number: int, running: asyncio.Task[None]) -> None:
        """Until more than so many were published, or none is to come."""
        await until(lambda: self.published > number or running.done())

    async def _once(self, what: Callable[[int], Any], number: int) -> None:
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    await what(number)
                except StoreError:
                    await asyncio.sleep(0.02)
                else:
                    return

    async def _publish(self, number: int) -> None:
        await self.workspace.topic("t").publish(number, id=f"id{number}")

    async def _patch(self, number: int) -> None:
        try:
            position = await self.workspace.state("t").patch(
                {f"k{number % 5}": number}, version=self._version
            )
            self._version = position.offset
        except VersionConflict as conflict:
            # It is the only one that writes: this is its own patch, whose answer was lost.
            if conflict.version != self._version + 1:
                raise
            self._version = conflict.version

    async def heard_by(self, listener: Listener) -> None:
        await until(
            lambda: (
                bool(listener.events)
                and listener.events[-1] == self.published
                and listener.document == self.document
                and listener.text == self.text
            )
        )
        assert listener.events == list(range(1, self.published + 1))
        assert listener.numbers == sorted(listener.numbers)
        assert listener.gaps == []


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last message that was lost shows soon."""
    monkeypatch.setattr(feed, "_CHECK", 0.2)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("fault", ["cut", "blackhole", "stall", "refuse", "half_reply"])
async def test_a_listener_whose_link_breaks_misses_nothing(valkey_socket: str, fault: str) -> None:
    async with await clean_client(valkey_socket) as client:
        publisher = Publisher(client.workspace("acme"))
        with FaultProxy(valkey_socket) as proxy:
            async with (
                opened(proxy.url, timeout=0.5) as behind,
                Listener(behind.workspace("acme")) as listener,
            ):
                publishing = asyncio.create_task(publisher.run(60))
                await until(lambda: publisher.published > 5)
                getattr(proxy, fault)()
                await until(lambda: publisher.published > 30)
                proxy.up()
                await publishing
                await publisher.heard_by(listener)


@pytest.mark.usefixtures("often")
async def test_a_publisher_whose_link_breaks_publishes_each_once(valkey_socket: str) -> None:
    async with await clean_client(valkey_socket) as client, Listener(client.workspace("acme")) as listener:
        with FaultProxy(valkey_socket) as proxy:
            async with opened(proxy.url, timeout=0.5) as behind:
                publisher = Publisher(behind.workspace("acme"))
                publishing = asyncio.create_task(publisher.run(150))
                for fault in ("half_reply", "cut", "blackhole", "half_reply", "refuse"):
                    before = publisher.published
                    getattr(proxy, fault)()
                    await asyncio.sleep(0.1)
                    proxy.up()
                    await publisher.past(before, publishing)
                await publishing
                await publisher.heard_by(listener)


@pytest.mark.usefixtures("often")
async def test_a_store_that_is_killed_and_started_again_under_load_loses_and_doubles_nothing() -> None:
    with ServerProcess(valkey_binary(), *DURABLE) as server:
        async with opened(server.url) as ours, opened(server.url) as theirs:
            publisher = Publisher(ours.workspace("acme"))
            async with Listener(theirs.workspace("acme")) as listener:
                publishing = asyncio.create_task(publisher.run(300))
                for _ in range(2):
                    before = publisher.published
                    await publisher.past(before + 20, publishing)
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(server.start)
                await publishing
                await publisher.heard_by(listener)


@pytest.mark.usefixtures("often")
async def test_a_process_that_is_killed_is_heard_to_its_last_word_and_its_members_leave_once(
    valkey_socket: str, tmp_path: Path
) -> None:
    async with await clean_client(valkey_socket) as client:
        workspace = client.workspace("acme")
        events: list[Any] = []
        members: list[list[Any]] = [[], []]

        async def hear(topic: Any, into: list[Any], after: Position | None) -> None:
            async for item in topic.listen(after=after):
                assert isinstance(item, tuple)
                into.append(item[1].value)

        async with await clean_client(valkey_socket) as another:
            rooms = [one.workspace("acme").presence("room") for one in (client, another)]
            listening = [
                asyncio.create_task(hear(workspace.topic("t"), events, BEGINNING)),
                *(
                    asyncio.create_task(hear(room, into, None))
                    for room, into in zip(rooms, members, strict=True)
                ),
            ]
            said = tmp_path / "said"
            environment = {
                **os.environ, "PYTHONPATH": str(Path(redis_core.__file__).parents[1]), "RAPTORFLOW_ENV": "test",
                "REDIS_URL": f"unix://{valkey_socket}",
            }  # fmt: skip
            program = Path(__file__).with_name("realtime_publisher.py")
            with said.open("wb") as out:
                process = subprocess.Popen([sys.executable, str(program)], env=environment, stdout=out)
            try:
                await until(lambda: len(said.read_text().splitlines()) > 50)
            finally:
                process.kill()
                process.wait()
            acknowledged = len([line for line in said.read_text().split("\n")[:-1] if line])
            await until(lambda: len(events) >= acknowledged)
            await until(lambda: all({"leave": ["u1"]} in each for each in members))
            # Something that comes later is heard after all that could have come twice.
            await rooms[0].join("u2")
            await until(lambda: all({"join": {"u2": None}} in each for each in members))
            for task in listening:
                task.cancel()
            await asyncio.wait(listening)
        # One may have been on its way to the store, and nobody was told that it got there.
        assert events in (list(range(1, acknowledged + 1)), list(range(1, acknowledged + 2)))
        for each in members:
            assert [one for one in each if "leave" in one] == [{"leave": ["u1"]}]
        key = workspace.keys.key("presence", "presence", "room")
        fields: Any = await client.execute("HKEYS", key)
        assert [field.decode().partition(" ")[2] for field in fields] == ["u2"]
