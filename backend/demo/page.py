"""The demo's page at `/demo`: plain HTML, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Annotated, Final
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError

from demo.campaigns import Campaign, Campaigns
from demo.routes import CampaignDraft
from redis_core import Client, get_redis
from redis_core.api.problems import ProblemError

WORKSPACES: Final = ("acme", "globex")
"""The demo's tenants; any other id works as well."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
}
_MOST_FORM_BYTES: Final = 4_096

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
nav a { margin-right: 1rem }
nav a[aria-current] { font-weight: 600; text-decoration: none; color: inherit }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { text-align: left; padding: .35rem .5rem; border-bottom: 1px solid #8884 }
.number { text-align: right; font-variant-numeric: tabular-nums }
form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end }
label { display: grid; font-size: .875rem }
input, select, button { font: inherit; padding: .3rem .5rem }
footer { margin-top: 2rem; font-size: .875rem }
"""


router = APIRouter(prefix="/demo", include_in_schema=False)

Redis = Annotated[Client, Depends(get_redis)]
WorkspaceId = Annotated[str, Query(max_length=64)]


@router.get("")
async def show(redis: Redis, workspace: WorkspaceId = WORKSPACES[0]) -> HTMLResponse:
    campaigns = Campaigns(redis.workspace(workspace))
    page = render(workspace, await campaigns.newest(), await campaigns.views_today())
    return HTMLResponse(page, headers=_HEADERS)


@router.post("")
async def create(request: Request, redis: Redis, workspace: WorkspaceId = WORKSPACES[0]) -> RedirectResponse:
    try:
        draft = CampaignDraft.model_validate(await _form(request))
    except ValidationError as error:
        raise ProblemError(422, "invalid-request", "; ".join(one["msg"] for one in error.errors())) from None
    await Campaigns(redis.workspace(workspace)).create(draft.name, draft.channel)
    return RedirectResponse(f"/demo?{urlencode({'workspace': workspace})}", status_code=303)


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_FORM_BYTES:
            raise ProblemError(413, "form-too-large", f"A form may have {_MOST_FORM_BYTES} bytes.")
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def render(workspace: str, campaigns: Sequence[Campaign], views_today: int) -> str:
    """The page of one workspace; every text from outside is escaped."""
    title = f"Campaigns of {escape(workspace)}"
    tabs = "".join(_tab(name, current=name == workspace) for name in dict.fromkeys((*WORKSPACES, workspace)))
    rows = "".join(map(_row, campaigns)) or '<tr><td colspan="4">None yet.</td></tr>'
    action = f"/demo?{urlencode({'workspace': workspace})}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<nav aria-label="Workspaces">{tabs}</nav>
<main>
<h1>{title}</h1>
<p>{views_today:,} views today. What one workspace stores, the other cannot reach.</p>
<table>
<thead><tr><th scope="col">Name</th><th scope="col">Channel</th><th scope="col">Made</th>
<th scope="col" class="number">Views</th></tr></thead>
<tbody>{rows}</tbody>
</table>
<form method="post" action="{escape(action)}">
<label>Name <input name="name" required maxlength="80"></label>
<label>Channel <select name="channel"><option>email</option><option>search</option><option>social</option>
<option>video</option></select></label>
<button>Make a campaign</button>
</form>
</main>
<footer>
<a href="/demo/api/{escape(workspace)}/campaigns">As JSON</a> ·
<a href="/api/v1/health/redis">Health</a> ·
<a href="/api/v1/admin/redis-metrics">Metrics</a> ·
<a href="/api/v1/admin/redis-stats">Key statistics</a>
</footer>
</body>
</html>
"""


def _tab(workspace: str, *, current: bool) -> str:
    mark = ' aria-current="page"' if current else ""
    return f'<a href="/demo?{escape(urlencode({"workspace": workspace}))}"{mark}>{escape(workspace)}</a>'


def _row(campaign: Campaign) -> str:
    made = datetime.fromtimestamp(campaign.created_at, UTC)
    return (
        f"<tr><td>{escape(campaign.name)}</td><td>{escape(campaign.channel)}</td>"
        f'<td><time datetime="{made.isoformat()}">{made:%Y-%m-%d %H:%M} UTC</time></td>'
        f'<td class="number">{campaign.views:,}</td></tr>'
    )
