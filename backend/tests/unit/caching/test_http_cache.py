"""The HTTP response cache: what is kept, for whom, and what must never be shared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_core.api.cache_middleware import CacheMiddleware, HttpRule
from redis_core.caching.engine import CacheEngine
from redis_core.client import Client
from redis_core.commands import scan_iter
from redis_core.errors import ConfigError


class App:
    """An application that counts its runs and answers as it is told."""

    def __init__(self) -> None:
        self.runs = 0
        self.methods: list[str] = []
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]
        self.chunks = [b"hello ", b"world"]
        self.delay = 0.0
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        self.methods.append(scope["method"])
        run = self.runs
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for chunk in [*self.chunks, b" #%d" % run]:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Answer:
    def __init__(self, messages: list[Any]) -> None:
        assert [message["type"] for message in messages].count("http.response.start") == 1
        self.status: int = messages[0]["status"]
        self.headers = dict(messages[0]["headers"])
        self.body = b"".join(message.get("body", b"") for message in messages[1:])
        self.cache = self.headers.get(b"x-cache", b"").decode()


class Site:
    def __init__(self, client: Client, app: App, **options: Any) -> None:
        rule = HttpRule(path="/cached/.*", **{"ttl": 60, **options})
        self.middleware = CacheMiddleware(
            app, client=client, workspace=lambda scope: scope.get("workspace", "acme"), rules=[rule]
        )

    async def ask(
        self, path: str = "/cached/a", *, method: str = "GET", query: bytes = b"", workspace: str | None = "acme",
        **headers: Any,
    ) -> Answer:  # fmt: skip
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "method": method, "path": path, "query_string": query, "workspace": workspace,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        await self.middleware(scope, receive, send)
        return Answer(sent)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def client(memory: Client) -> Client:
    engine = memory.service(CacheEngine)
    engine.listen()
    while engine.clock.monotonic() >= engine.backplane.live_until:
        await asyncio.sleep(0)
    return memory


async def test_a_response_is_kept_with_its_headers_and_an_etag(client: Client, app: App) -> None:
    site = Site(client, app)
    first, second = await site.ask(), await site.ask()
    assert (first.cache, second.cache, app.runs) == ("MISS", "HIT", 1)
    assert first.body == second.body == b"hello world #1"
    assert second.headers[b"content-type"] == b"text/plain"
    assert second.headers[b"etag"] == first.headers[b"etag"]
    assert int(second.headers[b"age"]) >= 0


async def test_who_has_it_already_is_told_so_without_a_body(client: Client, app: App) -> None:
    site = Site(client, app)
    etag = (await site.ask()).headers[b"etag"].decode()
    for wanted in (etag, f'"other", W/{etag}', "*"):
        answer = await site.ask(if_none_match=wanted)
        assert (answer.status, answer.body, answer.headers[b"etag"]) == (304, b"", etag.encode())
    assert (await site.ask(if_none_match='"other"')).status == 200


async def test_the_applications_own_etag_is_kept(client: Client, app: App) -> None:
    app.headers.append((b"etag", b'"v7"'))
    site = Site(client, app)
    await site.ask()
    assert (await site.ask(if_none_match='"v7"')).status == 304


async def test_a_head_has_no_body(client: Client, app: App) -> None:
    site = Site(client, app)
    heads = [await site.ask(method="HEAD") for _ in range(2)]
    assert [head.body for head in heads] == [b"", b""]
    whole = await site.ask()
    assert (whole.cache, whole.body, app.runs) == ("HIT", b"hello world #1", 1)
    assert {head.headers[b"etag"] for head in heads} == {whole.headers[b"etag"]}
    app.headers.append((b"cache-control", b"no-store"))
    assert (await site.ask("/cached/b", method="HEAD")).body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_what_may_change_something_passes(client: Client, app: App, method: str) -> None:
    site = Site(client, app)
    await site.ask(method=method)
    await site.ask(method=method)
    assert app.runs == 2


async def test_other_paths_and_requests_without_a_workspace_pass(client: Client, app: App) -> None:
    site = Site(client, app)
    for _ in range(2):
        assert (await site.ask("/other")).cache == ""
        assert (await site.ask(workspace=None)).cache == ""
    assert app.runs == 4


async def test_workspaces_queries_and_varying_headers_have_responses_of_their_own(
    client: Client, app: App
) -> None:
    site = Site(client, app)
    for _ in range(2):
        await site.ask()
        await site.ask(workspace="other")
        await site.ask(query=b"page=2")
        await site.ask(accept="application/json")
        await site.ask(user_agent="does not matter")
    assert app.runs == 4


@pytest.mark.parametrize("header", ["authorization", "cookie"])
async def test_a_request_with_credentials_passes_unless_the_rule_allows_it(
    client: Client, app: App, header: str
) -> None:
    async def ask(site: Site, path: str, value: str) -> None:
        credentials: dict[str, Any] = {header: value}
        await site.ask(path, **credentials)

    for _ in range(2):
        await ask(Site(client, app), "/cached/a", "secret")
    assert app.runs == 2
    shared = Site(client, app, shared=True)
    for secret in ("a", "b"):
        await ask(shared, "/cached/a", secret)
    assert app.runs == 3
    own = Site(client, app, vary=(header,))
    for secret in ("a", "b", "a"):
        await ask(own, "/cached/own", secret)
    assert app.runs == 5


@pytest.mark.parametrize(
    "header",
    [
        (b"set-cookie", b"id=1"), (b"cache-control", b"private, max-age=60"), (b"cache-control", b"no-store"),
        (b"cache-control", b'max-age=60, Private="x-user"'), (b"cache-control", b"no-cache"), (b"cache-control", b"max-age=0"),
        (b"cache-control", b"max-age=60, s-maxage=0"),
        (b"vary", b"user-agent"), (b"vary", b"*"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_the_application_forbids_to_share_is_shared_with_nobody(
    client: Client, app: App, header: tuple[bytes, bytes]
) -> None:
    app.headers.append(header)
    app.delay = 0.02
    site = Site(client, app, shared=True)
    answers = await asyncio.gather(*(site.ask(cookie=f"user={n}") for n in range(3)))
    assert len({answer.body for answer in answers}) == 3
    assert app.runs == 3
    assert all(answer.headers.get(header[0]) == header[1] for answer in answers)


@pytest.mark.parametrize("status", [201, 301, 404, 500])
async def test_only_a_plain_success_is_kept(client: Client, app: App, status: int) -> None:
    app.status = status
    site = Site(client, app)
    assert [(await site.ask()).status for _ in range(2)] == [status, status]
    assert app.runs == 2


async def test_a_body_that_is_too_large_passes_whole(client: Client, app: App) -> None:
    app.chunks = [b"x" * 600, b"y" * 600]
    site = Site(client, app, max_bytes=1_000)
    bodies = [(await site.ask()).body for _ in range(2)]
    assert all(len(body) > 1_200 for body in bodies)
    assert app.runs == 2


async def test_many_who_ask_at_once_run_the_application_once(client: Client, app: App) -> None:
    app.delay = 0.02
    site = Site(client, app)
    answers = await asyncio.gather(*(site.ask() for _ in range(10)))
    assert {answer.body for answer in answers} == {b"hello world #1"}
    assert app.runs == 1


async def test_an_error_of_the_application_is_the_callers(client: Client, app: App) -> None:
    app.error = RuntimeError("broken")
    site = Site(client, app)
    with pytest.raises(RuntimeError, match="broken"):
        await site.ask()
    app.error = None
    assert (await site.ask()).status == 200


async def test_a_stale_response_is_served_at_once_and_renewed(client: Client, app: App) -> None:
    site = Site(client, app, ttl=0.05, stale_while_revalidate=60)
    await site.ask()
    await asyncio.sleep(0.07)
    stale = await site.ask()
    assert (stale.cache, stale.body) == ("STALE", b"hello world #1")
    async with asyncio.timeout(5):
        while (await site.ask()).body == b"hello world #1":
            await asyncio.sleep(0.005)


async def test_what_becomes_private_is_not_served_from_before(client: Client, app: App) -> None:
    site = Site(client, app, ttl=0.05, stale_while_revalidate=60)
    await site.ask()
    app.headers.append((b"cache-control", b"private"))
    await asyncio.sleep(0.07)
    assert (await site.ask()).cache == "STALE"
    async with asyncio.timeout(5):
        while (await site.ask()).cache == "STALE":
            await asyncio.sleep(0.005)
    assert (await site.ask()).cache == ""


async def test_a_response_lives_no_longer_than_it_says_itself(client: Client, app: App) -> None:
    app.headers.append((b"cache-control", b"max-age=1"))
    site = Site(client, app, ttl=3600)
    await site.ask()
    names = [name async for name in scan_iter(client, "*cache:http*")]
    assert len(names) == 1
    assert 0 < await client.pttl(names[0]) <= 1000


async def test_hosts_and_schemes_have_responses_of_their_own(client: Client, app: App) -> None:
    site = Site(client, app)
    for _ in range(2):
        await site.ask(host="a.example")
        await site.ask(host="b.example")
    assert app.runs == 2


@pytest.mark.parametrize(
    "header", [{"range": "bytes=0-1"}, {"content_length": "3"}, {"transfer_encoding": "chunked"}]
)
async def test_a_request_for_a_part_or_with_a_body_passes(
    client: Client, app: App, header: dict[str, Any]
) -> None:
    site = Site(client, app)
    await site.ask()
    assert (await site.ask(**header)).cache == ""


class Stream:
    """A response that never ends."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers = list(headers)
        self.ended = asyncio.Event()
        self.left = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            leaving = asyncio.create_task(receive())
            while not leaving.done():
                await send({"type": "http.response.body", "body": b"x" * 300, "more_body": True})
                await asyncio.sleep(0)
            self.left = leaving.result()["type"] == "http.disconnect"
        finally:
            self.ended.set()


