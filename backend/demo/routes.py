"""The demo's JSON interface below `/demo/api`. Which workspace is meant says the session alone: no path or header can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from demo.campaigns import Campaign, Campaigns, Channel, Report
from demo.limits import plan_of
from redis_core import Client, get_redis
from redis_core.api.problems import ProblemError, problems
from redis_core.api.rate_limit_dependency import limit
from redis_core.api.session_dependency import current_session, session_of_request
from redis_core.keys import check_workspace_id
from redis_core.session import Session, SessionData

router = APIRouter(prefix="/api", tags=["demo"], responses=problems(422, 429, 500, 503))
LOGGED_IN = problems(401)


class Login(BaseModel):
    """Who logs in. The demo believes everybody: a product checks a password here."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    user: str = Field(max_length=40, pattern=r"^[A-Za-z0-9_-]+$", examples=["ada"])
    workspace: Annotated[str, AfterValidator(check_workspace_id), Field(examples=["acme"])]


class CampaignDraft(BaseModel):
    """What a campaign is made of."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=80, examples=["Spring launch"])
    channel: Channel = "email"


@dataclass(frozen=True)
class Me:
    """Who is logged in."""

    user: str
    workspace: str
    plan: str
    session: str
    """The session's handle, which logs call it by."""
    last_made: str | None
    """The campaign that was last made in this session: its data."""


@dataclass(frozen=True)
class LoggedInDevice:
    """One of the user's sessions in this workspace."""

    session: str
    browser: str
    network: str
    since: int
    """Unix time in seconds."""
    current: bool


Member = Annotated[Session[SessionData], Depends(current_session)]


async def campaigns_of(session: Member, redis: Annotated[Client, Depends(get_redis)]) -> Campaigns:
    """The campaigns of the workspace that the session is valid in."""
    return Campaigns(redis.workspace(session.workspace))


OfMember = Annotated[Campaigns, Depends(campaigns_of)]


def me_of(session: Session[SessionData]) -> Me:
    """What a session tells of its user."""
    assert session.user_id is not None
    made = session.data.get("last_made")
    return Me(
        user=session.user_id,
        workspace=session.workspace,
        plan=plan_of(session.workspace),
        session=session.handle,
        last_made=made if isinstance(made, str) else None,
    )


async def devices_of(request: Request, session: Session[SessionData]) -> list[LoggedInDevice]:
    """The user's sessions in this workspace, the one used last first."""
    assert session.user_id is not None
    sessions = session_of_request(request).sessions
    found = await sessions.list(session.user_id, session.workspace, current=session)
    return [
        LoggedInDevice(one.handle, one.device.user_agent, one.device.ip, int(one.created), one.current)
        for one in found
    ]


@router.post("/login", summary="Log in")
async def login(who: Login, request: Request) -> Me:
    return me_of(await session_of_request(request).login(who.user, who.workspace))


@router.post("/logout", summary="Log out", status_code=204)
async def logout(request: Request) -> None:
    await session_of_request(request).logout()


@router.get("/me", summary="Who is logged in", responses=LOGGED_IN)
async def me(session: Member) -> Me:
    return me_of(session)


@router.get("/devices", summary="Where this user is logged in", responses=LOGGED_IN)
async def devices(request: Request, session: Member) -> list[LoggedInDevice]:
    return await devices_of(request, session)


@router.get("/campaigns", summary="The newest campaigns", responses=LOGGED_IN)
async def list_campaigns(campaigns: OfMember) -> list[Campaign]:
    return await campaigns.newest()


@router.post("/campaigns", summary="Make a campaign", status_code=201, responses=LOGGED_IN)
async def create_campaign(draft: CampaignDraft, session: Member, campaigns: OfMember) -> Campaign:
    made = await campaigns.create(draft.name, draft.channel)
    session.data["last_made"] = made.id
    return made


@router.get("/campaigns/last", summary="The campaign this session made last", responses=problems(401, 404))
async def view_last(session: Member, campaigns: OfMember, response: Response) -> Campaign:
    return await view_campaign(me_of(session).last_made or "none", campaigns, response)


@router.get("/campaigns/{campaign_id}", summary="Look at a campaign", responses=problems(401, 404))
async def view_campaign(campaign_id: str, campaigns: OfMember, response: Response) -> Campaign:
    entry = await campaigns.look(campaign_id)
    if entry is None:
        raise no_such_campaign()
    await campaigns.count_view(campaign_id)
    response.headers["x-cache"] = "STALE" if entry.stale else "MISS" if entry.tier == "loader" else "HIT"
    response.headers["x-cache-tier"] = entry.tier
    response.headers["age"] = str(int(entry.age))
    return entry.value


@router.put("/campaigns/{campaign_id}", summary="Change a campaign", responses=problems(401, 404))
async def change_campaign(campaign_id: str, draft: CampaignDraft, campaigns: OfMember) -> Campaign:
    changed = await campaigns.change(campaign_id, draft.name, draft.channel)
    if changed is None:
        raise no_such_campaign()
    return changed


@router.get("/report", summary="How the campaigns do today; cached as a whole", responses=LOGGED_IN)
async def report(campaigns: OfMember) -> Report:
    return await campaigns.report()


@router.get(
    "/export",
    summary="All campaigns; dear, so three a minute",
    responses=LOGGED_IN,
    dependencies=[Depends(limit("3/min"))],
)
async def export(campaigns: OfMember) -> list[Campaign]:
    return await campaigns.newest()


def no_such_campaign() -> ProblemError:
    """Also for a campaign of another workspace: whether it exists is nobody's business."""
    return ProblemError(404, "no-such-campaign", "This workspace has no campaign of this id.")
