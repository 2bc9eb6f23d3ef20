"""An HTTP response cache for any ASGI application: whole responses of GET and HEAD, kept in the workspace's cache.

A rule says which paths are cached and for how long. Nothing is shared that the application did not allow to be: responses that
set a cookie, say `no-store` or `private`, or vary by a header that their rule does not name, are passed on and not kept. Each
cached response has a strong ETag, and a request that names it is answered 304 without a body.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.cache import CacheEntry, CacheRegion, Fresh
from redis_core.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from redis_core.client import Client

__all__ = ["CacheMiddleware", "HttpRule"]

Headers = tuple[tuple[bytes, bytes], ...]

_NEVER_KEPT: Final = frozenset(
    {b"set-cookie", b"connection", b"transfer-encoding", b"date", b"age", b"x-cache"}
)
_UNKEPT_DIRECTIVES: Final = frozenset({b"no-store", b"private", b"no-cache"})
_CREDENTIALS: Final = frozenset({b"authorization", b"cookie"})


class _Response(msgspec.Struct, frozen=True, array_like=True):
    """A kept response; status 0 says that this one is not to be kept."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    etag: bytes = b""


_NOT_KEPT: Final = _Response(0)


@dataclass(frozen=True, kw_only=True)
class HttpRule:
    """Which responses are kept, and how long.

    Raises:
        ConfigError: a field is out of range.
    """

    path: str
    """A regular expression that the whole path must match."""
    ttl: float
    """Seconds a response is fresh."""
    stale_while_revalidate: float = 0
    """Seconds after that in which it is still served at once, and renewed behind."""
    vary: tuple[str, ...] = ("accept", "accept-encoding", "accept-language")
    """Request headers that make a response another one. Name `authorization` or `cookie` to keep one response for each value of
    it; a request that carries one that is not named passes uncached."""
    shared: bool = False
    """Whether all of a workspace's users may share a response although their requests carry credentials."""
    max_bytes: int = 1024 * 1024
    """Largest body kept."""
    region: CacheRegion[_Response] = field(init=False, repr=False)
    matches: re.Pattern[str] = field(init=False, repr=False)
    vary_names: tuple[bytes, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            matches = re.compile(self.path)
        except re.error as error:
            raise ConfigError("HttpRule.path", self.path, f"give a regular expression ({error})") from None
        if self.ttl <= 0 or self.max_bytes <= 0:
            raise ConfigError(
                "HttpRule", f"ttl={self.ttl}, max_bytes={self.max_bytes}", "give numbers above 0"
            )
        region = CacheRegion(
            "http", _Response, ttl=self.ttl, stale_while_revalidate=self.stale_while_revalidate
        )
        object.__setattr__(self, "region", region)
        object.__setattr__(self, "matches", matches)
        object.__setattr__(self, "vary_names", tuple(sorted(name.lower().encode() for name in self.vary)))


class CacheMiddleware:
    """Answers from the cache where a rule allows it. Budget: as `Cache.get_or_load`.

    Args:
        app: the application.
        client: the store.
        workspace: the workspace a request belongs to, from what was verified before; None passes it uncached.
        rules: the first that matches counts.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        client: Client,
        workspace: Callable[[Scope], str | None],
        rules: Sequence[HttpRule],
    ) -> None:
        self._app = app
        self._client = client
        self._workspace = workspace
        self._rules = tuple(rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        rule = self._rule(scope) if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} else None
        workspace = self._workspace(scope) if rule is not None else None
        if rule is None or workspace is None:
            await self._app(scope, receive, send)
            return

        own: _Response | None = None

        async def load(_: str) -> _Response | Fresh[_Response]:
            nonlocal own
            response, headers = await _capture(self._app, scope, rule)
            if response is None:
                return _NOT_KEPT  # too large: remembered, so that it is not run twice for every request
            if _may_be_kept(response.status, headers, rule):
                return response
            # For this caller alone: who waits for the same load may be another user.
            own = response
            return Fresh(_NOT_KEPT, ttl=0)

        cache = self._client.workspace(workspace).cache
        entry = await cache.get_entry_or_load(rule.region, _key(scope, rule), load)
        if entry.value.status:
            await _answer(scope, send, entry)
        elif own is not None:
            await _send(scope, send, own.status, own.headers, own.body)
        else:
            await self._app(scope, receive, send)

    def _rule(self, scope: Scope) -> HttpRule | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        for rule in self._rules:
            if rule.matches.fullmatch(scope["path"]):
                names = {name for name, _ in headers}
                hidden = _CREDENTIALS & names - set(rule.vary_names)
                return None if (hidden and not rule.shared) or b"range" in names else rule
        return None


def _key(scope: Scope, rule: HttpRule) -> str:
    """Path, query and the headers it varies by, as a digest: they may hold anything, and secrets."""
    digest = hashlib.sha256()
    path: str = scope["path"]
    for part in (scope["method"].encode(), path.encode("utf-8", "surrogateescape"), scope["query_string"]):
        digest.update(len(part).to_bytes(4, "big") + part)
    for name, value in scope["headers"]:
        if name in rule.vary_names:
            digest.update(name + b":" + len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()


async def _capture(app: ASGIApp, scope: Scope, rule: HttpRule) -> tuple[_Response | None, Headers]:
    """Run the application; its response, None if the body is too large, and all of its headers."""
    start: Message = {}
    body = bytearray()
    too_large = False
    asked = False

    async def give() -> Message:
        # The load belongs to the cache: it goes on when the caller has gone, so there is no disconnect to tell of.
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def take(message: Message) -> None:
        nonlocal start, too_large
        if message["type"] == "http.response.start":
            start = message
        elif message["type"] == "http.response.body":
            too_large = too_large or len(body) + len(message.get("body", b"")) > rule.max_bytes
            if not too_large:
                body.extend(message.get("body", b""))

    await app(scope, give, take)
    headers: Headers = tuple((name.lower(), value) for name, value in start.get("headers", ()))
    if too_large:
        return None, headers
    status: int = start.get("status", 500)
    etag = next((value for name, value in headers if name == b"etag"), b"")
    etag = etag or b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
    may_stay = tuple((name, value) for name, value in headers if name not in _NEVER_KEPT)
    kept = may_stay if _may_be_kept(status, headers, rule) else headers
    return _Response(status, kept, bytes(body), etag), headers


def _may_be_kept(status: int, headers: Headers, rule: HttpRule) -> bool:
    if status != 200:  # noqa: PLR2004 - only a plain success is
        return False
    for name, value in headers:
        words = {word.strip().lower() for word in value.split(b",")}
        if name == b"set-cookie" or (name == b"cache-control" and words & _UNKEPT_DIRECTIVES):
            return False
        if name == b"vary" and not words <= set(rule.vary_names):
            return False
    return True


async def _answer(scope: Scope, send: Send, entry: CacheEntry[_Response]) -> None:
    response = entry.value
    told = b"MISS" if entry.tier == "loader" else b"STALE" if entry.stale else b"HIT"
    extra = ((b"etag", response.etag), (b"age", b"%d" % int(entry.age)), (b"x-cache", told))
    wanted = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
    if _names(wanted, response.etag):
        kept = tuple((name, value) for name, value in response.headers if name in {b"cache-control", b"vary"})
        await _send(scope, send, 304, (*kept, *extra), b"")
        return
    headers = tuple((name, value) for name, value in response.headers if name != b"etag")
    await _send(scope, send, response.status, (*headers, *extra), response.body)


async def _send(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _names(wanted: bytes, etag: bytes) -> bool:
    """Whether If-None-Match names this ETag, compared weakly as RFC 9110 says."""
    if wanted.strip() == b"*":
        return True
    return etag.removeprefix(b"W/") in {tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")}
