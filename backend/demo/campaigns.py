"""Campaigns of one workspace: a hash each, a list of the newest, and counters of views."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal

from redis_core import Workspace
from redis_core.clock import SYSTEM_CLOCK, Clock

Channel = Literal["email", "search", "social", "video"]

NEWEST: Final = 20
"""How many campaigns the list of the newest keeps."""
KEPT_SECONDS: Final = 86_400
"""The demo's data goes after a day without use."""


@dataclass(frozen=True)
class Campaign:
    """One campaign, as it is shown."""

    id: str
    name: str
    channel: str
    created_at: int
    """Unix time in seconds."""
    views: int


class Campaigns:
    """The campaigns of one workspace.

    Args:
        workspace: whose; it makes all the keys.
        clock: what dates a campaign.
    """

    def __init__(self, workspace: Workspace, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._redis = workspace.client
        self._keys = workspace.keys
        self._clock = clock
        self._newest = self._keys.key("app", "campaigns-newest")

    async def create(self, name: str, channel: Channel) -> Campaign:
        """Store a new campaign. Budget: 5 commands and MULTI/EXEC, 1 trip."""
        campaign = Campaign(secrets.token_hex(6), name, channel, int(self._clock.now()), views=0)
        key = self._key(campaign.id)
        async with self._redis.transaction() as batch:
            batch.hset(key, {"name": name, "channel": channel, "created_at": campaign.created_at, "views": 0})
            batch.expire(key, KEPT_SECONDS)
            batch.lpush(self._newest, campaign.id)
            batch.ltrim(self._newest, 0, NEWEST - 1)
            batch.expire(self._newest, KEPT_SECONDS)
        return campaign

    async def view(self, campaign_id: str) -> Campaign | None:
        """A campaign, the view counted, or None if there is none. Budget: 5 commands, 2 trips; 1 command if there is none."""
        key = self._key(campaign_id)
        if not await self._redis.exists(key):
            return None
        async with self._redis.pipeline() as batch:
            batch.hincrby(key, "views")
            batch.expire(key, KEPT_SECONDS)
            fields = batch.hgetall(key)
            batch.incr(self._views_today())
            batch.expire(self._views_today(), 2 * KEPT_SECONDS)
        return _campaign(campaign_id, await fields)

    async def newest(self) -> list[Campaign]:
        """The newest campaigns, newest first. Budget: 1 command and 1 for each campaign, 2 trips."""
        ids = [campaign_id.decode() for campaign_id in await self._redis.lrange(self._newest, 0, NEWEST - 1)]
        async with self._redis.pipeline() as batch:
            pending = [(campaign_id, batch.hgetall(self._key(campaign_id))) for campaign_id in ids]
        found = [_campaign(campaign_id, await fields) for campaign_id, fields in pending]
        # One may have expired while its id is still in the list.
        return [campaign for campaign in found if campaign is not None]

    async def views_today(self) -> int:
        """Views of all the workspace's campaigns since midnight UTC. Budget: 1 command."""
        return int(await self._redis.get(self._views_today()) or 0)

    def _key(self, campaign_id: str) -> str:
        return self._keys.key("app", "campaign", campaign_id)

    def _views_today(self) -> str:
        return self._keys.key("app", "views", f"day-{int(self._clock.now()) // 86_400}")


def _campaign(campaign_id: str, fields: dict[bytes, bytes]) -> Campaign | None:
    if b"name" not in fields:
        return None
    return Campaign(
        id=campaign_id,
        name=fields[b"name"].decode(),
        channel=fields[b"channel"].decode(),
        created_at=int(fields[b"created_at"]),
        views=int(fields[b"views"]),
    )
