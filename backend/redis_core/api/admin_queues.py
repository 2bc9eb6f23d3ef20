"""Queues and jobs over HTTP: looked at by viewers, changed by operators, deleted by admins."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from msgspec import Meta, Struct

from redis_core.api.access import AdminAccess
from redis_core.api.context import ProbeSource
from redis_core.api.documents import described, json_response
from redis_core.api.problems import problems
from redis_core.api.request_body import body, body_document
from redis_core.audit import Actor
from redis_core.job_operations import MOST_JOBS, JobOperations
from redis_core.measuring.documents import Done, JobFigures, JobPage, QueueFigures, QueueList
from redis_core.operations import Operations
from redis_core.queueing.inspection import QueueInspection

__all__ = ["create_queue_router"]

Name = Annotated[str, Meta(min_length=1, max_length=512)]
QueueName = Annotated[str, Path(min_length=1, max_length=64)]
WorkspaceId = Annotated[str, Query(min_length=1, max_length=64, description="The workspace's id")]
JobState = Literal["waiting", "delayed", "blocked", "running"]


class ChooseDead(Struct, frozen=True, forbid_unknown_fields=True):
    """Dead letters: by id, else all of the task, else all; 1,000 at most."""

    workspace: Name
    ids: Annotated[list[Name], Meta(max_length=MOST_JOBS)] | None = None
    task: Name | None = None
    dry_run: bool = False


class ChooseJobs(Struct, frozen=True, forbid_unknown_fields=True):
    """Unfinished jobs: by id, else those of the task and state; 1,000 at most."""

    workspace: Name
    ids: Annotated[list[Name], Meta(max_length=MOST_JOBS)] | None = None
    task: Name | None = None
    state: JobState | None = None
    dry_run: bool = False


class Gate(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose jobs: a workspace's, or all."""

    workspace: Name | None = None


def create_queue_router(probe_source: ProbeSource, access: AdminAccess) -> APIRouter:
    """The routes of queues and jobs."""
    router = APIRouter(prefix="/admin", tags=["queues"])
    _add_looks(router, probe_source, access)
    _add_changes(router, probe_source, access)
    _add_gates(router, probe_source, access)
    return router


_ERRORS = problems(401, 403, 422, 500, 503)
_DONE = {200: described("What was done, or would be", Done), **_ERRORS, **problems(413, 415)}


def _add_looks(router: APIRouter, probe_source: ProbeSource, access: AdminAccess) -> None:
    viewer = Depends(access)

    async def inspection() -> QueueInspection:
        return QueueInspection((await probe_source()).client)

    @router.get(
        "/queues",
        summary="All queues",
        response_class=Response,
        dependencies=[viewer],
        responses={200: described("The queues", QueueList), **_ERRORS},
    )
    async def queues() -> Response:
        return json_response(await (await inspection()).queues())

    @router.get(
        "/queues/{queue}",
        summary="One queue",
        response_class=Response,
        dependencies=[viewer],
        responses={200: described("The queue", QueueFigures), **_ERRORS},
    )
    async def queue_figures(queue: QueueName) -> Response:
        return json_response(await (await inspection()).queue(queue))

    @router.get(
        "/queues/{queue}/jobs",
        summary="A workspace's unfinished jobs, or its dead letters",
        response_class=Response,
        dependencies=[viewer],
        responses={200: described("A page of jobs", JobPage), **_ERRORS},
    )
    async def jobs(
        queue: QueueName,
        workspace: WorkspaceId,
        state: JobState | Literal["dead"] | None = None,
        task: Annotated[str | None, Query(max_length=512)] = None,
        cursor: Annotated[
            str, Query(pattern=r"^(0|[1-9][0-9]{0,18})$", description="`next` of the page before")
        ] = "0",
        count: Annotated[int, Query(ge=1, le=MOST_JOBS)] = 100,
    ) -> Response:
        looking = await inspection()
        return json_response(
            await looking.jobs(queue, workspace, state=state, task=task, most=count, cursor=cursor)
        )

    @router.get(
        "/queues/{queue}/jobs/{workspace}/{id}",
        summary="One job",
        response_class=Response,
        dependencies=[viewer],
        responses={200: described("The job; `unknown` if there is none", JobFigures), **_ERRORS},
    )
    async def job(
        queue: QueueName,
        workspace: Annotated[str, Path(min_length=1, max_length=64)],
        id: Annotated[str, Path(min_length=1, max_length=512)],
    ) -> Response:
        return json_response(await (await inspection()).job(queue, workspace, id))


def _add_changes(router: APIRouter, probe_source: ProbeSource, access: AdminAccess) -> None:
    operator, admin = (Depends(access.require(role)) for role in ("operator", "admin"))

    async def operations(actor: Actor) -> Operations:
        return Operations((await probe_source()).client, actor)

    @router.post(
        "/queues/{queue}/retry",
        summary="Send dead letters to the queue again",
        response_class=Response,
        responses=_DONE,
        openapi_extra=body_document(ChooseDead),
    )
    async def retry(
        *,
        actor: Actor = operator,
        queue: QueueName,
        asked: ChooseDead = Depends(body(ChooseDead)),
    ) -> Response:
        act = JobOperations(await operations(actor), queue, asked.workspace)
        return json_response(await act.retry(asked.ids, task=asked.task, dry_run=asked.dry_run))

    @router.post(
        "/queues/{queue}/delete",
        summary="Delete dead letters for good",
        response_class=Response,
        responses=_DONE,
        openapi_extra=body_document(ChooseDead),
    )
    async def delete(
        *,
        actor: Actor = admin,
        queue: QueueName,
        asked: ChooseDead = Depends(body(ChooseDead)),
    ) -> Response:
        act = JobOperations(await operations(actor), queue, asked.workspace)
        return json_response(await act.delete(asked.ids, task=asked.task, dry_run=asked.dry_run))

    @router.post(
        "/queues/{queue}/cancel",
        summary="Cancel unfinished jobs",
        response_class=Response,
        responses=_DONE,
        openapi_extra=body_document(ChooseJobs),
    )
    async def cancel(
        *,
        actor: Actor = operator,
        queue: QueueName,
        asked: ChooseJobs = Depends(body(ChooseJobs)),
    ) -> Response:
        act = JobOperations(await operations(actor), queue, asked.workspace)
        return json_response(
            await act.cancel(asked.ids, task=asked.task, state=asked.state, dry_run=asked.dry_run)
        )


def _add_gates(router: APIRouter, probe_source: ProbeSource, access: AdminAccess) -> None:
    operator = Depends(access.require("operator"))

    async def operations(actor: Actor) -> Operations:
        return Operations((await probe_source()).client, actor)

    @router.post(
        "/queues/{queue}/pause",
        summary="Let no further job begin",
        response_class=Response,
        responses=_DONE,
        openapi_extra=body_document(Gate),
    )
    async def pause(
        *, actor: Actor = operator, queue: QueueName, asked: Gate = Depends(body(Gate))
    ) -> Response:
        return json_response(await (await operations(actor)).pause(queue, asked.workspace))

    @router.post(
        "/queues/{queue}/resume",
        summary="End a pause",
        response_class=Response,
        responses=_DONE,
        openapi_extra=body_document(Gate),
    )
    async def resume(
        *, actor: Actor = operator, queue: QueueName, asked: Gate = Depends(body(Gate))
    ) -> Response:
        return json_response(await (await operations(actor)).resume(queue, asked.workspace))
