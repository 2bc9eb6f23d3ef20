"""Where secrets come from: files and Secret Manager, read as they are, refused with what to do."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from redis_core.errors import ConfigError, StoreUnavailable
from redis_core.secret import Secret
from redis_core.secret_source import GoogleCloud, crc32c, is_reference, read_secret


class SecretManager:
    """Google's metadata server and Secret Manager, as far as they are asked."""

    def __init__(self) -> None:
        self.payload = b"geheim"
        self.damaged = False
        self.unsummed = False
        self.status = 200
        self.asked: list[str] = []

    async def token(self, request: web.Request) -> web.Response:
        assert request.headers["Metadata-Flavor"] == "Google"
        return web.json_response({"access_token": "instance", "expires_in": 3000, "token_type": "Bearer"})

    async def access(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer instance"
        self.asked.append(request.path)
        if self.status != 200:
            return web.json_response({"error": {"code": self.status}}, status=self.status)
        sum_of = crc32c(self.payload) ^ self.damaged
        data = base64.b64encode(self.payload).decode()
        payload = {"data": data} if self.unsummed else {"data": data, "dataCrc32c": str(sum_of)}
        return web.json_response({"name": "...", "payload": payload})


@pytest.fixture
def manager() -> SecretManager:
    return SecretManager()


@pytest.fixture
async def google(manager: SecretManager) -> AsyncIterator[GoogleCloud]:
    app = web.Application()
    app.router.add_get("/computeMetadata/v1/instance/service-accounts/default/token", manager.token)
    app.router.add_get("/v1/{path:.*}", manager.access)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield GoogleCloud(f"{host}:{port}", f"http://{host}:{port}")
    await runner.cleanup()


async def read(text: str, google: GoogleCloud | None = None) -> str:
    return (await read_secret("THE_SECRET", Secret(text), google or GoogleCloud())).reveal()


class TestFiles:
    @pytest.mark.parametrize("written", [b"geheim", b"geheim\n", b"geheim\r\n"])
    async def test_a_file_is_the_secret_without_its_last_line_end(
        self, tmp_path: Path, written: bytes
    ) -> None:
        path = tmp_path / "secret"
        path.write_bytes(written)
        assert await read(f"file://{path}") == "geheim"

    @pytest.mark.parametrize("written", [None, b"", b" \n", b"\xff\xfe", b"x" * 70_000])
    async def test_what_is_no_secret_is_refused_and_not_shown(
        self, tmp_path: Path, written: bytes | None
    ) -> None:
        path = tmp_path / "secret"
        if written is not None:
            path.write_bytes(written)
        with pytest.raises(ConfigError, match="THE_SECRET") as caught:
            await read(f"file://{path}")
        assert "xxx" not in str(caught.value)

    async def test_a_relative_path_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="absolute path"):
            await read("file://secret")


class TestSecretManager:
    async def test_a_version_is_read(self, google: GoogleCloud, manager: SecretManager) -> None:
        assert await read("sm://my-project/redis_token/latest", google) == "geheim"
        assert manager.asked == ["/v1/projects/my-project/secrets/redis_token/versions/latest:access"]

    @pytest.mark.parametrize("fault", ["damaged", "unsummed"])
    async def test_a_damaged_payload_is_not_taken(
        self, google: GoogleCloud, manager: SecretManager, fault: str
    ) -> None:
        setattr(manager, fault, True)
        with pytest.raises(StoreUnavailable, match="could not be read"):
            await read("sm://p/s/1", google)

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_what_may_not_be_read_says_what_to_do(
        self, google: GoogleCloud, manager: SecretManager, status: int
    ) -> None:
        manager.status = status
        with pytest.raises(ConfigError, match="Secret Manager Secret Accessor"):
            await read("sm://p/s/1", google)

    async def test_a_service_that_is_away_is_no_wrong_setting(
        self, google: GoogleCloud, manager: SecretManager
    ) -> None:
        manager.status = 503
        with pytest.raises(StoreUnavailable):
            await read("sm://p/s/1", google)
        with pytest.raises(StoreUnavailable):
            await read("sm://p/s/1", GoogleCloud("127.0.0.1:1", "http://127.0.0.1:1"))

    @pytest.mark.parametrize(
        "text", ["sm://", "sm://p/s", "sm://p/s/x", "sm://p/../s/1", "sm://p/s/1/2", "sm://p/s/1\n"]
    )
    async def test_a_malformed_name_is_refused_before_anything_is_asked(self, text: str) -> None:
        with pytest.raises(ConfigError, match="sm://project/secret/version"):
            await read(text)


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0), (b"123456789", 0xE3069283), (b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_the_checksum_is_that_of_the_rfc(data: bytes, value: int) -> None:
    assert crc32c(data) == value


@given(st.text())
def test_only_references_are_taken_for_references(text: str) -> None:
    assert is_reference(Secret(text)) == text.startswith(("file://", "sm://"))
    assert not is_reference(None)


def test_no_message_of_a_reference_shows_where_it_leads(tmp_path: Any) -> None:
    assert "***" in str(Secret("sm://p/s/1"))
