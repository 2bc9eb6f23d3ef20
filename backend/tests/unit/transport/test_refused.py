"""What may not run on a shared connection, what waits in the server, and where a command's keys stand."""

from __future__ import annotations

import math

import pytest

from redis_core.errors import CommandError, error_from_reply
from redis_core.transport.base import Command, Reply
from redis_core.transport.blocking import put_back, wait_seconds
from redis_core.transport.cluster_scatter import gather_replies, is_for_all, next_cursor, split_cursor
from redis_core.transport.cluster_slots import key_slot, read_slots, redirect
from redis_core.transport.command_keys import UnknownCommand, first_key
from redis_core.transport.refused import command_name, is_blocking, needs_look, refusal

SHARED = [
    "MULTI",
    "EXEC",
    "WATCH",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "MONITOR",
    "AUTH",
    "HELLO",
    "SELECT",
    "RESET",
    "QUIT",
    "ASKING",
    "SYNC",
]


@pytest.mark.parametrize("name", SHARED)
def test_what_would_change_the_connection_is_refused_however_it_is_written(name: str) -> None:
    for written in (name, name.lower(), name.title(), name.encode(), name.lower().encode()):
        command: Command = (written, "x")
        assert needs_look(command)
        error = refusal(command)
        assert error is not None
        assert str(error).startswith(f"ERR {name} is refused here: ")


@pytest.mark.parametrize(
    "command",
    [
        ("CLIENT", "REPLY", "OFF"),
        ("client", b"tracking", "on"),
        ("CLIENT", "SETNAME", "x"),
        ("SCRIPT", "DEBUG", "YES"),
    ],
)
def test_parts_that_would_change_the_connection_are_refused(command: Command) -> None:
    assert needs_look(command)
    assert refusal(command) is not None


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "k"),
        ("CLIENT", "LIST"),
        ("CLIENT",),
        ("SCRIPT", "LOAD", "x"),
        ("XREAD", "STREAMS", "s", "0"),
        ("NOPE",),
    ],
)
def test_others_are_not(command: Command) -> None:
    assert refusal(command) is None
    assert not is_blocking(command)


def test_usual_commands_need_no_look() -> None:
    assert not needs_look(("GET", "k"))
    assert needs_look(())
    assert needs_look(("get", "k"))
    assert needs_look((b"GET", "k"))
    assert refusal(()) is not None
    assert command_name(()) == ""


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        (("BLPOP", "a", "b", 0), math.inf),
        (("BLPOP", "a", "1.5"), 1.5),
        (("brpop", "a", b"2"), 2.0),
        (("BLMOVE", "a", "b", "LEFT", "RIGHT", 3), 3.0),
        (("BLMPOP", 4, 1, "a", "LEFT"), 4.0),
        (("BZMPOP", "0.5", 1, "a", "MIN"), 0.5),
        (("WAIT", 1, 100), 0.1),
        (("XREAD", "BLOCK", 250, "STREAMS", "s", "$"), 0.25),
        (("XREAD", "COUNT", 1, "BLOCK", 250, "STREAMS", "s", "$"), 0.25),
        (("XREADGROUP", "GROUP", "g", "c", "COUNT", 10, "BLOCK", 2000, "STREAMS", "s", ">"), 2.0),
        (("XREADGROUP", "GROUP", "STREAMS", "BLOCK", "NOACK", "block", 0, "STREAMS", "s", ">"), math.inf),
        (("BLPOP", "a", "what"), math.inf),
        (("BLMPOP",), math.inf),
    ],
)
def test_commands_that_wait_and_for_how_long(command: Command, seconds: float) -> None:
    assert is_blocking(command)
    assert wait_seconds(command) == seconds


@pytest.mark.parametrize(
    "command",
    [("XREAD", "STREAMS", "BLOCK", "0"), ("XREADGROUP", "GROUP", "BLOCK", "BLOCK", "STREAMS", "s", ">")],
)
def test_keys_and_groups_named_block_wait_for_nothing(command: Command) -> None:
    assert not is_blocking(command)


