"""The watch over secrets: the last good one stays, a refused one is asked for once, and nothing is said twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from redis_core import connect
from redis_core.clock import SystemClock
from redis_core.config import load_settings
from redis_core.errors import ConfigError, CredentialsRejected
from redis_core.secret import Secret
from redis_core.secret_source import GoogleCloud
from redis_core.secret_watch import SecretWatch, watch_secrets


class Clock(SystemClock):
    """Stands still until told to go on."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.slept: asyncio.Queue[float] = asyncio.Queue()
        self.go = asyncio.Event()

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.put_nowait(seconds)
        await self.go.wait()
        self.go.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("first")
    return path


def watch(path: Path, clock: Clock) -> SecretWatch:
    return SecretWatch({"TOKEN": Secret(f"file://{path}")}, {"TOKEN": Secret("first")}, GoogleCloud(), clock)


async def test_a_replaced_secret_is_handed_on_at_the_next_poll(path: Path) -> None:
    clock, heard = Clock(), asyncio.Queue[Secret]()
    secrets = watch(path, clock)
    secrets.on_change("TOKEN", heard.put)
    assert 30 <= await clock.slept.get() <= 90
    path.write_text("second")
    clock.go.set()
    assert (await heard.get()).reveal() == "second"
    await clock.slept.get()
    assert heard.empty()
    await secrets.aclose()


async def test_what_is_no_reference_is_not_polled(path: Path) -> None:
    clock = Clock()
    secrets = watch(path, clock)
    secrets.on_change("OTHER", asyncio.Queue[Secret]().put)
    await asyncio.sleep(0)
    assert clock.slept.empty()
    assert not await secrets.refresh("OTHER")


async def test_those_who_ask_together_share_one_look_and_a_look_in_vain_is_not_repeated_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    clock = Clock()
    secrets = watch(path, clock)
    look = secrets._look

    async def counted(variable: str) -> bool:
        nonlocal looks
        looks += 1
        return await look(variable)

    monkeypatch.setattr(secrets, "_look", counted)
    assert await asyncio.gather(*(secrets.refresh("TOKEN") for _ in range(50))) == [False] * 50
    assert (looks, await secrets.refresh("TOKEN"), looks) == (1, False, 1)
    path.write_text("second")
    clock.seconds += 2
    assert await asyncio.gather(*(secrets.refresh("TOKEN") for _ in range(50))) == [True] * 50
    assert looks == 2


async def test_while_the_source_fails_or_the_new_secret_is_refused_the_last_good_one_stays_and_it_is_said_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    secrets = watch(path, clock)
    refusing = True

    async def listener(_: Secret) -> None:
        if refusing:
            raise CredentialsRejected("WRONGPASS")

    secrets.on_change("TOKEN", listener)
    path.write_text("second-geheim")
    for _ in range(3):
        clock.seconds += 2
        assert not await secrets.refresh("TOKEN")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.unlink()
    clock.seconds += 2
    assert not await secrets.refresh("TOKEN")
    assert len(caplog.records) == 1
    path.write_text("second-geheim")
    refusing = False
    clock.seconds += 2
    assert await secrets.refresh("TOKEN")
    assert "geheim" not in caplog.text
    await secrets.aclose()


async def test_settings_are_resolved_and_only_references_are_watched(path: Path) -> None:
    settings = load_settings(
        redis_url="redis://127.0.0.1:1",
        redis_password=Secret(f"file://{path}"),
        gateway_token=Secret("plain"),
    )
    resolved, secrets = await watch_secrets(settings)
    assert (resolved.redis_password, resolved.gateway_token) == (Secret("first"), Secret("plain"))
    assert secrets.variables == ("REDIS_PASSWORD",)
    address = resolved.store_address()
    assert address is not None
    assert address.password == Secret("first")


async def test_a_reference_that_cannot_be_read_fails_the_start_and_names_the_setting(tmp_path: Path) -> None:
    settings = load_settings(
        redis_url="redis://127.0.0.1:1", redis_password=Secret(f"file://{tmp_path}/none")
    )
    with pytest.raises(ConfigError, match="REDIS_PASSWORD"):
        await watch_secrets(settings)


async def test_without_references_nothing_is_watched() -> None:
    async with await connect(mock_redis=True) as client:
        assert client.secrets is None
