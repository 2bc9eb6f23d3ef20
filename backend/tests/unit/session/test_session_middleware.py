"""The middleware around bare ASGI and FastAPI applications: cookies, headers, laziness, WebSockets, a store that is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection

from redis_core.api.problems import add_problem_details
from redis_core.api.session_cookie import SessionCookie
from redis_core.api.session_dependency import (
    current_session,
    fresh_session,
    optional_session,
    session_of_request,
)
from redis_core.api.session_middleware import SCOPE_KEY, SessionMiddleware, request_session
from redis_core.client import Client
from redis_core.errors import Outcome, StoreUnavailable
from redis_core.session import Session
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient
from tests.session_browser import Browser
from tests.session_world import DAY, HOUR, World


class Away(MockRedisClient):
    """A memory store that can be away."""

    away = False

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        if self.away:
            raise StoreUnavailable("memory is away", outcome=Outcome.UNKNOWN)
        return await super().execute(batch, timeout=timeout)


@pytest.fixture
async def store() -> Away:
    return Away()


@pytest.fixture
async def world(store: Away) -> AsyncIterator[World]:
    async with Client(store) as client:
        yield World(client)


def bare(handler: Callable[..., Any], world: World, **options: Any) -> SessionMiddleware[Any]:
    """A bare ASGI application of one handler, which gets the request's session."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        result = await handler(request_session(scope))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})
        await send({"type": "http.response.body", "body": json.dumps(result).encode()})

    return SessionMiddleware(app, options.pop("sessions", None) or world.process(), **options)


async def login(request: Any) -> str:
    return (await request.login("u1", "acme", {"n": 0})).handle  # type: ignore[no-any-return]


async def who(request: Any) -> str | None:
    session = await request.load()
    return None if session is None else session.user_id


async def test_a_request_that_does_not_ask_for_its_session_costs_nothing(world: World) -> None:
    async def untouched(request: Any) -> int:
        return 1

    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    browser = Browser(bare(untouched, world, sessions=sessions), token)
    assert await world.cost(browser.get) == (0, 0)
    status, headers, _ = await browser.get()
    assert (status, headers) == (200, {"cache-control": ["public"]})


async def test_a_request_that_reads_costs_one_command_and_one_that_writes_at_most_two_more(
    world: World,
) -> None:
    async def change(request: Any) -> None:
        session = await request.load()
        session.data["n"] += 1

    world.plan = "economy"
    sessions = world.process()
    _, token = await sessions.create("u1", "acme", {"n": 0})
    assert await world.cost(Browser(bare(who, world, sessions=sessions), token).get) == (1, 1)
    assert await world.cost(Browser(bare(change, world, sessions=sessions), token).get) == (3, 2)


async def test_login_sets_the_cookie_and_forbids_caching_and_logout_clears_both(world: World) -> None:
    sessions = world.process()
    browser = Browser(bare(login, world, sessions=sessions))
    _, headers, _ = await browser.get()
    (cookie,) = headers["set-cookie"]
    assert (
        cookie
        == f"__Host-rf_session={browser.cookie}; Path=/; Max-Age=2592000; Secure; HttpOnly; SameSite=Lax"
    )
    assert (headers["cache-control"], headers["vary"]) == (["no-store"], ["Cookie"])
    assert "clear-site-data" not in headers
    browser.app = bare(who, world, sessions=sessions)
    _, headers, body = await browser.get()
    assert (json.loads(body), headers) == ("u1", {"cache-control": ["public"], "vary": ["Cookie"]})

    token = browser.cookie
    browser.app = bare(lambda request: request.logout(), world, sessions=sessions)
    _, headers, _ = await browser.get()
    assert headers["set-cookie"] == ["__Host-rf_session=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"]
    assert headers["clear-site-data"] == ['"cache", "cookies", "storage"']
    assert headers["cache-control"] == ["no-store"]
    assert token is not None
    assert await sessions.get(token) is None


async def test_login_carries_over_what_nobodys_session_held_and_ends_a_users(world: World) -> None:
    sessions = world.process()

    async def fill(request: Any) -> None:
        (await request.start({"basket": 1})).data["more"] = 2

    browser = Browser(bare(fill, world, sessions=sessions))
    await browser.get()
    nobodys = browser.cookie
    browser.app = bare(login, world, sessions=sessions)
    await browser.get()
    first = browser.cookie
    assert nobodys is not None
    assert first is not None
    session = await sessions.get(first)
    assert session is not None
    assert (dict(session.data), session.device.user_agent) == ({"basket": 1, "more": 2, "n": 0}, "test")
    await browser.get()
    assert browser.cookie != first
    assert [await sessions.get(token) for token in (nobodys, first)] == [None, None]
    assert [event.reason for event in world.told("revoked")] == ["relogin"]


