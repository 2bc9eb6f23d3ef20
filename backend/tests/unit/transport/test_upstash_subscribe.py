"""Subscriptions over REST: one event stream a channel, confirmed, reopened when lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.errors import (
    DeadlineExceeded,
    LimitExceeded,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
)
from redis_core.transport.backoff import Backoff
from redis_core.transport.base import Message
from redis_core.transport.rest.sse import EventReader
from tests.unit.transport.rest_stub import (
    Answer,
    http,
    rest_stub,
    says,
    says_and_closes,
    silence,
    until,
    upstash,
)

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


async def test_messages_of_a_channel_arrive_in_order() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        async with await redis.subscribe("news") as feed:
            for number in range(3):
                stub.publish("news", b"%d" % number)
            assert [await anext(feed) for _ in range(3)] == [
                Message(b"news", b"%d" % number) for number in range(3)
            ]
        sent = stub.requests[0]
        assert (sent.path, sent.body, sent.headers["accept"]) == ("/subscribe/news", b"", "text/event-stream")


async def test_names_and_payloads_may_hold_anything() -> None:
    name = "a,b/ö ?#%\\*"
    async with rest_stub() as stub, upstash(stub) as redis, await redis.subscribe(name) as feed:
        for payload in (
            b"",
            b"x,y",
            b"two\nlines\r\nor\rthree\r\n",
            b"message,%b,x" % name.encode(),
            b" led by a space",
        ):
            stub.publish(name, payload)
            assert await anext(feed) == Message(name.encode(), payload)


async def test_a_pattern_tells_which_channel_it_matched() -> None:
    async with (
        rest_stub() as stub,
        upstash(stub) as redis,
        await redis.subscribe(patterns=["n*", "a,*"]) as feed,
    ):
        assert {request.path for request in stub.requests} == {"/psubscribe/n%2A", "/psubscribe/a%2C%2A"}
        stub.send("n*", b"pmessage,n*,news,hello, world")
        assert await anext(feed) == Message(b"news", b"hello, world", b"n*")
        stub.send("a,*", b"pmessage,a,*,a,b,hello, world")
        assert await anext(feed) == Message(b"a,b", b"hello, world", b"a,*")


async def test_a_stream_without_empty_lines_is_understood() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.separator = b"\n"
        async with await redis.subscribe("chat") as feed:
            stub.publish("chat", b"hello")
            stub.publish("chat", b"how are you today?")
            assert [(await anext(feed)).payload for _ in range(2)] == [b"hello", b"how are you today?"]


async def test_listeners_of_one_channel_share_a_stream_that_closes_with_the_last() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        first = await redis.subscribe("c", "d")
        second = await redis.subscribe("c")
        assert len(stub.requests) == 2
        stub.publish("c", b"1")
        assert await anext(first) == await anext(second) == Message(b"c", b"1")
        await first.aclose()
        await until(lambda: not stub.streams["d"])
        assert len(stub.streams["c"]) == 1
        await second.aclose()
        await until(lambda: not stub.streams["c"])


async def test_a_lost_stream_is_opened_again_and_the_gap_is_told() -> None:
    async with rest_stub() as stub, upstash(stub) as redis, await redis.subscribe("c") as feed:
        for number in range(3):
            stub.publish("c", b"%d" % number)
            assert await anext(feed) == Message(b"c", b"%d" % number)
            stub.cut_off()
            assert (await anext(feed)).gap
        stub.publish("c", b"after")
        assert await anext(feed) == Message(b"c", b"after")


async def test_a_store_that_is_away_for_longer_is_asked_again_until_it_is_back() -> None:
    async with rest_stub() as stub, upstash(stub) as redis, await redis.subscribe("c") as feed:
        stub.answers.extend([says(http(503, "")), says_and_closes(b""), says(http(200, "<html>"))])
        stub.cut_off()
        assert (await anext(feed)).gap
        assert not stub.answers
        assert redis.stats.errors >= 3
        stub.publish("c", b"after")
        assert await anext(feed) == Message(b"c", b"after")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (says(http(503, "")), StoreUnavailable),
        (says(http(400, '{"error":"ERR max concurrent connections exceeded"}')), StoreOverloaded),
        (says_and_closes(STREAM), StoreUnavailable),
        (says_and_closes(STREAM + b"data: hello\n\n"), ProtocolError),
        (says_and_closes(STREAM + b"data: subscribe,other,1\n\n"), ProtocolError),
        (says_and_closes(STREAM + b"data: " + b"x" * 5_000), LimitExceeded),
        (says_and_closes(b"nonsense\r\n\r\n"), ProtocolError),
        (says(STREAM), DeadlineExceeded),
        (silence, DeadlineExceeded),
    ],
)
async def test_what_is_not_confirmed_is_an_error_and_the_next_attempt_works(
    answer: Answer, kind: type[StoreError]
) -> None:
    async with (
        rest_stub() as stub,
        upstash(stub, connect_timeout=0.5, command_timeout=0.5, max_reply_bytes=1_024) as redis,
    ):
        stub.answers.append(answer)
        with pytest.raises(kind):
            await redis.subscribe("c")
        async with await redis.subscribe("c") as feed:
            stub.publish("c", b"x")
            assert await anext(feed) == Message(b"c", b"x")


async def test_if_one_of_several_fails_none_stays_open() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.append(says(http(503, "")))
        with pytest.raises(StoreUnavailable):
            await redis.subscribe("a", "b", "c")
        await until(lambda: not any(stub.streams.values()))


async def test_a_cancelled_subscribe_leaves_nothing() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.gate = asyncio.Event()
        call = asyncio.ensure_future(redis.subscribe("c"))
        await until(lambda: stub.requests)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        stub.gate.set()
        async with await redis.subscribe("c") as feed:
            stub.publish("c", b"x")
            assert (await anext(feed)).payload == b"x"


async def test_a_listener_that_comes_while_the_last_one_leaves_keeps_the_stream() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        first = await redis.subscribe("c")
        stub.gate = asyncio.Event()
        other = asyncio.ensure_future(redis.subscribe("d"))
        await until(lambda: len(stub.requests) == 2)
        # Its turn comes after "d" is confirmed, and by then the first listener has left.
        second = asyncio.ensure_future(redis.subscribe("c"))
        await asyncio.sleep(0)
        leaving = asyncio.ensure_future(first.aclose())
        await asyncio.sleep(0)
        stub.gate.set()
        async with await second as feed, await other:
            await leaving
            assert len(stub.streams["c"]) == 1
            stub.publish("c", b"x")
            assert await anext(feed) == Message(b"c", b"x")
        await until(lambda: not any(stub.streams.values()))


async def test_streams_are_bounded() -> None:
    async with rest_stub() as stub, upstash(stub, max_connections=2) as redis:
        async with await redis.subscribe("a", "b"):
            with pytest.raises(StoreOverloaded):
                await redis.subscribe("c")
            # And they take nothing from the commands' connections.
            assert await redis.execute([("PING",)]) == [b"PONG"]
        async with await redis.subscribe("c"):
            pass


async def test_a_message_too_large_loses_the_stream_but_not_the_subscription() -> None:
    async with (
        rest_stub() as stub,
        upstash(stub, max_reply_bytes=4_096) as redis,
        await redis.subscribe("c") as feed,
    ):
        stub.publish("c", b"x" * 100_000)
        assert (await anext(feed)).gap
        stub.publish("c", b"small")
        assert (await anext(feed)).payload == b"small"


async def test_aclose_ends_the_feeds() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        feed = await redis.subscribe("c")
        waiting = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(0)
        await redis.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_events_of_another_kind_are_no_messages() -> None:
    async with (
        rest_stub() as stub,
        upstash(stub) as redis,
        await redis.subscribe("c", patterns=["n*"]) as feed,
    ):
        for odd in (b"unsubscribe,c,0", b"", b"message", b"message,other,x"):
            stub.send("c", odd)
        stub.send("n*", b"pmessage,n*,channel-without-payload")
        stub.publish("c", b"x")
        assert await anext(feed) == Message(b"c", b"x")


async def test_a_refusal_is_not_read_to_its_end() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.append(says(http(503, "x" * 1_000_000)))
        with pytest.raises(StoreUnavailable, match="503"):
            await redis.subscribe("c")


async def test_a_stream_that_lived_long_is_opened_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_core.transport.rest.sse._STEADY", 0.0)
    delays: list[float] = []

    def failed(backoff: Backoff) -> float:
        delays.append(backoff._failures)
        return 0.0

    monkeypatch.setattr(Backoff, "failed", failed)
    async with rest_stub() as stub, upstash(stub) as redis, await redis.subscribe("c") as feed:
        for _ in range(5):
            stub.cut_off()
            assert (await anext(feed)).gap
        assert delays == [0] * 5


# --- the reader ---


@given(
    st.lists(st.binary().map(lambda data: data.replace(b"\r", b""))),
    st.lists(st.integers(0, 400)),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_events_come_out_whole_however_the_bytes_are_cut(
    payloads: list[bytes], cuts: list[int], end: bytes
) -> None:
    events = [b"subscribe,c,1", *[b"message,c," + payload for payload in payloads]]
    stream = b": hello" + end + end
    for event in events:
        stream += b"".join(b"data: " + line + end for line in event.split(b"\n")) + end
        stream += b": heartbeat" + end + b"id: 7" + end + end
    reader = EventReader(1_000_000)
    found: list[bytes] = []
    start = 0
    for place in [*sorted(cuts), len(stream)]:
        found += reader.feed(stream[start:place])
        start = max(start, place)
    assert found == events


def test_an_event_that_grows_too_large_is_refused() -> None:
    reader = EventReader(100)
    assert reader.feed(b"data: first\n\n") == [b"first"]
    with pytest.raises(LimitExceeded):
        for _ in range(100):
            reader.feed(b"data: more\n")
