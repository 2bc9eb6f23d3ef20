"""The demo's agent over JSON, below `/demo/api/plans`: begin a job, ask how far it is, cancel it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from demo.routes import LOGGED_IN, Member
from demo.tasks import QUEUE, Planned, plan
from redis_core import Client, Workspace, get_redis
from redis_core.api.problems import ProblemError, problems
from redis_core.errors import InvalidKey
from redis_core.keys import check_part
from redis_core.log import get_logger
from redis_core.queue import JobHandle
from redis_core.worker import Worker

_GRACE_SECONDS: Final = 0.5
_LOG: Final = get_logger(__name__)

router = APIRouter(prefix="/api/plans", tags=["demo"], responses=problems(422, 429, 500, 503))


class PlanDraft(BaseModel):
    """What the agent is asked to divide among channels."""

    model_config = ConfigDict(extra="forbid")

    budget: int = Field(ge=0, le=1_000_000, examples=[400])


@dataclass(frozen=True)
class Plan:
    """An agent's job, as it is just now."""

    id: str
    state: str
    """`waiting`, `delayed`, `running`, `done`, `failed` or `cancelled`."""
    progress: float | None
    """0 to 1, as the job told it last."""
    message: str
    channels: dict[str, int] | None
    """Euros a day by channel, once it is done."""


class Planner:
    """The worker of the demo's jobs in this process, from the first job on. A product has its own: `raptorflow worker demo.tasks`.

    Args:
        client: the store; ends the worker with itself.
    """

    def __init__(self, client: Client) -> None:
        self._worker = Worker(client, [plan], queues=[QUEUE], grace=_GRACE_SECONDS)
        self._running: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start it. Idempotent."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._worker.run(), name="demo-worker")
            self._running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running = None
        if not running.cancelled() and (error := running.exception()) is not None:
            _LOG.error("the demo's worker stopped", error=repr(error))

    async def aclose(self) -> None:
        """Hand back what it runs, and end it."""
        running = self._running
        if running is not None:
            self._worker.stop()
            await asyncio.wait([running])


async def workspace_of(session: Member, redis: Annotated[Client, Depends(get_redis)]) -> Workspace:
    """The workspace that the session is valid in."""
    return redis.workspace(session.workspace)


OfMember = Annotated[Workspace, Depends(workspace_of)]


async def job_of(plan_id: str, session: Member, workspace: OfMember) -> JobHandle[Planned]:
    """The job that a path names; `last` is the one that this session began last."""
    name = str(session.data.get("last_plan") or "none") if plan_id == "last" else plan_id
    try:
        return workspace.queue.job(QUEUE, check_part(name), Planned)
    except InvalidKey:
        raise _no_such_plan() from None


OfPath = Annotated[JobHandle[Planned], Depends(job_of)]


@router.post("", summary="Have an agent plan a budget", status_code=202, responses=LOGGED_IN)
async def begin(draft: PlanDraft, session: Member, workspace: OfMember, response: Response) -> Plan:
    job = await workspace.queue.enqueue(plan, draft.budget)
    workspace.client.service(Planner).begin()
    session.data["last_plan"] = job.id
    response.headers["location"] = f"plans/{job.id}"
    return await _shown(job)


@router.get("/{plan_id}", summary="How far a plan is", responses=problems(401, 404))  # noqa: FAST003 - `job_of` takes it
async def look(job: OfPath) -> Plan:
    return await _shown(job)


@router.delete("/{plan_id}", summary="Cancel a plan", status_code=202, responses=problems(401, 404, 409))  # noqa: FAST003
async def cancel(job: OfPath) -> Plan:
    if not await job.cancel("nobody wants it any more"):
        # Also 404 where there never was such a job.
        await _shown(job)
        raise ProblemError(409, "plan-is-over", "The plan is done, or was cancelled before.")
    return await _shown(job)


async def _shown(job: JobHandle[Planned]) -> Plan:
    status = await job.status()
    if status.state == "unknown":
        raise _no_such_plan()
    result = await job.result() if status.state == "done" else None
    return Plan(
        job.id, status.state, status.progress, status.message, None if result is None else result.channels
    )


def _no_such_plan() -> ProblemError:
    """Also for a plan of another workspace: whether it exists is nobody's business."""
    return ProblemError(404, "no-such-plan", "This workspace has no plan of this id.")
