"""Who may use the admin routes, and what.

A caller shows who it is by
- `Authorization: Bearer <token>`, a token whose hash stands in `ADMIN_TOKENS`; or
- a session whose data has `admin_role` (`viewer`, `operator` or `admin`), where `SessionMiddleware` stands around the service. A browser
  sends its cookie by itself, so such a request must come from our own origin, as `Sec-Fetch-Site` and `Origin` tell.

A viewer reads; an operator also changes what is in use (flush, reset, retry, pause); an admin also ends sessions and deletes.

Without one of these nobody may, wherever the request comes from and wherever the service runs: an address proves nothing behind a
reverse proxy, and a page of any site can make a browser ask this host. `raptorflow up` makes a token for its run where none is set.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, cast

from fastapi import Request

from redis_core.api.admin_token import ROLES, AdminTokens
from redis_core.api.context import ClientSource
from redis_core.api.problems import ProblemError
from redis_core.api.same_origin import is_same_origin
from redis_core.api.session_middleware import SCOPE_KEY
from redis_core.audit import Actor
from redis_core.client import get_redis
from redis_core.measuring.documents import Role

if TYPE_CHECKING:
    from redis_core.api.session_middleware import RequestSession
    from redis_core.session import SessionData

__all__ = ["SESSION_ROLE", "AdminAccess"]

SESSION_ROLE: Final = "admin_role"
"""The field of a session's data that makes its user an operator."""
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="admin"'}


class AdminAccess:
    """The rule above.

    Args:
        tokens: those that are accepted.
        client: where the routes get their client, whose watch replaces the tokens; the process' one unless told otherwise.
    """

    def __init__(
        self,
        tokens: AdminTokens | None = None,
        client: ClientSource = get_redis,
    ) -> None:
        self._tokens = AdminTokens() if tokens is None else tokens
        self._client = client

    def require(self, role: Role) -> Callable[[Request], Awaitable[Actor]]:
        """A dependency of a route: lets who has at least this role pass, and tells who it is.

        Args:
            role: the least that is needed.
        """

        async def dependency(request: Request) -> Actor:
            actor = await self.actor(request)
            if ROLES.index(actor.role) < ROLES.index(role):
                raise ProblemError(
                    403, "admin-role", f"This needs the role {role}; {actor.who} has {actor.role}."
                )
            return actor

        return dependency

    async def __call__(self, request: Request) -> Actor:
        """As `require("viewer")`."""
        return await self.actor(request)

    async def actor(self, request: Request) -> Actor:
        """Who sends a request. Budget: nothing with a token; with a session its read.

        Raises:
            ProblemError: 401 for a credential that is not known or missing; 403 for a caller who may not.
        """
        await self._tokens.follow(self._client)
        authorization = request.headers.getlist("authorization")
        if authorization:
            scheme, _, presented = authorization[0].partition(" ")
            known = (
                self._tokens.actor(presented.strip())
                if len(authorization) == 1 and scheme.lower() == "bearer"
                else None
            )
            if known is None:
                raise ProblemError(401, "admin-token", "This admin token is not known.", headers=_CHALLENGE)
            return known
        known = await self._actor_of_session(request)
        if known is not None:
            return known
        if not self._tokens and SCOPE_KEY not in request.scope:
            raise ProblemError(
                403, "admin-off", "The admin routes are off: set ADMIN_TOKENS; `raptorflow token` makes one."
            )
        raise ProblemError(
            401,
            "admin-login",
            "Show an admin token as `Authorization: Bearer ...`, or log in as an operator.",
            headers=_CHALLENGE,
        )

    async def knows(self, request: Request) -> bool:
        """Whether the caller may use admin routes at all."""
        try:
            await self.actor(request)
        except ProblemError:
            return False
        return True

    async def _actor_of_session(self, request: Request) -> Actor | None:
        if SCOPE_KEY not in request.scope:
            return None
        session = await cast("RequestSession[SessionData]", request.scope[SCOPE_KEY]).load()
        if session is None or session.user_id is None:
            return None
        role = session.data.get(SESSION_ROLE)
        if role not in ROLES:
            return None
        if not is_same_origin(request.scope):
            raise ProblemError(403, "cross-origin", "Another site's page sent this request.")
        return Actor(f"user:{session.user_id}", role)
