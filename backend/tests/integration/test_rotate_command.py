"""`raptorflow rotate` against real servers: what it does, what it waits for, what it leaves, and what it never prints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer import Exit
from typer.testing import CliRunner

from redis_core import Client, connect, secret_watch
from redis_core.api.admin_token import hash_of
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.cli.app import app
from redis_core.cli.exit_codes import ExitCode
from redis_core.cli.rotation.accepted import finish_peppers, rotate_pepper
from redis_core.cli.rotation.walk import Walk
from redis_core.config import load_settings
from redis_core.errors import ConfigError, CredentialsRejected
from redis_core.gateway import GatewayToken, create_gateway, follow_tokens, tokens_from_settings
from redis_core.secret import Secret
from redis_core.testing.fake_clock import FakeClock
from tests.server_process import ServerProcess


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_watch, "POLL", 0.05)
    monkeypatch.setattr("redis_core.cli.rotation.walk._LOOK", 0.05)


@dataclass
class Run:
    """A command that has ended."""

    code: int
    output: str
    error: BaseException | None

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output)
        return found

    @property
    def steps(self) -> dict[str, str]:
        return {step["step"].partition(" file:")[0]: step["status"] for step in self.document["steps"]}


async def rotate(*arguments: str, standard_input: str = "", **settings: str) -> Run:
    """The command, in a thread: the servers that it asks run in this loop."""
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["rotate", *arguments], input=standard_input, env=settings
    )
    return Run(result.exit_code, result.output, result.exception)


@asynccontextmanager
async def under_load(work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Callers that never stop; one that fails ends the test."""
    stop = False

    async def call() -> None:
        while not stop:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(call())
        yield
        stop = True


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, Path]]:
    """A server with the user `app`, and the file of its password."""
    path = tmp_path / "password"
    path.write_text("first-password\n")
    path.chmod(0o640)
    with ServerProcess("redis-server") as server:
        async with await connect(redis_url=server.url) as admin:
            await admin.execute("ACL", "SETUSER", "app", "on", ">first-password", "~*", "&*", "+@all")
        yield server, path


def of_store(server: ServerProcess, path: Path) -> dict[str, str]:
    return {
        "REDIS_URL": f"redis://app@127.0.0.1:{server.port}",
        "REDIS_PASSWORD": f"file://{path}",
        "REDIS_ADMIN_URL": server.url,
    }


async def test_a_password_is_replaced_under_load_and_the_old_one_is_refused(
    store: tuple[ServerProcess, Path],
) -> None:
    server, path = store
    url = f"redis://app@127.0.0.1:{server.port}"
    async with await connect(redis_url=url, redis_password=Secret(f"file://{path}")) as client:
        async with under_load(lambda: client.incr("sys:load")):
            done = await rotate("redis", "--yes", "--json", **of_store(server, path))
        assert done.code == 0, done.output
        new = path.read_text()
        assert await client.ping()
    assert done.document["ok"]
    assert "made" not in done.document or done.document["made"] is None
    assert new not in done.output
    assert "first-password" not in done.output
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in path.parent.iterdir()] == ["password"]
    assert done.steps["take the old one away"] == "done"
    # The server has no file of users: somebody has to write the new password down.
    assert done.steps["keep it over a restart of the server"] == "by hand"
    with pytest.raises(CredentialsRejected):
        async with await connect(redis_url=url, redis_password=Secret("first-password")) as refused:
            await refused.ping()


async def test_a_process_that_does_not_follow_keeps_the_old_password_valid(
    store: tuple[ServerProcess, Path],
) -> None:
    server, path = store
    url = f"redis://app@127.0.0.1:{server.port}"
    async with await connect(
        redis_url=url, redis_password=Secret("first-password"), redis_client_name="left-behind"
    ) as client:
        await client.ping()
        done = await rotate("redis", "--yes", "--wait", "0", **of_store(server, path))
        assert done.code == ExitCode.UNHEALTHY
        assert "left-behind from 127.0.0.1" in done.output
        assert await client.ping()
        async with await connect(redis_url=url, redis_password=Secret("first-password")) as another:
            assert await another.ping()