@pytest.mark.parametrize("headers", [[(b"cache-control", b"no-store")], []], ids=["forbidden", "too large"])
async def test_a_stream_that_is_not_kept_goes_to_its_client_as_it_comes(
    client: Client, headers: list[tuple[bytes, bytes]]
) -> None:
    stream = Stream(*headers)
    site = Site(client, stream, max_bytes=1_000)  # type: ignore[arg-type]
    received = 0

    async def send(message: Any) -> None:
        nonlocal received
        received += len(message.get("body", b""))

    async def receive() -> Any:
        while received < 3_000:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/cached/a", "query_string": b"", "headers": []}
    async with asyncio.timeout(5):
        await site.middleware(scope, receive, send)
    assert received >= 3_000
    assert stream.left


async def test_a_client_that_hangs_up_ends_the_stream_that_is_its_own(client: Client) -> None:
    stream = Stream((b"cache-control", b"no-store"))
    site = Site(client, stream)  # type: ignore[arg-type]

    async def never() -> Any:
        await asyncio.Event().wait()

    began = asyncio.Event()

    async def send(_: Any) -> None:
        began.set()

    scope = {"type": "http", "method": "GET", "path": "/cached/a", "query_string": b"", "headers": []}
    request = asyncio.create_task(site.middleware(scope, never, send))
    async with asyncio.timeout(5):
        await began.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await stream.ended.wait()


