"""Sessions beside starsessions; rate limits beside limits, throttled-py, pyrate-limiter and upstash-ratelimit.

python backend/benchmarks/session_rate.py [--quick] [--json]
"""

from __future__ import annotations

import session_rate_limits
import session_rate_sessions
from harness import Row, main


async def measure(quick: bool) -> list[Row]:
    """All rows of both halves."""
    limits = [Row(**line) for line in await session_rate_limits.rows(quick)]
    return [*await session_rate_sessions.rows(quick), *limits]


if __name__ == "__main__":
    main("session_rate", measure)
