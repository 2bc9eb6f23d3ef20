"""A REST store that fails in every way: each ends in the right error, and the next call works."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
import trustme

from redis_core.errors import (
    CredentialsRejected,
    DeadlineExceeded,
    LimitExceeded,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
)
from redis_core.transport.rest.batch import Request
from redis_core.transport.rest.session import _Body
from tests.unit.transport.rest_stub import (
    Answer,
    http,
    rest_stub,
    says,
    says_and_closes,
    says_and_resets,
    silence,
    until,
    upstash,
)

PONG = '{"result":"UE9ORw=="}'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "kind", "outcome"),
    [
        (says_and_closes(b""), StoreUnavailable, "unknown"),
        (says_and_resets(b""), StoreUnavailable, "unknown"),
        (says_and_resets(b"HTTP/1.1 200 OK\r\nContent-Le"), StoreUnavailable, "unknown"),
        (says_and_resets(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + PONG[:8].encode()), StoreUnavailable, "unknown"),
        (says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + PONG[:8].encode()), StoreUnavailable, "unknown"),
        (says_and_closes(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"re'), StoreUnavailable, "unknown"),
        (says_and_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), ProtocolError, "unknown"),
        (says_and_closes(b"-ERR this is no HTTP server\r\n"), ProtocolError, "unknown"),
        (says_and_closes(b"\0\1\2\3" * 100), ProtocolError, "unknown"),
        (says_and_closes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), ProtocolError, "unknown"),
        (says(http(200, "<html>Sign in to the airport's WiFi</html>", "Content-Type: text/html")), ProtocolError, "unknown"),
        (says(http(200, PONG[:-3])), ProtocolError, "unknown"),
        (says(http(200, "")), ProtocolError, "unknown"),
        (says(http(502, "<html>Bad Gateway</html>", "Content-Type: text/html")), StoreUnavailable, "unknown"),
        (says(http(503, '{"error":"ERR maintenance"}')), StoreUnavailable, "unknown"),
        (says(http(302, "", "Location: http://127.0.0.1:1/")), ProtocolError, "unknown"),
        (says(http(404, "not found")), ProtocolError, "unknown"),
        (says(http(429, '{"error":"slow down"}')), StoreOverloaded, "not_sent"),
        (says(http(413, '{"error":"ERR max request size exceeded"}')), LimitExceeded, "not_sent"),
        (says(http(401, '{"error":"WRONGPASS"}')), CredentialsRejected, "not_sent"),
        (silence, DeadlineExceeded, "unknown"),
    ],
)  # fmt: skip
async def test_a_fault_is_a_typed_error_and_the_next_call_works(
    answer: Answer, kind: type[StoreError], outcome: str
) -> None:
    async with rest_stub() as stub, upstash(stub, command_timeout=0.25) as redis:
        assert await redis.execute([("PING",)], timeout=5) == [b"PONG"]
        stub.answers.append(answer)
        with pytest.raises(kind) as caught:
            await redis.execute([("INCR", "n")])
        assert type(caught.value) is kind
        assert caught.value.outcome == outcome
        assert "stub-token" not in str(caught.value)
        assert await redis.execute([("PING",)], timeout=5) == [b"PONG"]
        # And it was sent once, whatever happened to the answer.
        assert sum(b"INCR" in request.body for request in stub.requests) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_oversized_reply_is_not_read_to_its_end(*, chunked: bool) -> None:
    async def endless(received: object, writer: asyncio.StreamWriter) -> None:
        head = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000000000"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        data = b" " * 65_536
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            await writer.drain()

    async with rest_stub() as stub, upstash(stub, max_reply_bytes=1_000_000) as redis:
        stub.answers.append(endless)
        with pytest.raises(LimitExceeded) as caught:
            await redis.execute([("GET", "k")])
        assert caught.value.outcome == "applied"
        assert redis.stats.received_bytes < 2_000_000
        assert await redis.execute([("PING",)]) == [b"PONG"]


async def test_a_refused_connection_was_not_sent_and_the_next_call_works_once_it_listens() -> None:
    port = free_port()
    async with upstash(port) as redis:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="could not be reached") as caught:
                await redis.execute([("INCR", "n")])
            assert caught.value.outcome == "not_sent"
            assert type(caught.value) is StoreUnavailable
        async with rest_stub(port=port):
            assert await redis.execute([("INCR", "n")]) == [1]


async def test_a_host_that_does_not_exist_was_not_sent() -> None:
    async with upstash(443, host="no-such-host.invalid", connect_timeout=10, command_timeout=10) as redis:
        with pytest.raises(StoreUnavailable) as caught:
            await redis.execute([("PING",)])
        assert caught.value.outcome == "not_sent"


async def test_a_server_that_accepts_nothing_is_given_up_in_time() -> None:
    # A listener with a full backlog: connections to it stay half-open.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            async with upstash(port, connect_timeout=0.1, command_timeout=5) as redis:
                with pytest.raises(StoreUnavailable, match=r"within 0\.1 s") as caught:
                    await redis.execute([("INCR", "n")])
                assert caught.value.outcome == "not_sent"
        finally:
            for filler in fillers:
                filler.close()


async def test_a_wrong_token_is_an_alarm_not_an_outage() -> None:
    async with rest_stub() as stub, upstash(stub, token="wrong-token") as redis:
        for call in (
            redis.execute([("PING",)]),
            redis.execute([("PING",)] * 2),
            redis.transaction([("PING",)]),
        ):
            with pytest.raises(CredentialsRejected, match="WRONGPASS") as caught:
                await call
            assert "wrong-token" not in str(caught.value)
        with pytest.raises(CredentialsRejected):
            await redis.subscribe("c")


# --- TLS ---


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_tls_works_with_a_trusted_certificate() -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        rest_stub(tls=server_tls(authority, "127.0.0.1")) as stub,
        upstash(stub, scheme="https", tls=trusting) as redis,
    ):
        assert await redis.execute([("PING",)]) == [b"PONG"]
        assert await redis.execute([("PING",)]) == [b"PONG"]
        assert stub.connections == 1


@pytest.mark.parametrize("problem", ["unknown authority", "other name", "no tls at all"])
async def test_a_tls_failure_was_not_sent(problem: str) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    if problem != "unknown authority":
        authority.configure_trust(trusting)
    name = "elsewhere.example" if problem == "other name" else "127.0.0.1"
    tls = None if problem == "no tls at all" else server_tls(authority, name)
    async with (
        rest_stub(tls=tls) as stub,
        upstash(stub, scheme="https", tls=trusting, connect_timeout=0.3) as redis,
    ):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's own handshake error
        with pytest.raises(StoreUnavailable) as caught:
            await redis.execute([("INCR", "n")])
        assert caught.value.outcome == "not_sent"
        assert stub.requests == []


# --- kept-alive connections ---


async def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        await redis.execute([("PING",)])
        stub.cut_off()
        await asyncio.sleep(0.02)
        assert await redis.execute([("INCR", "n")]) == [1]
        assert stub.connections == 2


async def test_a_body_is_marked_sent_only_when_it_leaves() -> None:
    class Writer:
        """What aiohttp gives a body to write to."""

        transport: object = None
        written = b""

        async def write(self, data: bytes) -> None:
            self.written += data

    class Link:
        def __init__(self, *, closing: bool) -> None:
            self.is_closing = lambda: closing

    writer = Writer()
    request = Request("/", b"[]", 1, 0.0, ())
    body = _Body(request, "application/json")
    for gone in (None, Link(closing=True)):
        writer.transport = gone
        with pytest.raises(ConnectionResetError):
            await body.write_with_length(writer, None)  # type: ignore[arg-type]
        assert not request.sent
    writer.transport = Link(closing=False)
    await body.write_with_length(writer, None)  # type: ignore[arg-type]
    assert request.sent
    assert writer.written == b"[]"
    assert body.decode() == "[]"


async def test_no_waiter_or_connection_is_left_after_many_faults() -> None:
    faults: list[Answer] = [
        says_and_closes(b""),
        says_and_resets(b"HTTP/1.1 200"),
        says(http(502, "no")),
        says(http(200, "{")),
        silence,
    ]
    async with rest_stub() as stub, upstash(stub, command_timeout=0.1, max_connections=4) as redis:
        for _ in range(4):
            stub.answers.extend(faults)
            results = await asyncio.gather(
                *(redis.transaction([("INCR", "n")]) for _ in faults), return_exceptions=True
            )
            assert all(isinstance(result, StoreError) for result in results)
            await until(lambda: not stub.answers)
        await until(lambda: redis.stats.in_flight == 0)
        assert await redis.execute([("PING",)], timeout=5) == [b"PONG"]
