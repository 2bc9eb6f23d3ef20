"""Upstash REST against a server of raw sockets: what goes over the wire and what comes back."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from redis_core.address import parse_address
from redis_core.client import Client
from redis_core.config import Settings
from redis_core.errors import (
    CodecError,
    CommandError,
    ConfigError,
    InvalidKey,
    LimitExceeded,
    NoScript,
    StoreOverloaded,
    StoreUnavailable,
    TransactionAborted,
    WrongType,
)
from redis_core.script import Script
from redis_core.secret import Secret
from redis_core.transport.base import Transport
from redis_core.transport.upstash import UpstashTransport
from tests.unit.transport.rest_stub import TOKEN, http, rest_stub, says, until, upstash


async def test_a_single_command_goes_to_the_root() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        assert await redis.execute([("SET", "k", "v", "EX", 60)]) == [b"OK"]
        assert await redis.execute([("GET", "k")]) == [b"v"]
        first = stub.requests[0]
        assert first.path == "/"
        assert first.json == ["SET", "k", "v", "EX", "60"]
        assert first.headers["authorization"] == f"Bearer {TOKEN}"
        assert first.headers["upstash-encoding"] == "base64"


async def test_a_batch_is_one_pipeline_with_errors_at_their_places() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        replies = await redis.execute([("SET", "n", "1"), ("BOGUS",), ("INCR", "n"), ("GET", "none")])
        assert [request.path for request in stub.requests] == ["/pipeline"]
        assert isinstance(replies[1], CommandError)
        assert [replies[0], *replies[2:]] == [b"OK", 2, None]


async def test_a_single_commands_error_is_a_value_too() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.append(says(http(400, '{"error":"WRONGTYPE Operation against a key"}')))
        (reply,) = await redis.execute([("GET", "k")])
        assert isinstance(reply, WrongType)
        assert await redis.execute([("PING",)]) == [b"PONG"]


async def test_an_empty_batch_sends_nothing() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        assert await redis.execute([]) == []
        assert await redis.transaction([]) == []
        assert stub.requests == []


async def test_the_sync_token_of_the_latest_answer_goes_out_with_the_next_request() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        for _ in range(3):
            await redis.execute([("PING",)])
        assert [request.headers.get("upstash-sync-token") for request in stub.requests] == [None, "t1", "t2"]


async def test_connections_are_kept_alive() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        for _ in range(10):
            await redis.execute([("PING",)])
        assert stub.connections == 1
        assert redis.stats.connects == 1


async def test_totals_are_kept() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        await redis.execute([("PING",), ("PING",)])
        await redis.execute([("PING",)])
        stats = redis.stats
        assert (stats.commands, stats.trips, stats.errors, stats.in_flight) == (3, 2, 0, 0)
        assert stats.sent_bytes == sum(len(request.body) for request in stub.requests)
        assert stats.received_bytes > 0


# --- transactions ---


async def test_a_transaction_is_a_request_of_its_own() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        results = await asyncio.gather(
            redis.execute([("PING",)]),
            redis.transaction([("INCR", "n"), ("BOGUS",), ("INCR", "n")]),
            redis.execute([("PING",)]),
        )
        assert results[1][0] == 1
        assert isinstance(results[1][1], CommandError)
        assert results[1][2] == 2
        transactions = [request for request in stub.requests if request.path == "/multi-exec"]
        assert [request.json for request in transactions] == [[["INCR", "n"], ["BOGUS"], ["INCR", "n"]]]


@pytest.mark.parametrize("status", [200, 400])
async def test_a_discarded_transaction_raises_what_the_store_said(status: int) -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.append(says(http(status, '{"error":"ERR unsupported command"}')))
        with pytest.raises(TransactionAborted, match="ERR unsupported command"):
            await redis.transaction([("BOGUS",)])
        assert await redis.transaction([("INCR", "n")]) == [1]


async def test_a_transaction_refused_for_a_limit_says_which() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.append(says(http(400, '{"error":"ERR max daily request limit exceeded"}')))
        with pytest.raises(StoreOverloaded):
            await redis.transaction([("INCR", "n")])


async def test_a_transaction_too_large_for_a_request_is_not_sent() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        with pytest.raises(LimitExceeded):
            await redis.transaction([("SET", "k", "x" * 6_000_000)] * 2)
        assert stub.requests == []


# --- what REST cannot do ---


async def test_refused_commands_are_answered_in_place_and_never_sent() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        replies = await redis.execute([("PING",), ("BLPOP", "q", 0), ("PING",), ("SUBSCRIBE", "c")])
        assert [replies[0], replies[2]] == [b"PONG", b"PONG"]
        assert isinstance(replies[1], CommandError)
        assert isinstance(replies[3], CommandError)
        assert stub.commands == [["PING"], ["PING"]]


async def test_a_batch_of_refused_commands_only_costs_no_request() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        (reply,) = await redis.execute([("MULTI",)])
        assert isinstance(reply, CommandError)
        assert "transaction()" in str(reply)
        with pytest.raises(CommandError, match="WATCH"):
            await redis.transaction([("WATCH", "k")])
        assert stub.requests == []


# --- bytes ---


async def test_a_binary_value_goes_as_the_raw_body_of_the_path_form() -> None:
    value = bytes(range(256))
    async with rest_stub() as stub, upstash(stub) as redis:
        assert await redis.execute([("SET", "ws:{a}:cache:r:k/1", value, "EX", 60)]) == [b"OK"]
        sent = stub.requests[0]
        assert sent.path == "/SET/ws%3A%7Ba%7D%3Acache%3Ar%3Ak%2F1?EX=60"
        assert sent.body == value
        assert sent.headers["content-type"] == "application/octet-stream"
        assert await redis.execute([("GET", "ws:{a}:cache:r:k/1")]) == [value]


async def test_a_batch_with_binary_values_keeps_its_order() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        replies = await redis.execute(
            [("INCR", "n"), ("GET", "k"), ("SET", "k", b"\xff\x00"), ("GET", "k"), ("INCR", "n")]
        )
        assert replies == [1, None, b"OK", b"\xff\x00", 2]
        assert [request.path for request in stub.requests] == ["/pipeline", "/SET/k", "/pipeline"]


async def test_several_binary_arguments_go_as_text_for_a_script() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        await redis.execute([("SET", "n", "1"), ("HSET", "h", b"\xff", b"\xfe")])
        assert [request.path for request in stub.requests] == ["/pipeline"]
        name, _, keys, places, *words = stub.commands[1]
        assert (name, keys, places, words) == ("EVAL", "0", "3,4", ["HSET", "h", "\xff", "\xfe"])


async def test_a_script_with_bytes_goes_in_full_first_and_by_its_sha1_afterwards() -> None:
    script = Script("tell", "return ARGV[1]")
    async with rest_stub() as stub, upstash(stub) as redis:
        client = Client(redis)
        for _ in range(3):
            with pytest.raises(CommandError, match="unknown command"):  # the stub runs no scripts
                await client.run(script, ["k"], [b"\xff"])
        assert [command[0] for command in stub.commands] == ["EVAL", "EVALSHA", "EVALSHA"]
        whole = stub.commands[0][1]
        assert whole.startswith("#!lua flags=allow-key-locking\nlocal ARGV=")
        assert stub.commands[1][1] == hashlib.sha1(whole.encode()).hexdigest()
        with pytest.raises(NoScript):
            await redis.transaction([("EVALSHA", "0" * 40, 0, b"\xff")])


async def test_bytes_that_rest_cannot_carry_are_refused_before_anything_is_sent() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        for batch in (
            [("SET", "n", "1"), ("FCALL", "f", 1, "k", b"\xff", b"\xfe")],
            [("EVAL", "return 1", 1, b"\xff")],
        ):
            for send in (redis.execute, redis.transaction):
                with pytest.raises(CodecError, match="UTF-8"):
                    await send(batch)
        assert stub.requests == []


async def test_an_argument_of_no_known_type_is_refused() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        for word in (None, True, "\ud800", object()):
            with pytest.raises(InvalidKey):
                await redis.execute([("SET", "k", word)])  # type: ignore[list-item]
        assert stub.requests == []


# --- its life ---


async def test_after_aclose_calls_fail_and_nothing_was_sent() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        await redis.execute([("PING",)])
        await redis.aclose()
        await redis.aclose()
        with pytest.raises(StoreUnavailable) as caught:
            await redis.execute([("PING",)])
        assert caught.value.outcome == "not_sent"
        with pytest.raises(StoreUnavailable):
            await redis.subscribe("c")


async def test_aclose_fails_what_is_in_flight_and_says_what_may_have_been_done() -> None:
    async with rest_stub() as stub, upstash(stub, max_connections=1) as redis:
        stub.gate = asyncio.Event()
        sent = asyncio.ensure_future(redis.execute([("INCR", "a")]))
        await until(lambda: len(stub.requests) == 1)
        waiting = asyncio.ensure_future(redis.execute([("INCR", "b")]))
        await asyncio.sleep(0)
        await redis.aclose()
        with pytest.raises(StoreUnavailable) as caught:
            await sent
        assert caught.value.outcome == "unknown"
        with pytest.raises(StoreUnavailable) as caught:
            await waiting
        assert caught.value.outcome == "not_sent"


def test_it_is_a_transport_and_shows_no_secret() -> None:
    address = parse_address("UPSTASH_REDIS_URL", "https://name.upstash.io")
    settings = Settings(upstash_redis_token=Secret("very-secret"))
    redis: Transport = UpstashTransport.from_settings(address, settings)
    assert isinstance(redis, Transport)
    assert redis.mode == "upstash"
    assert redis.target == "https://name.upstash.io:443"
    assert redis.script_header == "#!lua flags=allow-key-locking\n"
    assert "very-secret" not in repr(vars(redis))


@pytest.mark.parametrize("token", ["two words", "line\n", "schlüssel", "\x00"])
def test_a_token_that_no_header_can_hold_is_a_config_error_without_the_token(token: str) -> None:
    address = parse_address("UPSTASH_REDIS_URL", "https://name.upstash.io")
    with pytest.raises(ConfigError, match="UPSTASH_REDIS_TOKEN") as caught:
        UpstashTransport.from_settings(address, Settings(upstash_redis_token=Secret(token)))
    assert token not in str(caught.value)
    with pytest.raises(ConfigError, match="is not set"):
        UpstashTransport.from_settings(address, Settings())
