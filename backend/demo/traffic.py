"""The demo's visitors: they log in, make, change and look at campaigns over HTTP, so that there is something to see.

One is of a workspace with a large plan, one of a workspace with the free one, who runs into its limits now and then.

On its own: `python -m demo.traffic http://127.0.0.1:8000`, with `backend` on the Python path.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import structlog

VISITORS: Final = (("grace", "acme"), ("linus", "globex"))
"""User and workspace. Two only: they log in from the same address as who tries the demo, and share the limit of logins."""
PAUSE_SECONDS: Final = (0.1, 0.3)
"""Between two requests of one visitor: about 10 requests/s in all."""
REQUESTS_A_LOGIN: Final = 600
"""About two minutes; then the visitor logs out, and in again."""
AWAY_SECONDS: Final = 1.0
"""How long a visitor waits when the service does not answer, or says that it was too much."""

_NAMES: Final = (
    "Spring launch",
    "Summer sale",
    "Product tour",
    "Webinar",
    "Winback",
    "Beta invitation",
    "Year in review",
)
_CHANNELS: Final = ("email", "search", "social", "video")
_FIRST_CAMPAIGNS: Final = 4

_log = structlog.stdlib.get_logger(__name__)


class Unserved(Exception):
    """The service answered a visitor with an error."""


class TooMany(Exception):
    """The service answered that a limit is used up: nothing is wrong, the visitor waits."""


async def drive(url: str) -> None:
    """Visit until cancelled. An outage is logged once, and waited for."""
    async with asyncio.TaskGroup() as visitors:
        for number, (user, workspace) in enumerate(VISITORS):
            # Seeded: every run shows the same picture.
            visitor = _Visitor(f"{url}/demo/api/", user, workspace, random.Random(number))
            visitors.create_task(visitor.visit())


class _Visitor:
    def __init__(self, url: str, user: str, workspace: str, chance: random.Random) -> None:
        self._url = url
        self._who = {"user": user, "workspace": workspace}
        self._chance = chance
        self._campaigns: list[str] = []
        self._logged_in = False
        self._away = False

    async def visit(self) -> None:
        # aiohttp's own jar keeps no cookies of an address, only of a name.
        jar = aiohttp.CookieJar(unsafe=True)
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(self._url, cookie_jar=jar, timeout=timeout) as self._http:
            while True:
                try:
                    await self._stay()
                except TooMany:
                    await asyncio.sleep(AWAY_SECONDS)
                except (aiohttp.ClientError, TimeoutError, Unserved) as error:
                    if not self._away:
                        _log.warning("the service does not serve", reason=str(error), **self._who)
                    self._away = True
                    await asyncio.sleep(AWAY_SECONDS)

    async def _stay(self) -> None:
        """Be logged in for a while. What a limit cuts short goes on in the same session."""
        if not self._logged_in:
            await self._ask("POST", "login", self._who)
            self._logged_in = True
        for _ in range(REQUESTS_A_LOGIN):
            await self._act()
            if self._away:
                _log.info("the service serves again", **self._who)
            self._away = False
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
        await self._ask("POST", "logout")
        self._logged_in = False

    async def _act(self) -> None:
        if not self._campaigns:
            self._campaigns = [campaign["id"] for campaign in await self._ask("GET", "campaigns")]
            for _ in range(max(_FIRST_CAMPAIGNS - len(self._campaigns), 0)):
                await self._create()
            return
        actions = (self._look, self._list, self._report, self._export, self._change, self._create)
        (action,) = self._chance.choices(actions, weights=(65, 15, 10, 4, 4, 2))
        await action()

    async def _look(self) -> None:
        await self._of_one("GET")

    async def _list(self) -> None:
        self._campaigns = [campaign["id"] for campaign in await self._ask("GET", "campaigns")]

    async def _report(self) -> None:
        await self._ask("GET", "report")

    async def _export(self) -> None:
        # Three a minute are allowed.
        await self._ask("GET", "export")

    async def _change(self) -> None:
        await self._of_one("PUT", self._draft())

    async def _create(self) -> None:
        made = await self._ask("POST", "campaigns", self._draft())
        self._campaigns.insert(0, made["id"])

    async def _of_one(self, method: str, body: dict[str, str] | None = None) -> None:
        # The newest are looked at most.
        place = min(int(self._chance.expovariate(0.5)), len(self._campaigns) - 1)
        if await self._ask(method, f"campaigns/{self._campaigns[place]}", body) is None:
            del self._campaigns[place]

    def _draft(self) -> dict[str, str]:
        return {"name": self._chance.choice(_NAMES), "channel": self._chance.choice(_CHANNELS)}

    async def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        """The answer's document; None if there is none, or no such thing."""
        async with self._http.request(method, path, json=body) as response:
            if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise TooMany
            if response.status == HTTPStatus.UNAUTHORIZED:
                # The session has ended, for example with the store's data: log in again.
                self._logged_in = False
            if response.status in {HTTPStatus.NOT_FOUND, HTTPStatus.NO_CONTENT}:
                return None
            if not response.ok:
                raise Unserved(f"{method} {response.url.path} was answered with {response.status}")
            return await response.json()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(drive(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
