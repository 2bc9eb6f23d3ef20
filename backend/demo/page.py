"""The demo's page at `/demo/`: plain HTML and forms, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Annotated, Final, TypeVar
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ValidationError

from demo.campaigns import Campaign, Campaigns
from demo.limits import PLANS
from demo.routes import (
    CampaignDraft,
    LoggedInDevice,
    Login,
    Me,
    OfMember,
    devices_of,
    me_of,
    no_such_campaign,
)
from redis_core import Client, get_redis
from redis_core.api.problems import ProblemError
from redis_core.api.rate_limit_dependency import limits_of_request
from redis_core.api.session_dependency import optional_session, session_of_request
from redis_core.cache import CacheEntry
from redis_core.rate_limit import PolicyState
from redis_core.session import Session, SessionData

WORKSPACES: Final = (*PLANS, "globex")
"""The demo's tenants that the page proposes; any other id works as well."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
}
_MOST_FORM_BYTES: Final = 4_096

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: light-dark(#2456c5, #8ab4ff) }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; justify-content: space-between }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 0 0 .5rem }
section { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; overflow-x: auto }
table { border-collapse: collapse; width: 100%; margin-bottom: .75rem }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top }
tr:last-child td { border-bottom: 0 }
a { color: var(--accent) }
.number { text-align: right; font-variant-numeric: tabular-nums }
.mark { border-radius: 1rem; padding: .05rem .6rem; background: var(--soft); white-space: nowrap }
form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end }
label { display: grid; font-size: .875rem }
input, select, button { font: inherit; padding: .3rem .6rem; border: 1px solid var(--line); border-radius: .3rem }
button { cursor: pointer }
meter { width: 8rem }
footer { font-size: .875rem }
"""

router = APIRouter(include_in_schema=False)

Redis = Annotated[Client, Depends(get_redis)]
Visitor = Annotated[Session[SessionData] | None, Depends(optional_session)]
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class View:
    """What the page of somebody who is logged in shows."""

    me: Me
    campaigns: Sequence[Campaign]
    devices: Sequence[LoggedInDevice]
    limits: Sequence[PolicyState]
    looked_at: CacheEntry[Campaign] | None


@router.get("/")
async def show(request: Request, redis: Redis, session: Visitor, look: str = "") -> HTMLResponse:
    if session is None or session.user_id is None:
        return HTMLResponse(render_login(), headers=_HEADERS)
    campaigns = Campaigns(redis.workspace(session.workspace))
    entry = await campaigns.look(look) if look else None
    if entry is not None:
        await campaigns.count_view(look)
    view = View(
        me=me_of(session),
        campaigns=await campaigns.newest(),
        devices=await devices_of(request, session),
        limits=[state for decision in limits_of_request(request).decisions for state in decision.states],
        looked_at=entry,
    )
    return HTMLResponse(render(view), headers=_HEADERS)


@router.post("/login")
async def login(request: Request) -> RedirectResponse:
    who = await _form(request, Login)
    await session_of_request(request).login(who.user, who.workspace)
    return _back(request)


@router.post("/logout")
async def logout(request: Request) -> RedirectResponse:
    await session_of_request(request).logout()
    return _back(request)


@router.post("/campaigns")
async def create(request: Request, campaigns: OfMember) -> RedirectResponse:
    draft = await _form(request, CampaignDraft)
    await campaigns.create(draft.name, draft.channel)
    return _back(request)


@router.post("/campaigns/{campaign_id}")
async def change(request: Request, campaign_id: str, campaigns: OfMember) -> RedirectResponse:
    draft = await _form(request, CampaignDraft)
    if await campaigns.change(campaign_id, draft.name, draft.channel) is None:
        raise no_such_campaign()
    return _back(request, f"?look={campaign_id}")


def _back(request: Request, query: str = "") -> RedirectResponse:
    root: str = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/{query}", status_code=303)


async def _form(request: Request, model: type[Form]) -> Form:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_FORM_BYTES:
            raise ProblemError(413, "form-too-large", f"A form may have {_MOST_FORM_BYTES} bytes.")
    fields = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ProblemError(422, "invalid-request", "; ".join(one["msg"] for one in error.errors())) from None


def render_login() -> str:
    """The page of somebody who is not logged in."""
    options = "".join(f"<option>{escape(name)}</option>" for name in WORKSPACES)
    return _document(
        "Campaigns",
        f"""<header><h1>Campaigns</h1></header>
