"""A short blackout under light load. `python backend/tests/chaos/blackout_load.py 200 10` is the long one, whose figures are in the docs."""

from __future__ import annotations

import pytest

from tests.chaos.blackout_load import blackout


@pytest.mark.timeout(180)
async def test_visitors_of_the_demo_see_no_error_of_the_service_in_a_blackout() -> None:
    seen = await blackout(40, 2.0, before=0.5, after=0.5, visitors=8)
    assert seen.failures == {}, str(seen)
    assert seen.modes == {"degraded"}
    for phase in ("before", "away", "after"):
        assert sum(seen.statuses[phase].values()) > 0, f"nobody asked: {seen}"
    # The journal's jobs among them: who asked for a plan while the store was away was told that it is taken in.
    assert seen.seconds_to_return < 60
