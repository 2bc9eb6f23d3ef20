"""An HTTP response cache for any ASGI application: whole responses of GET and HEAD, kept in the workspace's cache.

A rule says which paths are cached and for how long. Nothing is shared that the application did not allow to be: responses that
set a cookie, say `no-store`, `no-cache` or `private`, or vary by a header that their rule does not name, are passed on as they
come and not kept. Each cached response has a strong ETag, and a request that names it is answered 304 without a body. A HEAD is
answered with the head of the GET. What a request's own `Cache-Control` says is not followed: a client could turn the cache off.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.api.cache_capture import Capture, Headers
from redis_core.cache import CacheEntry, CacheRegion, Fresh
from redis_core.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from redis_core.client import Client

__all__ = ["CacheMiddleware", "HttpRule"]

_NEVER_KEPT: Final = frozenset(
    {b"set-cookie", b"connection", b"transfer-encoding", b"date", b"age", b"x-cache"}
)
_UNKEPT_DIRECTIVES: Final = frozenset({b"no-store", b"private", b"no-cache"})
_CREDENTIALS: Final = frozenset({b"authorization", b"cookie"})
_IN_304: Final = frozenset({b"cache-control", b"content-location", b"expires", b"vary"})
"""What RFC 9110 wants a 304 to repeat, besides the ETag."""


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
    """Seconds a response is fresh; less where its own `s-maxage` or `max-age` says so."""
    stale_while_revalidate: float = 0
    """Seconds after that in which it is still served at once, and renewed behind."""
    vary: tuple[str, ...] = ("accept", "accept-encoding", "accept-language")
    """Request headers that make a response another one. Name `authorization` or `cookie` to keep one response for each value of
    it; a request that carries one that is not named passes uncached."""
    shared: bool = False
    """Whether all of a workspace's users may share a response although their requests carry credentials."""
    max_bytes: int = 1024 * 1024
    """Largest body kept."""
    hard_timeout: float = 30
    """Seconds the application may take to make a response that is kept."""
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
            "http",
            _Response,
            ttl=self.ttl,
            stale_while_revalidate=self.stale_while_revalidate,
            hard_timeout=self.hard_timeout,
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

        own: Capture | None = None
        gone = False

        async def load(_: str) -> _Response | Fresh[_Response]:
            nonlocal own
            own = capture = Capture(
                self._app,
                {**scope, "method": "GET"},
                receive,
                may_be_kept=lambda status, headers: _lifetime(status, headers, rule) > 0,
                max_bytes=rule.max_bytes,
            )
            if gone:
                capture.abandon()
            if await capture.collect():
                return Fresh(_kept(capture), _lifetime(capture.status, capture.headers, rule))
            # The body is for this caller alone: who waits for the same load may be another user. That it is too large is
            # remembered, so that the next ones need not find out.
            return _NOT_KEPT if capture.too_large else Fresh(_NOT_KEPT, ttl=0)

        cache = self._client.workspace(workspace).cache
        try:
            entry = await cache.get_entry_or_load(rule.region, _key(scope, rule), load)
            if entry.value.status:
                await _answer(scope, send, entry)
            elif own is not None and own.handed_over:
                await own.pass_on(_without_body(send) if scope["method"] == "HEAD" else send)
            else:
                await self._app(scope, receive, send)
        finally:
            gone = True
            if own is not None:
                own.abandon()

    def _rule(self, scope: Scope) -> HttpRule | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        for rule in self._rules:
            if rule.matches.fullmatch(scope["path"]):
                sent = dict(headers)
                hidden = _CREDENTIALS & sent.keys() - set(rule.vary_names)
                has_body = sent.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in sent
                passes = (hidden and not rule.shared) or b"range" in sent or has_body
                return None if passes else rule
        return None


def _key(scope: Scope, rule: HttpRule) -> str:
    """Scheme, host, path, query and the headers it varies by, as a digest: they may hold anything, and secrets."""
    digest = hashlib.sha256()
    path: str = scope["path"]
    scheme: str = scope.get("scheme", "http")
    for part in (scheme.encode(), path.encode("utf-8", "surrogateescape"), scope["query_string"]):
        digest.update(len(part).to_bytes(4, "big") + part)
    for name, value in scope["headers"]:
        # The host always: an application may write it into its links.
        if name == b"host" or name in rule.vary_names:
            digest.update(name + b":" + len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()


def _kept(capture: Capture) -> _Response:
    etag = next((value for name, value in capture.headers if name == b"etag"), b"")
    etag = etag or b'"' + hashlib.sha256(capture.body).hexdigest()[:32].encode() + b'"'
    headers = tuple((name, value) for name, value in capture.headers if name not in _NEVER_KEPT)
    return _Response(capture.status, headers, bytes(capture.body), etag)


def _lifetime(status: int, headers: Headers, rule: HttpRule) -> float:
    """Seconds for which a response may be kept; 0 if it may not be."""
    if status != 200:  # noqa: PLR2004 - only a plain success is
        return 0
    directives: dict[bytes, bytes] = {}
    for name, value in headers:
        words = [word.strip().lower() for word in value.split(b",")]
        if name == b"set-cookie" or (name == b"vary" and not set(words) <= set(rule.vary_names)):
            return 0
        if name == b"cache-control":
            directives |= {word.partition(b"=")[0]: word.partition(b"=")[2].strip(b'"') for word in words}
    if directives.keys() & _UNKEPT_DIRECTIVES:
        return 0
    age = directives.get(b"s-maxage", directives.get(b"max-age", b""))
    return min(rule.ttl, int(age[:10])) if age.isdigit() else rule.ttl


async def _answer(scope: Scope, send: Send, entry: CacheEntry[_Response]) -> None:
    response = entry.value
    told = b"MISS" if entry.tier == "loader" else b"STALE" if entry.stale else b"HIT"
    extra = ((b"etag", response.etag), (b"age", b"%d" % int(entry.age)), (b"x-cache", told))
    wanted = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
    if _names(wanted, response.etag):
        status, body = 304, b""
        headers = tuple((name, value) for name, value in response.headers if name in _IN_304)
    else:
        status, body = response.status, b"" if scope["method"] == "HEAD" else response.body
        headers = tuple((name, value) for name, value in response.headers if name != b"etag")
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
    await send({"type": "http.response.body", "body": body})


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


def _names(wanted: bytes, etag: bytes) -> bool:
    """Whether If-None-Match names this ETag, compared weakly as RFC 9110 says."""
    if wanted.strip() == b"*":
        return True
    return etag.removeprefix(b"W/") in {tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")}