@pytest.mark.parametrize(
    ("command", "reply", "back"),
    [
        (("BLPOP", "q", 0), [b"q", b"a"], ("LPUSH", b"q", b"a")),
        (("BRPOP", "q", 0), [b"q", b"a"], ("RPUSH", b"q", b"a")),
        (("BLMPOP", 0, 2, "p", "q", "LEFT", "COUNT", 3), [b"q", [b"a", b"b"]], ("LPUSH", b"q", b"b", b"a")),
        (("BLMPOP", 0, 1, "q", b"right"), [b"q", [b"a", b"b"]], ("RPUSH", b"q", b"b", b"a")),
        (("BZPOPMIN", "q", 0), [b"q", b"m", b"1.5"], ("ZADD", b"q", "NX", b"1.5", b"m")),
        (
            ("BZMPOP", 0, 1, "q", "MAX"),
            [b"q", [[b"m", b"2"], [b"n", b"1"]]],
            ("ZADD", b"q", "NX", b"2", b"m", b"1", b"n"),
        ),
        (("BLPOP", "q", 0), None, None),
        (("BLMOVE", "a", "b", "LEFT", "RIGHT", 0), b"x", None),
        (("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "s", ">"), [[b"s", []]], None),
    ],
)
def test_what_was_taken_goes_back_to_its_end(command: Command, reply: Reply, back: Command | None) -> None:
    assert put_back(command, reply) == back


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("get", b"k"), b"k"),
        (("MSET", "k", 1, "l", 2), "k"),
        (("EVAL", "return 1", 1, "k", "a"), "k"),
        (("EVALSHA", "f" * 40, 0, "a"), None),
        (("EVALSHA", "f" * 40, b"0", "a"), None),
        (("ZUNION", 2, "k", "l"), "k"),
        (("BLMPOP", 0, 1, "k", "LEFT"), "k"),
        (("ZUNIONSTORE", "k", 1, "l"), "k"),
        (("BITOP", "AND", "k", "l"), "k"),
        (("OBJECT", "ENCODING", "k"), "k"),
        (("MEMORY", "DOCTOR"), None),
        (("XREAD", "COUNT", 1, "STREAMS", "k", "l", "0", "0"), "k"),
        (("XREADGROUP", "GROUP", "STREAMS", "c", "STREAMS", "k", ">"), "k"),
        (("XREAD",), None),
        (("GET",), None),
        (("PING",), None),
        ((), None),
    ],
)
def test_first_key(command: Command, key: object) -> None:
    assert first_key(command) == key


def test_unknown_command_is_the_servers_to_know() -> None:
    with pytest.raises(UnknownCommand):
        first_key(("NOSUCH", "x"))


# The first three are of the Redis Cluster specification and its tests.
@pytest.mark.parametrize(
    ("key", "slot"),
    [("123456789", 12739), ("foo", 12182), ("bar", 5061), ("", 0), ("{foo}x", 12182), (b"foo", 12182)],
)
def test_slots(key: str | bytes, slot: int) -> None:
    assert key_slot(key) == slot


def test_map_of_slots() -> None:
    reply: Reply = [
        [8192, 16383, [b"10.0.0.2", 7001, b"id2", []], [b"10.0.0.3", 7002, b"id3"]],
        [0, 8191, [b"", 7000, b"id1"]],
        [5, 6],
        b"what",
    ]
    assert read_slots(reply, ("seed", 7000)) == [(0, 8191, ("seed", 7000)), (8192, 16383, ("10.0.0.2", 7001))]
    assert read_slots(None, ("seed", 1)) == []
    assert read_slots([[0, 1, [None, 7]]], ("seed", 1)) == [(0, 1, ("seed", 7))]


def test_redirections() -> None:
    assert redirect(error_from_reply("MOVED 3999 127.0.0.1:6381"), ("a", 1)) == (
        3999,
        ("127.0.0.1", 6381),
        False,
    )
    assert redirect(error_from_reply("ASK 1 [::1]:6381"), ("a", 1)) == (1, ("::1", 6381), True)
    assert redirect(error_from_reply("MOVED 1 :6381"), ("a", 1)) == (1, ("a", 6381), False)
    for other in (
        error_from_reply("ERR no"),
        error_from_reply("MOVED x"),
        error_from_reply("MOVED"),
        b"MOVED 1 a:1",
        None,
    ):
        assert redirect(other, ("a", 1)) is None


def test_commands_for_all_masters() -> None:
    assert is_for_all(("flushdb",))
    assert is_for_all(("SCRIPT", "load", "x"))
    assert not is_for_all(("SCRIPT", "KILL"))
    assert not is_for_all(("GET", "x"))
    assert gather_replies(("DBSIZE",), [1, 2, 3]) == 6
    assert gather_replies(("KEYS", "*"), [[b"a"], [], [b"b"]]) == [b"a", b"b"]
    assert gather_replies(("SCRIPT", "EXISTS", "a", "b"), [[1, 1], [0, 1]]) == [0, 1]
    assert gather_replies(("SCRIPT", "LOAD", "x"), [b"sha", b"sha"]) == b"sha"
    error = CommandError("ERR no")
    assert gather_replies(("FLUSHDB",), [b"OK", error]) is error


def test_cursors_go_through_all_masters() -> None:
    for cursor in (1, 2**63, 17):
        for master in range(3):
            assert split_cursor(next_cursor(master, cursor, 3)) == (master, cursor)
    assert split_cursor(next_cursor(0, 0, 3)) == (1, 0)
    assert next_cursor(2, 0, 3) == b"0"
    with pytest.raises(CommandError):
        split_cursor("x")
