"""Sessions for any ASGI application: the cookie in, the session when it is asked for, its changes and the cookie out.

A request that does not ask for its session costs no command. What was changed is written before the response starts, so that
the next request sees it; that the session was used is written after the response has started, when nobody waits for it.
Responses pass unbuffered.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from redis_core.api.session_cookie import SessionCookie, header
from redis_core.errors import SessionGone, StoreError
from redis_core.keys import PRE_LOGIN_WORKSPACE
from redis_core.session import Consistency, Device, Session, Sessions

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SCOPE_KEY", "RequestSession", "SessionMiddleware", "request_session"]

T = TypeVar("T")

SCOPE_KEY: Final = "raptorflow.session"
"""Where a scope holds its `RequestSession`."""
CLEAR_SITE_DATA: Final = '"cache", "cookies", "storage"'
"""What a browser is told to forget at a logout (W3C Clear Site Data; OWASP's session cheat sheet)."""

_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_AFTER_START: Final = frozenset({"http.response.body", "websocket.accept"})
_VARY: Final = (b"vary", b"Cookie")
_TRY_AGAIN_LATER: Final = 1013
"""The WebSocket close code for it."""
_UNAVAILABLE: Final = json.dumps(
    {
        "type": "urn:raptorflow:problem:store-unavailable",
        "title": "Store unavailable",
        "status": 503,
        "code": "store-unavailable",
        "detail": "The session store does not answer; you have not been logged out. Try again.",
    }
).encode()
_log: Final = logging.getLogger("redis_core.session")


class RequestSession(Generic[T]):
    """The session of one request or WebSocket: `await load()` it, or log somebody in or out."""

    __slots__ = (
        "_cookie", "_loaded", "_middleware", "_reading", "_session", "_store_error",
        "_touched", "commit_failed", "scope", "sessions", "started",
    )  # fmt: skip

    def __init__(self, middleware: SessionMiddleware[T], sessions: Sessions[T], scope: Scope) -> None:
        self._middleware = middleware
        self.sessions = sessions
        self.scope = scope
        self._session: Session[T] | None = None
        self._loaded = False
        self._reading: asyncio.Task[Session[T] | None] | None = None
        self._cookie: str | None = None
        """The token to set, empty to clear the cookie, None to leave it."""
        self._store_error: StoreError | None = None
        self._touched = False
        self.commit_failed = False
        self.started = False

    @property
    def device(self) -> Device:
        """Where the request comes from."""
        agent = header(self.scope["headers"], b"user-agent") or ""
        return Device.of(agent, self._middleware.client_ip(self.scope))

    async def load(self) -> Session[T] | None:
        """The session; None if there is none. Budget: as `Sessions.get` the first time, then nothing.

        Raises:
            StoreUnavailable: the store cannot tell; unhandled, the middleware answers 503.
        """
        if not self._loaded:
            try:
                if self._reading is not None:
                    session = await asyncio.shield(self._reading)
                else:
                    read = self._read()
                    session = None if read is None else await read
            except StoreError as error:
                self._store_error = error
                raise
            # Another task of the request may have been first; there is one session object a request.
            if not self._loaded:
                self._session, self._loaded = session, True
        return self._session

    def prefetch(self) -> None:
        """Begin to read, without waiting: the command then shares the trip of what the request sends next."""
        if not self._loaded and self._reading is None and (read := self._read()) is not None:
            self._reading = asyncio.get_running_loop().create_task(read)

    def _read(self) -> Coroutine[None, None, Session[T] | None] | None:
        """The read of the cookie's session, or None if there is no cookie."""
        middleware = self._middleware
        token = middleware.cookie.read(self.scope["headers"])
        if not token:
            return None
        workspace = None if middleware.workspace is None else middleware.workspace(self.scope)
        consistency = "normal" if middleware.consistency is None else middleware.consistency(self.scope)
        return self.sessions.get(token, workspace=workspace, consistency=consistency, touch=False)

    async def start(
        self, data: T | Mapping[str, object] | None = None, *, workspace: str = PRE_LOGIN_WORKSPACE
    ) -> Session[T]:
        """The session, or a new one of nobody. Budget: as `Sessions.create` if it is new."""
        session = await self.load()
        return await self._create(None, workspace, data) if session is None else session

    async def login(
        self, user_id: str, workspace: str = PRE_LOGIN_WORKSPACE, data: T | Mapping[str, object] | None = None
    ) -> Session[T]:
        """A session under a new token for a user who has just authenticated.

        A session of nobody goes on as the user's, with what it holds; one of a user ends. The old token is dead at once.
        Budget: the read, then as `Sessions.create` or `Sessions.rotate`, and 3 commands if an old session ends.
        """
        old = await self.load()
        if old is None or old.user_id is not None:
            session = await self._create(user_id, workspace, data)
            if old is not None:
                await self.sessions.revoke(old, reason="relogin")
            return session
        self._may_set_cookie()
        self._cookie = await self.sessions.rotate(
            old, user_id=user_id, workspace=workspace, device=self.device
        )
        if data is not None:
            if isinstance(data, Mapping):
                cast("dict[str, object]", old.data).update(data)
            else:
                old.data = data
        return old

    async def rotate(self, *, reauthenticated: bool = True) -> Session[T]:
        """Go on under a new token, after a re-authentication or a change of rights. Budget: as `Sessions.rotate`.

        Raises:
            SessionGone: there is no session.
        """
        session = await self.load()
        if session is None:
            raise SessionGone("there is no session to go on with")
        self._may_set_cookie()
        self._cookie = await self.sessions.rotate(session, reauthenticated=reauthenticated)
        return session

    async def logout(self) -> None:
        """End the session and have the browser forget it and what it knows of the site. Budget: the read, then 3 commands."""
        session = await self.load()
        if session is not None:
            await self.sessions.revoke(session)
        self._session, self._cookie = None, ""

    async def _create(
        self, user_id: str | None, workspace: str, data: T | Mapping[str, object] | None
    ) -> Session[T]:
        self._may_set_cookie()
        self._session, self._cookie = await self.sessions.create(user_id, workspace, data, self.device)
        self._loaded = True
        return self._session

    def _may_set_cookie(self) -> None:
        if self.started:
            raise RuntimeError(
                "the response has started: its headers, and so the cookie, can no longer be set"
            )

    # --- for the middleware ---

    def must_save(self) -> Session[T] | None:
        """The session, if something is to be written before the response starts."""
        session = self._session
        return session if session is not None and (session.changes() or self._renewable) else None

    async def save(self, session: Session[T]) -> None:
        """Write what has changed, and replace a token that has become old."""
        try:
            await session.save()
            if self._cookie is None and self._renewable:
                self._cookie = await self.sessions.renew(session)
        except SessionGone:
            # Revoked or rotated by a parallel request: nothing comes back, and that request's cookie is not ours to clear.
            self.sessions.lost_write(session)
        except StoreError as error:
            self._store_error, self.commit_failed = error, True
            raise

    def begin(self, message: Message) -> None:
        """The response starts with this message: add the session's headers."""
        self.started = True
        if self._cookie is not None:
            message["headers"] = self._headers(message)
        elif self._loaded:
            message["headers"] = [*message.get("headers", ()), _VARY]

    @property
    def _renewable(self) -> bool:
        return self.sessions.policy.renew_after is not None and self.scope["type"] == "http"

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        policy = self._middleware.cookie
        headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"cache-control"]
        headers += [_VARY, (b"cache-control", b"no-store")]
        if self._cookie:
            max_age = self.sessions.policy.absolute
            headers.append((b"set-cookie", policy.setting(self._cookie, max_age, self.scope["headers"])))
        else:
            headers.append((b"set-cookie", policy.clearing))
            if self._middleware.clear_site_data:
                headers.append((b"clear-site-data", self._middleware.clear_site_data.encode()))
        return headers

    def to_touch(self) -> Session[T] | None:
        """The session whose use is to be written down now that the response has started: once a request at most."""
        session = self._session
        if session is None or self._touched:
            return None
        self._touched = True
        return session if self.sessions.touch_due(session) else None

    async def touch(self, session: Session[T]) -> None:
        """Write down the use; a store that is away harms nobody now."""
        try:
            await self.sessions.touch(session)
        except StoreError as error:
            _log.warning("session %s was not touched: %s", session.handle, error)

    def caused(self, error: Exception) -> bool:
        """Whether the store's failure under the session is what the application ended with."""
        return self._store_error is not None and (self.commit_failed or error is self._store_error)

    def finish(self) -> None:
        """Let go of a read that nobody waited for, and of the scope, which holds this object in a cycle."""
        self.scope = {"type": self.scope["type"], "headers": ()}
        reading = self._reading
        if reading is not None and not reading.cancel() and not reading.cancelled():
            reading.exception()


