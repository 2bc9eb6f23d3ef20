"""Campaigns of one workspace: a hash each, which the cache spares, a list of the newest, and the views of the day."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from redis_core import Workspace
from redis_core.cache import TTL, CacheEntry, CacheRegion
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreUnavailable
from redis_core.log import get_logger

Channel = Literal["email", "search", "social", "video"]

NEWEST: Final = 20
"""How many campaigns the list of the newest keeps."""
_log: Final = get_logger("demo")
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


@dataclass(frozen=True)
class Report:
    """How a workspace's campaigns do today."""

    views_today: int
    most_viewed: dict[str, int]
    """Views by the campaign's id, the most first."""
    by_channel: dict[str, int]
    """How many of the newest campaigns each channel has."""


DETAILS: Final = CacheRegion("campaign", Campaign, ttl=TTL.CAMPAIGN, fail_safe=3_600)
"""What was read once is served from memory, and for an hour more if the store cannot tell."""


class Campaigns:
    """The campaigns of one workspace.

    Args:
        workspace: whose; it makes all the keys.
        clock: what dates a campaign.
    """

    def __init__(self, workspace: Workspace, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._redis = workspace.redis
        self._keys = workspace.keys
        self._cache = workspace.cache
        self._clock = clock
        self._newest = self._keys.key("app", "campaigns-newest")

    async def create(self, name: str, channel: Channel) -> Campaign:
        """Store a new campaign. Budget: 5 commands and MULTI/EXEC, 1 trip."""
        campaign = Campaign(secrets.token_hex(6), name, channel, int(self._clock.now()))
        key = self._key(campaign.id)
        async with self._redis.transaction() as batch:
            batch.hset(key, {"name": name, "channel": channel, "created_at": campaign.created_at})
            batch.expire(key, KEPT_SECONDS)
            batch.lpush(self._newest, campaign.id)
            batch.ltrim(self._newest, 0, NEWEST - 1)
            batch.expire(self._newest, KEPT_SECONDS)
        return campaign

    async def change(self, campaign_id: str, name: str, channel: Channel) -> Campaign | None:
        """Write a campaign anew, or None if there is none. Budget: 6 commands, 3 trips; 1 command if there is none."""
        key = self._key(campaign_id)
        if not await self._redis.exists(key):
            return None
        async with self._redis.transaction() as batch:
            batch.hset(key, {"name": name, "channel": channel})
            batch.expire(key, KEPT_SECONDS)
            fields = batch.hgetall(key)
        # After the write: whoever loads it from now on loads the new one, and a load under way may not store the old one.
        await self._cache.delete(DETAILS, campaign_id)
        return _campaign(campaign_id, await fields)

    async def look(self, campaign_id: str) -> CacheEntry[Campaign] | None:
        """A campaign and which tier had it, or None if there is none. Budget: as `Cache.get_or_load`; its loader 1 command."""
        entry = await self._cache.get_entry_or_load(DETAILS, campaign_id, self._load)
        # A loader that finds nothing says so with None, which this region does not remember.
        return None if entry.value is None else entry

    async def count_view(self, campaign_id: str) -> None:
        """Count a view, unless the store is away: nobody is kept from seeing a campaign for that. Budget: 2 commands, 1 trip."""
        try:
            async with self._redis.pipeline() as batch:
                batch.hincrby(self._views(), campaign_id)
                batch.expire(self._views(), 2 * KEPT_SECONDS)
        except StoreUnavailable as error:
            _log.info("a view was not counted, or perhaps it was", campaign=campaign_id, reason=str(error))

    async def newest(self) -> list[Campaign]:
        """The newest campaigns, newest first. Budget: 1 command and 1 for each campaign, 2 trips."""
        ids = [campaign_id.decode() for campaign_id in await self._redis.lrange(self._newest, 0, NEWEST - 1)]
        if not ids:
            return []
        async with self._redis.pipeline() as batch:
            pending = [(campaign_id, batch.hgetall(self._key(campaign_id))) for campaign_id in ids]
        found = [_campaign(campaign_id, await fields) for campaign_id, fields in pending]
        # One may have expired while its id is still in the list.
        return [campaign for campaign in found if campaign is not None]

    async def report(self) -> Report:
        """How the campaigns do today. Budget: as `newest` and 1 command."""
        views = {
            key.decode(): int(count) for key, count in (await self._redis.hgetall(self._views())).items()
        }
        return Report(
            views_today=sum(views.values()),
            most_viewed=dict(Counter(views).most_common(NEWEST)),
            by_channel=dict(Counter(campaign.channel for campaign in await self.newest())),
        )

    async def _load(self, campaign_id: str) -> Campaign | None:
        return _campaign(campaign_id, await self._redis.hgetall(self._key(campaign_id)))

    def _key(self, campaign_id: str) -> str:
        return self._keys.key("app", "campaign", campaign_id)

    def _views(self) -> str:
        """A hash of views by campaign, one a day (UTC)."""
        return self._keys.key("app", "views", f"day-{int(self._clock.now()) // 86_400}")


def _campaign(campaign_id: str, fields: dict[bytes, bytes]) -> Campaign | None:
    if b"created_at" not in fields:
        return None
    return Campaign(
        id=campaign_id,
        name=fields[b"name"].decode(),
        channel=fields[b"channel"].decode(),
        created_at=int(fields[b"created_at"]),
    )
