"""Limits of single endpoints: `Depends(limit("100/min"))`, and `@limited("100/min")` around a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import ParamSpec, TypeVar

from fastapi import Response
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from redis_core.api.problems import ProblemError
from redis_core.api.rate_limit_middleware import SCOPE_KEY, RequestLimits, subject_of_scope
from redis_core.api.rate_limit_template import RouteTemplates
from redis_core.errors import RateLimited
from redis_core.rate_limit import Decision, RateLimiter, Rule, Subject, limits_of
from redis_core.rate_limiting.headers import problem_of, rate_limit_headers
from redis_core.rate_limiting.policy import By

__all__ = ["limit", "limited", "limits_of_request"]

P = ParamSpec("P")
T = TypeVar("T")

Identify = Callable[[HTTPConnection], Subject | Awaitable[Subject]]
_POLICY_VIOLATION = 1008
_templates = RouteTemplates()


def limits_of_request(connection: HTTPConnection, limiter: RateLimiter | None = None) -> RequestLimits:
    """What was decided on a request so far. Without the middleware it begins here.

    Args:
        connection: the request or WebSocket.
        limiter: the limiter; None takes the middleware's, or the application's `app.state.rate_limiter`.

    Raises:
        LookupError: there is no limiter.
    """
    scope = connection.scope
    known = scope.get(SCOPE_KEY)
    if isinstance(known, RequestLimits) and limiter in {None, known.limiter}:
        return known
    if limiter is None:
        limiter = getattr(connection.app.state, "rate_limiter", None)
    if limiter is None:
        raise LookupError(
            "no limiter: add RateLimitMiddleware, set app.state.rate_limiter, or pass limiter=..."
        )
    route = scope.get("route")
    template: str = getattr(route, "path", "") or _templates(scope)
    return RequestLimits(limiter, subject_of_scope(scope, limiter.limits), template)


def limit(
    *rates: str | Rule,
    by: By = "user",
    limiter: RateLimiter | None = None,
    identify: Identify | None = None,
    weight: int = 1,
    costs: Mapping[str, int] | None = None,
) -> Callable[[HTTPConnection, Response], Awaitable[Decision]]:
    """A dependency that lets a request pass only within these rates; its value is the `Decision`.

    ::

        @app.post("/export", dependencies=[Depends(limit("5/min", "50/day"))])
        async def export() -> ...: ...

    A refusal is a 429 (a WebSocket is closed with 1008). Budget: as `RateLimiter.check`.

    Args:
        rates: rates as text, or rules.
        by: whose requests are counted together, for rates as text.
        limiter: the limiter; None as in `limits_of_request`.
        identify: whose the request is; None takes the middleware's, or the address.
        weight: how many requests it counts as.
        costs: what it costs in other units.

    Raises:
        ConfigError: a rate is wrong; where it is written, not when a request comes.
    """
    limits = limits_of(rates, by=by)

    async def dependency(connection: HTTPConnection, response: Response) -> Decision:
        request = limits_of_request(connection, limiter)
        subject = request.subject if identify is None else await _identified(identify, connection)
        decision = await request.limiter.check(
            subject, request.endpoint, weight=weight, costs=costs, limits=limits
        )
        _note(connection, request, decision)
        if not decision.allowed:
            raise _refusal(connection, decision)
        if SCOPE_KEY not in connection.scope:
            for name, value in rate_limit_headers([decision]):
                response.headers[name.decode()] = value.decode()
        return decision

    return dependency


def limited(
    *rates: str | Rule,
    by: By = "user",
    limiter: RateLimiter | None = None,
    subject: Callable[..., Subject] | None = None,
    name: str | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """A decorator that runs an async function only within these rates, and raises `RateLimited` otherwise.

    Args:
        rates: rates as text, or rules.
        by: whose calls are counted together, for rates as text.
        limiter: the limiter; None takes that of the request among the arguments.
        subject: whose call it is, from its arguments; None takes the request among them.
        name: what is counted; None takes the request's endpoint, or the function's qualified name.

    Raises:
        ConfigError: a rate is wrong; where it is written.
    """
    limits = limits_of(rates, by=by)

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(function)
        async def within(*args: P.args, **kwargs: P.kwargs) -> T:
            connection = next((a for a in (*args, *kwargs.values()) if isinstance(a, HTTPConnection)), None)
            request = None if connection is None else limits_of_request(connection, limiter)
            chosen = limiter or (request.limiter if request else None)
            whose = subject(*args, **kwargs) if subject else request.subject if request else None
            if chosen is None or whose is None:
                raise TypeError(
                    f"{function.__qualname__}: give it a Request, or the decorator limiter= and subject="
                )
            endpoint = name or (
                request.endpoint if request else f"{function.__module__}.{function.__qualname__}"
            )
            decision = await chosen.check(whose, endpoint, limits=limits)
            if connection is not None and request is not None:
                _note(connection, request, decision)
            if not decision.allowed:
                raise _refusal(connection, decision)
            return await function(*args, **kwargs)

        return within

    return decorate


async def _identified(identify: Identify, connection: HTTPConnection) -> Subject:
    subject = identify(connection)
    return await subject if inspect.isawaitable(subject) else subject


def _note(connection: HTTPConnection, request: RequestLimits, decision: Decision) -> None:
    known = connection.scope.get(SCOPE_KEY)
    (known if isinstance(known, RequestLimits) else request).decisions.append(decision)


def _refusal(connection: HTTPConnection | None, decision: Decision) -> Exception:
    problem = problem_of(decision)
    if connection is None or (SCOPE_KEY in connection.scope and connection.scope["type"] == "http"):
        # The middleware answers it, with all the request's decisions.
        return RateLimited(problem.detail, retry_after=decision.retry_after, decision=decision)
    if connection.scope["type"] == "websocket":
        return WebSocketException(_POLICY_VIOLATION, problem.title)
    headers = {name.decode(): value.decode() for name, value in rate_limit_headers([decision])}
    return ProblemError(problem.status, problem.code, problem.detail, headers=headers)
