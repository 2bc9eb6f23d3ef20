"""The dashboard of a running service in Chromium, over a store that its tests look into."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis_core.api.admin_token import hash_of
from redis_core.cache import CacheRegion
from redis_core.clock import SYSTEM_CLOCK
from redis_core.config import Settings, load_settings
from redis_core.keys import rate_key
from redis_core.metrics import Metrics
from redis_core.queue import task
from redis_core.session import Sessions
from redis_core.worker import Worker
from tests.browser.chromium import Chromium, Running, running_chromium
from tests.frontend import CLIENT, DASHBOARD, node_packages
from tests.metrics_world import MovedClock
from tests.stores import clean_client

__all__ = ["PAGES", "PROFILES", "TOKENS", "Dashboard", "running_dashboard"]

AXE = DASHBOARD / "node_modules" / "axe-core" / "axe.min.js"
TOKENS = {role: f"token-of-{role}-{'x' * 20}" for role in ("viewer", "operator", "admin")}
PAGES = {
    "overview": "Overview",
    "cache": "Cache",
    "queues": "Queues",
    "limits": "Limits",
    "sessions": "Sessions",
    "realtime": "Realtime",
    "workspaces": "Workspaces",
    "slow": "Slow operations",
    "audit": "Audit",
}
PROFILES = CacheRegion("profile", dict[str, int], ttl=600)
_PEPPERS = "a:" + "p" * 40
_HOME = "/admin/performance/"
_SHOWN = """(name) => document.querySelector("h1")?.textContent === name
    && ![...document.querySelectorAll(".empty")].some((one) => one.textContent === "Reading …")"""
_BUTTON = """([place, text]) => [...document.querySelectorAll(`${place} button`)].find(
    (one) => one.textContent.startsWith(text) && one.checkVisibility())"""


@task(name="campaign.draft", queue="agents", retries=0)
async def fails(n: int) -> int:
    raise ValueError(f"no budget for campaign {n}")


@task(name="campaign.review", queue="agents", retries=0)
async def waits(n: int) -> int:
    return n


class Dashboard:
    """One tab on the dashboard."""

    def __init__(self, chromium: Chromium, site: Running, tab: str = "admin") -> None:
        self.chromium, self.site, self.tab = chromium, site, tab

    def open(self, page: str = "", *, token: str = TOKENS["admin"], **look: Any) -> None:
        """A tab of its own, logged in by a token."""
        script = f"sessionStorage.setItem('raptorflow-admin-token', {token!r})" if token else ""
        url = f"{self.site.url}{_HOME}#/{page}"
        self.chromium.do("open", tab=self.tab, url=url, script=script, context=self.tab, **look)

    def go(self, page: str, words: str = "") -> None:
        """Another page, once it shows what it was told."""
        self.chromium.evaluate(self.tab, "(hash) => { location.hash = hash; }", f"#/{page}?{words}")
        self.chromium.wait(self.tab, _SHOWN, PAGES[page])

    def see(self, code: str, argument: Any = None) -> Any:
        return self.chromium.evaluate(self.tab, code, argument)

    def wait(self, code: str, argument: Any = None) -> None:
        self.chromium.wait(self.tab, code, argument)

    def wait_for(self, text: str, place: str = "main") -> None:
        """Until a place of the page has a text."""
        self.wait(
            "([place, text]) => document.querySelector(place)?.textContent.includes(text) ?? false",
            [place, text],
        )

    def press(self, key: str) -> None:
        self.chromium.do("press", tab=self.tab, key=key)

    def fill(self, label: str, text: str) -> None:
        """Type into the field of a label."""
        self.chromium.do("fill", tab=self.tab, selector=f"label:has-text('{label}') input", text=text)

    def click(self, button: str, place: str = "main") -> None:
        """A button by the beginning of its text, once it is there."""
        self.wait(f"(argument) => ({_BUTTON})(argument) !== undefined", [place, button])
        self.see(f"(argument) => ({_BUTTON})(argument).click()", [place, button])

    def confirm(self, button: str, says: str) -> None:
        """What a dialog asks for; then it says what was done."""
        self.click(button, "dialog[open]")
        self.wait_for(says, "dialog[open]")
        self.click("Close", "dialog[open]")
        self.wait("() => document.querySelector('dialog[open]') === null")

    def dismiss(self) -> None:
        """Nothing is done."""
        # A key that comes before the dialog is for the page.
        self.wait("() => document.querySelector('dialog[open]') !== null")
        self.press("Escape")
        self.wait("() => document.querySelector('dialog[open]') === null")

    def errors(self) -> list[str]:
        """What went wrong in the tab, what the content policy forbids included."""
        found: list[str] = self.chromium.do("errors", tab=self.tab)
        return found

    def violations(self) -> list[dict[str, Any]]:
        """What axe finds."""
        found: list[dict[str, Any]] = self.chromium.do("axe", tab=self.tab, source=str(AXE))
        return found


def settings_of(socket: str) -> Settings:
    """The settings of who looks into the store of the service."""
    return load_settings(redis_url=f"unix://{socket}", mock_redis=False, session_peppers=_PEPPERS)


async def fill(socket: str) -> None:
    """What there is to see: jobs dead and waiting, a refused user, cached values, metrics of some minutes."""
    async with await clean_client(socket) as client:
        clock = MovedClock(SYSTEM_CLOCK.now() - 240)
        metrics = client._services[Metrics] = Metrics(client, clock=clock)
        queue = client.workspace("acme").queue
        await queue.enqueue_many([fails.call(n) for n in range(4)])
        await Worker(client, [fails, waits], queues=["agents"]).drain()
        await queue.enqueue_many([waits.call(n) for n in range(5)])
        await client.workspace("acme").cache.set(PROFILES, "42", {"n": 1})
        await client.set(rate_key("u1", "/a"), "1", ex=600)
        await client.set(rate_key("u1", "/b"), "1", ex=600)
        sessions = Sessions.from_settings(client, settings_of(socket))
        for _ in range(3):
            await sessions.create("ada", "acme")
        for _ in range(3):
            # Charts leave out the minute that is not over.
            await client.workspace("acme").cache.get(PROFILES, "42")
            await metrics.recorder.flush(last=True)
            clock.time += 60


@contextmanager
def running_dashboard(socket: str, state: Path) -> Generator[Dashboard]:
    """The service with its demo and visitors, and a tab of an admin."""
    node_packages("build", CLIENT, DASHBOARD)
    asyncio.run(fill(socket))
    entries = ",".join(f"{role}-1:{role}:{hash_of(token)}" for role, token in TOKENS.items())
    environment = {
        "REDIS_URL": f"unix://{socket}",
        "MOCK_REDIS": "",
        "RAPTORFLOW_ENV": "development",
        "RAPTORFLOW_STATE_DIR": str(state),
        "ADMIN_TOKENS": entries,
        "SESSION_PEPPERS": _PEPPERS,
    }
    command = ["-m", "redis_core", "up", "--demo", "--traffic", "--no-gateway"]
    with Running(command, environment, _HOME) as site, running_chromium() as chromium:
        dashboard = Dashboard(chromium, site)
        dashboard.open()
        yield dashboard
        assert dashboard.errors() == []
