"""The REST protocol as pure functions: bodies, base64, errors, how a batch is cut, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.errors import (
    CodecError,
    CommandError,
    CredentialsRejected,
    InvalidKey,
    LimitExceeded,
    NoScript,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
    TransactionAborted,
    WrongType,
)
from redis_core.transport.base import Command, Reply
from redis_core.transport.rest.binary import BinaryScripts
from redis_core.transport.rest.pieces import Piece, cut, whole
from redis_core.transport.rest.refused import needs_look, rest_refusal
from redis_core.transport.rest.wire import (
    MAX_COMMANDS,
    MAX_REQUEST_BYTES,
    PIPELINE,
    SINGLE,
    TRANSACTION,
    encode,
    replies_of,
)

WORDS = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.binary())


def cut_alone(batch: list[Command]) -> list[Piece]:
    return cut(batch, BinaryScripts())


def whole_alone(batch: list[Command]) -> bytes:
    return whole(batch, BinaryScripts())


def reply(result: Any) -> Reply:
    return replies_of(SINGLE, 1, 200, json.dumps({"result": result}).encode(), "store")[0]


# --- requests ---


def test_numbers_go_as_text_so_that_no_json_parser_rounds_them() -> None:
    command = ("SET", 12345678901234567890, 0.1, 1e-7, 3.0, float("inf"), b"bytes")
    assert json.loads(encode(command)) == [
        "SET", "12345678901234567890", "0.1", "1e-07", "3.0", "inf", "bytes",
    ]  # fmt: skip


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]))))
def test_any_text_comes_out_as_it_went_in(words: list[str]) -> None:
    assert json.loads(encode(("ECHO", *words))) == ["ECHO", *words]


@pytest.mark.parametrize(
    "word", [None, True, ["a"], object(), "\ud800"], ids=["None", "bool", "list", "object", "surrogate"]
)
def test_what_is_no_word_is_refused(word: Any) -> None:
    with pytest.raises(InvalidKey):
        encode(("SET", word))


def test_a_batch_is_cut_at_the_number_of_commands() -> None:
    pieces = cut_alone([("INCR", "n")] * (2 * MAX_COMMANDS + 1))
    assert [piece.count for piece in pieces] == [MAX_COMMANDS, MAX_COMMANDS, 1]
    assert {piece.path for piece in pieces} == {PIPELINE}
    assert len(json.loads(b"[" + pieces[0].body + b"]")) == MAX_COMMANDS


def test_a_batch_is_cut_before_a_request_is_too_large() -> None:
    pieces = cut_alone([("SET", str(number), "x" * 3_000_000) for number in range(7)])
    assert [piece.count for piece in pieces] == [3, 3, 1]
    assert all(len(piece.body) + 2 <= MAX_REQUEST_BYTES for piece in pieces)


@pytest.mark.parametrize(
    "value", ["x" * MAX_REQUEST_BYTES, b"\xff" * (MAX_REQUEST_BYTES + 1)], ids=["text", "bytes"]
)
def test_a_command_larger_than_a_request_is_refused(value: str | bytes) -> None:
    with pytest.raises(LimitExceeded):
        cut_alone([("PING",), ("SET", "k", value)])


def test_a_transaction_is_never_cut() -> None:
    with pytest.raises(LimitExceeded):
        whole_alone([("SET", "k", "x" * 6_000_000)] * 2)


# --- bytes that are not text ---


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("SET", "k", b"\xff"), "/SET/k"),
        (("SET", "k", b"\xff", "PX", 5), "/SET/k?PX=5"),
        (("SETEX", "a/b?c#d%e f", 60, b"\xff"), "/SETEX/a%2Fb%3Fc%23d%25e%20f/60"),
        (("GET", b"\xff"), "/GET"),
    ],
    ids=str,
)
def test_one_binary_argument_goes_as_the_raw_body(command: Command, path: str) -> None:
    (piece,) = cut_alone([command])
    assert (piece.path, piece.body, piece.count) == (path, b"\xff", 1)


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "k", b"\xff", "NX"),
        ("SET", "k", b"\xff", "NX", "EX", 60),
        ("SET", "..", b"\xff"),
        ("SET", "", b"\xff"),
        ("SET", "k" * 9_000, b"\xff"),
        ("SET", b"\xff", b"\xfe", "EX", 60),
        ("MSET", "a", b"\xff", "b", b"\xfe"),
    ],
    ids=lambda command: str(command)[:40],
)
async def test_what_the_path_form_cannot_say_a_script_does_exactly(command: Command, valkey: Client) -> None:
    (piece,) = cut_alone([command])
    assert piece.path == PIPELINE
    assert await valkey.execute(*json.loads(piece.body)) == b"OK"
    key, value = command[1], command[2]
    assert await valkey.get(key) == value  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_the_carried_words_are_the_commands(words: list[bytes]) -> None:
    command: Command = ("RPUSH", b"\xff", *words)
    (name, _, keys, marks, *carried) = json.loads(whole_alone([command]))[0]
    places = {int(mark) - 1 for mark in marks.split(",")}
    found = [word.encode("latin-1" if place in places else "utf-8") for place, word in enumerate(carried)]
    assert (name, keys) == ("EVAL", "0")
    assert found == [b"RPUSH", b"\xff", *words]


async def test_carried_commands_answer_as_if_they_were_sent(valkey: Client) -> None:
    every = bytes(range(256))
    commands: list[Command] = [
        ("RPUSH", "l", every, b"\xff"),
        ("LRANGE", "l", 0, -1),
        ("HSET", "h", every, every),
        ("HMGET", "h", every, b"\xff"),
        ("INCR", b"\xff\xfe"),
        ("LPOP", b"\x80"),
        ("GET", "l"),
    ]
    replies = [
        answer.args[0] if isinstance(answer, StoreError) else answer
        for command in json.loads(whole_alone([*commands, ("LPUSH", "h", b"\xff")]))
        for answer in await valkey.transport.execute([tuple(command)])
    ]
    wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert replies == [2, [every, b"\xff"], 1, [every, None], 1, None, wrong, wrong]


# What a script gets: what it was given, whatever its place, and with the line that Upstash wants in front.
TELL = "-- a comment\nreturn {KEYS[1], ARGV[1], ARGV[2], ARGV[3], #ARGV}"


@pytest.mark.parametrize("name", ["EVAL", "EVAL_RO", b"eval"])
async def test_a_script_gets_any_bytes_exactly(name: str | bytes, valkey: Client) -> None:
    every = bytes(range(256))
    scripts = BinaryScripts()
    (piece,) = cut([(name, TELL, 1, "k", every, "text \xe9", b"\xc3\xa9\xff")], scripts)
    assert await valkey.execute(*json.loads(piece.body)) == [
        b"k",
        every,
        "text \xe9".encode(),
        b"\xc3\xa9\xff",
        3,
    ]
    # From then on by its SHA1.
    sha = hashlib.sha1(TELL.encode()).hexdigest()
    (piece,) = cut([("EVALSHA", sha, 1, "k", b"\xff", b"\xfe", "")], scripts)
    assert await valkey.execute(*json.loads(piece.body)) == [b"k", b"\xff", b"\xfe", b"", 3]


def test_a_script_seen_for_the_first_time_by_its_sha1_is_asked_for_in_full() -> None:
    scripts = BinaryScripts()
    by_sha = ("EVALSHA", hashlib.sha1(TELL.encode()).hexdigest(), 0, b"\xff")
    assert isinstance(scripts.unknown(by_sha), NoScript)
    assert scripts.unknown((*by_sha[:3], "text")) is None
    cut([("EVAL", TELL, 0, b"\xff")], scripts)
    assert scripts.unknown(by_sha) is None


def test_the_first_line_of_a_script_stays_first() -> None:
    (piece,) = cut_alone([("EVAL", "#!lua flags=allow-key-locking\nreturn 1", 1, "k", b"\xff")])
    assert json.loads(piece.body)[1].startswith("#!lua flags=allow-key-locking\nlocal ARGV=")


def test_as_many_scripts_as_you_like_are_known_but_not_for_ever() -> None:
    scripts = BinaryScripts()
    for number in range(2_500):
        cut([("EVAL", f"return {number}", 0, b"\xff")], scripts)
    assert len(scripts._known) <= 1_000


@pytest.mark.parametrize(
    "command",
    [
        ("FCALL", "f", 1, "k", b"\xff", b"\xfe"),
        ("EVAL", "return 1", 1, b"\xff", b"\xfe"),
        ("EVAL", "return 1", "x", b"\xff"),
        ("EVAL", b"\xff", 0, "a"),
        ("RPUSH", "l", *[b"\xff"] * 8_000),
    ],
    ids=lambda command: str(command)[:40],
)
def test_what_cannot_be_carried_is_refused(command: Command) -> None:
    with pytest.raises(CodecError):
        cut_alone([command])


# --- responses ---


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, None),
        (7, 7),
        (12345678901234567890, 12345678901234567890),
        (1.5, b"1.5"),
        (True, 1),
        ("OK", b"OK"),
        ("", b""),
        ("T0s=", b"OK"),
        ("AA==", b"\0"),
        ("//79", b"\xff\xfe\xfd"),
        ([], []),
        (["MA==", [[], ["YQ==", None, 2, "OK"]]], [b"0", [[], [b"a", None, 2, b"OK"]]]),
    ],
    ids=repr,
)
def test_results_are_decoded(result: Any, expected: Reply) -> None:
    assert reply(result) == expected


@given(st.binary())
def test_any_bytes_come_back_from_base64(value: bytes) -> None:
    assert reply(base64.b64encode(value).decode()) == value
    assert reply([base64.b64encode(value).decode()]) == [value]


def test_a_pipelines_errors_are_typed_values_at_their_places() -> None:
    body = b'[{"result":1},{"error":"WRONGTYPE x"},{"error":"NOSCRIPT y"},{"error":"ERR z"},{"result":null}]'
    replies = replies_of(PIPELINE, 5, 200, body, "store")
    assert [type(item) for item in replies] == [int, WrongType, NoScript, CommandError, type(None)]


def test_a_pipeline_refused_as_a_whole_is_an_error_for_each_command() -> None:
    replies = replies_of(PIPELINE, 2, 400, b'{"error":"ERR syntax"}', "store")
    assert [str(item) for item in replies] == ["ERR syntax", "ERR syntax"]
    assert replies[0] is not replies[1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{",
        b"[]",
        b"7",
        b"{}",
        b'{"result":{"a":1}}',
        b'{"result":"not base64!"}',
        b'{"result":"YQ"}',
        b'{"result":"Y\\nQ=="}',
        b'{"error":7}',
        b'{"result":"\xff"}',
        b'{"result":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_reply_is_a_protocol_error_of_unknown_outcome(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        replies_of(SINGLE, 1, 200, body, "store")
    assert caught.value.outcome == "unknown"


@pytest.mark.parametrize("body", [b"[]", b'[{"result":1}]', b'[{"result":1},{}]', b'{"result":1}', b"[1,2]"])
def test_a_pipeline_must_answer_every_command(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        replies_of(PIPELINE, 2, 200, body, "store")


@given(
    st.binary(), st.sampled_from([SINGLE, PIPELINE, TRANSACTION]), st.sampled_from([200, 400, 401, 404, 500])
)
def test_no_response_whatever_its_bytes_ends_in_anything_but_replies_or_a_store_error(
    body: bytes, path: str, status: int
) -> None:
    try:
        replies = replies_of(path, 1, status, body, "store")
    except StoreError:
        return
    assert len(replies) == 1


def test_a_transaction_is_not_answered_by_a_single_reply() -> None:
    with pytest.raises(ProtocolError):
        replies_of(TRANSACTION, 1, 200, b'{"result":1}', "store")


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (401, CredentialsRejected, "not_sent"),
        (403, CredentialsRejected, "not_sent"),
        (413, LimitExceeded, "not_sent"),
        (429, StoreOverloaded, "not_sent"),
        (500, StoreUnavailable, "unknown"),
        (502, StoreUnavailable, "unknown"),
        (503, StoreUnavailable, "unknown"),
        (301, ProtocolError, "unknown"),
        (404, ProtocolError, "unknown"),
        (400, ProtocolError, "unknown"),
    ],
)
@pytest.mark.parametrize("path", [SINGLE, PIPELINE, TRANSACTION])
def test_a_status_is_a_typed_error(path: str, status: int, kind: type[StoreError], outcome: str) -> None:
    with pytest.raises(kind) as caught:
        replies_of(path, 1, status, b"<html>no</html>", "store")
    assert type(caught.value) is kind
    assert caught.value.outcome == outcome


def test_a_refusal_repeats_what_the_store_said_but_not_a_book() -> None:
    with pytest.raises(CredentialsRejected, match="WRONGPASS invalid") as caught:
        replies_of(
            SINGLE, 1, 401, json.dumps({"error": "WRONGPASS invalid" + "x" * 10_000}).encode(), "store"
        )
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ERR unsupported", TransactionAborted),
        ("EXECABORT because", TransactionAborted),
        ("ERR max daily request limit exceeded", StoreOverloaded),
        ("ERR max request size exceeded", LimitExceeded),
        ("READONLY no", StoreReadOnly),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_discarded_transaction_is_raised(status: int, text: str, kind: type[StoreError]) -> None:
    with pytest.raises(kind) as caught:
        replies_of(TRANSACTION, 2, status, json.dumps({"error": text}).encode(), "store")
    assert str(caught.value) == text


# --- refused commands ---


@pytest.mark.parametrize(
    "command",
    [
        *[(name,) for name in "MULTI EXEC DISCARD UNWATCH MONITOR RESET QUIT READONLY".split()],
        *[
            (name, "a")
            for name in "WATCH SUBSCRIBE PSUBSCRIBE UNSUBSCRIBE SSUBSCRIBE AUTH HELLO CLIENT".split()
        ],
        *[(name, "q", 0) for name in "BLPOP BRPOP BZPOPMIN BZPOPMAX".split()],
        ("BLMOVE", "a", "b", "LEFT", "RIGHT", 0),
        ("BLMPOP", 0, 1, "a", "LEFT"),
        ("BZMPOP", 0, 1, "a", "MIN"),
        ("BRPOPLPUSH", "a", "b", 0),
        ("XREAD", "COUNT", 1, "BLOCK", 0, "STREAMS", "s", "$"),
        ("XREADGROUP", "GROUP", "g", "c", "block", 5, "STREAMS", "s", ">"),
        ("SELECT", 1),
        ("multi",),
        (b"Multi",),
        ("",),
        (),
    ],
    ids=str,
)
def test_what_a_request_cannot_carry_is_refused(command: Command) -> None:
    assert needs_look(command)
    assert isinstance(rest_refusal(command), CommandError)


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "k"),
        ("get", "k"),
        ("XREAD", "COUNT", 1, "STREAMS", "s", "0"),
        ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"),
        ("SELECT", 0),
        ("WAIT", 1, 100),
        ("PUBLISH", "c", "m"),
        ("EVAL", "return 1", 0),
    ],
    ids=str,
)
def test_the_others_are_not(command: Command) -> None:
    assert rest_refusal(command) is None
