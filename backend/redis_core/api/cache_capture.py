"""One run of an application whose response is kept if it may be, and else goes to its caller as it comes.

Whether it may is known when the headers come, or when the body gets too large. Until then the run belongs to the cache, so that a
client that hangs up harms nobody who waits for the same response; from then on it belongs to the client it was begun for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Capture", "Headers"]

Headers = tuple[tuple[bytes, bytes], ...]


class Capture:
    """One run.

    Args:
        app: the application.
        scope: the request, its method GET.
        receive: the client's.
        may_be_kept: decides by status and headers, their names in lower case.
        max_bytes: longest body that is kept.
    """

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        *,
        may_be_kept: Callable[[int, Headers], bool],
        max_bytes: int,
    ) -> None:
        self.too_large = False
        self.status = 500
        self.headers: Headers = ()
        self.body = bytearray()
        self._app = app
        self._scope = scope
        self._receive = receive
        self._may_be_kept = may_be_kept
        self._max_bytes = max_bytes
        self._before: list[Message] = []
        self._asked = False
        self._abandoned = False
        self._handed = asyncio.Event()
        self._client: asyncio.Future[Send] = asyncio.get_running_loop().create_future()
        self._run: asyncio.Task[None] | None = None

    @property
    def handed_over(self) -> bool:
        """Whether the response is not to be kept: `pass_on` has it."""
        return self._handed.is_set()

    async def collect(self) -> bool:
        """Run the application until its response is whole, or is not to be kept. True if it is whole."""
        self._run = run = asyncio.get_running_loop().create_task(self._call(), name="cache http")
        handed = asyncio.get_running_loop().create_task(self._handed.wait())
        try:
            await asyncio.wait({run, handed}, return_when=asyncio.FIRST_COMPLETED)
            if self.handed_over:
                return False
            await run  # its error, if it has one
        except asyncio.CancelledError:
            run.cancel()
            raise
        finally:
            handed.cancel()
        return True

    async def _call(self) -> None:
        await self._app(self._scope, self._give, self._take)

    async def pass_on(self, send: Send) -> None:
        """Hand the response to the client it was made for, as it comes; the run ends with the client."""
        for message in self._before:
            await send(message)
        self._client.set_result(send)
        if self._run is not None:
            await self._run

    def abandon(self) -> None:
        """The client has gone or is served: nobody will ask for what is not kept."""
        self._abandoned = True
        if self.handed_over and self._run is not None:
            self._run.cancel()

    async def _give(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        # Only a run that is one client's alone may hear that this client has gone.
        await self._handed.wait()
        return await self._receive()

    async def _take(self, message: Message) -> None:
        if self.handed_over:
            await (await asyncio.shield(self._client))(message)
            return
        self._before.append(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = tuple((name.lower(), value) for name, value in message.get("headers", ()))
            if not self._may_be_kept(self.status, self.headers):
                self._hand_over()
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            if len(self.body) > self._max_bytes:
                self.too_large = True
                self._hand_over()

    def _hand_over(self) -> None:
        self._handed.set()
        if self._abandoned and self._run is not None:
            self._run.cancel()
