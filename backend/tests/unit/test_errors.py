"""Errors: one tree, each with a truthful outcome, and the meaning of what a store says."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from redis_core import errors
from redis_core.errors import (
    CommandError,
    ConfigError,
    CredentialsRejected,
    DeadlineExceeded,
    Kind,
    LimitExceeded,
    NoScript,
    Outcome,
    PermissionDenied,
    ProtocolError,
    RedisCoreError,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
    TransactionAborted,
    WrongType,
    error_from_reply,
)

CLASSES = [
    item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, RedisCoreError)
]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", WrongType),
        ("NOSCRIPT No matching script. Please use EVAL.", NoScript),
        ("NOPERM this user has no permissions", PermissionDenied),
        (
            "ERR ACL failure in script: User app has no permissions to run the 'keys' command",
            PermissionDenied,
        ),
        ("ERR The user executing the script can't run this command or subcommand", PermissionDenied),
        ("EXECABORT Transaction discarded because of previous errors.", TransactionAborted),
        ("NOAUTH Authentication required.", CredentialsRejected),
        ("WRONGPASS invalid username-password pair or user is disabled.", CredentialsRejected),
        ("DENIED Redis is running in protected mode", CredentialsRejected),
        ("ERR invalid password", CredentialsRejected),
        ("LOADING Redis is loading the dataset in memory", StoreUnavailable),
        ("BUSY Redis is busy running a script.", StoreUnavailable),
        ("CLUSTERDOWN Hash slot not served", StoreUnavailable),
        ("MASTERDOWN Link with MASTER is down", StoreUnavailable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", StoreUnavailable),
        ("READONLY You can't write against a read only replica.", StoreReadOnly),
        ("MISCONF Redis is configured to save RDB snapshots", StoreReadOnly),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreReadOnly),
        ("NOREPLICAS Not enough good replicas to write.", StoreReadOnly),
        ("ERR max number of clients reached", StoreOverloaded),
        ("ERR max daily request limit exceeded", StoreOverloaded),
        ("ERR max request size exceeded", LimitExceeded),
        ("ERR DB capacity quota exceeded", StoreReadOnly),
        ("ERR unknown command 'NOPE'", CommandError),
        ("MOVED 3999 127.0.0.1:6381", CommandError),
        ("", CommandError),
        ("odd", CommandError),
    ],
)
def test_meaning_of_a_reply(said: str, expected: type[StoreError]) -> None:
    error = error_from_reply(said)
    assert type(error) is expected
    assert str(error) == said
    assert error.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (StoreUnavailable, Kind.UNREACHABLE, True),
        (DeadlineExceeded, Kind.UNREACHABLE, True),
        (ProtocolError, Kind.UNREACHABLE, True),
        (StoreOverloaded, Kind.OVERLOADED, True),
        (StoreReadOnly, Kind.READ_ONLY, False),
        (CredentialsRejected, Kind.CREDENTIALS, False),
        (LimitExceeded, Kind.CALLER, False),
        (CommandError, Kind.CALLER, False),
        (WrongType, Kind.CALLER, False),
    ],
)
def test_whose_fault_an_error_is(error: type[StoreError], kind: Kind, retryable: bool) -> None:
    assert error("x").kind is kind
    assert error("x").retryable is retryable


def test_credentials_are_never_an_outage() -> None:
    assert not issubclass(CredentialsRejected, StoreUnavailable)
    assert not issubclass(StoreReadOnly, StoreUnavailable)


def test_code_of_a_command_error_is_its_first_word_in_capitals() -> None:
    assert CommandError("MOVED 1 a:1").code == "MOVED"
    assert CommandError("ERR no").code == "ERR"
    assert CommandError("no word in capitals").code == "ERR"
    assert CommandError("").code == "ERR"


def test_config_error_says_variable_value_and_remedy() -> None:
    error = ConfigError("REDIS_URL", "x://", "begin it with redis://")
    assert str(error) == "REDIS_URL is 'x://': begin it with redis://"
    assert (error.variable, error.value, error.remedy) == ("REDIS_URL", "x://", "begin it with redis://")
    assert str(ConfigError("REDIS_URL", None, "set it")) == "REDIS_URL is not set: set it"


def test_no_error_shadows_a_builtin_and_all_are_listed() -> None:
    for item in CLASSES:
        assert not hasattr(builtins, item.__name__)
        assert item.__name__ in errors.__all__
        assert item.__doc__


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    drawing = (Path(errors.__file__).read_text("utf-8").split('"""')[1]).splitlines()
    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in drawing:
        words = line.replace("│", " ").replace("├── ", "    ").replace("└── ", "    ")
        name = words.split()[0] if words.split() else ""
        if name not in {item.__name__ for item in CLASSES} or "──" not in line:
            if name == "RedisCoreError":
                path = [(len(words) - len(words.lstrip()), name)]
            continue
        depth = len(words) - len(words.lstrip())
        while path[-1][0] >= depth:
            path.pop()
        drawn[name] = path[-1][1]
        path.append((depth, name))
    expected = {
        item.__name__: next(b.__name__ for b in item.__mro__[1:] if issubclass(b, RedisCoreError))
        for item in CLASSES
        if item is not RedisCoreError
    }
    assert drawn == expected
