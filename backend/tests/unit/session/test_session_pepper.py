"""The ring of peppers: its form, where it comes from, and that it never shows."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redis_core.config import load_settings
from redis_core.errors import ConfigError
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing, peppers_from_settings

GOOD = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nocolon",
        f":{GOOD}",
        f"UP:{GOOD}",
        f"a-b:{GOOD}",
        "k1:short",
        f"k1:{GOOD},",
        f"k1:{GOOD},k1:{GOOD}",
        f"{'k' * 17}:{GOOD}",
    ],
)
def test_a_malformed_ring_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigError, match="SESSION_PEPPERS") as caught:
        PepperRing(Secret(text))
    assert GOOD not in str(caught.value)
    assert "short" not in str(caught.value).replace("shorter", "")


def test_the_first_key_is_the_current_one_and_a_secret_may_hold_a_colon() -> None:
    ring = PepperRing(Secret(f"new:{GOOD}:x, old:{GOOD}"))
    assert (ring.current, ring.key_ids) == ("new", ("new", "old"))
    assert ring.digest("new", "t") != ring.digest("old", "t")
    assert ring.digest("none", "t") is None
    assert GOOD not in repr(ring)


def test_asvs_6_5_2_a_pepper_of_fewer_than_32_characters_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 32"):
        PepperRing(Secret("k1:" + "x" * 31))
    assert PepperRing(Secret("k1:" + "x" * 32)).current == "k1"


def test_production_without_a_pepper_does_not_start() -> None:
    settings = load_settings(raptorflow_env="production", redis_url="redis://localhost")
    with pytest.raises(ConfigError, match="SESSION_PEPPERS is not set"):
        peppers_from_settings(settings)


def test_settings_name_the_ring() -> None:
    ring = peppers_from_settings(load_settings(session_peppers=f"k2:{GOOD}"))
    assert ring.current == "k2"


def test_development_keeps_one_pepper_that_only_its_owner_reads(tmp_path: Path) -> None:
    settings = load_settings(raptorflow_env="development", raptorflow_state_dir=tmp_path / "state")
    first, second = peppers_from_settings(settings), peppers_from_settings(settings)
    assert first.digest("dev", "t") == second.digest("dev", "t")
    (kept,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.stat().st_uid == os.getuid()


def test_processes_that_start_together_agree_on_one_pepper(tmp_path: Path) -> None:
    settings = load_settings(raptorflow_env="development", raptorflow_state_dir=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: peppers_from_settings(settings), range(16)))
    assert len({ring.digest("dev", "t") for ring in rings}) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_tests_and_memory_leave_no_pepper_behind(tmp_path: Path) -> None:
    for changes in ({"raptorflow_env": "test"}, {"raptorflow_env": "development", "mock_redis": True}):
        settings = load_settings(raptorflow_state_dir=tmp_path, **changes)
        assert peppers_from_settings(settings).current == "dev"
    assert list(tmp_path.iterdir()) == []
