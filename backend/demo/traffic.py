"""The demo's visitors: they make, list and look at campaigns over HTTP, so that there is something to see.

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

from demo.page import WORKSPACES

VISITORS: Final = 4
PAUSE_SECONDS: Final = (0.1, 0.3)
"""Between two requests of one visitor: about 20 requests/s in all."""
_LOOKS_A_LOGIN: Final = 60
AWAY_SECONDS: Final = 1.0
"""How long a visitor waits when the service does not answer."""

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


async def drive(url: str) -> None:
    """Visit until cancelled. An outage is logged once, and waited for."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(url, timeout=timeout) as http, asyncio.TaskGroup() as visitors:
        for number in range(VISITORS):
            workspace = WORKSPACES[number % len(WORKSPACES)]
            # Seeded: every run shows the same picture.
            visitors.create_task(_Visitor(http, workspace, random.Random(number)).visit())
        visitors.create_task(_member(url))


async def _member(url: str) -> None:
    """A member who logs in and looks around: sessions, limits and the cache have something to show."""
    # The cookie of plain http on a loopback address is kept by an unsafe jar only.
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(url, cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=5)) as http:
        while True:
            try:
                async with http.post(
                    "/demo/members/login", json={"user": "ada", "workspace": "acme"}
                ) as answer:
                    await _served(answer)
                for _ in range(_LOOKS_A_LOGIN):
                    for page in ("me", "summary", "campaigns"):
                        async with http.get(f"/demo/members/{page}") as answer:
                            await _served(answer)
                    await asyncio.sleep(AWAY_SECONDS)
                async with http.post("/demo/members/logout"):
                    pass
            except (aiohttp.ClientError, TimeoutError, Unserved):
                # The visitors tell of an outage.
                await asyncio.sleep(AWAY_SECONDS)


class _Visitor:
    def __init__(self, http: aiohttp.ClientSession, workspace: str, chance: random.Random) -> None:
        self._http = http
        self._path = f"/demo/api/{workspace}/campaigns"
        self._chance = chance
        self._campaigns: list[str] = []
        self._away = False

    async def visit(self) -> None:
        while True:
            try:
                await self._act()
            except (aiohttp.ClientError, TimeoutError, Unserved) as error:
                if not self._away:
                    _log.warning("the service does not serve", path=self._path, reason=str(error))
                self._away = True
                await asyncio.sleep(AWAY_SECONDS)
            else:
                if self._away:
                    _log.info("the service serves again", path=self._path)
                self._away = False
                await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))

    async def _act(self) -> None:
        if not self._campaigns:
            await self._list()
            for _ in range(max(_FIRST_CAMPAIGNS - len(self._campaigns), 0)):
                await self._create()
        else:
            (action,) = self._chance.choices((self._look, self._list, self._create), weights=(75, 23, 2))
            await action()

    async def _list(self) -> None:
        async with self._http.get(self._path) as response:
            answer = await _served(response)
        self._campaigns = [campaign["id"] for campaign in answer["campaigns"]]

    async def _create(self) -> None:
        draft = {"name": self._chance.choice(_NAMES), "channel": self._chance.choice(_CHANNELS)}
        async with self._http.post(self._path, json=draft) as response:
            answer = await _served(response)
        self._campaigns.insert(0, answer["id"])

    async def _look(self) -> None:
        # The newest are looked at most.
        place = min(int(self._chance.expovariate(0.5)), len(self._campaigns) - 1)
        async with self._http.get(f"{self._path}/{self._campaigns[place]}") as response:
            if response.status == HTTPStatus.NOT_FOUND:
                del self._campaigns[place]
            else:
                await _served(response)


async def _served(response: aiohttp.ClientResponse) -> Any:
    """The answer's document."""
    if not response.ok:
        raise Unserved(f"{response.method} {response.url.path} was answered with {response.status}")
    return await response.json()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(drive(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
