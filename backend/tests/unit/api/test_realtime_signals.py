"""A signal to end is heard before the server that would wait for open streams, and whoever handled it still does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from redis_core.api.realtime_hubs import Hubs
from redis_core.api.realtime_signals import before_exit
from redis_core.client import Client
from tests.realtime_world import claims_of, opened, scripted_hub


@pytest.fixture
def handled() -> Iterator[list[str]]:
    """What the server's own handler of SIGTERM has seen."""
    seen: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("server"))
    yield seen
    signal.signal(signal.SIGTERM, before)


async def test_both_hear_it(handled: list[str]) -> None:
    heard = asyncio.Event()
    stop = before_exit(heard.set)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await heard.wait()
    assert handled == ["server"]
    stop()


async def test_gives_the_handler_back_unless_another_has_come(handled: list[str]) -> None:
    theirs = signal.getsignal(signal.SIGTERM)
    before_exit(lambda: None)()
    assert signal.getsignal(signal.SIGTERM) is theirs
    stop = before_exit(lambda: None)
    later = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, newest := lambda *_: None)
    stop()
    assert signal.getsignal(signal.SIGTERM) is newest
    assert later is not theirs


async def test_in_another_thread_there_is_nobody_to_come_before(handled: list[str]) -> None:
    theirs = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: before_exit(lambda: None)())
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert signal.getsignal(signal.SIGTERM) is theirs


async def test_a_signal_drains_every_hub_of_the_client(handled: list[str], memory: Client) -> None:
    hubs = memory.service(Hubs)
    connections = []
    for _ in range(2):
        hub, _, clock = scripted_hub()
        hubs.add(hub)
        connections.append((await opened(hub, claims_of(clock)))[1])
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        while not all(connection.ended for connection in connections):
            await asyncio.sleep(0.01)
    assert handled == ["server"]
    assert [connection.frames[-1]["reason"] for connection in connections] == ["shutdown", "shutdown"]
