"""The roles' lists of commands, held against the source: all that the code sends, and nothing that it never does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_core.acl import ROLES, AclUser, read_passwords, role_user, setuser, workspace_user
from redis_core.errors import ConfigError, InvalidKey
from redis_core.keys import FAMILIES
from redis_core.secret import Secret

SOURCE = Path(__file__).parents[2] / "redis_core"
NOT_SENT_BY_US = (
    "gateway/*.py", "transport/in_memory/*.py", "testing/*.py", "acl.py", "measuring/meter.py", "measuring/attribution.py",
    "transfer/*.py", "key_audit.py", "key_positions.py", "portability.py", "cli/rotation/*.py", "transport/refused.py", "transport/rest/refused.py", "transport/command_keys.py", "transport/cluster_scatter.py",
)  # fmt: skip
"""Files that name commands which others send."""
OF_OPERATORS = {"dbsize", "flushdb", "scan"}
"""What the client has methods for, and services only for those who administer the store: see the table in docs/acl.md."""
NEEDS_NO_PERMISSION = {"auth", "hello"}
TO_DO_OTHERWISE = {"select", "sentinel"}
"""Only for databases other than 0, and what is asked of a sentinel, which has users of its own."""


def sent_by_python(tree: ast.AST) -> Iterator[str]:
    """The first word of every tuple that begins like a command, and of every `execute("WORD", ...)`."""
    for node in ast.walk(tree):
        words: list[ast.expr] = []
        if isinstance(node, ast.Tuple) and node.elts:
            words = node.elts
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "execute"
        ):
            words = node.args
        texts = [word.value if isinstance(word, ast.Constant) else None for word in words]
        for text in texts[:1]:
            if isinstance(text, str) and re.fullmatch(r"[A-Z]{2,}", text):
                second = texts[1] if len(texts) > 1 else None
                yield (
                    f"{text}|{second}".lower() if text in PARTED and isinstance(second, str) else text.lower()
                )


WORDS = set("asc commit count ex keepttl limit maxlen nx overflow px rev rollback xx".split())
"""What begins a tuple in capitals and is no command: options of commands, and SQL."""
PARTED = {"CLIENT", "CLUSTER", "COMMAND"}
_LUA_CALL = re.compile(r"\bcall\((?:\w+ and '(\w+)' or )?'(\w+)'")


def commands_of_scripts() -> set[str]:
    texts = [path.read_text() for path in (SOURCE / "lua").glob("*.lua")]
    # A call whose command is not written out would escape this list.
    odd = [call for text in texts for call in re.findall(r"\bcall\(.{30}", text) if not _LUA_CALL.match(call)]
    assert odd == []
    return {word.lower() for text in texts for found in _LUA_CALL.findall(text) for word in found if word}


def commands_of_python() -> set[str]:
    others = {path for pattern in NOT_SENT_BY_US for path in SOURCE.glob(pattern)}
    files = [path for path in SOURCE.rglob("*.py") if path not in others]
    return {word for path in files for word in sent_by_python(ast.parse(path.read_text()))}


def test_every_command_that_a_script_calls_is_the_workers() -> None:
    assert commands_of_scripts() - set(role_user("worker").commands) == set()


def test_every_command_of_a_workspaces_scripts_is_its_own_users() -> None:
    queue = {path.name for path in (SOURCE / "lua").glob("queue_*")}
    texts = [path.read_text() for path in (SOURCE / "lua").glob("*.lua") if path.name not in queue]
    called = {word.lower() for text in texts for found in _LUA_CALL.findall(text) for word in found if word}
    assert called - set(workspace_user("acme").commands) == set()


def test_the_worker_may_send_all_that_the_code_sends_and_nothing_else() -> None:
    sent = commands_of_python() | commands_of_scripts()
    spared = OF_OPERATORS | NEEDS_NO_PERMISSION | TO_DO_OTHERWISE
    known = set(role_user("worker").commands)
    assert (known - sent, sent - known - spared - WORDS) == (set(), set())
    assert spared - sent == set()


@pytest.mark.parametrize("role", ["app", "worker"])
def test_what_looks_into_other_tenants_or_changes_the_server_is_no_role_of_a_service(role: str) -> None:
    commands = role_user(role).commands  # type: ignore[arg-type]
    names = {command.partition("|")[0] for command in commands}
    forbidden = set(
        "scan keys randomkey dbsize select flushall flushdb config acl migrate restore dump object debug".split()
    )
    assert names & forbidden == set()
    assert not any(command.startswith("@") for command in commands)


def test_only_the_worker_takes_jobs() -> None:
    assert set(role_user("worker").commands) - set(role_user("app").commands) == {"blpop", "lmpop"}


def test_the_auditor_has_no_command_that_writes_or_returns_a_value() -> None:
    may = set(role_user("auditor").commands)
    assert (
        may & {"get", "hgetall", "lrange", "eval", "evalsha", "xrange", "set", "del", "publish", "subscribe"}
        == set()
    )


def test_each_familys_keys_are_the_services_and_no_other_name_is() -> None:
    starts = [pattern.removeprefix("~").removesuffix("*") for pattern in role_user("app").keys]
    assert all(pattern.startswith("~") and pattern.count("*") == 1 for pattern in role_user("app").keys)
    for family in FAMILIES:
        assert any(family.pattern.startswith(start) for start in starts), family.name
    assert all(any(family.pattern.startswith(start) for family in FAMILIES) for start in starts)


def test_a_users_rules_replace_what_it_had() -> None:
    for role in ROLES:
        assert role_user(role).rules()[:4] == ("on", "resetkeys", "resetchannels", "-@all")


def test_a_password_is_sent_as_its_hash_and_to_upstash_as_it_is() -> None:
    password = Secret("a password of the test")
    assert setuser(role_user("app"), password)[-1] == (
        "#ac40bca9651dcf2e67284ea61a1ec11f180a5b4182eb0f161e7c3c7da3a985de"
    )
    assert setuser(role_user("app"), password, upstash=True)[-1] == ">a password of the test"


def test_a_short_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="20 characters") as caught:
        setuser(role_user("app"), Secret("hunter2"))
    assert "hunter2" not in str(caught.value)


def test_upstash_is_given_no_word_that_its_acl_lacks_and_never_more_than_a_real_server() -> None:
    for user in (*map(role_user, ROLES), workspace_user("acme")):
        there, here = set(user.rules(upstash=True)), set(user.rules())
        assert not any("|" in rule or rule.startswith("%") for rule in there)
        assert there - here <= {"+delex"}


@pytest.mark.parametrize("name", ["", "a b", "a\n", "ä", "x" * 81, "on >p"])
def test_a_name_that_acl_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        setuser(AclUser(name, ("get",), ("~a",)))


@pytest.mark.parametrize("workspace", ["*", "a*", "a}:b", "", "a\n"])
def test_a_workspace_id_that_is_a_pattern_makes_no_user(workspace: str) -> None:
    with pytest.raises(InvalidKey):
        workspace_user(workspace)


def test_passwords_are_read_from_lines() -> None:
    assert read_passwords("# chosen\n\napp=one=1\n worker=two\n") == {
        "app": Secret("one=1"),
        "worker": Secret("two"),
    }
    with pytest.raises(ConfigError, match="line 2") as caught:
        read_passwords("app=one\nhunter2\n")
    assert "hunter2" not in str(caught.value)
