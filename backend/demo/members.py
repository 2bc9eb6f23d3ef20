"""The demo's members: they log in, and from then on their session says whose campaigns they see.

An application of its own, mounted below `/demo/members`, with sessions and rate limits around it: the order is sessions outside, limits
inside, so that the session's read leaves together with the limits' decision.
"""

# No `from __future__ import annotations`: the routes are made in a function, and FastAPI reads their types.

from typing import Annotated, Any, Final

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from demo.campaigns import Campaign, Campaigns, Channel
from redis_core import Client, Settings
from redis_core.api.problems import add_problem_details, problems
from redis_core.api.rate_limit_dependency import limit
from redis_core.api.rate_limit_middleware import RateLimitMiddleware
from redis_core.api.session_cookie import SessionCookie
from redis_core.api.session_dependency import current_session, session_of_request
from redis_core.api.session_middleware import SessionMiddleware, request_session
from redis_core.cache import CacheRegion
from redis_core.rate_limit import RateLimiter, RateLimits, Rule
from redis_core.session import Session, Sessions

LIMITS: Final = RateLimits(
    rules=(Rule("members", "240/min", by="ip"), Rule("burst", "40/sec", by="ip")), file=__file__
)
"""What one address may do here; a login has a rule of its own below."""


class Summary(msgspec.Struct, frozen=True):
    """What the start page of a workspace shows: dear to make, so it is cached."""

    campaigns: int
    views: int


SUMMARIES: Final = CacheRegion("summary", Summary, ttl=30, fail_safe=600)


class Login(BaseModel):
    """Who logs in. The demo believes everybody: a product checks a password here."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    user: str = Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$", examples=["ada"])
    workspace: str = Field(min_length=1, max_length=64, examples=["acme"])


class Draft(BaseModel):
    """What a new campaign is made of."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=80)
    channel: Channel = "email"


Member = Annotated[Session[Any], Depends(current_session)]


def create_members(client: Client, settings: Settings) -> FastAPI:
    """The members' application.

    Args:
        client: the store.
        settings: where peppers and the cookie's form come from. On plain http the demo asks by name for the cookie that
            localhost may have without TLS.
    """
    app = FastAPI(title="RaptorFlow demo members", docs_url=None, redoc_url=None)
    sessions = Sessions.from_settings(client, settings)
    limiter = RateLimiter(client, LIMITS)
    # The one added last is the outermost.
    app.add_middleware(
        RateLimitMiddleware, limiter=limiter, alongside=lambda scope: request_session(scope).prefetch()
    )
    app.add_middleware(
        SessionMiddleware,
        sessions=sessions,  # type: ignore[arg-type]  # Starlette cannot tell which data they hold
        cookie=SessionCookie.insecure_localhost(),
    )
    add_problem_details(app)

    def campaigns_of(session: Member) -> Campaigns:
        return Campaigns(client.workspace(session.workspace))

    @app.post("/login", dependencies=[Depends(limit("10/min"))], responses=problems(422, 429))
    async def login(who: Login, request: Request) -> dict[str, str]:
        session = await session_of_request(request).login(who.user, who.workspace, {"visits": 0})
        return {"user": who.user, "workspace": session.workspace, "session": session.handle}

    @app.get("/me", responses=problems(401))
    async def me(session: Member) -> dict[str, Any]:
        session.data["visits"] = int(session.data.get("visits", 0)) + 1
        return {"user": session.user_id, "workspace": session.workspace, "visits": session.data["visits"]}

    @app.get("/devices", responses=problems(401))
    async def devices(session: Member) -> list[dict[str, Any]]:
        assert session.user_id is not None
        found = await sessions.list(session.user_id, session.workspace, current=session)
        return [msgspec.to_builtins(one) for one in found]

    @app.post("/logout", status_code=204, responses=problems(401))
    async def logout(request: Request) -> None:
        await session_of_request(request).logout()

    @app.get("/campaigns", responses=problems(401))
    async def list_campaigns(campaigns: Annotated[Campaigns, Depends(campaigns_of)]) -> list[Campaign]:
        return await campaigns.newest()

    @app.post("/campaigns", status_code=201, responses=problems(401, 422))
    async def create_campaign(
        draft: Draft, session: Member, campaigns: Annotated[Campaigns, Depends(campaigns_of)]
    ) -> Campaign:
        made = await campaigns.create(draft.name, draft.channel)
        await client.workspace(session.workspace).cache.delete(SUMMARIES, "start")
        return made

    @app.get("/summary", responses=problems(401))
    async def summary(
        session: Member, campaigns: Annotated[Campaigns, Depends(campaigns_of)], response: Response
    ) -> dict[str, int]:
        async def load(_: str) -> Summary:
            newest = await campaigns.newest()
            return Summary(len(newest), sum(campaign.views for campaign in newest))

        entry = await client.workspace(session.workspace).cache.get_entry_or_load(SUMMARIES, "start", load)
        response.headers["x-cache"] = entry.tier
        return {"campaigns": entry.value.campaigns, "views": entry.value.views}

    return app
