"""Streams, messages and commands about the server, on every store."""

from __future__ import annotations

import asyncio
import time

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError

# --- streams ---


async def test_xadd_appends_in_order_and_xrange_reads_back(client: Client) -> None:
    ids = [await client.xadd("s", {"n": number, "text": "x"}) for number in range(3)]
    assert ids == sorted(ids, key=lambda name: tuple(map(int, name.split(b"-"))))
    assert await client.xlen("s") == 3
    entries = await client.xrange("s")
    assert entries == [(name, {b"n": b"%d" % number, b"text": b"x"}) for number, name in enumerate(ids)]
    assert await client.xrevrange("s", count=1) == [entries[-1]]
    assert await client.xrange("s", "(" + ids[0].decode(), count=1) == [entries[1]]
    assert await client.xrange("missing") == []


async def test_xadd_refuses_an_id_that_is_not_greater(client: Client) -> None:
    assert await client.xadd("s", {"f": 1}, id="5-1") == b"5-1"
    with pytest.raises(CommandError, match="equal or smaller"):
        await client.xadd("s", {"f": 1}, id="5-1")
    with pytest.raises(CommandError, match="must be greater than 0-0"):
        await client.xadd("s", {"f": 1}, id="0-0")
    assert await client.xadd("s", {"f": 1}, id="5-*") == b"5-2"


async def test_a_bounded_stream_stays_about_that_long(client: Client) -> None:
    for number in range(1000):
        await client.xadd("s", {"n": number}, max_length=100)
    # A server cuts whole nodes of 100 entries only.
    assert 100 <= await client.xlen("s") <= 300
    await client.execute("XTRIM", "s", "MAXLEN", 10)
    assert await client.xlen("s") == 10
    assert (await client.xrevrange("s", count=1))[0][1] == {b"n": b"999"}
    assert await client.xtrim("s", 1000) == 0


async def test_xdel_removes_entries(client: Client) -> None:
    first = await client.xadd("s", {"f": 1})
    await client.xadd("s", {"f": 2})
    assert await client.xdel("s", first.decode(), "1-1") == 1
    assert await client.xlen("s") == 1


# --- messages ---


async def test_a_message_reaches_who_listens_and_is_counted(client: Client) -> None:
    assert await client.publish("news", "nobody hears this") == 0
    async with await client.subscribe("news") as news:
        assert await client.publish("news", b"\xff\0binary") == 1
        assert await client.publish("other", "x") == 0
        message = await anext(news)
        assert (message.channel, message.payload, message.pattern) == (b"news", b"\xff\0binary", None)
    assert await settles(client, "news", 0)


async def settles(client: Client, channel: str, receivers: int) -> bool:
    """Publish until as many hear it: over REST the store learns a moment later that a stream was closed."""
    while await client.publish(channel, "") != receivers:
        await asyncio.sleep(0.01)
    return True


async def test_patterns_hear_every_channel_that_matches(client: Client) -> None:
    async with await client.subscribe(patterns=["room:*"]) as rooms:
        await client.publish("room:1", "a")
        await client.publish("hall:1", "b")
        await client.publish("room:2", "c")
        messages = [await anext(rooms), await anext(rooms)]
    assert [(m.channel, m.payload, m.pattern) for m in messages] == [
        (b"room:1", b"a", b"room:*"),
        (b"room:2", b"c", b"room:*"),
    ]


async def test_several_listeners_each_hear_every_message_in_order(client: Client) -> None:
    async with await client.subscribe("a", "b") as both, await client.subscribe("b") as one:
        for number in range(20):
            await client.publish("a", number)
            await client.publish("b", number)
        heard = [await anext(both) for _ in range(40)]
        for channel in (b"a", b"b"):
            assert [int(m.payload) for m in heard if m.channel == channel] == list(range(20))
        assert [int((await anext(one)).payload) for _ in range(20)] == list(range(20))


async def test_a_listener_that_leaves_does_not_disturb_another(client: Client) -> None:
    stays = await client.subscribe("news")
    leaves = await client.subscribe("news")
    await leaves.aclose()
    await client.publish("news", "still here")
    assert (await anext(stays)).payload == b"still here"
    await stays.aclose()
    assert [message async for message in stays] == []


async def test_scripts_and_transactions_publish(client: Client) -> None:
    async with await client.subscribe("news") as news:
        assert await client.execute("EVAL", "return redis.call('PUBLISH', 'news', ARGV[1])", 0, "script") == 1
        async with client.transaction() as batch:
            batch.publish("news", "transaction")
        assert [(await anext(news)).payload, (await anext(news)).payload] == [b"script", b"transaction"]


async def test_payloads_with_line_breaks_and_commas_arrive_whole(client: Client) -> None:
    payloads = [
        b"one\ntwo\r\nthree",
        b",,a,b",
        b"",
        b'{"json": [1, 2]}',
        b"data: x\n\ndata: y",
        "häß €".encode(),
    ]
    async with await client.subscribe("news") as news:
        for payload in payloads:
            await client.publish("news", payload)
        heard = [(await anext(news)).payload for _ in payloads]
    if client.mode == "upstash":
        # An event stream carries every line break as the same one.
        payloads = [payload.replace(b"\r\n", b"\n") for payload in payloads]
    assert heard == payloads


# --- the server ---


async def test_ping_and_echo(client: Client) -> None:
    assert await client.ping() is True
    assert await client.echo("häß") == "häß".encode()


async def test_time_is_now(client: Client) -> None:
    assert abs(await client.time() - time.time()) < 60


async def test_dbsize_counts_keys(client: Client) -> None:
    assert await client.dbsize() == 0
    await client.mset({"a": 1, "b": 1})
    assert await client.dbsize() == 2


async def test_info_tells_the_figures_that_metrics_need(client: Client) -> None:
    await client.set("a", 1, ex=100)
    info = await client.info()
    assert info["db0"].startswith("keys=1,expires=1")
    for figure in ("used_memory", "connected_clients", "total_commands_processed", "keyspace_hits", "evicted_keys",
                   "expired_keys", "uptime_in_seconds"):  # fmt: skip
        assert int(info[figure]) >= 0
    assert info["redis_version"]
    only = await client.info("memory")
    assert "used_memory" in only
    assert "connected_clients" not in only


async def test_memory_usage_grows_with_the_value(client: Client) -> None:
    await client.mset({"small": "x", "large": "x" * 100_000})
    small, large = [await client.execute("MEMORY", "USAGE", key) for key in ("small", "large")]
    assert isinstance(small, int)
    assert isinstance(large, int)
    assert 0 < small < 1000 < 100_000 <= large < 200_000
    assert await client.execute("MEMORY", "USAGE", "missing") is None