async def test_nothing_is_changed_unless_it_is_confirmed(store: tuple[ServerProcess, Path]) -> None:
    server, path = store
    for arguments in ((), ("--json",)):
        done = await rotate("redis", *arguments, **of_store(server, path))
        assert done.code == ExitCode.DECLINED
    assert path.read_text() == "first-password\n"
    async with await connect(redis_url=server.url) as admin:
        user = await admin.execute("ACL", "GETUSER", "app")
    assert isinstance(user, list)
    passwords = user[user.index(b"passwords") + 1]
    assert isinstance(passwords, list)
    assert len(passwords) == 1


@pytest.mark.parametrize("reference", ["a-password", "sm://project/name/7"])
async def test_a_secret_that_no_process_would_look_at_again_is_a_wrong_setting(reference: str) -> None:
    done = await rotate("redis", "--yes", REDIS_URL="redis://127.0.0.1:1", REDIS_PASSWORD=reference)
    assert isinstance(done.error, ConfigError)
    assert done.error.variable == "REDIS_PASSWORD"
    assert "a-password" not in str(done.error)


async def test_a_rest_token_is_replaced_and_seen_to_be_gone(memory: Client, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old-token")
    old, new = GatewayToken(Secret("old-token")), GatewayToken(Secret("new-token"))
    gateway = create_gateway(memory.transport, [old, new])
    with bind("127.0.0.1", 0, port_variable="GATEWAY_PORT") as listener:
        async with serve([Site(gateway, listener, gateway.close_streams)]):

            async def operator() -> None:
                while path.read_text() != "new-token":
                    await asyncio.sleep(0.01)
                gateway.accept([new])

            taking_away = asyncio.ensure_future(operator())
            settings = {"UPSTASH_REDIS_URL": url_of(listener), "UPSTASH_REDIS_TOKEN": f"file://{path}"}
            done = await rotate("upstash", "--yes", "--json", standard_input="new-token\n", **settings)
            await taking_away
            assert done.code == 0, done.output
            assert done.steps["see that it is gone"] == "done"
            assert "new-token" not in done.output
            wrong = await rotate("upstash", "--yes", "--json", standard_input="mistyped\n", **settings)
            assert wrong.code == ExitCode.UNHEALTHY
            assert not wrong.document["ok"]
            assert path.read_text() == "new-token"


async def test_an_admin_token_is_added_and_later_the_old_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "admin-tokens"
    path.write_text(f"ada:operator:{hash_of('old')},eye:viewer:{hash_of('eye')}")
    settings = load_settings(mock_redis=True, admin_tokens=f"file://{path}")
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        async with (
            serve([Site(create_app(settings), listener)]),
            aiohttp.ClientSession(url_of(listener)) as http,
        ):

            async def status(token: str) -> int:
                headers = {"Authorization": f"Bearer {token}"}
                async with http.get("/api/v1/admin/whoami", headers=headers) as answer:
                    return answer.status

            async def ok() -> None:
                assert await status("old") == 200

            place = {"ADMIN_TOKENS": f"file://{path}"}
            url = url_of(listener)
            async with under_load(ok):
                begun = await rotate("admin", "ada", "--show", "--yes", "--json", "--url", url, **place)
            assert begun.code == 0, begun.output
            made = begun.document["made"]
            assert await status(made) == 200
            assert made not in path.read_text()
            first = path.read_text().split(",")[0]
            assert first == f"ada:operator:{hash_of(made)}"
            finished = await rotate("admin", "ada", "--finish", "--yes", "--json", **place)
            assert finished.code == 0, finished.output
            async with asyncio.timeout(20):
                while await status("old") != 401:
                    await asyncio.sleep(0.01)
            assert [await status(token) for token in (made, "eye")] == [200, 200]
            again = await rotate("admin", "ada", "--finish", "--yes", "--json", **place)
            assert again.code == ExitCode.UNHEALTHY


async def test_a_token_of_which_only_the_hash_is_kept_has_to_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "admin-tokens"
    path.write_text(f"ada:operator:{hash_of('old')}")
    done = await rotate("admin", "ada", "--yes", ADMIN_TOKENS=f"file://{path}")
    assert done.code == ExitCode.USAGE
    unknown = await rotate("admin", "bob", "--yes", "--show", ADMIN_TOKENS=f"file://{path}")
    assert isinstance(unknown.error, ConfigError)


async def test_a_gateway_token_is_added_and_later_the_old_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "gateway-token"
    path.write_text("old-token")
    settings = load_settings(mock_redis=True, gateway_token=f"file://{path}")
    async with await connect(settings) as client:
        gateway = create_gateway(client.transport, tokens_from_settings(client.settings))
        follow_tokens(client, gateway.accept)
        with bind("127.0.0.1", 0, port_variable="GATEWAY_PORT") as listener:
            async with serve([Site(gateway, listener, gateway.close_streams)]):
                url, place = url_of(listener), {"GATEWAY_TOKEN": f"file://{path}"}
                begun = await rotate("gateway", "--yes", "--json", "--url", url, **place)
                assert begun.code == 0, begun.output
                made, kept = path.read_text().split(",")
                assert kept == "old-token"
                assert made not in begun.output
                finished = await rotate("gateway", "--finish", "--yes", "--json", "--url", url, **place)
                assert finished.code == 0, finished.output
                assert path.read_text() == made
                assert made not in finished.output


async def test_a_service_that_does_not_answer_stops_the_walk_and_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "gateway-token"
    path.write_text("old-token")
    with bind("127.0.0.1", 0, port_variable="GATEWAY_PORT") as listener:
        url = url_of(listener)
    done = await rotate(
        "gateway", "--yes", "--json", "--wait", "0", "--url", url, GATEWAY_TOKEN=f"file://{path}"
    )
    assert done.code == ExitCode.UNHEALTHY
    assert path.read_text().endswith(",old-token")


async def test_a_pepper_is_taken_away_when_its_tokens_are_over_and_not_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "peppers"
    path.write_text("first:" + "1" * 32)
    settings = load_settings(mock_redis=True, session_peppers=f"file://{path}", session_absolute_ttl=86_400)
    clock = FakeClock()

    def walk() -> Walk:
        return Walk("SESSION_PEPPERS", yes=True, as_json=True, show=False, wait=0, clock=clock)

    await rotate_pepper(settings, walk(), clock=clock)
    new, old = path.read_text().split(",")
    assert old == "first:" + "1" * 32
    for days in (0, 1):
        clock.advance(days * 86_400)
        with pytest.raises(Exit) as refused:
            await finish_peppers(settings, walk(), clock=clock)
        assert refused.value.exit_code == ExitCode.UNHEALTHY
        assert path.read_text() == f"{new},{old}"
    clock.advance(2 * 86_400)
    await finish_peppers(settings, walk(), clock=clock)
    assert path.read_text() == new
    assert new.partition(":")[2] not in capsys.readouterr().out


async def test_the_command_of_peppers_and_of_realtime_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for variable, option in (("SESSION_PEPPERS", ()), ("REALTIME_KEYS", ("--realtime",))):
        path.write_text("first:" + "1" * 32)
        done = await rotate("pepper", *option, "--yes", "--json", **{variable: f"file://{path}"})
        assert done.code == 0, done.output
        assert done.document["variable"] == variable
        assert len(path.read_text().split(",")) == 2
        early = await rotate("pepper", *option, "--finish", "--yes", "--json", **{variable: f"file://{path}"})
        assert early.code == ExitCode.UNHEALTHY


async def test_a_file_that_may_not_be_written_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "peppers"
    path.write_text("first:" + "1" * 32)

    def denied(descriptor: int) -> None:
        raise PermissionError(13, "Permission denied")

    # By the system's word, because root may write everywhere.
    monkeypatch.setattr("redis_core.cli.rotation.place.os.fsync", denied)
    done = await rotate("pepper", "--yes", SESSION_PEPPERS=f"file://{path}")
    assert isinstance(done.error, ConfigError)
    assert "1" * 32 not in str(done.error)
    # The draft is gone, the secret is whole.
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("peppers", "first:" + "1" * 32)]


async def test_what_is_in_secret_manager_is_the_operators_to_put_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = ["first:" + "1" * 32]

    async def read(variable: str, reference: Secret, google: object) -> Secret:
        return Secret(held[0])

    monkeypatch.setattr("redis_core.cli.rotation.place.read_secret", read)
    settings = {"SESSION_PEPPERS": "sm://project/session-peppers/latest"}
    done = await rotate("pepper", "--yes", **settings)
    assert done.code == ExitCode.UNHEALTHY
    assert "gcloud secrets versions add session-peppers --project=project --data-file=-" in done.output

    shown = await rotate("pepper", "--yes", "--show", "--wait", "0", **settings)
    assert shown.code == ExitCode.UNHEALTHY
    assert f",first:{'1' * 32}" in shown.output
