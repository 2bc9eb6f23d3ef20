"""A short storm: nothing acknowledged is lost, nothing is doubled. `make chaos SEEDS=20` runs long ones; see `storm.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).with_name("storm.py")


@pytest.mark.timeout(240)
def test_a_storm_loses_and_doubles_nothing() -> None:
    """A process of its own, as `make chaos` runs it: whatever it leaves behind is not this one's."""
    found = subprocess.run(
        [sys.executable, str(STORM), "1", "8"], check=False, capture_output=True, text=True, env=os.environ
    )
    sys.stdout.write(found.stdout)
    assert found.returncode == 0, found.stdout + found.stderr
    *_, total = found.stdout.splitlines()
    acknowledged = int(total.split()[1].rstrip(","))
    assert acknowledged > 0
    assert total == f"acknowledged {acknowledged}, lost 0, doubled 0"
