"""The routers together, to include in one's own FastAPI app."""

from __future__ import annotations

from fastapi import APIRouter

from redis_core.api.access import AdminAccess
from redis_core.api.admin import create_admin_router
from redis_core.api.admin_actions import create_action_router
from redis_core.api.admin_queues import create_queue_router
from redis_core.api.admin_realtime import create_realtime_router
from redis_core.api.admin_token import AdminTokens
from redis_core.api.admin_usage import create_usage_router
from redis_core.api.context import ClientSource, ProbeSource
from redis_core.api.drill import create_drill_router
from redis_core.api.health import create_health_router
from redis_core.api.mock import create_mock_router
from redis_core.api.prometheus import create_prometheus_router
from redis_core.client import get_redis
from redis_core.config import load_settings

__all__ = ["create_router"]


def create_router(
    client: ClientSource = get_redis,
    *,
    tokens: AdminTokens | None = None,
    prefix: str = "/api/v1",
) -> APIRouter:
    """Health and admin routes, and `/metrics`.

    Args:
        client: where the routes get their client; the process' one unless told otherwise.
        tokens: those that admin routes accept; None takes `ADMIN_TOKENS`.
        prefix: what stands before every path but `/metrics`.

    Raises:
        ConfigError: a setting is wrong.
    """
    probe_source = ProbeSource(client)
    access = AdminAccess(AdminTokens.from_settings(load_settings()) if tokens is None else tokens, client)
    router = APIRouter()
    router.include_router(create_health_router(probe_source, access), prefix=prefix)
    router.include_router(create_admin_router(probe_source, access), prefix=prefix)
    router.include_router(create_action_router(probe_source, access), prefix=prefix)
    router.include_router(create_usage_router(probe_source, access), prefix=prefix)
    router.include_router(create_queue_router(probe_source, access), prefix=prefix)
    router.include_router(create_realtime_router(probe_source, access), prefix=prefix)
    router.include_router(create_prometheus_router(probe_source, access))
    router.include_router(create_mock_router(probe_source, access), prefix=prefix)
    router.include_router(create_drill_router(probe_source, access), prefix=prefix)
    return router