<main><section>
<h2>Log in</h2>
<p>The demo believes everybody. What one workspace stores, the other cannot reach.</p>
<form method="post" action="login">
<label>User <input name="user" required maxlength="40" pattern="[A-Za-z0-9_\\-]+" value="ada" autocomplete="username"></label>
<label>Workspace <select name="workspace">{options}</select></label>
<button>Log in</button>
</form>
</section></main>""",
    )


def render(view: View) -> str:
    """The page of somebody who is logged in; every text from outside is escaped."""
    me = view.me
    title = f"Campaigns of {escape(me.workspace)}"
    rows = "".join(map(_campaign_row, view.campaigns)) or '<tr><td colspan="3">None yet.</td></tr>'
    return _document(
        title,
        f"""<header>
<h1>{title}</h1>
<form method="post" action="logout"><span>{escape(me.user)}, plan {escape(me.plan)}</span><button>Log out</button></form>
</header>
<main>
{_looked_at(view.looked_at)}
<section aria-labelledby="campaigns"><h2 id="campaigns">Campaigns</h2>
<p><a href="live/">Edit one together</a>: a document in two windows, who is there, an agent's answer, a job's progress.</p>
<table>
<thead><tr><th scope="col">Name</th><th scope="col">Channel</th><th scope="col">Made</th></tr></thead>
<tbody>{rows}</tbody>
</table>
{_campaign_form("campaigns", "Make a campaign")}
</section>
<section aria-labelledby="limits"><h2 id="limits">Rate limits of this page</h2>
<table>
<thead><tr><th scope="col">Limit</th><th scope="col">Left</th><th scope="col" class="number">of</th>
<th scope="col" class="number">in</th></tr></thead>
<tbody>{"".join(map(_limit_row, view.limits))}</tbody>
</table></section>
<section aria-labelledby="devices"><h2 id="devices">Where you are logged in</h2>
<table>
<thead><tr><th scope="col">Session</th><th scope="col">Browser</th><th scope="col">Network</th><th scope="col">Since</th></tr></thead>
<tbody>{"".join(map(_device_row, view.devices))}</tbody>
</table></section>
</main>""",
    )


def _document(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
<footer>
<a href="api/campaigns">Campaigns as JSON</a> ·
<a href="api/report">Report</a> ·
<a href="/api/v1/health/redis">Health</a> ·
<a href="/admin/performance/">Dashboard</a>
</footer>
</body>
</html>
"""


def _looked_at(entry: CacheEntry[Campaign] | None) -> str:
    if entry is None:
        return ""
    campaign = entry.value
    state = "stale, " if entry.stale else ""
    form = _campaign_form(f"campaigns/{escape(campaign.id)}", "Change it", campaign)
    return f"""<section aria-labelledby="campaign"><h2 id="campaign">{escape(campaign.name)}</h2>
<p>This read came from the <span class="mark">{entry.tier}</span>, {state}{int(entry.age)} s old.
Load the page again: memory has it. Change it: all tiers forget it.</p>
{form}
</section>"""


def _campaign_form(action: str, button: str, campaign: Campaign | None = None) -> str:
    name = escape(campaign.name) if campaign is not None else ""
    options = "".join(
        f"<option{' selected' if campaign is not None and channel == campaign.channel else ''}>{channel}</option>"
        for channel in ("email", "search", "social", "video")
    )
    return f"""<form method="post" action="{action}">
<label>Name <input name="name" required maxlength="80" value="{name}"></label>
<label>Channel <select name="channel">{options}</select></label>
<button>{button}</button>
</form>"""


def _campaign_row(campaign: Campaign) -> str:
    return (
        f'<tr><td><a href="?look={escape(campaign.id)}">{escape(campaign.name)}</a></td>'
        f"<td>{escape(campaign.channel)}</td><td>{_time(campaign.created_at)}</td></tr>"
    )


def _limit_row(state: PolicyState) -> str:
    policy = state.policy
    meter = f'<meter min="0" max="{policy.limit}" value="{state.remaining}">{state.remaining}</meter>'
    return (
        f"<tr><td>{escape(policy.name)}</td><td>{meter} {state.remaining:,}</td>"
        f'<td class="number">{policy.limit:,}</td><td class="number">{policy.window} s</td></tr>'
    )


def _device_row(device: LoggedInDevice) -> str:
    mark = ' <span class="mark">this one</span>' if device.current else ""
    return (
        f"<tr><td><code>{escape(device.session)}</code>{mark}</td><td>{escape(device.browser)}</td>"
        f"<td>{escape(device.network)}</td><td>{_time(device.since)}</td></tr>"
    )


def _time(seconds: int) -> str:
    made = datetime.fromtimestamp(seconds, UTC)
    return f'<time datetime="{made.isoformat()}">{made:%Y-%m-%d %H:%M} UTC</time>'
