"""The demo's JSON interface: `/demo/api/<workspace>/campaigns`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from demo.campaigns import Campaign, Campaigns, Channel
from redis_core import Client, get_redis
from redis_core.api.problems import ProblemError, problems

router = APIRouter(prefix="/demo/api/{workspace}", tags=["demo"], responses=problems(422, 500, 503))


class CampaignDraft(BaseModel):
    """What a new campaign is made of."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=80, examples=["Spring launch"])
    channel: Channel = "email"


class CampaignList(BaseModel):
    """The newest campaigns of a workspace."""

    workspace: str
    views_today: int
    campaigns: list[Campaign]


async def campaigns_of(workspace: str, redis: Annotated[Client, Depends(get_redis)]) -> Campaigns:
    """The campaigns of the workspace that the path names, until there is a login that says whose one is.

    An id that may not name a workspace is answered with 422, by the handler of `InvalidKey`.
    """
    return Campaigns(redis.workspace(workspace))


OfWorkspace = Annotated[Campaigns, Depends(campaigns_of)]


@router.get("/campaigns", summary="The newest campaigns")
async def list_campaigns(workspace: str, campaigns: OfWorkspace) -> CampaignList:
    return CampaignList(
        workspace=workspace, views_today=await campaigns.views_today(), campaigns=await campaigns.newest()
    )


@router.post("/campaigns", summary="Make a campaign", status_code=201)
async def create_campaign(draft: CampaignDraft, campaigns: OfWorkspace) -> Campaign:
    return await campaigns.create(draft.name, draft.channel)


@router.get("/campaigns/{campaign_id}", summary="Look at a campaign", responses=problems(404))
async def view_campaign(campaign_id: str, campaigns: OfWorkspace) -> Campaign:
    campaign = await campaigns.view(campaign_id)
    if campaign is None:
        raise ProblemError(404, "no-such-campaign", "This workspace has no campaign of this id.")
    return campaign
