"""The store's users on real servers: made by command, each able to do its own work and no more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from redis_core.acl import ROLES, AclUser, apply_users, role_user, workspace_user
from redis_core.audit import AuditLog
from redis_core.cli.app import app
from redis_core.client import Client
from redis_core.errors import (
    ConfigError,
    CredentialsRejected,
    Kind,
    LockTimeout,
    PermissionDenied,
    StoreUnavailable,
)
from redis_core.script import Script
from redis_core.secret import Secret
from redis_core.transport.base import Command
from redis_core.transport.memory import MockRedisClient
from tests.store_users import client_as, make_user
from tests.stores import clean_client, redis7_binary, running_server, valkey_binary

OURS, OTHERS = "ws:{acme}:app:mine", "ws:{globex}:app:theirs"
ALL_USERS = (*ROLES, "ws-acme")
Cli = Callable[..., Result]
Become = Callable[[AclUser], Awaitable[Client]]


@pytest.fixture(scope="module", params=["valkey9", "redis7"])
def socket(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of this module's own: users outlive a flush."""
    binary = valkey_binary() if request.param == "valkey9" else redis7_binary()
    if binary is None:
        pytest.skip("redis-server is not on the PATH")
    with running_server(binary) as path:
        yield path


@pytest.fixture
async def operator(socket: str) -> AsyncIterator[Client]:
    async with await clean_client(socket) as client:
        await client.execute("ACL", "DELUSER", *ALL_USERS)
        await client.set(OTHERS, "secret")
        await client.set(OURS, "ours")
        yield client


@pytest.fixture
async def as_user(operator: Client, socket: str) -> AsyncIterator[Become]:
    opened: list[Client] = []

    async def become(user: AclUser) -> Client:
        await make_user(operator, user)
        opened.append(await client_as(user.name, socket))
        return opened[-1]

    yield become
    for client in opened:
        await client.aclose()


