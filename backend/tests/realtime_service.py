"""The realtime endpoints under a real uvicorn, that a test may kill and start again, and browsers that never give up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import aiohttp

from redis_core import realtime_token
from redis_core.api.realtime import Realtime
from redis_core.client import Client, connect
from redis_core.config import load_settings
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing
from tests.server_process import free_port

__all__ = ["KINDS", "Browser", "Service", "create", "token"]

_KEYS = "k1:" + "k" * 40
_BACKEND = Path(__file__).parent.parent
_STARTED_WITHIN = 30.0
KINDS = {"msg": "events", "snap": "state", "patch": "state", "text": "append", "pres": "presence"}
"""The kind that each frame's update belongs to."""


def create() -> Any:
    """The application that uvicorn serves: nothing but the endpoints, on the store of the environment."""
    client: Client | None = None

    async def source() -> Client:
        nonlocal client
        if client is None:
            client = await connect(load_settings())
        return client

    return Realtime(source, origins=["https://app.example.com"])


def token(workspace: str = "acme", user: str = "u1", *, seconds: float = 600, **rights: Any) -> str:
    """A token that the service accepts."""
    rights.setdefault("read", ["*"])
    rights.setdefault("write", ["*"])
    return realtime_token.issue(workspace, user, seconds=seconds, keys=PepperRing(Secret(_KEYS)), **rights)


class Service:
    """uvicorn in a process of its own.

    Args:
        store: URL of the store.
        settings: further variables of its environment.
    """

    def __init__(self, store: str, **settings: str) -> None:
        self.port = free_port()
        self._environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(_BACKEND), os.environ.get("PYTHONPATH", "")]),
            "RAPTORFLOW_ENV": "test", "REDIS_URL": store, "REALTIME_KEYS": _KEYS, **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, endpoint: str) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/realtime/{endpoint}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [
            sys.executable, "-m", "uvicorn", "tests.realtime_service:create", "--factory",
            "--app-dir", str(_BACKEND), "--port", str(self.port), "--log-level", "warning",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL)
        until = time.monotonic() + _STARTED_WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, "the service ended while it was started"
                assert time.monotonic() < until, "the service did not start"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def terminate(self, number: int = signal.SIGTERM) -> float:
        """Ask it to end; seconds until it had."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(number)
        await asyncio.get_running_loop().run_in_executor(None, self._process.wait, 20)
        self._process = None
        return time.monotonic() - began


class Browser:
    """A client of the protocol: keeps positions, applies updates, comes back whatever happens.

    Args:
        service: the service.
        token: its token.
        topics: topic and kind of each subscription.
    """

    def __init__(self, service: Service, token: str, *topics: tuple[str, str]) -> None:
        self.service = service
        self.token = token
        self.positions: dict[tuple[str, str], tuple[str, int]] = dict.fromkeys(topics, ("", 0))
        self.frames: list[dict[str, Any]] = []
        self.messages: list[Any] = []
        self.text = ""
        self.state: Any = None
        self.states: list[Any] = []
        self.doubled = 0
        self.gaps = 0
        self.connections = 0
        self.stream = ""
        self.subscribed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._live())
        async with asyncio.timeout(30):
            await self.subscribed.wait()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def until(self, what: Any, seconds: float = 30) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(seconds):
            while not what():
                await asyncio.sleep(0.01)

    async def post(self, endpoint: str, body: Any, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.service.url(endpoint), json=body, headers=headers) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def _live(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await self._connect(session)
                await asyncio.sleep(0.05)

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        wants = [
            {"topic": topic, "kind": kind, "epoch": epoch, "offset": offset}
            for (topic, kind), (epoch, offset) in self.positions.items()
        ]
        headers = {"Authorization": f"Bearer {self.token}"}
        async with session.post(
            self.service.url("stream"), json={"topics": wants}, headers=headers
        ) as response:
            if response.status != 200:
                return
            self.connections += 1
            async for line in response.content:
                if line.startswith(b"data: "):
                    self._take(json.loads(line[6:]))

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        name = frame["t"]
        if name == "hello":
            self.stream = frame["stream"]
        elif name == "gap":
            self.gaps += 1
        elif name == "sub":
            key = frame["topic"], frame["kind"]
            epoch, _ = self.positions.get(key, ("", 0))
            if epoch != frame["epoch"]:
                self.positions[key] = frame["epoch"], frame["offset"]
            if all(epoch for epoch, _ in self.positions.values()):
                self.subscribed.set()
        elif name in KINDS:
            self._update(frame, (frame["topic"], KINDS[name]))

    def _update(self, frame: dict[str, Any], key: tuple[str, str]) -> None:
        epoch, last = self.positions[key]
        if frame["offset"] <= last and frame["t"] in {"msg", "patch"}:
            self.doubled += 1
            return
        self.positions[key] = epoch, frame["offset"]
        if frame["t"] == "msg":
            self.messages.append(frame["data"])
        elif frame["t"] == "text":
            written = self.text.encode()[: frame["from"]]
            assert len(written) == frame["from"], "a piece of text is missing"
            self.text = written.decode() + frame["text"]
        elif frame["t"] in {"snap", "patch"}:
            self.state = frame["data"] if frame["t"] == "snap" else merged(self.state, frame["patch"])
            self.states.append(self.state)


def merged(value: Any, patch: Any) -> Any:
    """JSON Merge Patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, one in patch.items():
        if one is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), one)
    return result
