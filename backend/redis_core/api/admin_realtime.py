"""Realtime as the person on call sees it, and by which the dashboard itself is live.

The dashboard listens to the one topic of the process that serves its stream: an event says that there are new figures, or that an outage
began or ended, and the page asks anew. Such events cost no command and go on while the store is away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Depends, Response

from redis_core import realtime_token
from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import ProblemError, problems
from redis_core.api.realtime_hubs import Hubs
from redis_core.audit import Actor
from redis_core.clock import SYSTEM_CLOCK
from redis_core.errors import ConfigError
from redis_core.measuring.documents import LiveToken, RealtimeFigures, TopicFigures
from redis_core.realtime.feed import Feeds

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["TOPIC", "create_realtime_router"]

TOPIC: Final = "dashboard"
_MOST_TOPICS: Final = 20
_TOKEN_SECONDS: Final = 600


def create_realtime_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/admin/realtime", tags=["admin"])
    viewer = Depends(access.require("viewer"))

    @router.get(
        "",
        summary="Streams and topics of the process that answers",
        response_class=Response,
        responses={200: described("The figures now", RealtimeFigures), **problems(401, 403, 500, 503)},
        dependencies=[viewer],
    )
    async def figures() -> Response:
        return json_response(_figures_of((await probe_source()).client))

    @router.post(
        "/token",
        summary="A token by which the dashboard is told when to look",
        response_class=Response,
        responses={200: described("It lives for 10 minutes", LiveToken), **problems(401, 403, 500, 503)},
    )
    async def token(actor: Actor = viewer) -> Response:
        client = (await probe_source()).client
        try:
            keys = realtime_token.keys_from_settings(client.settings)
        except ConfigError as error:
            raise ProblemError(503, "not-configured", str(error)) from None
        # A session's user has a colon: `user:<id>`.
        user = actor.who.replace(":", "-")
        issued = realtime_token.issue_fleet(user, topic=TOPIC, seconds=_TOKEN_SECONDS, keys=keys)
        return json_response(LiveToken(issued, TOPIC, int(SYSTEM_CLOCK.now()) + _TOKEN_SECONDS))

    return router


def _figures_of(client: Client) -> RealtimeFigures:
    hubs = client.service(Hubs).figures
    topics = client.service(Feeds).listened()
    return RealtimeFigures(
        live=client.service(Feeds).live,
        streams=sum(hub.streams for hub in hubs),
        parked=sum(hub.parked for hub in hubs),
        opened_total=sum(hub.opened for hub in hubs),
        lagged_total=sum(hub.lagged for hub in hubs),
        slow_total=sum(hub.slow for hub in hubs),
        topics_total=len(topics),
        topics=[TopicFigures(*topic) for topic in topics[:_MOST_TOPICS]],
    )
