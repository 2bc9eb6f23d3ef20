"""What this service accepts is replaced ten times under load, without a restart: admin tokens, the gateway's, session and realtime keys."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import httpx
import pytest

from redis_core import Client, connect, secret_watch
from redis_core.api.admin_token import hash_of
from redis_core.api.app import create_app
from redis_core.api.server import Site, bind, serve, url_of
from redis_core.config import load_settings
from redis_core.gateway import create_gateway, follow_tokens, tokens_from_settings
from redis_core.session import Sessions
from tests.secret_file import put

ROTATIONS = 10


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_watch, "POLL", 0.02)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def served(*sites: Site) -> AsyncIterator[None]:
    async with serve(sites):
        yield


class Load:
    """Callers that never stop, with the secret that is in use; an answer that is not 200 ends the test."""

    def __init__(self, ask: Callable[[str], Awaitable[int]], secret: str) -> None:
        self._ask = ask
        self.secret = secret
        self.answered = 0
        self._on_their_way: Counter[str] = Counter()
        self._stop = False

    async def _call(self) -> None:
        while not self._stop:
            shown = self.secret
            self._on_their_way[shown] += 1
            assert await self._ask(shown) == 200
            self._on_their_way[shown] -= 1
            self.answered += 1

    @asynccontextmanager
    async def running(self, callers: int = 8) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._call())
            yield
            self._stop = True

    async def go_on_with(self, secret: str, calls: int = 20) -> None:
        """Use another secret; returns when no call is on its way with the last one, and some were answered with this one."""
        last, self.secret = self.secret, secret
        before = self.answered

        async def reached() -> bool:
            return self.answered >= before + calls and not self._on_their_way[last]

        await until(reached)


async def test_admin_tokens_are_replaced_ten_times_under_load(tmp_path: Path) -> None:
    path = tmp_path / "admin-tokens"
    path.write_text(f"t0:viewer:{hash_of('token-0')}")
    settings = load_settings(mock_redis=True, admin_tokens=f"file://{path}")
    with bind("127.0.0.1", 0, port_variable="RAPTORFLOW_PORT") as listener:
        async with (
            served(Site(create_app(settings), listener)),
            aiohttp.ClientSession(url_of(listener)) as http,
        ):

            async def ask(token: str) -> int:
                headers = {"Authorization": f"Bearer {token}"}
                async with http.get("/api/v1/admin/whoami", headers=headers) as answer:
                    return answer.status

            assert await ask(f"file://{path}") == 401
            load = Load(ask, "token-0")
            async with load.running():
                for number in range(1, ROTATIONS + 1):
                    old, new = f"token-{number - 1}", f"token-{number}"
                    both = f"t{number}:viewer:{hash_of(new)},t{number - 1}:viewer:{hash_of(old)}"
                    put(path, both)

                    async def accepted(new: str = new) -> bool:
                        return await ask(new) == 200

                    await until(accepted)
                    await load.go_on_with(new)
                    put(path, f"t{number}:viewer:{hash_of(new)}")

                    async def refused(old: str = old) -> bool:
                        return await ask(old) == 401

                    await until(refused)
            assert load.answered >= ROTATIONS * 20


async def test_a_list_of_admin_tokens_that_is_malformed_leaves_the_last_good_one_in_use(
    tmp_path: Path,
) -> None:
    path = tmp_path / "admin-tokens"
    path.write_text(f"ada:admin:{hash_of('good')}")
    settings = load_settings(mock_redis=True, admin_tokens=f"file://{path}")
    async with await connect(settings) as client:
        transport = httpx.ASGITransport(create_app(settings, client=client))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            headers = {"Authorization": "Bearer good"}
            assert (await http.get("/api/v1/admin/whoami", headers=headers)).status_code == 200
            put(path, "ada:root:0")
            assert client.secrets is not None
            assert not await client.secrets.refresh("ADMIN_TOKENS")
            assert (await http.get("/api/v1/admin/whoami", headers=headers)).status_code == 200
            # Not open to this host either, as it would be without tokens.
            assert (await http.get("/api/v1/admin/whoami")).status_code == 401


async def test_the_gateways_tokens_are_replaced_ten_times_under_load(tmp_path: Path) -> None:
    path = tmp_path / "gateway-token"
    path.write_text("token-0")
    settings = load_settings(
        mock_redis=True, gateway_token=f"file://{path}", gateway_readonly_token="only-reads"
    )
    async with await connect(settings) as client:
        gateway = create_gateway(client.transport, tokens_from_settings(client.settings))
        follow_tokens(client, gateway.accept)
        with bind("127.0.0.1", 0, port_variable="GATEWAY_PORT") as listener:
            async with (
                served(Site(gateway, listener, gateway.close_streams)),
                aiohttp.ClientSession(url_of(listener)) as http,
            ):

                async def ask(token: str) -> int:
                    headers = {"Authorization": f"Bearer {token}"}
                    async with http.post("/", json=["INCR", "sys:load"], headers=headers) as answer:
                        return answer.status

                load = Load(ask, "token-0")
                async with load.running():
                    for number in range(1, ROTATIONS + 1):
                        old, new = (
                            f"token-{number - 1}",
                            f"token-{number}",
                        )
                        put(path, f"{new},{old}\n")

                        async def accepted(new: str = new) -> bool:
                            return await ask(new) == 200

                        await until(accepted)
                        await load.go_on_with(new)
                        put(path, new)

                        async def refused(old: str = old) -> bool:
                            return await ask(old) == 401

                        await until(refused)
                headers = {"Authorization": "Bearer only-reads"}
                async with http.post("/", json=["GET", "sys:load"], headers=headers) as answer:
                    assert int((await answer.json())["result"]) > ROTATIONS * 20


async def test_an_event_stream_ends_with_its_token(tmp_path: Path) -> None:
    path = tmp_path / "gateway-token"
    path.write_text("stays,goes")
    settings = load_settings(mock_redis=True, gateway_token=f"file://{path}")
    async with await connect(settings) as client:
        gateway = create_gateway(client.transport, tokens_from_settings(client.settings))
        follow_tokens(client, gateway.accept)
        with bind("127.0.0.1", 0, port_variable="GATEWAY_PORT") as listener:
            async with (
                served(Site(gateway, listener, gateway.close_streams)),
                aiohttp.ClientSession(url_of(listener)) as http,
            ):
                streams = {}
                for token in ("stays", "goes"):
                    answer = await http.get("/subscribe/news", headers={"Authorization": f"Bearer {token}"})
                    assert answer.status == 200
                    await answer.content.readuntil(b"\n\n")
                    streams[token] = answer
                put(path, "stays")
                async with asyncio.timeout(20):
                    assert await streams["goes"].content.read() == b""
                await client.publish("news", "still here")
                async with asyncio.timeout(20):
                    assert b"still here" in await streams["stays"].content.readuntil(b"\n\n")
                for answer in streams.values():
                    answer.close()


async def test_session_peppers_of_a_file_are_replaced_ten_times_under_load_and_no_session_ends(
    tmp_path: Path,
) -> None:
    path = tmp_path / "peppers"
    entries = ["p0:" + "0" * 32]
    path.write_text(entries[0])
    settings = load_settings(mock_redis=True, session_peppers=f"file://{path}")
    async with await connect(settings) as client:
        sessions = Sessions.from_settings(client, settings)
        _, token = await sessions.create("ada", "acme")
        tokens = [token]
        calls = 0

        async def use() -> None:
            """Logs in, comes back, and asks for the oldest session, on and on."""
            nonlocal calls
            while True:
                _, mine = await sessions.create("grace", "acme")
                for one, user in ((mine, "grace"), (tokens[0], "ada")):
                    found = await sessions.get(one)
                    assert found is not None
                    assert found.user_id == user
                    calls += 1
                await asyncio.sleep(0)

        users = [asyncio.create_task(use()) for _ in range(8)]
        for number in range(1, ROTATIONS + 1):
            entries.insert(0, f"p{number}:" + secrets.token_hex(16))
            put(path, ",".join(entries))

            async def made_by_the_new_one(number: int = number) -> bool:
                _, made = await sessions.create("ada", "acme")
                tokens.append(made)
                return f".p{number}." in made

            await until(made_by_the_new_one)
            for each in {tokens[0], tokens[-1]}:
                found = await sessions.get(each)
                assert found is not None
                assert found.user_id == "ada"
        assert not [user for user in users if user.done()]
        assert calls >= ROTATIONS * len(users)
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
        assert Sessions.from_settings(client, client.settings)._peppers is sessions._peppers
        put(path, entries[0])

        async def ended() -> bool:
            return await sessions.get(tokens[0]) is None

        await until(ended)


async def test_realtime_keys_of_a_file_are_replaced(tmp_path: Path) -> None:
    from redis_core.realtime_token import RealtimeKeys

    path = tmp_path / "keys"
    path.write_text("k1:" + "1" * 32)
    settings = load_settings(mock_redis=True, realtime_keys=f"file://{path}")
    async with await connect(settings) as client:
        app = create_app(settings, client=client)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            # 401 and not 503: it has its keys.
            answer = await http.post("/api/v1/realtime/publish", json={})
            assert answer.status_code == 401, answer.text
        ring = client.service(RealtimeKeys).ring
        assert ring.current == "k1"
        put(path, "k2:" + "2" * 32 + ",k1:" + "1" * 32)

        async def follows() -> bool:
            return ring.current == "k2"

        await until(follows)


async def test_a_client_whose_settings_name_no_reference_is_not_watched(memory: Client) -> None:
    follow_tokens(memory, lambda tokens: pytest.fail("nothing replaces them"))
    assert memory.secrets is None
