"""The demo's rate limits: the file to edit. docs/rate-limits.md tells what each argument means."""

from __future__ import annotations

from typing import Final

from redis_core.rate_limit import Endpoint, RateLimits, Rule

_LOGIN: Final = Endpoint(
    rules=(Rule("login", "10/min", by="ip", algorithm="log", on_failure="closed", by_plan=False),)
)

LIMITS: Final = RateLimits(
    rules=(
        # Each user at each endpoint; the workspace's users together at all.
        Rule("user", "120/min"),
        Rule("workspace", "1000/min", by="workspace", scope="all"),
    ),
    # The paths as the demo's app has them, wherever it is mounted.
    endpoints={"/login": _LOGIN, "/api/login": _LOGIN},
    plans={"free": 1, "growth": 5},
    default_plan="free",
    file=__file__,
)

PLANS: Final = {"acme": "growth"}
"""What workspaces have bought; the others have the free plan."""


def plan_of(workspace: str | None) -> str:
    """The plan of a workspace. Nothing may wait here, so a product keeps this in memory, or in the token."""
    return PLANS.get(workspace or "", LIMITS.default_plan)
