"""RESP: whatever a server sends, in whatever pieces, is read the same way or ends the connection; no call waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any, cast

from hypothesis import strategies as st

from redis_core.errors import StoreError
from redis_core.transport.base import TransportStats
from redis_core.transport.connection import Connection, LinkOptions
from redis_core.transport.resp import reply_reader, to_resp2
from tests.fuzz_world import fuzz, mutated

# hiredis makes room for as many elements as a push's head says before one has come: twelve bytes cost 16 GB. Who can send them is the
# store, or whoever stands between where there is no TLS; both are trusted with more than memory.
_HUGE_PUSH = re.compile(rb">[+-]?\d{6,}")


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


_scalars = st.one_of(
    st.binary(max_size=20).map(_bulk),
    st.integers(-(2**63), 2**63 - 1).map(b":%d\r\n".__mod__),
    st.sampled_from(
        [b"+OK\r\n", b"$-1\r\n", b"_\r\n", b"#t\r\n", b"#f\r\n", b",1.5\r\n", b",inf\r\n", b",nan\r\n", b"*0\r\n", b"*-1\r\n",
         b"(12345678901234567890\r\n", b"-ERR no\r\n", b"-MOVED 1 a:1\r\n", b"-NOSCRIPT x\r\n", b"!5\r\nERR x\r\n", b"=7\r\ntxt:abc\r\n"]
    ),
)  # fmt: skip
_replies = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"*%d\r\n" % len(items) + b"".join(items)),
        st.lists(inner, max_size=4).map(lambda items: b"~%d\r\n" % len(items) + b"".join(items)),
        st.lists(inner, max_size=2).map(lambda items: b">%d\r\n" % (len(items) + 1) + _bulk(b"message") + b"".join(items)),
        st.lists(st.tuples(_scalars, inner), max_size=3).map(
            lambda pairs: b"%%%d\r\n" % len(pairs) + b"".join(key + value for key, value in pairs)
        ),
    ),
    max_leaves=8,
)  # fmt: skip
streams = st.one_of(
    st.lists(_replies, max_size=4).map(b"".join),
    mutated(st.lists(_replies, min_size=1, max_size=4).map(b"".join)),
    st.binary(max_size=80),
).filter(lambda data: _HUGE_PUSH.search(data) is None)
NAMES = ("GET", "HGETALL", "XREAD", "ZRANGE", "EXEC", "ZPOPMIN", "HRANDFIELD", "SCAN", "CONFIG")


def read_all(pieces: list[bytes]) -> tuple[list[str], str]:
    """What a reader makes of these, and how it ended."""
    reader = reply_reader()
    found: list[str] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (reply := reader.gets()) is not ...:
                found.append(repr(reply))
    except (ValueError, TypeError, MemoryError) as error:
        return found, type(error).__name__
    return found, ""


@fuzz("RESP, split everywhere", share=0.3, data=streams)
def test_replies_are_the_same_however_they_are_cut(data: bytes) -> None:
    whole = read_all([data])
    assert read_all([bytes([byte]) for byte in data]) == whole
    for place in range(1, len(data)):
        assert read_all([data[:place], data[place:]]) == whole


@fuzz("RESP, as RESP2", data=streams, name=st.sampled_from(NAMES))
def test_a_reply_of_any_shape_is_taken_as_resp2_or_refused(data: bytes, name: str) -> None:
    reader = reply_reader()
    with contextlib.suppress(ValueError, TypeError, MemoryError):
        reader.feed(data)
        while (reply := reader.gets()) is not ...:
            to_resp2(name, reply)


class Wire:
    """An asyncio transport that takes everything."""

    aborted = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> Any:
        return None


@fuzz(
    "RESP, on a connection",
    share=0.5,
    data=streams,
    cut=st.integers(0, 80),
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5),
)
async def test_every_call_of_a_connection_ends_whatever_comes(
    data: bytes, cut: int, names: list[str]
) -> None:
    stats = TransportStats()
    pushed: list[object] = []
    connection = Connection("redis://x:1", LinkOptions(), stats, pushed.append)
    wire = Wire()
    connection.connection_made(cast("asyncio.Transport", wire))
    calls = [connection.call([(name, "k")], 60) for name in names]
    connection.data_received(data[:cut])
    if not connection.closed:
        connection.data_received(data[cut:])
    if not connection.closed:
        connection.connection_lost(None)
    assert wire.aborted
    assert stats.in_flight == 0
    for call in calls:
        assert call.done()
        assert call.exception() is None or isinstance(call.exception(), StoreError)
