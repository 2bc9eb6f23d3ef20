"""Editing `MOCK_REDIS` in a `.env` file switches a running process."""

from __future__ import annotations

from pathlib import Path

import pytest

from redis_core.config import env_file_stamp, mock_wanted
from redis_core.resilience.env_switch import EnvSwitch
from redis_core.resilience.outage import Outage
from redis_core.testing import FakeClock


class Switched(Outage):
    def __init__(self) -> None:
        self.told: list[bool] = []

    def force(self, on: bool) -> None:
        self.told.append(on)


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAPTORFLOW_ENV", "production")
    (tmp_path / "backend").mkdir()
    return tmp_path / "backend" / ".env.production"


async def test_the_file_switches_both_ways_and_only_when_it_says_something_else(production: Path) -> None:
    outage, clock = Switched(), FakeClock()
    switch = EnvSwitch(outage, clock)
    switch.start()
    await clock.elapse(3)
    assert outage.told == []
    production.write_text("MOCK_REDIS=true\n")
    await clock.elapse(1)
    assert outage.told == [True]
    production.write_text("MOCK_REDIS=true\nREDIS_URL=redis://elsewhere\n")
    await clock.elapse(1)
    assert outage.told == [True]
    production.unlink()
    await clock.elapse(1)
    assert outage.told == [True, False]
    await switch.aclose()
    production.write_text("MOCK_REDIS=true\n")
    await clock.elapse(3)
    assert outage.told == [True, False]


async def test_what_cannot_be_read_switches_nothing(
    production: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Switched()
    switch = EnvSwitch(outage, FakeClock())
    production.write_text("MOCK_REDIS=perhaps\n")
    switch.look()
    assert outage.told == []
    assert "cannot be read" in caplog.text


def test_the_environment_is_stronger_than_a_file(production: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    production.write_text("MOCK_REDIS=true\n")
    assert mock_wanted()
    monkeypatch.setenv("MOCK_REDIS", "false")
    assert not mock_wanted()


def test_development_does_not_look_at_the_production_file(
    production: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPTORFLOW_ENV", "development")
    before = env_file_stamp()
    production.write_text("MOCK_REDIS=true\n")
    assert env_file_stamp() == before
    assert not mock_wanted()
