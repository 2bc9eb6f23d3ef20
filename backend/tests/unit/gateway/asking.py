"""Requests to a gateway without a server, and a store that answers what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from redis_core.errors import StoreError
from redis_core.gateway import Gateway, GatewayLimits, GatewayToken, create_gateway
from redis_core.secret import Secret
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.subscription import SubscriptionRouter

FULL, READER, TENANT = "full-token", "reader-token", "tenant-token"
TOKENS = [
    GatewayToken(Secret(FULL)),
    GatewayToken(Secret(READER), read_only=True),
    GatewayToken(Secret(TENANT), prefix="t*1:"),
]


class FakeStore:
    """Keeps the batches it is given and answers `answer(command)` to each command, or raises `error`."""

    mode = "memory"
    target = "fake://"

    def __init__(
        self, answer: Callable[[Command], Reply] = lambda command: b"OK", script_header: str = ""
    ) -> None:
        self.script_header = script_header
        self.stats = TransportStats()
        self.answer = answer
        self.batches: list[list[Command]] = []
        self.transactions: list[list[Command]] = []
        self.error: StoreError | None = None
        self.listening: list[tuple[list[str], list[str]]] = []
        self.ignored: list[tuple[list[str], list[str]]] = []
        self.router = SubscriptionRouter(self)

    @property
    def commands(self) -> list[Command]:
        return [command for batch in self.batches for command in batch]

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        if self.error is not None:
            raise self.error
        self.batches.append(list(batch))
        return [self.answer(command) for command in batch]

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        if self.error is not None:
            raise self.error
        self.transactions.append(list(batch))
        return [self.answer(command) for command in batch]

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        return await self.router.subscribe(channels, patterns)

    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        if self.error is not None:
            raise self.error
        self.listening.append((list(channels), list(patterns)))

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        self.ignored.append((list(channels), list(patterns)))

    async def aclose(self) -> None: ...


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def gateway(store: FakeStore, **limits: Any) -> Gateway:
    return create_gateway(store, TOKENS, limits=GatewayLimits(**limits))


def scope_of(method: str, path: str, headers: dict[str, str], root: str = "") -> dict[str, Any]:
    raw, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "root_path": root,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("203.0.113.7", 51034),
    }


async def ask(
    app: Gateway,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    *,
    token: str | None = FULL,
    root: str = "",
    **headers: str,
) -> Answer:
    """One request and its whole answer. Header names are written with `_`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named.setdefault("authorization", f"Bearer {token}")
    parts = [body] if isinstance(body, bytes) else list(body)
    messages = [
        {"type": "http.request", "body": part, "more_body": place < len(parts) - 1}
        for place, part in enumerate(parts)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of(method, path, named, root), receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert not rest[-1].get("more_body", False)
    chunks = [message["body"] for message in rest]
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], found, b"".join(chunks), chunks)


async def command(app: Gateway, *words: Any, token: str = FULL, **headers: str) -> Answer:
    """A command in the body."""
    return await ask(app, "POST", "/", json.dumps(list(words)).encode(), token=token, **headers)


class Stream:
    """An event stream that is being read."""

    def __init__(
        self, app: Gateway, path: str, *, method: str = "POST", body: bytes = b"", token: str = FULL
    ) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self._first = [{"type": "http.request", "body": body, "more_body": False}]
        self._gone = asyncio.Event()
        scope = scope_of(method, path, {"authorization": f"Bearer {token}"})
        self.task = asyncio.create_task(app(scope, self._receive, self.sent.put))

    async def _receive(self) -> Any:
        if self._first:
            return self._first.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def start(self) -> dict[str, str]:
        message = await self.sent.get()
        assert message["status"] == 200, await self.sent.get()
        return {name.decode(): value.decode() for name, value in message["headers"]}

    async def read(self) -> bytes:
        async with asyncio.timeout(5):
            message = await self.sent.get()
        assert message["type"] == "http.response.body"
        return message["body"]  # type: ignore[no-any-return]

    async def leave(self) -> None:
        self._gone.set()
        await self.task