async def test_a_foreign_cookie_is_not_adopted_and_not_answered(world: World) -> None:
    browser = Browser(bare(who, world), "attackers-choice")
    _, headers, body = await browser.get()
    assert (json.loads(body), "set-cookie" in headers) == (None, False)
    assert await world.keys() == set()


async def test_a_cookie_of_another_workspace_is_no_session_there(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    app = bare(who, world, sessions=sessions, workspace=lambda scope: scope["path"].strip("/"))
    assert json.loads((await Browser(app, token).get("/acme"))[2]) == "u1"
    assert json.loads((await Browser(app, token).get("/other"))[2]) is None
    assert len(world.told("tenant_mismatch")) == 1


async def test_a_change_is_written_before_the_response_starts_and_the_use_after(
    world: World, store: Away
) -> None:
    order: list[str] = []
    real = store.execute

    async def spying(batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        order.append(str(batch[0][0]))
        return await real(batch, timeout=timeout)

    async def change(request: Any) -> None:
        (await request.load()).data["n"] = 1

    world.plan = "economy"
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    world.clock.time += 2 * HOUR
    await sessions.get(token, touch=False)
    browser = Browser(bare(change, world, sessions=sessions), token)
    store.execute = spying  # type: ignore[method-assign]

    async def send(message: Any) -> None:
        order.append(message["type"])

    headers = [(b"cookie", b"__Host-rf_session=" + token.encode())]
    await browser.app({"type": "http", "headers": headers}, None, send)
    assert order == ["HGETALL", "HSET", "http.response.start", "http.response.body", "HSET"]


async def test_a_write_to_a_session_that_ended_meanwhile_is_dropped_and_told(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")

    async def overtaken(request: Any) -> None:
        session = await request.load()
        session.data["late"] = 1
        other = await sessions.get(token)
        assert other is not None
        await sessions.revoke(other)

    status, headers, _ = await Browser(bare(overtaken, world, sessions=sessions), token).get()
    assert (status, "set-cookie" in headers) == (200, False)
    assert len(world.told("lost_write")) == 1
    assert not any(":session:" in key for key in await world.keys())


async def test_an_old_token_is_replaced_in_passing(world: World) -> None:
    sessions = world.process(policy={"renew_after": HOUR})
    _, token = await sessions.create("u1", "acme")
    browser = Browser(bare(who, world, sessions=sessions), token)
    _, headers, _ = await browser.get()
    assert "set-cookie" not in headers
    world.clock.time += 2 * HOUR
    _, headers, _ = await browser.get()
    assert (len(headers["set-cookie"]), browser.cookie == token) == (1, False)
    # A request that was under way with the old one is answered, and is not given another.
    late = Browser(browser.app, token)
    _, headers, body = await late.get()
    assert (json.loads(body), "set-cookie" in headers) == ("u1", False)


async def test_a_read_begun_early_shares_the_trip_of_what_is_sent_next(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    app = bare(who, world, sessions=sessions, prefetch=lambda scope: scope["path"] != "/static")
    assert await world.cost(Browser(app, token).get) == (1, 1)

    async def untouched(request: Any) -> int:
        await asyncio.sleep(0)
        return 1

    app = bare(untouched, world, sessions=sessions, prefetch=lambda scope: scope["path"] != "/static")
    assert await world.cost(Browser(app, token).get) == (1, 1)
    assert await world.cost(lambda: Browser(app, token).get("/static")) == (0, 0)


async def test_a_read_begun_early_that_fails_and_is_not_asked_for_harms_nobody(
    world: World, store: Away
) -> None:
    async def untouched(request: Any) -> int:
        await asyncio.sleep(0)
        return 1

    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    store.away = True
    status, _, _ = await Browser(
        bare(untouched, world, sessions=sessions, prefetch=lambda _: True), token
    ).get()
    assert status == 200


async def test_two_tasks_of_a_request_get_one_session(world: World) -> None:
    async def both(request: Any) -> None:
        one, two = await asyncio.gather(request.load(), request.load())
        one.data["a"], two.data["b"] = 1, 2

    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    await Browser(bare(both, world, sessions=sessions), token).get()
    session = await sessions.get(token)
    assert session is not None
    assert dict(session.data) == {"a": 1, "b": 2}


# --- a store that is away ---


async def test_a_session_that_cannot_be_read_is_503_and_nobody_is_logged_out(
    world: World, store: Away
) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    browser = Browser(bare(who, world, sessions=sessions), token)
    store.away = True
    status, headers, body = await browser.get()
    assert (status, headers["content-type"], headers["retry-after"]) == (
        503,
        ["application/problem+json"],
        ["1"],
    )
    assert (json.loads(body)["code"], "set-cookie" in headers) == ("store-unavailable", False)
    store.away = False
    assert (await browser.get())[0] == 200


async def test_a_change_that_cannot_be_written_is_503_too(world: World, store: Away) -> None:
    async def change(request: Any) -> None:
        (await request.load()).data["n"] = 1
        store.away = True

    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    assert (await Browser(bare(change, world, sessions=sessions), token).get())[0] == 503


async def test_an_app_that_handles_the_outage_answers_itself(world: World, store: Away) -> None:
    async def tolerant(request: Any) -> str:
        try:
            await request.load()
        except StoreUnavailable:
            return "guest"
        raise AssertionError

    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    store.away = True
    status, headers, body = await Browser(bare(tolerant, world, sessions=sessions), token).get()
    assert (status, json.loads(body), "set-cookie" in headers) == (200, "guest", False)


async def test_a_request_that_does_not_ask_for_its_session_does_not_notice_the_outage(
    world: World, store: Away
) -> None:
    async def untouched(request: Any) -> int:
        return 1

    store.away = True
    assert (await Browser(bare(untouched, world), "x").get())[0] == 200


async def test_the_applications_own_errors_are_its_own(world: World) -> None:
    async def broken(request: Any) -> None:
        await request.load()
        raise StoreUnavailable("another store")

    with pytest.raises(StoreUnavailable, match="another"):
        await Browser(bare(broken, world)).get()


async def test_a_use_that_cannot_be_written_harms_nobody(
    world: World, store: Away, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    world.clock.time += 2 * HOUR

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await request_session(scope).load()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        store.away = True
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await send({"type": "http.response.body", "body": b"2"})

    status, _, body = await Browser(SessionMiddleware(app, sessions), token).get()
    assert (status, body) == (200, b"12")
    assert "was not touched" in caplog.text


# --- WebSockets ---


def socket_app(world: World, sessions: Any) -> SessionMiddleware[Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        session = await request_session(scope).load()
        await send({"type": "websocket.accept", "headers": []})
        await send({"type": "websocket.send", "text": "" if session is None else session.user_id})
        await send({"type": "websocket.close", "code": 1000})

    return SessionMiddleware(app, sessions)


async def test_a_websocket_has_the_session_of_its_handshake_and_is_a_use(world: World) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    world.clock.time += DAY - 1
    sent = await Browser(socket_app(world, sessions), token).run(
        {"type": "websocket", "path": "/"}, [{"type": "websocket.connect"}]
    )
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "u1"
    world.clock.time += DAY - 1
    assert await sessions.get(token) is not None


@pytest.mark.parametrize("extension", [True, False])
async def test_a_websocket_during_an_outage_is_refused_for_now(
    world: World, store: Away, extension: bool
) -> None:
    sessions = world.process()
    _, token = await sessions.create("u1", "acme")
    store.away = True
    extensions: dict[str, Any] = {"websocket.http.response": {}} if extension else {}
    sent = await Browser(socket_app(world, sessions), token).run(
        {"type": "websocket", "path": "/", "extensions": extensions}, [{"type": "websocket.connect"}]
    )
    if extension:
        assert [message.get("status") for message in sent] == [503, None]
    else:
        assert [(message["type"], message.get("code")) for message in sent] == [("websocket.close", 1013)]


async def test_other_scopes_pass(world: World) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        assert SCOPE_KEY not in scope

    await SessionMiddleware(app, world.process())({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_without_the_middleware_the_session_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="SessionMiddleware"):
        request_session({"type": "http"})


# --- FastAPI ---

Current = Annotated[Session[Any], Depends(current_session)]


def fastapi_app(world: World) -> FastAPI:
    app = FastAPI()
    sessions = world.process()
    app.add_middleware(SessionMiddleware, sessions=lambda: sessions)
    add_problem_details(app)

    @app.get("/login")
    async def _login(connection: Annotated[Any, Depends(session_of_request)]) -> str:
        return (await connection.login("u1", "acme", {"n": 0})).handle  # type: ignore[no-any-return]

    @app.get("/me")
    async def _me(session: Current) -> dict[str, Any]:
        session.data["n"] += 1
        return {"user": session.user_id, "n": session.data["n"]}

    @app.get("/maybe")
    async def _maybe(session: Annotated[Session[Any] | None, Depends(optional_session)]) -> bool:
        return session is not None

    @app.get("/sensitive")
    async def _sensitive(session: Annotated[Session[Any], Depends(fresh_session(300))]) -> str:
        return session.handle

    @app.get("/stream")
    async def _stream(session: Current) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for part in (b"a", b"b", b"c"):
                yield part

        return StreamingResponse(parts())

    @app.get("/logout")
    async def _logout(connection: HTTPConnection, response: Response) -> None:
        await session_of_request(connection).logout()

    @app.websocket("/socket")
    async def _socket(socket: WebSocket, session: Current) -> None:
        await socket.accept()
        await socket.send_text(session.user_id or "")

    return app


async def test_fastapi_from_login_to_logout(world: World) -> None:
    browser = Browser(fastapi_app(world))
    status, _, body = await browser.get("/me")
    assert (status, json.loads(body)["code"]) == (401, "login-required")
    assert (await browser.get("/maybe"))[2] == b"false"
    await browser.get("/login")
    assert json.loads((await browser.get("/me"))[2]) == {"user": "u1", "n": 1}
    assert json.loads((await browser.get("/me"))[2]) == {"user": "u1", "n": 2}
    assert (await browser.get("/sensitive"))[0] == 200
    world.clock.time += 301
    status, _, body = await browser.get("/sensitive")
    assert (status, json.loads(body)["code"]) == (401, "authentication-stale")
    _, _, body = await browser.get("/stream")
    starts = [message for message in browser.messages if message["type"] == "http.response.start"]
    assert (body, len(starts)) == (b"abc", 1)
    sent = await browser.run({"type": "websocket", "path": "/socket"}, [{"type": "websocket.connect"}])
    assert [message.get("text") for message in sent if message["type"] == "websocket.send"] == ["u1"]
    await browser.get("/logout")
    assert browser.cookie is None
    assert (await browser.get("/me"))[0] == 401
    sent = await browser.run({"type": "websocket", "path": "/socket"}, [{"type": "websocket.connect"}])
    assert [(message["type"], message.get("code")) for message in sent] == [("websocket.close", 1008)]


@pytest.mark.parametrize("path", ["/me", "/maybe", "/login"])
async def test_fastapi_during_an_outage_answers_503_and_keeps_the_cookie(
    world: World, store: Away, path: str
) -> None:
    browser = Browser(fastapi_app(world))
    await browser.get("/login")
    cookie = browser.cookie
    store.away = True
    status, headers, _ = await browser.get(path)
    assert (status, "set-cookie" in headers) == (503, False)
    assert browser.cookie == cookie


async def test_fastapi_answers_503_when_a_change_cannot_be_written_though_it_handles_store_errors(
    world: World, store: Away
) -> None:
    app = fastapi_app(world)

    @app.get("/late")
    async def _late(session: Current) -> None:
        session.data["n"] = 100
        store.away = True

    browser = Browser(app)
    await browser.get("/login")
    assert (await browser.get("/late"))[0] == 503


async def test_after_the_response_has_started_the_cookie_can_no_longer_be_set(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(RuntimeError, match="started"):
            await request_session(scope).login("u1", "acme")
        await send({"type": "http.response.body", "body": b""})

    assert (await Browser(SessionMiddleware(app, world.process())).get())[0] == 200
    assert await world.keys() == set()


async def test_the_insecure_cookie_travels_by_another_name(world: World) -> None:
    cookie = SessionCookie.insecure_localhost()
    app = bare(login, world, cookie=cookie)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "headers": [(b"host", b"localhost:8000")], "client": None}, None, send)  # type: ignore[arg-type]
    (setting,) = [value for name, value in sent[0]["headers"] if name == b"set-cookie"]
    assert setting.startswith(b"rf_session=v1.acme.")
    assert b"Secure" not in setting
