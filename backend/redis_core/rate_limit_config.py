"""The limits of this service: the file to edit. It is checked when it is loaded; a mistake names the entry and the reason.

A rate is `"100/min"`, `"5/15min"`, `"1000/day"`, `"100/min burst 20"` (with `algorithm="gcra"`) or `"20 concurrent"`.
See `docs/rate-limits.md` for what each argument means.
"""

from __future__ import annotations

from redis_core.rate_limiting.limits import Endpoint, RateLimits
from redis_core.rate_limiting.policy import Penalty, Rule

__all__ = ["LIMITS"]

LIMITS = RateLimits(
    rules=(
        # The sliding window of each user at each endpoint.
        Rule("sliding", "100/min"),
        Rule("burst", "20/sec"),
        # Everything a workspace's users do together, at all endpoints.
        Rule("workspace", "3000/min", by="workspace", scope="all"),
        # Everything that comes from one address, whoever is logged in; not multiplied by a plan.
        Rule("address", "600/min", by="ip", scope="all", by_plan=False),
    ),
    endpoints={
        "/api/v1/auth/login": Endpoint(
            rules=(
                Rule(
                    "login",
                    "5/15min",
                    by="ip",
                    algorithm="log",
                    on_failure="closed",
                    by_plan=False,
                    penalty=Penalty(after=10, within=600, seconds=3600),
                ),
            ),
        ),
        "/api/v1/agents/{agent_id}/runs": Endpoint(
            rules=(
                Rule("runs", "20 concurrent", by="workspace", lease=30),
                Rule("tokens-minute", "200000/min", by="workspace", unit="tokens"),
                Rule("tokens-day", "5000000/day", by="workspace", unit="tokens"),
            ),
        ),
        "/api/v1/health": Endpoint(exempt=True),
    },
    # What each customer plan multiplies the limits by.
    plans={"free": 1, "starter": 2, "growth": 5, "scale": 10, "enterprise": 50},
    default_plan="free",
    # User ids, workspace ids, addresses and networks that are always refused.
    deny=(),
    # How many proxies of ours stand in front; 0 believes no X-Forwarded-For.
    trusted_proxies=0,
    ipv6_prefix=64,
    # True watches and refuses nothing.
    shadow=False,
    legacy_headers=False,
    file=__file__,
)
