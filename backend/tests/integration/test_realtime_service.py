"""The realtime endpoints in a process of their own, on Valkey: killed, restarted, stalled, drained, and asked for what is not theirs."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from redis_core.client import Client
from tests.realtime_service import KINDS, Browser, Service, token
from tests.store_users import made_user


@pytest.fixture(scope="module")
def shared(valkey_socket: str) -> Iterator[Service]:
    """A service that no test ends."""
    with Service(made_user("app", valkey_socket)) as running:
        yield running


@pytest.fixture
def mortal(valkey_socket: str) -> Iterator[Service]:
    """A service of the test's own, to be killed and started again."""
    with Service(made_user("app", valkey_socket)) as running:
        yield running


@pytest.fixture
def acme() -> str:
    """A workspace that no test has had."""
    return f"acme-{secrets.token_hex(4)}"


async def test_kill_and_restart_under_load_loses_and_doubles_nothing(
    mortal: Service, valkey: Client, acme: str
) -> None:
    workspace = valkey.workspace(acme)
    topics = (("events", "events"), ("doc", "state"), ("answer", "append"))
    count = 250

    async def load() -> None:
        for number in range(count):
            await workspace.topic("events").publish({"n": number})
            await workspace.state("doc").patch({"n": number, f"k{number % 7}": number})
            await workspace.text("answer").append(f"{number} é ")
            await asyncio.sleep(0.01)

    await workspace.state("doc").set({"n": -1})
    async with (
        Browser(mortal, token(acme), *topics) as first,
        Browser(mortal, token(acme), *topics) as second,
    ):
        loading = asyncio.create_task(load())
        for _ in range(2):
            await asyncio.sleep(0.3)
            mortal.kill()
            await asyncio.sleep(0.1)
            await asyncio.get_running_loop().run_in_executor(None, mortal.start)
        await loading
        text = "".join(f"{number} é " for number in range(count))
        _, final = await workspace.state("doc").get()
        for browser in (first, second):
            await browser.until(lambda browser=browser: len(browser.messages) >= count)
            await browser.until(lambda browser=browser: browser.text == text)
            await browser.until(lambda browser=browser: (browser.state or {}).get("n") == count - 1)
            assert [message["n"] for message in browser.messages] == list(range(count))
            assert browser.state == final
            assert [state["n"] for state in browser.states] == sorted(state["n"] for state in browser.states)
            assert (browser.doubled, browser.gaps) == (0, 0)
            assert browser.connections >= 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once_with_streams_open_and_tells_them(
    mortal: Service, valkey: Client, acme: str, number: int
) -> None:
    async with Browser(mortal, token(acme), ("a", "events")) as browser, aiohttp.ClientSession() as session:
        async with session.ws_connect(mortal.url("ws")) as ws:
            await ws.send_json({"t": "auth", "token": token(acme)})
            await ws.receive_json()
            ending = asyncio.create_task(mortal.terminate(number))
            last = [
                json.loads(message.data) async for message in ws if message.type is aiohttp.WSMsgType.TEXT
            ]
            took = await ending
            assert last[-1]["t"] == "bye"
            assert ws.close_code == 1012
        assert took < 10
        await browser.until(lambda: browser.frames[-1]["t"] == "bye")
        assert browser.frames[-1]["reason"] == "shutdown"
        await valkey.workspace(acme).topic("a").publish("while it was away")
        mortal.start()
        await browser.until(lambda: browser.messages == ["while it was away"])


