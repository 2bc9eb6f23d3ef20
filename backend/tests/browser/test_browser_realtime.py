"""Realtime in real browsers: tabs of Chromium on HTTP/1.1, against a site that dies and comes back."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from redis_core import Workspace, connect
from redis_core.errors import StoreError
from tests.browser.chromium import SITE, Chromium, Running, needs_chromium, running_chromium
from tests.browser.site import BUILT
from tests.frontend import DASHBOARD, DEMO, node_packages
from tests.server_process import ServerProcess
from tests.stores import clean_client, valkey_binary

pytestmark = [
    pytest.mark.timeout(300),  # Where this comes first, it installs and builds.
    needs_chromium,
    pytest.mark.xdist_group("browser"),
]

SECRET = "upstash-token-that-no-browser-may-see"
_names = (f"n{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(valkey_socket: str) -> Iterator[Running]:
    with Running([str(SITE)], {"REDIS_URL": f"unix://{valkey_socket}"}, "/figures") as running:
        yield running


@pytest.fixture
async def acme(valkey_socket: str) -> AsyncIterator[Workspace]:
    async with await clean_client(valkey_socket) as client:
        yield client.workspace("acme")


class World:
    """Tabs on the site, and somebody who publishes."""

    def __init__(self, chromium: Chromium, site: Running, workspace: Workspace) -> None:
        self.chromium, self.site, self.workspace = chromium, site, workspace
        self.name = next(_names)
        self.published = 0
        self.text = ""
        self.document: dict[str, int] = {}
        self.versions: list[dict[str, int] | None] = [None, {}]
        """All that the document has been."""

    async def do(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(call, *arguments, **options)

    async def open(self, *tabs: str, user: str = "ada", sharing: str = "", **options: Any) -> None:
        for tab in tabs:
            url = f"{self.site.url}/page.html?name={self.name}&user={user}&sharing={sharing}"
            await self.do(self.chromium.do, "open", tab=tab, url=url, context=self.name, **options)
        for tab in tabs:
            await self.wait(tab, "() => window.tab?.realtime.status === 'live'")

    async def wait(self, tab: str, code: str, argument: Any = None) -> None:
        await self.do(self.chromium.wait, tab, code, argument)

    async def see(self, tab: str, code: str, argument: Any = None) -> Any:
        return await self.do(self.chromium.evaluate, tab, code, argument)

    def change(self, patch: dict[str, int]) -> dict[str, int]:
        """A patch that the document is about to get."""
        self.document |= patch
        self.versions.append(dict(self.document))
        return patch

    async def publish(self, times: int = 1) -> None:
        """Something of each kind, whatever happens to the site meanwhile."""
        for _ in range(times):
            self.published += 1
            number = self.published
            patch = self.change({f"k{number % 5}": number})
            await self.workspace.topic(f"campaign:{self.name}").publish({"n": number})
            await self.workspace.state(f"doc:{self.name}").patch(patch)
            token = f"é{number} "
            self.text += token
            await self.workspace.text(f"answer:{self.name}").append(token)

    async def holds(self, tab: str) -> None:
        """The tab has each event once and in order, the document, and the text."""
        last = self.published
        await self.wait(tab, "(n) => window.tab.seen.events.at(-1)?.n === n", last)
        await self.wait(tab, "(n) => window.tab.text.snapshot.text.length === n", len(self.text))
        await self.wait(tab, "(n) => Object.values(window.tab.state.snapshot.value ?? {}).includes(n)", last)
        seen = await self.see(
            tab,
            "() => ({...window.tab.seen, text: window.tab.text.snapshot.text, value: window.tab.state.snapshot.value})",
        )
        assert [event["n"] for event in seen["events"]] == list(range(1, last + 1))
        assert (seen["gaps"], seen["text"], seen["value"]) == (0, self.text, self.document)
        shown = [json.loads(version) for version in seen["versions"]]
        assert all(version in self.versions for version in shown)
        # Each after the one before: what it goes back to is never an older one.
        numbers = [self.versions.index(version) for version in shown]
        assert numbers == sorted(numbers)


@pytest.fixture
async def world(chromium: Chromium, site: Running, acme: Workspace) -> AsyncIterator[World]:
    world = World(chromium, site, acme)
    yield world
    chromium.do("forget", context=world.name)


async def test_eight_tabs_on_http1_are_one_stream_and_all_hear_everything(
    world: World, site: Running
) -> None:
    tabs = [f"tab{number}" for number in range(8)]
    await world.open(*tabs)
    assert (await world.do(site.figures))["open"] == 1
    await world.publish(20)
    for tab in tabs:
        await world.holds(tab)
        assert await world.see(tab, "() => window.tab.realtime.sharing") == "worker"
        assert await world.do(world.chromium.do, "errors", tab=tab) == []
    assert (await world.do(site.figures))["open"] == 1


@pytest.mark.parametrize("sharing", ["worker", "leader", "tab"])
async def test_a_site_that_is_killed_under_load_loses_and_doubles_nothing(
    world: World, site: Running, sharing: str
) -> None:
    await world.open("one", "two", sharing=sharing)
    load = asyncio.create_task(_load(world, 150))
    for ending in (site.kill, site.stop):
        await asyncio.sleep(0.3)
        await world.do(ending)
        await asyncio.sleep(0.2)
        await world.do(site.start)
        # Whoever waits for its turn is told to look.
        if sharing == "worker":
            await world.do(world.chromium.do, "tellWorkers", event="online")
        else:
            await world.see("one", "() => void window.dispatchEvent(new Event('online'))")
    await load
    for tab in ("one", "two"):
        await world.holds(tab)
        statuses = await world.see(tab, "() => window.tab.seen.statuses")
        assert "offline" in statuses
        await world.wait(tab, "() => window.tab.realtime.status === 'live'")


async def _load(world: World, times: int) -> None:
    for _ in range(times):
        await world.publish()
        await asyncio.sleep(0.005)


async def test_a_store_that_is_killed_under_load_loses_and_doubles_nothing(chromium: Chromium) -> None:
    with (
        ServerProcess(valkey_binary(), "--appendonly", "yes", "--appendfsync", "always") as store,
        Running([str(SITE)], {"REDIS_URL": store.url}, "/figures") as site,
    ):
        async with await connect(redis_url=store.url, redis_failover=False) as client:
            world = World(chromium, site, client.workspace("acme"))
            await world.open("one", "two")
            load = asyncio.create_task(_stubborn_load(world, 150))
            for share in (40, 80):
                await _past(world, share, load)
                await world.do(store.kill)
                await asyncio.sleep(0.2)
                await world.do(store.start)
            await load
            for tab in ("one", "two"):
                await world.holds(tab)
            await world.do(chromium.do, "forget", context=world.name)


async def _past(world: World, share: int, load: asyncio.Task[None]) -> None:
    async with asyncio.timeout(60):
        while world.published <= share and not load.done():
            await asyncio.sleep(0.01)


async def _stubborn_load(world: World, times: int) -> None:
    """As `World.publish`, each until it is known to be there."""
    workspace, name = world.workspace, world.name

    async def there(publish: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    await publish()
                except StoreError:
                    await asyncio.sleep(0.02)
                else:
                    return

    async with workspace.text(f"answer:{name}").writer(patience=60) as out:
        for number in range(1, times + 1):
            patch = world.change({f"k{number % 5}": number})
            await there(partial(workspace.topic(f"campaign:{name}").publish, {"n": number}, id=f"n{number}"))
            await there(partial(workspace.state(f"doc:{name}").patch, patch))
            token = f"é{number} "
            world.text += token
            await out.write(token)
            world.published = number


async def test_when_the_tab_that_leads_is_closed_another_one_does(world: World, site: Running) -> None:
    await world.open("first", "second", "third", sharing="leader")
    assert (await world.do(site.figures))["open"] == 1
    await world.publish(5)
    await world.holds("third")
    await world.do(world.chromium.do, "close", tab="first")
    await world.publish(5)
    for tab in ("second", "third"):
        await world.holds(tab)
    assert (await world.do(site.figures))["open"] == 1


async def test_a_worker_that_crashes_is_replaced_and_goes_on_where_it_was(
    world: World, site: Running
) -> None:
    await world.open("one", "two")
    await world.publish(5)
    opened = (await world.do(site.figures))["opened"]
    assert await world.do(world.chromium.do, "killWorker") >= 1
    await world.publish(5)
    for tab in ("one", "two"):
        await world.holds(tab)
    figures = await world.do(site.figures)
    assert (figures["open"], figures["opened"]) == (1, opened + 1)


async def test_two_users_of_one_browser_share_nothing(world: World, site: Running) -> None:
    await world.open("hers", user="ada")
    await world.open("his", user="bob")
    assert (await world.do(site.figures))["open"] == 2


async def test_two_windows_edit_one_document(world: World) -> None:
    await world.open("left")
    await world.open("right")
    await world.see("left", "() => window.tab.state.patch({title: 'Spring'})")
    await world.see("right", "() => window.tab.state.patch({budget: 5})")
    for tab in ("left", "right"):
        await world.wait(
            tab,
            "() => { const {value} = window.tab.state.snapshot; return value?.title === 'Spring' && value.budget === 5 }",
        )
    version = await world.see("left", "() => window.tab.state.snapshot.version")
    both = "async (version) => { try { await window.tab.state.patch({title: 'x'}, {version}); return 'done' } catch (error) { return error.code } }"
    outcomes = [await world.see(tab, both, version) for tab in ("left", "right")]
    assert outcomes == ["done", "version-conflict"]
    await world.wait("right", "() => window.tab.state.snapshot.value.title === 'x'")
    assert await world.see("right", "() => window.tab.state.snapshot.draft.title") == "x"


async def test_who_is_there_is_seen_by_all_and_goes_with_the_tab(world: World) -> None:
    await world.open("left", "right")
    for tab in ("left", "right"):
        await world.see(tab, "(tab) => void window.tab.presence.join({tab})", tab)
    there = "(n) => Object.keys(window.tab.presence.snapshot.members).length === n"
    for tab in ("left", "right"):
        await world.wait(tab, there, 2)
    assert (
        await world.see(
            "left",
            "() => Object.keys(window.tab.presence.snapshot.members).filter((m) => window.tab.presence.isMine(m)).length",
        )
        == 1
    )
    await world.do(world.chromium.do, "close", tab="right")
    await world.wait("left", there, 1)


async def test_a_text_goes_on_where_it_was_after_the_page_is_loaded_again(world: World) -> None:
    await world.open("one")
    text = world.workspace.text(f"answer:{world.name}")
    await text.append("Once upon ")
    await world.wait("one", "() => window.tab.text.snapshot.text === 'Once upon '")
    await world.do(world.chromium.do, "reload", tab="one")
    await text.append("a time")
    await text.end()
    await world.wait(
        "one", "() => window.tab?.text.snapshot.text === 'Once upon a time' && window.tab.text.snapshot.done"
    )


async def test_a_browser_that_was_offline_catches_up_at_once_when_it_is_back(world: World) -> None:
    await world.open("one", sharing="tab")
    await world.do(world.chromium.do, "offline", context=world.name, value=True)
    await world.wait("one", "() => window.tab.realtime.status === 'offline'")
    await world.publish(10)
    await world.do(world.chromium.do, "offline", context=world.name, value=False)
    await world.holds("one")


async def test_events_published_by_a_browser_are_heard_once_by_all(world: World) -> None:
    await world.open("one", "two")
    await world.see(
        "one",
        "async () => { for (let n = 1; n <= 5; n++) await window.tab.events.publish({n}, {id: `id${n}`}) }",
    )
    await world.see("two", "() => window.tab.events.publish({n: 5}, {id: 'id5'})")
    world.published = 5
    for tab in ("one", "two"):
        await world.wait(tab, "() => window.tab.seen.events.length >= 5")
        assert await world.see(tab, "() => window.tab.seen.events.map(({n}) => n)") == [1, 2, 3, 4, 5]


async def test_the_worker_that_hears_that_the_network_is_back_opens_its_stream_anew(
    world: World, site: Running
) -> None:
    await world.open("one", "two")
    opened = (await world.do(site.figures))["opened"]
    assert await world.do(world.chromium.do, "tellWorkers", event="online") >= 1
    async with asyncio.timeout(20):
        while (await world.do(site.figures))["opened"] == opened:
            await asyncio.sleep(0.02)
    await world.publish(3)
    for tab in ("one", "two"):
        await world.holds(tab)
    assert (await world.do(site.figures))["open"] == 1


async def test_a_tab_that_is_looked_at_again_tells_the_worker(world: World) -> None:
    spy = """const post = MessagePort.prototype.postMessage;
        window.posted = [];
        MessagePort.prototype.postMessage = function (message, ...rest) {
            window.posted.push(message);
            return post.call(this, message, ...rest);
        };"""
    await world.open("one", script=spy)
    assert await world.see("one", "() => window.tab.realtime.sharing") == "worker"
    await world.see("one", "() => void document.dispatchEvent(new Event('visibilitychange'))")
    woken = "() => window.posted.filter(({m}) => m === 'wake')"
    assert await world.see("one", woken) == [{"m": "wake", "why": "visible"}]


_SOCKET = """async () => {
    const token = await (await fetch("/token?user=ada", { method: "POST" })).text();
    const socket = new WebSocket("/api/v1/realtime/ws".replace(/^/, location.origin.replace("http", "ws")), "raptorflow.v1");
    window.told = [];
    socket.onmessage = ({ data }) => window.told.push(JSON.parse(data));
    await new Promise((resolve) => (socket.onopen = resolve));
    socket.send(JSON.stringify({ t: "auth", token }));
    window.socket = socket;
}"""
_PATCH = """async (name) => {
    const token = await (await fetch("/token?user=ada", { method: "POST" })).text();
    const change = { topic: `doc:${name}`, kind: "state", patch: { k0: 0 } };
    window.socket.send(JSON.stringify({ t: "pub", ref: 1, ...change }));
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    return (await fetch("/api/v1/realtime/publish", { method: "POST", headers, body: JSON.stringify(change) })).status;
}"""


async def test_nothing_that_a_browser_is_sent_has_the_stores_token_in_it(chromium: Chromium) -> None:
    node_packages("build", DEMO, DASHBOARD)
    gateway = ["-m", "redis_core", "gateway"]
    alone = {"REDIS_FAILOVER": "false"}
    rests = {"GATEWAY_TOKEN": SECRET, **alone}
    sites = {"UPSTASH_REDIS_TOKEN": SECRET, "TEST_SECRET": SECRET, **alone}
    with (
        ServerProcess(valkey_binary(), "--appendonly", "yes", "--appendfsync", "always") as store,
        Running(gateway, {"REDIS_URL": store.url, **rests}, "/") as rest,
        Running([str(SITE)], {"UPSTASH_REDIS_URL": rest.url, **sites}, "/figures") as site,
    ):
        async with await connect(redis_url=store.url, redis_failover=False) as client:
            world = World(chromium, site, client.workspace("acme"))
            await world.open("one")
            await world.publish(2)
            await world.holds("one")
            await world.see("one", _SOCKET)
            await world.wait("one", "() => window.told.some(({t}) => t === 'hello')")
            await world.do(store.kill)
            assert await world.see("one", _PATCH, world.name) == 503
            await world.wait("one", "() => window.told.some(({t}) => t === 'error')")
            await world.wait("one", "() => window.tab.realtime.status === 'stale'")
            await world.do(store.start)
            await world.wait("one", "() => window.tab.realtime.status === 'live'")
            await world.publish(2)
            await world.holds("one")
            await world.do(chromium.do, "forget", context=world.name)
        assert await asyncio.to_thread(_read_bundles, site) == set(BUILT)
        figures = await world.do(site.figures)
        assert figures["leaks"] == []
        assert figures["looked"]["websocket.send"] >= 2
        await asyncio.to_thread(_read, site, "/control")
        assert (await world.do(site.figures))["leaks"] == ["/control"]


def _read_bundles(site: Running) -> set[str]:
    """Fetch every file of what the project builds for browsers; those that have a program."""
    programs: set[str] = set()
    for name, folder in BUILT.items():
        for path in folder.rglob("*"):
            if path.is_file():
                _read(site, f"/{name}/{path.relative_to(folder).as_posix()}")
                programs |= {name} if path.suffix == ".js" else set()
    return programs


def _read(site: Running, path: str) -> None:
    with urllib.request.urlopen(f"{site.url}{path}", timeout=10) as answer:
        assert answer.read()
