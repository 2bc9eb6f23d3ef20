"""What the workspaces of each plan may take: the file to edit.

The plans are those of `rate_limit_config.py`. `Quotas.plan_of` says which one a workspace has; where it says nothing it is that of `QUOTA_PLAN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from redis_core.quota import Quota

__all__ = ["QUOTAS"]

_MIB: Final = 1024 * 1024

QUOTAS: Final[Mapping[str, Quota]] = {
    "default": Quota(),
    "free": Quota(commands=500, publishes=20, cache_bytes=16 * _MIB, queue_depth=1_000),
    "starter": Quota(commands=2_000, publishes=50, cache_bytes=64 * _MIB, queue_depth=10_000),
    "growth": Quota(commands=5_000, publishes=200, cache_bytes=256 * _MIB),
    "scale": Quota(commands=20_000, publishes=1_000, cache_bytes=1024 * _MIB),
    "enterprise": Quota(),
}
