from __future__ import annotations

import asyncio
import re

import pytest

from redis_core.errors import StoreUnavailable
from redis_core.transport.base import Message
from tests.unit.gateway.asking import READER, TENANT, FakeStore, Stream, ask, command, gateway


@pytest.mark.parametrize(("method", "body"), [("POST", b"[]"), ("POST", b""), ("GET", b"")])
async def test_a_subscription_is_confirmed_and_then_delivers(method: str, body: bytes) -> None:
    store = FakeStore()
    stream = Stream(gateway(store), "/subscribe/ch%2Fat", method=method, body=body)
    headers = await stream.start()
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["upstash-sync-token"]
    assert await stream.read() == b"data: subscribe,ch/at,1\n\n"
    store.router.deliver(b"ch/at", "hé,llo".encode())
    assert await stream.read() == "data: message,ch/at,hé,llo\n\n".encode()
    await stream.leave()
    assert store.listening == [(["ch/at"], [])]
    assert store.ignored == [(["ch/at"], [])]


async def test_a_pattern_delivers_with_the_channel() -> None:
    store = FakeStore()
    stream = Stream(gateway(store), "/psubscribe/news.*", body=b"[]")
    await stream.start()
    assert await stream.read() == b"data: psubscribe,news.*,1\n\n"
    store.router.deliver(b"news.a", b"{}", b"news.*")
    assert await stream.read() == b"data: pmessage,news.*,news.a,{}\n\n"
    await stream.leave()
    assert store.ignored == [([], ["news.*"])]


async def test_several_channels_of_a_path_are_each_confirmed() -> None:
    store = FakeStore()
    stream = Stream(gateway(store), "/subscribe/a/b")
    await stream.start()
    assert await stream.read() == b"data: subscribe,a,1\n\ndata: subscribe,b,2\n\n"
    await stream.leave()
    assert store.listening == [(["a", "b"], [])]


async def test_streams_of_one_channel_share_one_subscription() -> None:
    store = FakeStore()
    app = gateway(store)
    streams = [Stream(app, "/subscribe/a") for _ in range(3)]
    for stream in streams:
        await stream.start()
        await stream.read()
    assert (store.listening, app.open_streams) == ([(["a"], [])], 3)
    store.router.deliver(b"a", b"x")
    for stream in streams:
        assert await stream.read() == b"data: message,a,x\n\n"
        assert store.ignored == []
        await stream.leave()
    assert (store.ignored, app.open_streams) == ([(["a"], [])], 0)


@pytest.mark.parametrize(
    ("payload", "for_the_sdk", "for_others"),
    [
        (b"a\nb", b'data: message,c,"a\\nb"\n\n', b"data: message,c,a\ndata: b\n\n"),
        (b"a\r\nb\n", b'data: message,c,"a\\r\\nb\\n"\n\n', b"data: message,c,a\ndata: b\ndata: \n\n"),
        (b'{\n "a": [1.10,\r\n 2]}', b'data: message,c,{"a":[1.10,2]}\n\n', None),
        (b'{"a":"\\n"}', b'data: message,c,{"a":"\\n"}\n\n', b'data: message,c,{"a":"\\n"}\n\n'),
        (b"", b"data: message,c,\n\n", b"data: message,c,\n\n"),
    ],
)
async def test_nothing_of_a_payload_with_line_breaks_is_lost(
    payload: bytes, for_the_sdk: bytes, for_others: bytes | None
) -> None:
    store = FakeStore()
    app = gateway(store)
    sdk, other = Stream(app, "/subscribe/c", body=b"[]"), Stream(app, "/subscribe/c")
    for stream in (sdk, other):
        await stream.start()
        await stream.read()
    store.router.deliver(b"c", payload)
    assert await sdk.read() == for_the_sdk
    if for_others is not None:
        assert await other.read() == for_others
    await sdk.leave()
    await other.leave()


async def test_a_channel_with_a_line_break_cannot_end_an_event() -> None:
    store = FakeStore()
    stream = Stream(gateway(store), "/psubscribe/*", body=b"[]")
    await stream.start()
    await stream.read()
    store.router.deliver(b"a\ndata: forged", b"x", b"*")
    assert (await stream.read()).count(b"\n") == 2
    await stream.leave()


async def test_a_gap_shows_as_a_comment() -> None:
    store = FakeStore()
    stream = Stream(gateway(store), "/subscribe/a")
    await stream.start()
    await stream.read()
    store.router.gap()
    assert await stream.read() == b": gap\n\n"
    await stream.leave()


async def test_a_silent_stream_gets_heartbeats() -> None:
    stream = Stream(gateway(FakeStore(), heartbeat=0.01), "/subscribe/a")
    await stream.start()
    await stream.read()
    assert [await stream.read() for _ in range(3)] == [b": ping\n\n"] * 3
    await stream.leave()


async def test_a_store_that_ends_the_subscription_ends_the_stream() -> None:
    store = FakeStore()
    stream = Stream(gateway(store), "/subscribe/a")
    await stream.start()
    await stream.read()
    store.router.end(StoreUnavailable("closed"))
    assert await stream.read() == b""
    await stream.task


