"""Whether the store is well: what the health endpoint, the command line and a load balancer are told.

The document is that of draft-inadarei-api-health-check-06, `application/health+json`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

import redis_core
from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import Kind, StoreError
from redis_core.latency import LatencyRing, milliseconds
from redis_core.resilience.outage import NO_OUTAGE, OutageFigures, State
from redis_core.store_info import StoreIdentity, identity_of

__all__ = ["READY_BUDGET", "Check", "Health", "HealthProbe", "Status", "timestamp"]

Status = Literal["pass", "warn", "fail"]

READY_BUDGET: Final = 0.25
"""Seconds that a readiness probe waits for the store: load balancers give up soon after."""
_READY_CACHE: Final = 1.0
_DETAIL_BUDGET: Final = 1.0
_AWAY: Final = frozenset({State.DEGRADED, State.RECOVERING})
_DEGRADED_MODES: Final = frozenset({"memory", "degraded", "recovering"})


class Check(Struct, frozen=True, rename="camel"):
    """One measurement."""

    component_type: Literal["datastore", "system"]
    status: Status
    time: str
    observed_value: float | UnsetType = UNSET
    observed_unit: str | UnsetType = UNSET
    output: str | UnsetType = UNSET
    """What is wrong, if something is."""


class Health(Struct, frozen=True, rename="camel"):
    """The service's health."""

    status: Status
    version: str
    """Of the interface."""
    release_id: str
    """Of the software."""
    service_id: str
    checks: dict[str, list[Check]]
    mode: str | UnsetType = UNSET
    """The store's mode: `upstash`, `tcp`, `cluster`, `memory`, `degraded` or `recovering`."""
    degraded: bool | UnsetType = UNSET
    """Whether memory serves instead of a store that lasts."""
    store: StoreIdentity | UnsetType = UNSET
    output: str | UnsetType = UNSET
    """What is wrong, if something is."""


class HealthProbe:
    """Asks one client's store how it is, and remembers how long the answers took.

    Args:
        client: the client to ask through.
        started: when the service started, by the clock's monotonic time; None is now.
        clock: where time comes from.
    """

    def __init__(self, client: Client, *, started: float | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.client = client
        self.latency = LatencyRing()
        self._clock = clock
        self._started = clock.monotonic() if started is None else started
        self._identity: tuple[int, StoreIdentity] | None = None
        self._ready: tuple[float, Health] | None = None
        self._asking = asyncio.Lock()

    @property
    def uptime(self) -> float:
        """Seconds since the service started."""
        return self._clock.monotonic() - self._started

    def live(self) -> Health:
        """Whether this process answers. Never asks the store, or an outage would restart every process. Budget: 0."""
        return self._health("pass", {"process:uptime": [self._uptime_check()]})

    async def ready(self) -> Health:
        """Whether this process should be sent requests: asked at most once a second, within 0.25 s. Budget: 1 command."""
        async with self._asking:
            now = self._clock.monotonic()
            if self._ready is None or now - self._ready[0] >= _READY_CACHE:
                self._ready = now, await self.ask(READY_BUDGET)
            return self._ready[1]

    async def detail(self) -> Health:
        """Health with the store's name and version. Budget: 1 command, 1 more after each new connection."""
        return await self.ask(_DETAIL_BUDGET, identify=True)

    async def ask(self, timeout: float, *, identify: bool = False) -> Health:
        """PING the store and say how it is.

        Args:
            timeout: seconds it may take to answer.
            identify: whether to find out which server it is, too.
        """
        before = self._clock.monotonic()
        try:
            await self.client.primary.within(timeout).ping()
        except StoreError as error:
            return self._failed(error)
        seconds = self._clock.monotonic() - before
        self.latency.add(seconds)
        checks = {
            "redis:responseTime": [
                Check("datastore", "pass", timestamp(self._clock), milliseconds(seconds), "ms"),
            ],
            "process:uptime": [self._uptime_check()],
        }
        identity = await self._identify(timeout) if identify else UNSET
        return self._health(
            "warn"
            if self.client.mode in {"degraded", "recovering"} or self.client.outage.figures.quarantined
            else "pass",
            checks,
            store=identity,
        )

    def _failed(self, error: StoreError) -> Health:
        output = f"{type(error).__name__}: {error}"
        # An outage that the process goes on in is no reason to take it away; one that it cannot is.
        goes_on = error.kind is Kind.UNREACHABLE and self.client.outage is not NO_OUTAGE
        check = Check("datastore", "fail", timestamp(self._clock), output=output)
        checks = {"redis:responseTime": [check], "process:uptime": [self._uptime_check()]}
        return self._health("warn" if goes_on else "fail", checks, output=output, degraded=goes_on)

    def _health(
        self,
        status: Status,
        checks: dict[str, list[Check]],
        *,
        store: StoreIdentity | UnsetType = UNSET,
        output: str | UnsetType = UNSET,
        degraded: bool = False,
    ) -> Health:
        mode = self.client.mode
        outage = self.client.outage
        if outage is not NO_OUTAGE:
            checks = {
                **checks,
                "redis:outage": [self._outage_check(outage.figures)],
                "redis:journal": [self._journal_check(outage.figures)],
            }
        return Health(
            status=status,
            version="1",
            release_id=redis_core.__version__,
            service_id="raptorflow-redis",
            checks=checks,
            mode=mode,
            degraded=degraded or mode in _DEGRADED_MODES,
            store=store,
            output=output,
        )

    async def _identify(self, timeout: float) -> StoreIdentity | UnsetType:
        """Which server it is; asked again after a new connection, since that may lead to another."""
        connects = self.client.stats.connects
        if self._identity is None or self._identity[0] != connects:
            try:
                info = await self.client.primary.within(timeout).info()
            except StoreError:
                # An ACL user may PING and not INFO: the store is well, and nameless.
                return UNSET
            self._identity = connects, identity_of(info)
        return self._identity[1]

    def _outage_check(self, figures: OutageFigures) -> Check:
        """Whether memory serves, and for how long it did in all outages of this process."""
        wrong = [
            said
            for holds, said in (
                (figures.forced, "an operator keeps the store away (mock mode)"),
                (figures.state in _AWAY and not figures.forced, f"the store is away: {figures.state}"),
                (figures.credentials_rejected, "the store rejects our credentials"),
                (figures.read_only, "the store takes no writes"),
            )
            if holds
        ]
        return Check(
            "system",
            "warn" if wrong else "pass",
            timestamp(self._clock),
            round(figures.degraded_seconds, 1),
            "s",
            "; ".join(wrong) or UNSET,
        )

    def _journal_check(self, figures: OutageFigures) -> Check:
        """How much waits for the store, and whether something needs a person."""
        aside = figures.quarantined
        output = f"{aside} records could not be carried out and are in quarantine" if aside else UNSET
        return Check(
            "system", "warn" if aside else "pass", timestamp(self._clock), figures.waiting, "records", output
        )

    def _uptime_check(self) -> Check:
        return Check("system", "pass", timestamp(self._clock), round(self.uptime, 1), "s")


def timestamp(clock: Clock) -> str:
    """The time as RFC 3339 has it, in UTC, to the millisecond."""
    return datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