@pytest.fixture
def cli(socket: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    def run(*arguments: str, user: str = "", input: str | None = None) -> Result:
        monkeypatch.setenv("REDIS_URL", f"unix://{user}@{socket}" if user else f"unix://{socket}")
        # A command runs an event loop of its own, so not in the thread of the test's.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(CliRunner().invoke, app, arguments, input).result(30)

    return run


# --- one tenant's user ---

_GET = "return redis.call('GET', KEYS[1] or ARGV[1])"
REACHES: list[Command] = [
    ("GET", OTHERS),
    ("MGET", OURS, OTHERS),
    ("STRLEN", OTHERS),
    ("EXISTS", OTHERS),
    ("TYPE", OTHERS),
    ("TTL", OTHERS),
    ("SET", OTHERS, "x"),
    ("MSET", OURS, "x", OTHERS, "x"),
    ("DEL", OTHERS),
    ("UNLINK", OURS, OTHERS),
    ("EXPIRE", OTHERS, 1),
    ("RENAME", OTHERS, OURS),
    ("RENAME", OURS, OTHERS),
    ("COPY", OTHERS, OURS),
    ("COPY", OURS, OTHERS),
    ("SORT", OURS, "BY", "ws:{globex}:app:*", "GET", "ws:{globex}:app:*"),
    ("SORT", OURS, "BY", "nosort", "STORE", OTHERS),
    ("BITOP", "NOT", OURS, OTHERS),
    ("DUMP", OTHERS),
    ("OBJECT", "ENCODING", OTHERS),
    ("XREAD", "STREAMS", OTHERS, "0"),
    ("ZRANGESTORE", OURS, OTHERS, 0, -1),
    ("EVAL", _GET, 1, OTHERS),
    ("EVAL", _GET, 0, OTHERS),
    ("EVAL", "return redis.call('SET', ARGV[1], 'x')", 0, OTHERS),
    ("EVAL", "return redis.call('RENAME', KEYS[1], ARGV[1])", 1, OURS, OTHERS),
    ("EVAL", "return redis.call('PUBLISH', ARGV[1], 'x')", 0, "ws:{globex}:app:news"),
    ("EVAL", "return redis.call('KEYS', '*')", 0),
    ("PUBLISH", "ws:{globex}:app:news", "x"),
    ("PUBLISH", "sys:cache-bus", "x"),
    ("SCAN", 0),
    ("KEYS", "*"),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("INFO",),
    ("FLUSHALL",),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "ws-acme", "~*"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"),
    ("SLOWLOG", "GET"),
    ("PUBSUB", "CHANNELS"),
    ("MIGRATE", "127.0.0.1", "1", OTHERS, "0", "1"),
]


async def test_a_workspaces_user_reaches_its_own_keys_and_no_others(
    as_user: Become, operator: Client
) -> None:
    acme = await as_user(workspace_user("acme"))
    before = {key: await operator.execute("DUMP", key) for key in (OURS, OTHERS)}
    for command in REACHES:
        with pytest.raises(PermissionDenied):
            await acme.execute(*command)
    with pytest.raises(PermissionDenied):
        await acme.subscribe("ws:{globex}:app:news")
    with pytest.raises(PermissionDenied):
        await acme.subscribe(patterns=["*"])
    assert {key: await operator.execute("DUMP", key) for key in (OURS, OTHERS)} == before
    assert await acme.get(OURS) == b"ours"
    assert await acme.run(Script("mine", _GET, confined=True), [OURS]) == b"ours"


async def test_workspaces_whose_ids_begin_alike_are_apart(as_user: Become, operator: Client) -> None:
    await operator.set("ws:{acme2}:app:x", "1")
    await operator.set("ws:{acm}:app:x", "1")
    acme = await as_user(workspace_user("acme"))
    for key in ("ws:{acme2}:app:x", "ws:{acm}:app:x", "ws:{acme}", "ws:acme:app:x", "ws:{*}:app:x"):
        with pytest.raises(PermissionDenied):
            await acme.get(key)


async def test_a_workspaces_user_serves_its_cache_and_its_locks(as_user: Become) -> None:
    acme = await as_user(workspace_user("acme"))
    here = acme.workspace("acme")
    async with here.lock("report", wait=5) as lease:
        assert lease.token
        other = here.lock("report", wait=0.01)
        with pytest.raises(LockTimeout):
            await other.__aenter__()
    async with here.lock("report", wait=5):
        pass


# --- the roles ---


async def test_the_app_lists_no_keys_and_runs_no_servers_errands(as_user: Become) -> None:
    client = await as_user(role_user("app"))
    commands: list[Command] = [
        ("SCAN", 0), ("KEYS", "*"), ("RANDOMKEY",), ("DBSIZE",), ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"),
        ("ACL", "WHOAMI"), ("SHUTDOWN",), ("GET", "another-applications-key"), ("SET", "plain", "x"),
        ("BLPOP", "queue-bell:{default}", 1),
    ]  # fmt: skip
    for command in commands:
        with pytest.raises(PermissionDenied):
            await client.execute(*command)
    with pytest.raises(PermissionDenied):
        await client.subscribe("another-applications-channel")


async def test_the_auditor_lists_and_measures_and_neither_reads_a_value_nor_writes(
    as_user: Become, operator: Client
) -> None:
    auditor = await as_user(role_user("auditor"))
    _, keys = await auditor.scan(count=100)
    assert {OURS, OTHERS} <= {key.decode() for key in keys}
    assert await auditor.dbsize() == 2
    assert (await auditor.type(OURS), await auditor.ttl(OURS), await auditor.strlen(OURS)) == (
        "string",
        -1,
        4,
    )
    assert await auditor.execute("MEMORY", "USAGE", OURS)
    commands: list[Command] = [
        ("GET", OURS), ("DUMP", OURS), ("EVAL", _GET, 1, OURS), ("SET", OURS, "x"), ("DEL", OURS), ("EXPIRE", OURS, 1),
        ("RENAME", OURS, OTHERS), ("PUBLISH", "ws:{acme}:app:news", "x"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST"),
    ]  # fmt: skip
    for command in commands:
        with pytest.raises(PermissionDenied):
            await auditor.execute(*command)
    with pytest.raises(PermissionDenied):
        await auditor.subscribe("ws:{acme}:app:news")
    assert await operator.get(OURS) == b"ours"


# --- a permission that is missing ---


async def test_a_missing_permission_names_the_user_the_command_and_the_remedy(as_user: Become) -> None:
    client = await as_user(role_user("app"))
    with pytest.raises(PermissionDenied) as single:
        await client.dbsize()
    async with client.pipeline() as batch:
        refused, served = batch.dbsize(), batch.get(OURS)
    with pytest.raises(PermissionDenied) as batched:
        await refused
    assert await served == b"ours"
    for caught in (single, batched):
        assert all(word in str(caught.value) for word in ("user 'app'", "DBSIZE", "raptorflow acl apply"))
        assert (caught.value.code, caught.value.kind, caught.value.retryable) == (
            "NOPERM",
            Kind.CALLER,
            False,
        )
        assert not isinstance(caught.value, StoreUnavailable)
    with pytest.raises(PermissionDenied, match="user 'app' may not SUBSCRIBE"):
        await client.subscribe("another-applications-channel")


async def test_what_a_script_may_not_do_is_a_missing_permission_too(as_user: Become) -> None:
    client = await as_user(role_user("app"))
    for text in ("return redis.call('DBSIZE')", "return redis.call('GET', 'plain')"):
        with pytest.raises(PermissionDenied, match="user 'app' may not EVAL"):
            await client.run(Script("odd", text))


# --- made by command ---


async def test_apply_makes_users_whose_passwords_work_and_are_told_once(
    cli: Cli, operator: Client, socket: str
) -> None:
    result = cli("acl", "apply", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert [(user["name"], user["created"]) for user in made["users"]] == [
        ("app", True), ("worker", True), ("auditor", True), ("admin", True),
    ]  # fmt: skip
    assert not made["kept"]
    passwords = {user["name"]: user["password"] for user in made["users"]}
    assert len({*passwords.values()}) == 4
    assert all(len(password) >= 40 for password in passwords.values())
    stored = str(await operator.execute("ACL", "LIST"))
    assert not any(password in stored for password in passwords.values())

    entries = (await AuditLog(operator).page()).entries
    assert [(entry.action, entry.target) for entry in entries][::-1] == [
        ("acl.apply", user["name"]) for user in made["users"]
    ]
    assert not any(password in str(entries) for password in passwords.values())

    again = json.loads(cli("acl", "apply", "--json").stdout)
    assert [(user["created"], user["password"]) for user in again["users"]] == [(False, None)] * 4

    keys = cli("stats", "--json", user=f"auditor:{passwords['auditor']}")
    assert keys.exit_code == 0, keys.output
    refused = cli("stats", "--json", user=f"app:{passwords['app']}")
    assert refused.exit_code != 0
    assert "user 'app' may not" in str(refused.exception)
    assert passwords["app"] not in refused.output + str(refused.exception)


async def test_only_a_user_that_may_change_users_makes_them(cli: Cli, operator: Client) -> None:
    passwords = {
        user["name"]: user["password"] for user in json.loads(cli("acl", "apply", "--json").stdout)["users"]
    }
    refused = cli("acl", "apply", user=f"app:{passwords['app']}")
    assert isinstance(refused.exception, PermissionDenied)
    assert "user 'app' may not ACL" in str(refused.exception)
    assert cli("acl", "apply", user=f"admin:{passwords['admin']}").exit_code == 0


async def test_a_chosen_password_is_taken_from_a_file_and_never_printed(
    cli: Cli, operator: Client, socket: str
) -> None:
    chosen = "a password that somebody chose"
    result = cli("acl", "apply", "app", "--passwords", "-", input=f"app={chosen}\n")
    assert result.exit_code == 0, result.output
    assert chosen not in result.output
    printed = cli("acl", "print", "app", "--passwords", "-", input=f"app={chosen}\n")
    assert chosen not in printed.output
    assert "'#" in printed.output or " #" in printed.output
    there = cli("acl", "print", "app", "--upstash", "--passwords", "-", input=f"app={chosen}\n")
    assert ">***" in there.output
    assert chosen not in there.output
    short = cli("acl", "apply", "app", "--passwords", "-", input="app=hunter2\n")
    assert short.exit_code != 0
    assert "hunter2" not in short.output


async def test_what_print_says_makes_the_same_user(cli: Cli, operator: Client) -> None:
    await apply_users(operator, [role_user(role) for role in ROLES])
    applied = {line.split()[1]: set(line.split()) for line in await listed(operator)}
    await operator.execute("ACL", "DELUSER", *ROLES)
    for command in json.loads(cli("acl", "print", "--json").stdout)["commands"]:
        await operator.execute(*command)
    printed = {line.split()[1]: set(line.split()) for line in await listed(operator)}
    for name in ROLES:
        assert {word for word in applied[name] if not word.startswith("#")} == printed[name] - {"nopass"}


async def listed(operator: Client) -> list[str]:
    lines = await operator.execute("ACL", "LIST")
    assert isinstance(lines, list)
    return [str(line, "utf-8") for line in lines if isinstance(line, bytes)]


async def test_a_new_password_is_added_beside_the_old(operator: Client, socket: str) -> None:
    (first,) = (await apply_users(operator, [role_user("app")])).users
    (second,) = (await apply_users(operator, [role_user("app")], new_passwords=True)).users
    for user in (first, second):
        assert user.password is not None
        async with await client_as("app", socket, user.password) as client:
            assert await client.get(OURS) == b"ours"
    async with await client_as("app", socket, Secret("not its password")) as client:
        with pytest.raises(CredentialsRejected):
            await client.get(OURS)


async def test_a_wrong_password_among_several_changes_no_user(operator: Client) -> None:
    with pytest.raises(ConfigError):
        await apply_users(
            operator, [role_user("app"), role_user("worker")], passwords={"worker": Secret("short")}
        )
    assert await operator.execute("ACL", "USERS") == [b"default"]


async def test_memory_has_no_users() -> None:
    async with Client(MockRedisClient()) as client:
        with pytest.raises(ConfigError, match="real store"):
            await apply_users(client, [role_user("app")])


async def test_a_user_outlives_the_server_where_there_is_an_aclfile(tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    file.touch()
    with running_server(valkey_binary(), "--aclfile", str(file)) as path:
        async with await clean_client(path) as client:
            applied = await apply_users(client, [role_user("app")])
        assert applied.kept
        assert "user app on" in file.read_text()