async def test_a_stalled_client_keeps_neither_the_others_nor_the_end(
    mortal: Service, valkey: Client, acme: str
) -> None:
    text = token(acme)
    body = json.dumps({"topics": [{"topic": "a"}]})
    stalled = socket.create_connection(("127.0.0.1", mortal.port))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    stalled.sendall(
        f"POST /api/v1/realtime/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {text}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    others = [Browser(mortal, text, ("a", "events")) for _ in range(20)]
    try:
        for browser in others:
            await browser.__aenter__()
        topic = valkey.workspace(acme).topic("a")
        for number in range(200):
            await topic.publish({"n": number, "fill": "x" * 30_000})
        for browser in others:
            await browser.until(lambda browser=browser: len(browser.messages) == 200)
            assert [message["n"] for message in browser.messages] == list(range(200))
            assert browser.connections == 1
        # What it does not read is in nobody's way when the process ends.
        assert await mortal.terminate() < 15
    finally:
        stalled.close()
        for browser in others:
            await browser.__aexit__()


async def test_a_token_is_refreshed_without_reopening_and_ends_the_stream_if_not(
    shared: Service, acme: str
) -> None:
    async with Browser(shared, token(acme, seconds=6), ("a", "events")) as browser:
        await browser.until(lambda: any(frame["t"] == "auth" for frame in browser.frames))
        browser.token = token(acme, seconds=4)
        status, answer = await browser.post("auth", {"stream": browser.stream})
        assert status == 200
        assert answer["expires"] > 0
        await browser.until(lambda: any(frame["t"] == "bye" for frame in browser.frames))
        bye = next(frame for frame in browser.frames if frame["t"] == "bye")
        assert bye["reason"] == "expired"
        browser.token = token(acme)
        await browser.until(lambda: browser.connections == 2)


async def test_topics_are_added_and_taken_away_without_reopening(
    shared: Service, valkey: Client, acme: str
) -> None:
    async with Browser(shared, token(acme, read=["a", "b"]), ("a", "events")) as browser:
        status, answer = await browser.post(
            "subscribe", {"stream": browser.stream, "topics": [{"topic": "b"}, {"topic": "c"}]}
        )
        assert (status, answer) == (200, {"refused": [{"topic": "c", "kind": "events", "code": "forbidden"}]})
        await browser.until(lambda: ("b", "events") in browser.positions)
        await valkey.workspace(acme).topic("b").publish(1)
        await browser.until(lambda: browser.messages == [1])
        status, _ = await browser.post("unsubscribe", {"stream": browser.stream, "topics": ["b"]})
        assert status == 204
        await valkey.workspace(acme).topic("b").publish(2)
        await valkey.workspace(acme).topic("a").publish(3)
        await browser.until(lambda: browser.messages == [1, 3])
        assert browser.connections == 1


async def test_no_request_of_one_tenant_reaches_another(shared: Service, valkey: Client, acme: str) -> None:
    other = f"{acme}-other"
    tricks = ("secret", f"{other}:secret", f"ws:{other}:topic:secret", f"../{other}/secret")
    async with (
        Browser(shared, token(other), ("secret", "events")) as owner,
        Browser(shared, token(acme), *((topic, "events") for topic in tricks)) as thief,
    ):
        for path, body in (
            ("subscribe", {"stream": owner.stream, "topics": [{"topic": "secret"}]}),
            ("unsubscribe", {"stream": owner.stream, "topics": ["secret"]}),
            ("auth", {"stream": owner.stream}),
            ("presence", {"stream": owner.stream, "topic": "secret"}),
        ):
            status, answer = await thief.post(path, body)
            assert (status, answer["code"]) == (404, "stream-unknown")
        status, _ = await thief.post("publish", {"topic": "secret", "data": "forged", "workspace": other})
        assert status == 200
        await valkey.workspace(other).topic("secret").publish("for the owner")
        await owner.until(lambda: owner.messages == ["for the owner"])
        await thief.until(lambda: thief.messages == ["forged"])
        await asyncio.sleep(0.2)
        assert owner.messages == ["for the owner"]
        assert thief.messages == ["forged"]


async def test_websocket_says_the_same_frames(shared: Service, valkey: Client, acme: str) -> None:
    topics = (("a", "events"), ("doc", "state"), ("answer", "append"))
    workspace = valkey.workspace(acme)
    await workspace.state("doc").set({"n": 0})
    async with (
        Browser(shared, token(acme), *topics) as browser,
        aiohttp.ClientSession() as session,
        session.ws_connect(shared.url("ws"), protocols=["raptorflow.v1"]) as ws,
    ):
        wants = [{"topic": topic, "kind": kind} for topic, kind in topics]
        await ws.send_json({"t": "auth", "token": token(acme), "topics": wants})
        frames: list[dict[str, Any]] = []

        async def hear() -> None:
            while True:
                frames.append(await ws.receive_json())

        hearing = asyncio.create_task(hear())
        await browser.until(lambda: len(frames) >= 1 + len(topics))
        await ws.send_json({"t": "pub", "ref": 1, "topic": "a", "data": {"hello": "é"}})
        await workspace.state("doc").patch({"n": 1})
        await workspace.text("answer").append("text")

        def same() -> bool:
            mine = [one for one in browser.frames if one["t"] in KINDS]
            theirs = [one for one in frames if one["t"] in KINDS]
            key = lambda one: (one["topic"], one["offset"], one["t"])
            return len(mine) >= 4 and sorted(mine, key=key) == sorted(theirs, key=key)

        await browser.until(same)
        # The answer to the publisher and the update it published go different ways: either may be first.
        await browser.until(lambda: any(one["t"] == "ok" and one["ref"] == 1 for one in frames))
        await ws.send_json({"t": "pub", "ref": 2, "topic": "a b", "data": 1})
        await browser.until(lambda: frames[-1]["t"] == "error")
        assert (frames[-1]["ref"], frames[-1]["code"]) == (2, "invalid-topic")
        hearing.cancel()


@pytest.mark.parametrize("first", ['{"t":"sub","topics":[]}', '{"t":"auth","token":"no"}', "no json", "[]"])
async def test_a_websocket_without_a_good_first_word_is_closed(shared: Service, first: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(shared.url("ws")) as ws:
        await ws.send_str(first)
        message = await ws.receive(10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code in {1007, 1008}


async def test_presence_ends_with_its_stream(shared: Service, valkey: Client, acme: str) -> None:
    presence = valkey.workspace(acme).presence("doc")
    async with Browser(shared, token(acme), ("doc", "presence")) as watcher:
        async with Browser(shared, token(acme, user="u2"), ("doc", "presence")) as browser:
            status, _ = await browser.post(
                "presence", {"stream": browser.stream, "topic": "doc", "data": {"x": 1}}
            )
            assert status == 204
            await watcher.until(lambda: any("join" in one and "u2" in one["join"] for one in watcher.frames))
            assert "u2" in await presence.members()
            status, answer = await browser.post(
                "presence", {"stream": browser.stream, "topic": "doc", "member": "u1"}
            )
            assert (status, answer["code"]) == (403, "forbidden")
        await watcher.until(lambda: any("u2" in one.get("leave", ()) for one in watcher.frames))
        assert "u2" not in await presence.members()
