"""What an operator may change over HTTP. Each change is in the audit log; `dry_run` counts and changes nothing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from msgspec import Meta, Struct

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import problems
from redis_core.api.realtime_hubs import Hubs
from redis_core.api.request_body import body, body_document
from redis_core.audit import Actor
from redis_core.key_audit import KeyAudit
from redis_core.measuring.documents import Done, SessionPage
from redis_core.operations import Operations
from redis_core.stats import MOST_KEYS

__all__ = ["create_action_router"]

Name = Annotated[str, Meta(min_length=1, max_length=512)]
WorkspaceId = Annotated[str, Query(min_length=1, max_length=64, description="The workspace's id")]


class FlushCache(Struct, frozen=True, forbid_unknown_fields=True):
    """Make misses of a workspace's cached values, or of one region's."""

    workspace: Name
    region: Name | None = None
    dry_run: bool = False


class ResetLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """Forget what was counted for a user or `ip=<address>`, at one endpoint template or at all."""

    user: Name
    endpoint: Name | None = None
    dry_run: bool = False


class RevokeSessions(Struct, frozen=True, forbid_unknown_fields=True):
    """End a user's sessions: everywhere, in a workspace, or one of them by its handle."""

    user: Name
    workspace: Name | None = None
    handle: Annotated[str, Meta(min_length=8, max_length=8)] | None = None
    dry_run: bool = False


class AuditKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """Compare keys with what is declared: of a workspace or all, until one of the bounds is reached."""

    workspace: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_KEYS)] = 10_000
    """Most keys to look at."""
    seconds: Annotated[float, Meta(ge=0.1, le=30)] = 10
    sample: Annotated[int, Meta(ge=0)] | None = None
    """About how many of the database's keys to ask for type, expiry and size; all of those looked at unless given."""
    max_bytes: Annotated[int, Meta(ge=1)] | None = None


def create_action_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The routes that change something, and those that show what can be changed."""
    router = APIRouter(prefix="/admin", tags=["operations"])
    operator, admin, viewer = (Depends(access.require(role)) for role in ("operator", "admin", "viewer"))
    errors = problems(401, 403, 422, 500, 503)
    done = {200: described("What was done, or would be", Done), **errors, **problems(413, 415)}

    async def operations(actor: Actor) -> Operations:
        return Operations((await probe_source()).client, actor)

    @router.post(
        "/keys/audit",
        summary="Compare keys with their families' declaration",
        response_class=Response,
        responses={200: described("What is wrong with which keys", KeyAudit), **errors, **problems(413, 415)},
        openapi_extra=body_document(AuditKeys),
    )
    async def audit_keys(*, actor: Actor = operator, asked: AuditKeys = Depends(body(AuditKeys))) -> Response:
        act = await operations(actor)
        return json_response(
            await act.audit_keys(
                asked.workspace,
                keys=asked.limit,
                seconds=asked.seconds,
                sample=asked.sample,
                most_bytes=asked.max_bytes,
            )
        )

    @router.post(
        "/cache/flush",
        summary="Flush a workspace's cache, or a region of it",
        response_class=Response,
        responses=done,
        openapi_extra=body_document(FlushCache),
    )
    async def flush_cache(
        *, actor: Actor = operator, asked: FlushCache = Depends(body(FlushCache))
    ) -> Response:
        act = await operations(actor)
        return json_response(await act.flush_cache(asked.workspace, asked.region, dry_run=asked.dry_run))

    @router.post(
        "/limits/reset",
        summary="Reset a user's limits",
        response_class=Response,
        responses=done,
        openapi_extra=body_document(ResetLimit),
    )
    async def reset_limit(
        *, actor: Actor = operator, asked: ResetLimit = Depends(body(ResetLimit))
    ) -> Response:
        act = await operations(actor)
        return json_response(await act.reset_limit(asked.user, asked.endpoint, dry_run=asked.dry_run))

    @router.get(
        "/sessions",
        summary="A user's sessions in a workspace",
        response_class=Response,
        responses={200: described("The sessions, without their tokens", SessionPage), **errors},
    )
    async def sessions(
        *,
        actor: Actor = viewer,
        user: Annotated[str, Query(min_length=1, max_length=512)],
        workspace: WorkspaceId,
    ) -> Response:
        return json_response(await (await operations(actor)).sessions(user, workspace))

    @router.post(
        "/sessions/revoke",
        summary="End a user's sessions",
        response_class=Response,
        responses=done,
        openapi_extra=body_document(RevokeSessions),
    )
    async def revoke_sessions(
        *, actor: Actor = admin, asked: RevokeSessions = Depends(body(RevokeSessions))
    ) -> Response:
        act = await operations(actor)
        revoked = await act.revoke_sessions(asked.user, asked.workspace, asked.handle, dry_run=asked.dry_run)
        if not asked.dry_run:
            (await probe_source()).client.service(Hubs).disconnect(asked.workspace, asked.user)
        return json_response(revoked)

    return router
