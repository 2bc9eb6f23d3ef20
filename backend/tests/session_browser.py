"""A browser that needs no server: requests straight into an ASGI application, and the session cookie kept."""

from __future__ import annotations

import asyncio
from typing import Any


class Browser:
    """Sends requests straight into an ASGI application and keeps the session cookie as a browser does."""

    def __init__(self, app: Any, cookie: str | None = None) -> None:
        self.app = app
        self.cookie = cookie
        self.messages: list[dict[str, Any]] = []

    async def get(self, path: str = "/", **scope: Any) -> tuple[int, dict[str, list[str]], bytes]:
        self.messages = await self.run(
            {"type": "http", "method": "GET", "path": path, **scope}, [{"type": "http.request"}]
        )
        start = self.messages[0]
        headers: dict[str, list[str]] = {}
        for name, value in start["headers"]:
            headers.setdefault(name.decode().lower(), []).append(value.decode())
        for setting in headers.get("set-cookie", []):
            self.cookie = setting.split(";")[0].split("=", 1)[1] or None
        return start["status"], headers, b"".join(message.get("body", b"") for message in self.messages[1:])

    async def run(self, scope: dict[str, Any], incoming: list[dict[str, Any]]) -> list[dict[str, Any]]:
        headers = [(b"host", b"app.example"), (b"user-agent", b"test")]
        if self.cookie is not None:
            headers.append((b"cookie", b"other=1; __Host-rf_session=" + self.cookie.encode()))
        scope = {
            "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "https", "query_string": b"", "root_path": "",
            "client": ("203.0.113.5", 9), "server": ("app.example", 443), "headers": headers, **scope,
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop(0)
            await asyncio.sleep(10)
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        self.sent = sent
        await self.app(scope, receive, send)
        return sent
