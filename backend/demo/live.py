"""The demo's live page at `/demo/live/`: a campaign that several people edit at once, an agent's answer, a job's progress.

The page is built from `frontend/demo` by `make frontend`. It reaches topics through `/demo/realtime` by the session of the demo.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from demo.routes import Member
from demo.tasks import QUEUE, plan
from redis_core import Client, Settings, Workspace, get_redis
from redis_core.api.realtime import Allowed, Realtime
from redis_core.log import get_logger
from redis_core.session import Session, SessionData
from redis_core.worker import Worker

_BUILT: Final = Path(__file__).parents[2] / "frontend" / "demo" / "dist"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "worker-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_NOT_BUILT: Final = (
    "<!doctype html><title>Not built</title><p>This page is built by <code>make frontend</code>."
)
_WORD_SECONDS: Final = 0.06
_ANSWER: Final = (
    "I have read the campaign “{title}” for {audience}. With {budget} euros a day I would begin with "
    "search, where people already look for what you have, and keep a fifth for video. Measure a week before you move "
    "money: the first days flatter every channel. And say in the first line what it does for them."
)
_LOG: Final = get_logger(__name__)

router = APIRouter(prefix="/live", include_in_schema=False)


class _Assets(StaticFiles):
    """The page's scripts with the page's policy: a worker goes by that of its own file, and this one holds the stream."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = _HEADERS["Content-Security-Policy"]
        return response


class Question(BaseModel):
    """Which campaign the agent is asked about."""

    model_config = ConfigDict(extra="forbid")

    campaign: str = Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")


class PlanWanted(BaseModel):
    """A job to start, under an id that the page listens to already."""

    model_config = ConfigDict(extra="forbid")

    job: str = Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    budget: int = Field(ge=0, le=1_000_000)


async def workspace_of(session: Member, redis: Annotated[Client, Depends(get_redis)]) -> Workspace:
    """The workspace that the session is valid in."""
    return redis.workspace(session.workspace)


OfMember = Annotated[Workspace, Depends(workspace_of)]


def add_live(app: FastAPI, client: Client, settings: Settings) -> None:
    """The live page, and the realtime endpoints that it uses, below the demo."""

    async def the_client() -> Client:
        return client

    app.include_router(router)
    app.mount("/live/assets", _Assets(directory=_BUILT / "assets", check_dir=False))
    app.mount("/realtime", Realtime(the_client, settings=settings, allow=allowed))


def allowed(_session: Session[SessionData]) -> Allowed:
    """Everybody who is logged in reads and edits the workspace's campaigns; answers and jobs are written by the service alone."""
    return Allowed(read=("campaign:*", "answer:*", "job:*"), write=("campaign:*",))


@router.get("/")
async def page() -> HTMLResponse:
    built = _BUILT / "index.html"
    if not built.is_file():
        return HTMLResponse(_NOT_BUILT, status_code=503, headers=_HEADERS)
    return HTMLResponse(built.read_bytes(), headers=_HEADERS)


@router.post("/answers", status_code=202)
async def answer(question: Question, workspace: OfMember) -> Response:
    document = workspace.state(f"campaign:{question.campaign}")
    _, current = await document.get()
    values: dict[str, Any] = current or {}
    number = int(values.get("question", 0)) + 1
    # Every window that has the campaign open turns to the new answer.
    await document.patch({"question": number})
    workspace.client.service(_Background).start(_write(workspace, f"{question.campaign}-{number}", values))
    return Response(status_code=202)


@router.post("/plans", status_code=202)
async def start_plan(wanted: PlanWanted, workspace: OfMember) -> Response:
    await workspace.queue.enqueue(plan, wanted.budget, job_id=wanted.job)
    # A product has workers of its own: `raptorflow worker demo.tasks`. What the job tells is its topic's, `job:<id>`.
    worker = Worker(workspace.client, [plan], queues=[QUEUE])
    workspace.client.service(_Background).start(worker.drain())
    return Response(status_code=202)


async def _write(workspace: Workspace, name: str, values: dict[str, Any]) -> None:
    """Write an answer as a model would, a word at a time."""
    text = workspace.text(f"answer:{name}")
    words = _ANSWER.format(
        title=values.get("title") or "without a title",
        audience=values.get("audience") or "everybody",
        budget=values.get("budget") or 0,
    ).split(" ")
    async with text.writer() as out:
        for word in words:
            await out.write(f"{word} ")
            await asyncio.sleep(_WORD_SECONDS)


class _Background:
    """What the demo does besides answering requests; ends with the client."""

    def __init__(self, _client: Client) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.warning("the demo's background work failed", error=repr(error))

    async def aclose(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
