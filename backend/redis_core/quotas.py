"""Noisy neighbours: each workspace's quota, held where it is used.

::

    quotas = redis.service(Quotas)
    quotas.plans = {"free": Quota(commands=500, publishes=20), "scale": Quota()}
    quotas.plan_of = plans.get      # a workspace's plan, from memory: it is asked at every use

Nothing here asks the store. Commands and publishes are counted in this process; a fleet of four processes lets through four times as much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import ConfigError, QuotaExceeded
from redis_core.log import get_logger
from redis_core.quota import Quota
from redis_core.quota_config import QUOTAS

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Quota", "Quotas"]

_NO_QUOTA: Final = Quota()
_BRIEFLY: Final = 1_000
"""Milliseconds that a value is kept which is beyond the quota: long enough for those who wait for its load."""
_SLOT: Final = 300
"""Seconds of expiry times that are counted as one."""
_MOST_WORKSPACES: Final = 10_000
_LOG: Final = get_logger("redis_core.quotas")


class Quotas:
    """One a client; see `Client.service`.

    Args:
        client: whose calls it holds to the quotas.
        clock: the time.

    Raises:
        ConfigError: `QUOTA_PLAN` names no plan.
    """

    def __init__(self, client: Client, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._clock = clock
        self._plans: Mapping[str, Quota] = QUOTAS
        self._plan_of: Callable[[str], str | None] | None = None
        self._publishes: dict[str, tuple[float, float]] = {}
        self._cached: dict[str, defaultdict[int, int]] = {}
        self._warned: set[tuple[str, str]] = set()
        self._default = client.settings.quota_plan
        if self._default not in QUOTAS:
            known = ", ".join(QUOTAS)
            raise ConfigError(
                "QUOTA_PLAN", self._default, f"name a plan of redis_core/quota_config.py: {known}"
            )
        if QUOTAS[self._default].commands is not None:
            self._hold_to_rates()

    @property
    def plans(self) -> Mapping[str, Quota]:
        """The quotas by plan; setting them takes effect at once."""
        return self._plans

    @plans.setter
    def plans(self, plans: Mapping[str, Quota]) -> None:
        self._plans = plans
        self._hold_to_rates()

    @property
    def plan_of(self) -> Callable[[str], str | None] | None:
        """Tells a workspace's plan, at every use; None, for it or for a workspace, is the plan of `QUOTA_PLAN`."""
        return self._plan_of

    @plan_of.setter
    def plan_of(self, plan_of: Callable[[str], str | None] | None) -> None:
        self._plan_of = plan_of
        self._hold_to_rates()

    def _hold_to_rates(self) -> None:
        # Only where a rate can apply: then every call has to enter.
        plans = self._plans
        applicable = [plans.get(self._default, _NO_QUOTA)] if self._plan_of is None else plans.values()
        limits = any(quota.commands is not None for quota in applicable)
        self._client.hold_to(self._commands if limits else None)

    def of(self, workspace: str) -> Quota:
        """What a workspace may take. Budget: nothing."""
        plans = self._plans
        plan = None if self._plan_of is None else self._plan_of(workspace)
        return plans.get(plan or self._default) or plans.get(self._default, _NO_QUOTA)

    def _commands(self, workspace: str) -> float | None:
        return self.of(workspace).commands

    def publish(self, workspace: str) -> None:
        """Count an update of a topic: a token bucket that holds one second's worth. Budget: nothing.

        Raises:
            QuotaExceeded: too many; nothing was published.
        """
        rate = self.of(workspace).publishes
        if rate is None:
            return
        now = self._clock.monotonic()
        most = max(1.0, rate)
        left, at = self._publishes.get(workspace, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1:
            self._used_up(workspace, "publishes")
            raise QuotaExceeded(workspace, "updates a second", rate, retry_after=(1 - left) / rate)
        if len(self._publishes) >= _MOST_WORKSPACES:
            # Who is forgotten has a full bucket, as who was idle for a second.
            self._publishes.clear()
        self._publishes[workspace] = left - 1, now

    def keep(self, workspace: str, size: int, milliseconds: int) -> int:
        """For how long a cached value may be kept: as asked, or a second where the workspace has its share. Budget: nothing.

        An upper estimate: a value that is replaced or deleted counts until it would have expired; `flushed` begins anew.

        Args:
            workspace: whose.
            size: bytes of the value and its key.
            milliseconds: as asked.
        """
        most = self.of(workspace).cache_bytes
        if most is None:
            return milliseconds
        now = self._clock.monotonic()
        cached = self._cached.get(workspace)
        if cached is None:
            if len(self._cached) >= _MOST_WORKSPACES:
                self._cached.clear()
            cached = self._cached[workspace] = defaultdict(int)
        for slot in [slot for slot in cached if slot < now // _SLOT]:
            del cached[slot]
        if sum(cached.values()) + size > most:
            self._used_up(workspace, "cache_bytes")
            return min(milliseconds, _BRIEFLY)
        cached[int((now + milliseconds / 1000) // _SLOT)] += size
        return milliseconds

    def flushed(self, workspace: str) -> None:
        """A workspace's cache was emptied."""
        self._cached.pop(workspace, None)

    def queue_depth(self, workspace: str) -> int:
        """Unfinished jobs a workspace may have in one queue. Budget: nothing."""
        most = self.of(workspace).queue_depth
        return self._client.settings.queue_max_depth if most is None else most

    def _used_up(self, workspace: str, quota: str) -> None:
        self._client.meter.count("quota_refusals_total", quota)
        if (workspace, quota) not in self._warned and len(self._warned) < _MOST_WORKSPACES:
            self._warned.add((workspace, quota))
            _LOG.warning("a workspace has used its quota up", workspace=workspace, quota=quota)

    async def aclose(self) -> None:
        """Nothing to end."""
