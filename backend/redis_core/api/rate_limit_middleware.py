"""Rate limits for any ASGI application: the decision before the application, its headers on the response.

Nothing of a response is held back or sent again: the header lines go into its first message and the rest passes untouched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from redis_core.api.rate_limit_template import RouteTemplates
from redis_core.errors import RateLimited
from redis_core.rate_limit import Decision, RateLimiter, RateLimits, Reservation, Subject, client_address
from redis_core.rate_limiting.headers import problem_of, rate_limit_headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SCOPE_KEY", "RateLimitMiddleware", "RequestLimits", "subject_of_scope"]

SCOPE_KEY: Final = "raptorflow.rate_limit"
"""Where a scope holds its `RequestLimits`."""
_TRY_AGAIN_LATER: Final = 1013
"""The WebSocket close code for it."""

LimiterSource = RateLimiter | Callable[[], Awaitable[RateLimiter]]


class RequestLimits:
    """What was decided on one request, and by whom: dependencies add theirs, and the response shows all."""

    __slots__ = ("decisions", "endpoint", "limiter", "subject")

    def __init__(self, limiter: RateLimiter, subject: Subject, endpoint: str) -> None:
        self.limiter = limiter
        self.subject = subject
        self.endpoint = endpoint
        self.decisions: list[Decision] = []


def subject_of_scope(scope: Scope, limits: RateLimits) -> Subject:
    """The client by its address alone, as far as the configured proxies are believed."""
    peer = scope.get("client")
    forwarded: list[str] = []
    if limits.trusted_proxies:
        forwarded = [
            value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
        ]
    return Subject(ip=client_address(peer[0] if peer else None, forwarded, limits.trusted_proxies))


class RateLimitMiddleware:
    """Decides on every request and WebSocket before the application sees it. Budget: as `RateLimiter.check`.

    A refusal is a 429 with problem details; while the store is away and a rule is `closed`, a 503. A rule of concurrent uses holds
    its place until the response has ended, streams included.

    Args:
        app: the application.
        limiter: the limiter, or what makes it when the first request comes.
        identify: whose a request is, from its scope, without waiting; None goes by the address alone. Take the address
            from `subject_of_scope`.
        template: the endpoint's path template; None asks the application's routes.
        alongside: called just before the decision is sent: what it starts without waiting shares the decision's trip, for example
            `lambda scope: request_session(scope).prefetch()`.
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: LimiterSource,
        *,
        identify: Callable[[Scope], Subject] | None = None,
        template: Callable[[Scope], str] | None = None,
        alongside: Callable[[Scope], object] | None = None,
    ) -> None:
        self._app = app
        self._source = limiter
        self._limiter = limiter if isinstance(limiter, RateLimiter) else None
        self._identify = identify
        self._template = RouteTemplates() if template is None else template
        self._alongside = alongside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        limiter = self._limiter
        if limiter is None:
            assert not isinstance(self._source, RateLimiter)  # noqa: S101 - it would be there
            limiter = self._limiter = await self._source()
        limits = limiter.limits
        subject = subject_of_scope(scope, limits) if self._identify is None else self._identify(scope)
        request = scope[SCOPE_KEY] = RequestLimits(limiter, subject, self._template(scope))
        if self._alongside is not None:
            self._alongside(scope)
        if any(group.policies.leases for group in limits.route(request.endpoint, subject.plan).groups):
            held = await limiter.reserve(subject, request.endpoint, give_back=False)
            await self._serve(scope, receive, send, held.decision, held)
        else:
            decision = await limiter.check(subject, request.endpoint)
            await self._serve(scope, receive, send, decision, None)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, decision: Decision, held: Reservation | None
    ) -> None:
        request: RequestLimits = scope[SCOPE_KEY]
        request.decisions.append(decision)
        legacy = request.limiter.limits.legacy_headers
        if not decision.allowed:
            await refuse(scope, send, decision, legacy=legacy)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] in {
                "http.response.start",
                "websocket.accept",
                "websocket.http.response.start",
            }:
                started = True
                lines = rate_limit_headers(request.decisions, legacy=legacy)
                message = {**message, "headers": [*message.get("headers", ()), *lines]}
            await send(message)

        try:
            if held is None:
                await self._app(scope, receive, send_with_headers)
            else:
                async with held:
                    await self._app(scope, receive, send_with_headers)
        except RateLimited as error:
            # A dependency or decorator refused, or something deeper in the application.
            if started or not isinstance(error.decision, Decision):
                raise
            if error.decision not in request.decisions:
                request.decisions.append(error.decision)
            await refuse(scope, send, error.decision, request.decisions, legacy=legacy)


async def refuse(
    scope: Scope,
    send: Send,
    decision: Decision,
    decisions: list[Decision] | None = None,
    *,
    legacy: bool = False,
) -> None:
    """Answer a request or a WebSocket's handshake with a refusal."""
    problem = problem_of(decision)
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *rate_limit_headers([decision] if decisions is None else decisions, legacy=legacy),
    ]
    kind = "http.response"
    if scope["type"] == "websocket":
        extensions: dict[str, Any] = scope.get("extensions") or {}
        if "websocket.http.response" not in extensions:
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": problem.title})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": problem.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