def client_address(scope: Scope) -> str | None:
    """The address of the connection's other end. Headers such as X-Forwarded-For are never trusted by themselves."""
    client = scope.get("client")
    return client[0] if client else None


class SessionMiddleware(Generic[T]):
    """Gives every request and WebSocket its `RequestSession`, under `scope["raptorflow.session"]`.

    Args:
        app: the application.
        sessions: the service, or what returns it when the first request comes.
        cookie: how the token travels.
        workspace: the workspace that a request is for, if its address tells; a token of another one is no session there.
        consistency: which requests must see a revocation of a moment ago.
        prefetch: which requests begin to read at once, to share a trip with what else they send; others read when asked.
        client_ip: the client's address, for the device page; behind a proxy give what reads its headers.
        clear_site_data: the header of that name at a logout; empty for none.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: Sessions[T] | Callable[[], Sessions[T]],
        *,
        cookie: SessionCookie = SessionCookie(),
        workspace: Callable[[Scope], str | None] | None = None,
        consistency: Callable[[Scope], Consistency] | None = None,
        prefetch: Callable[[Scope], bool] | None = None,
        client_ip: Callable[[Scope], str | None] = client_address,
        clear_site_data: str = CLEAR_SITE_DATA,
    ) -> None:
        self._app = app
        self._sessions = sessions
        self.cookie = cookie
        self.workspace = workspace
        self.consistency = consistency
        self.client_ip = client_ip
        self.clear_site_data = clear_site_data
        self._prefetch = prefetch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        sessions = self._sessions if isinstance(self._sessions, Sessions) else self._sessions()
        request = scope[SCOPE_KEY] = RequestSession(self, sessions, scope)
        if self._prefetch is not None and self._prefetch(scope):
            request.prefetch()

        async def send_with_session(message: Message) -> None:
            kind = message["type"]
            if not request.started and kind in _STARTS:
                if (changed := request.must_save()) is not None:
                    await request.save(changed)
                request.begin(message)
            await send(message)
            if kind in _AFTER_START and (used := request.to_touch()) is not None:
                await request.touch(used)

        try:
            await self._app(scope, receive, send_with_session)
        except Exception as error:
            if request.started or not request.caused(error):
                raise
            await _unavailable(scope, send)
        finally:
            request.finish()


def request_session(scope: Scope) -> RequestSession[object]:
    """The `RequestSession` of a scope.

    Raises:
        RuntimeError: there is no `SessionMiddleware` around the application.
    """
    request = scope.get(SCOPE_KEY)
    if request is None:
        raise RuntimeError("put SessionMiddleware around the application: this scope has no session")
    return cast("RequestSession[object]", request)


async def _unavailable(scope: Scope, send: Send) -> None:
    """Answer that the store is away, which is not the same as being logged out."""
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send(
                {"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "session store unavailable"}
            )
            return
        kind = "websocket.http.response"
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(_UNAVAILABLE)),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
    ]
    await send({"type": f"{kind}.start", "status": 503, "headers": headers})
    await send({"type": f"{kind}.body", "body": _UNAVAILABLE})
