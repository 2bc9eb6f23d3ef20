"""One connection without a socket: when it writes, what it knows of each call when it ends."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from redis_core.errors import (
    DeadlineExceeded,
    LimitExceeded,
    Outcome,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
)
from redis_core.transport.base import TransportStats
from redis_core.transport.connection import Connection, LinkOptions


class Wire:
    """An asyncio transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        return None


@pytest.fixture
def wire() -> Wire:
    return Wire()


async def connected(wire: Wire, options: LinkOptions | None = None) -> Connection:
    connection = Connection("redis://x:1", options or LinkOptions(), TransportStats())
    connection.connection_made(cast("asyncio.Transport", wire))
    return connection


async def test_first_call_leaves_at_once_and_those_after_it_together(wire: Wire) -> None:
    connection = await connected(wire)
    first = connection.call([("GET", "a")], 10)
    assert len(wire.written) == 1
    others = [connection.call([("GET", str(n))], 10) for n in range(5)]
    assert len(wire.written) == 1
    await asyncio.sleep(0)
    assert len(wire.written) == 2
    connection.data_received(b"$1\r\na\r\n" + b"".join(b"$1\r\n%d\r\n" % n for n in range(5)))
    assert await first == [b"a"]
    assert [await other for other in others] == [[b"%d" % n] for n in range(5)]


async def test_replies_split_anywhere_reach_their_calls(wire: Wire) -> None:
    connection = await connected(wire)
    calls = [connection.call([("GET", "a"), ("LRANGE", "b", 0, -1)], 10), connection.call([("GET", "c")], 10)]
    for byte in b"$3\r\na\r\n\r\n*2\r\n:1\r\n$-1\r\n+done\r\n":
        connection.data_received(bytes([byte]))
    assert [await call for call in calls] == [[b"a\r\n", [1, None]], [b"done"]]


async def test_replies_inside_a_transaction_have_the_shape_they_have_outside(wire: Wire) -> None:
    connection = await connected(wire)
    batch = [
        ("GET", "x"),
        ("MULTI",),
        ("ZRANGE", "z", 0, -1, "WITHSCORES"),
        ("XREAD", "STREAMS", "s", "0"),
        ("GET", "k"),
        ("EXEC",),
    ]
    call = connection.call(batch, 10)
    connection.data_received(b"$-1\r\n+OK\r\n" + b"+QUEUED\r\n" * 3)
    connection.data_received(b"*3\r\n*1\r\n*2\r\n$1\r\nm\r\n,1.5\r\n%1\r\n$1\r\ns\r\n*0\r\n$1\r\nv\r\n")
    assert (await call)[-1] == [[b"m", b"1.5"], [[b"s", []]], b"v"]


async def test_what_never_left_is_not_sent_and_what_did_is_unknown(wire: Wire) -> None:
    connection = await connected(wire)
    sent = connection.call([("INCR", "a")], 10)
    waiting = connection.call([("INCR", "b")], 10)
    connection.connection_lost(ConnectionResetError())
    for call, outcome in ((sent, Outcome.UNKNOWN), (waiting, Outcome.NOT_SENT)):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert caught.value.outcome is outcome
    assert wire.aborted
    with pytest.raises(StoreUnavailable) as caught:
        connection.call([("GET", "a")], 10)
    assert caught.value.outcome is Outcome.NOT_SENT
    assert connection._stats.in_flight == 0


async def test_nothing_is_written_while_the_socket_is_behind(wire: Wire) -> None:
    connection = await connected(wire)
    connection.pause_writing()
    assert not connection.writable
    calls = [connection.call([("INCR", "a")], 10) for _ in range(3)]
    await asyncio.sleep(0)
    assert wire.written == []
    waiting = asyncio.create_task(connection.until_writable())
    await asyncio.sleep(0)
    connection.resume_writing()
    await waiting
    assert len(wire.written) == 1
    connection.data_received(b":1\r\n:2\r\n:3\r\n")
    assert [await call for call in calls] == [[1], [2], [3]]


async def test_calls_that_wait_for_the_socket_when_it_dies_were_not_sent(wire: Wire) -> None:
    connection = await connected(wire)
    connection.pause_writing()
    call = connection.call([("INCR", "a")], 10)
    connection.close()
    with pytest.raises(StoreUnavailable) as caught:
        await call
    assert caught.value.outcome is Outcome.NOT_SENT
    await connection.until_writable()


async def test_abandoned_call_keeps_its_place(wire: Wire) -> None:
    connection = await connected(wire)
    first, second = connection.call([("GET", "a")], 10), connection.call([("GET", "b")], 10)
    first.cancel()
    connection.data_received(b"$1\r\na\r\n$1\r\nb\r\n")
    assert await second == [b"b"]


async def test_late_answer_goes_to_nobody_and_the_next_is_right(wire: Wire) -> None:
    connection = await connected(wire, LinkOptions(command_timeout=30))
    hasty = connection.call([("GET", "a")], 0.01)
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert not connection.closed
    patient = connection.call([("GET", "b")], 10)
    connection.data_received(b"$1\r\na\r\n$1\r\nb\r\n")
    assert await patient == [b"b"]


async def test_earlier_deadline_of_a_later_call_is_kept(wire: Wire) -> None:
    connection = await connected(wire, LinkOptions(command_timeout=30))
    slow = connection.call([("GET", "a")], 20)
    with pytest.raises(DeadlineExceeded):
        await connection.call([("GET", "b")], 0.01)
    connection.data_received(b"$1\r\na\r\n")
    assert await slow == [b"a"]
    connection.close()


async def test_silence_closes_the_connection(wire: Wire) -> None:
    connection = await connected(wire, LinkOptions(command_timeout=0.02))
    with pytest.raises(DeadlineExceeded):
        await connection.call([("GET", "a")], 0.01)
    async with asyncio.timeout(10):
        while not connection.closed:
            await asyncio.sleep(0.005)
    assert isinstance(connection.error, DeadlineExceeded)


async def test_too_many_in_flight(wire: Wire) -> None:
    connection = await connected(wire, LinkOptions(max_in_flight=3))
    large = connection.call([("GET", "a")] * 5, 10)  # alone, a batch may be larger
    with pytest.raises(StoreOverloaded):
        connection.call([("GET", "a")], 10)
    connection.data_received(b"$-1\r\n" * 5)
    assert await large == [None] * 5
    connection.call([("GET", "a")], 10).cancel()


async def test_reply_without_end_is_refused(wire: Wire) -> None:
    connection = await connected(wire, LinkOptions(max_reply_bytes=2_000))
    large, other = connection.call([("GET", "a")], 10), connection.call([("GET", "b")], 10)
    connection.data_received(b"*100000\r\n")
    for _ in range(100):
        connection.data_received(b"$50\r\n" + b"x" * 50 + b"\r\n")
    with pytest.raises(LimitExceeded) as caught:
        await large
    assert caught.value.outcome is Outcome.APPLIED
    with pytest.raises(StoreUnavailable):
        await other


async def test_errors_said_unasked_close_the_connection_and_are_the_reason(wire: Wire) -> None:
    connection = await connected(wire)
    connection.data_received(b"-ERR max number of clients reached\r\n")
    with pytest.raises(StoreOverloaded, match="max number of clients"):
        connection.call([("HELLO", 3)], 10)


async def test_each_caller_gets_an_error_of_its_own(wire: Wire) -> None:
    connection = await connected(wire)
    calls = [connection.call([("GET", "a")], 10) for _ in range(3)]
    connection.close()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error, StoreError) for error in errors)
    assert connection._stats.errors == 3