async def test_closing_the_streams_ends_them() -> None:
    app = gateway(FakeStore())
    streams = [Stream(app, "/subscribe/a"), Stream(app, "/monitor")]
    for stream in streams:
        await stream.start()
        await stream.read()
    app.close_streams()
    for stream in streams:
        assert await stream.read() == b""
        await stream.task
    assert app.open_streams == 0


async def test_a_subscription_that_the_store_refuses_is_an_answer_not_a_stream() -> None:
    store = FakeStore()
    store.error = StoreUnavailable("gone")
    app = gateway(store)
    answer = await ask(app, "POST", "/subscribe/a", b"[]")
    assert (answer.status, answer.json) == (503, {"error": "gone"})
    assert app.open_streams == 0


async def test_a_store_that_does_not_confirm_is_given_up() -> None:
    store = FakeStore()

    async def never(channels: object, patterns: object) -> None:
        await asyncio.Event().wait()

    store.listen = never  # type: ignore[method-assign]
    answer = await ask(gateway(store, subscribe_timeout=0.01), "POST", "/subscribe/a")
    assert answer.status == 504


@pytest.mark.parametrize(
    "path", ["/subscribe", "/subscribe/", "/psubscribe/a//b", "/subscribe/%FF", "/subscribe/a%0Ab"]
)
async def test_a_channel_that_a_stream_cannot_carry_is_refused(path: str) -> None:
    store = FakeStore()
    answer = await ask(gateway(store), "POST", path)
    assert (answer.status, store.listening) == (400, [])


async def test_streams_are_not_read_by_head() -> None:
    assert (await ask(gateway(FakeStore()), "HEAD", "/subscribe/a")).status == 405


async def test_one_stream_too_many_is_answered_429() -> None:
    app = gateway(FakeStore(), max_streams=1)
    stream = Stream(app, "/monitor")
    await stream.start()
    answer = await ask(app, "POST", "/subscribe/a")
    assert answer.status == 429
    assert answer.json["error"].startswith("ERR max concurrent connections exceeded")
    await stream.leave()


async def test_a_prefix_stands_before_channels_and_is_not_seen() -> None:
    store = FakeStore()
    app = gateway(store)
    channel, pattern = Stream(app, "/subscribe/c", token=TENANT), Stream(app, "/psubscribe/c*", token=TENANT)
    for stream in (channel, pattern):
        await stream.start()
        await stream.read()
    assert store.listening == [(["t*1:c"], []), ([], ["t\\*1:c*"])]
    store.router.deliver(b"t*1:c", b"x")
    store.router.deliver(b"t*1:cd", b"y", b"t\\*1:c*")
    assert await channel.read() == b"data: message,c,x\n\n"
    assert await pattern.read() == b"data: pmessage,c*,cd,y\n\n"
    await channel.leave()
    await pattern.leave()


async def test_the_monitor_shows_what_passes_in_the_form_of_the_command() -> None:
    app = gateway(FakeStore())
    stream = Stream(app, "/monitor")
    await stream.start()
    assert await stream.read() == b'data: "OK"\n\n'
    await command(app, "set", 'k"\\\n', 1)
    await ask(app, "POST", "/pipeline", b'[["GET","a"],["WATCH","no"],["GET","\\u00e9"]]')
    await ask(app, "POST", "/multi-exec", b'[["GET","b"]]')
    await ask(app, "POST", "/set/k", b"\xff\x00")
    lines = [(await stream.read()).decode() for _ in range(5)]
    for line in lines:
        assert re.fullmatch(r'data: \d+\.\d{6} \[0 203\.0\.113\.7:51034\] "[A-Z]+" .*\n\n', line), line
    assert [line.split("] ")[1].strip() for line in lines] == [
        r'"SET" "k\"\\\n" "1"',
        '"GET" "a"',
        r'"GET" "\xc3\xa9"',
        '"GET" "b"',
        r'"SET" "k" "\xff\x00"',
    ]
    await stream.leave()
    assert (await command(app, "GET", "after")).status == 200


async def test_a_tenant_sees_its_own_commands_only() -> None:
    app = gateway(FakeStore())
    stream = Stream(app, "/monitor", token=TENANT)
    await stream.start()
    await stream.read()
    await command(app, "GET", "foreign")
    await command(app, "GET", "own", token=TENANT)
    assert b'"GET" "t*1:own"' in await stream.read()
    assert stream.sent.empty()
    await stream.leave()


async def test_a_token_that_only_reads_may_listen_but_not_monitor() -> None:
    app = gateway(FakeStore())
    assert (await ask(app, "POST", "/monitor", token=READER)).json["error"].startswith("NOPERM")
    stream = Stream(app, "/subscribe/a", token=READER)
    await stream.start()
    await stream.leave()


def test_messages_are_what_the_transport_makes_them() -> None:
    assert Message(b"c", b"p")._fields == ("channel", "payload", "pattern", "gap")