async def test_a_client_that_hangs_up_before_the_headers_leaves_no_run_behind(client: Client) -> None:
    gate, ended = asyncio.Event(), asyncio.Event()

    async def late(_: Any, __: Any, send: Any) -> None:
        try:
            await gate.wait()
            headers = [(b"set-cookie", b"a=1")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        finally:
            ended.set()

    request = asyncio.create_task(Site(client, late).ask())  # type: ignore[arg-type]
    await asyncio.sleep(0.02)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    gate.set()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_a_client_that_hangs_up_harms_nobody_who_waits_for_the_same(client: Client, app: App) -> None:
    app.delay = 0.03
    site = Site(client, app)
    first = asyncio.create_task(site.ask())
    others = [asyncio.create_task(site.ask()) for _ in range(5)]
    await asyncio.sleep(0.01)
    first.cancel()
    assert {answer.body for answer in await asyncio.gather(*others)} == {b"hello world #1"}
    assert app.runs == 1


async def test_a_flush_of_the_workspace_takes_its_responses(client: Client, app: App) -> None:
    site = Site(client, app)
    await site.ask()
    await client.delete("cache:acme:*")
    assert (await site.ask()).cache == "MISS"


def test_a_rule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"HttpRule\.path"):
        HttpRule(path="(", ttl=60)
    with pytest.raises(ConfigError, match="ttl=0"):
        HttpRule(path="/", ttl=0)
