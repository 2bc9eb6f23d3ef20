"""What is told of the metrics: the documents of `redis-metrics`, `redis-series` and the audit log, one Struct each.

Times are RFC 3339 in UTC where they are text, and Unix seconds where they are numbers. A ratio is 0 to 1. What is not known is None.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from redis_core.latency import Latency
from redis_core.resilience.outage import OutageFigures
from redis_core.store_info import Memory, ServerFigures, StoreIdentity

__all__ = [
    "Alarm",
    "AuditEntry",
    "AuditPage",
    "Cost",
    "DayCost",
    "Done",
    "ErrorFigures",
    "HitRates",
    "JobFigures",
    "JobPage",
    "LiveToken",
    "MetricInfo",
    "MetricList",
    "Offender",
    "OperationLatency",
    "QueueFigures",
    "QueueList",
    "RealtimeFigures",
    "RedisMetrics",
    "Series",
    "SeriesLine",
    "ServiceFigures",
    "SessionFigures",
    "SessionPage",
    "SlowOperation",
    "TopicFigures",
    "Traffic",
    "WhoAmI",
    "WorkspaceFigures",
]

Role = Literal["viewer", "operator", "admin"]


class ConnectionFigures(Struct, frozen=True):
    """The way to the store."""

    mode: str
    target: str
    """Where the store is, without user or secret."""
    reachable: bool
    error: str | None
    """Why it is not reachable."""
    connects_total: int
    """Connections opened by this process, the first included."""


class TransportFigures(Struct, frozen=True):
    """What this process has sent, since it started."""

    commands_total: int
    trips_total: int
    commands_per_trip: float | None
    errors_total: int
    sent_bytes_total: int
    received_bytes_total: int
    commands_in_flight: int
    extra: dict[str, float]
    """What only this kind of transport can tell."""


class OperationLatency(Struct, frozen=True):
    """How long calls took, of a histogram whose buckets are 9 % wide; None before the first call."""

    count: int
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None


class Traffic(Struct, frozen=True):
    """What all processes sent within the window."""

    operations: int
    """Calls: a command, a pipeline or a transaction."""
    operations_per_second: float
    commands: int
    billed_commands: int
    """As Upstash counts them: each command, and those inside a script (estimated from a sample)."""
    trips: int
    errors: int
    error_ratio: float | None
    sent_bytes: int
    received_bytes: int


class HitRates(Struct, frozen=True):
    """Where cached values were found within the window."""

    memory_hits: int
    store_hits: int
    stale_hits: int
    misses: int
    memory_ratio: float | None
    """Hits in memory of all lookups."""
    store_ratio: float | None
    """Hits in the store of the lookups that reached it."""
    hit_ratio: float | None
    """Hits of either tier of all lookups."""


class ServiceFigures(Struct, frozen=True):
    """One service of the library, by whose keys were used: `cache`, `session`, `rate_limit`, `queue`, `application`, ..."""

    service: str
    operations: int
    operations_per_second: float
    latency: OperationLatency


class WorkspaceFigures(Struct, frozen=True):
    """One tenant's share within the window."""

    workspace: str
    """Its id, or `other` for all that are not among the first."""
    commands: int
    bytes: int
    """Of requests and replies, about: without the protocol around them."""
    cost: float


class ErrorFigures(Struct, frozen=True):
    """Errors of one kind within the window."""

    kind: str
    """The error's class: `StoreUnavailable`, `DeadlineExceeded`, ..."""
    count: int


class SlowOperation(Struct, frozen=True):
    """A slow call. Names no key: only the family and the workspace."""

    time: str
    operation: str
    """The command's name; `GET +3` for a batch of four that begins with one."""
    service: str
    workspace: str | None
    duration_ms: float


class QueueFigures(Struct, frozen=True):
    """One queue, all its shards together, just now."""

    queue: str
    unfinished: int
    running: int
    waiting: int
    """Unfinished and not running: ready, delayed or blocked."""
    delayed: int
    workers: int
    dead: int
    """Dead letters of the workspaces that have unfinished jobs, and of those asked for."""
    paused: bool
    workspaces: dict[str, int]
    """Unfinished jobs of the workspaces that have most, at most 20."""


class QueueList(Struct, frozen=True):
    """Queues that there are."""

    queues: list[QueueFigures]


WORKSPACE_SUBJECT: Final = "ws="
"""How a workspace is named among who has limits, where users and addresses are named too."""


class Offender(Struct, frozen=True):
    """Who was refused most within the window."""

    subject: str
    """A user's id, `ip=...`, or `ws=...` for a workspace."""
    endpoint: str
    refused: int


class DayCost(Struct, frozen=True):
    """One day's bill."""

    day: str
    """`2026-11-23`, in UTC."""
    billed_commands: int
    cost: float


class Cost(Struct, frozen=True):
    """What the commands cost, in US dollars; 0 where the store is not billed by command."""

    price_per_million: float
    billed_commands_today: int
    cost_today: float
    forecast_today: float
    """Today's if the rest of the day is as the last 24 hours."""
    forecast_month: float
    """30 days as the last 24 hours."""
    days: list[DayCost]
    """Up to 30, the oldest first, today last."""


class Alarm(Struct, frozen=True):
    """Something that wants a person, the worst first."""

    severity: Literal["critical", "warning"]
    code: str
    """`store-down`, `credentials-rejected`, `read-only`, `degraded`, `mock-mode`, `journal-waiting`, `journal-quarantine`,
    `error-burst`, `queue-stuck`, `bill-forecast`, `metrics-not-flushed`."""
    text: str


class RedisMetrics(Struct, frozen=True):
    """The full report of `GET /api/v1/admin/redis-metrics`.

    `connection`, `transport`, `outage` and `latency` are of the process that answers and are told also while the store is away. `store`,
    `server` and `memory` are the store's own, None while it is away. The others are of all processes within `window_seconds`.
    """

    time: str
    uptime_seconds: float
    """Of this process' service."""
    alarms: list[Alarm]
    connection: ConnectionFigures
    transport: TransportFigures
    outage: OutageFigures
    """How an outage stands in this process, and what its journal keeps."""
    latency: Latency
    """Of the PINGs that health and metrics sent."""
    store: StoreIdentity | None
    server: ServerFigures | None
    memory: Memory | None
    window_seconds: int
    processes: int
    """How many wrote metrics within the window."""
    traffic: Traffic
    operations: OperationLatency
    hit_rates: HitRates
    services: list[ServiceFigures]
    workspaces: list[WorkspaceFigures]
    errors: list[ErrorFigures]
    offenders: list[Offender]
    slow_operations: list[SlowOperation]
    cost: Cost
    counters: dict[str, float]
    """Every counter of the catalogue within the window, by its name and label: `cache_lookups_total|memory`."""


class SeriesLine(Struct, frozen=True):
    """One line of a chart."""

    label: str
    """The label's value; `p50`, `p95` or `p99` of a histogram; empty for a metric without labels."""
    values: list[float | None]
    """One for each of `times`; None where nothing was measured."""


class Series(Struct, frozen=True):
    """A metric over time: a counter as its rate a second, a level as its highest, a histogram as percentiles."""

    metric: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    """Of the values: `1/s`, `bytes/s`, `seconds`, ... """
    step: int
    """Seconds from one time to the next; at least what was asked for."""
    times: list[int]
    """Unix seconds of each step's beginning. The last step may not be over."""
    lines: list[SeriesLine]


class MetricInfo(Struct, frozen=True):
    """One metric that a series can be asked of."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    label: str
    """The label's name, empty if it has none."""
    help: str


class MetricList(Struct, frozen=True):
    """All metrics."""

    metrics: list[MetricInfo]


class AuditEntry(Struct, frozen=True):
    """One change by an operator."""

    id: str
    """The stream's id of the entry, to page with."""
    time: str
    who: str
    """The token's name, `user:<id>` of a session, or `local` for a caller on this host in development."""
    role: Role
    action: str
    """`cache.flush`, `limits.reset`, `sessions.revoke`, `queue.retry`, `queue.cancel`, `queue.delete`, `queue.pause`, ..."""
    target: str
    outcome: Literal["done", "failed"]
    before: dict[str, str | int | float | bool | None]
    after: dict[str, str | int | float | bool | None]


class AuditPage(Struct, frozen=True):
    """Audit entries, the latest first."""

    entries: list[AuditEntry]
    next: str | None
    """Give it as `before` for the page after; None at the end."""


class Done(Struct, frozen=True):
    """What an action did, or would do."""

    action: str
    target: str
    dry_run: bool
    matched: int
    """What the request named, as far as it was found."""
    changed: int
    """What was changed; 0 in a dry run."""


class JobFigures(Struct, frozen=True):
    """One job."""

    id: str
    workspace: str
    queue: str
    task: str | None
    state: str
    """`waiting`, `delayed`, `blocked`, `running`, `done`, `failed`, `cancelled`, `dead` or `unknown`."""
    enqueued: str | None = None
    due: str | None = None
    ended: str | None = None
    progress: float | None = None
    message: str | None = None
    errors: list[str] = []
    """Its failures so far, the first one first: kind and message."""


class JobPage(Struct, frozen=True):
    """Jobs of one workspace and queue."""

    jobs: list[JobFigures]
    next: str | None
    """Give it as `cursor` for the page after; None at the end."""


class SessionFigures(Struct, frozen=True):
    """One session of a user; never its token."""

    handle: str
    """8 characters that name it."""
    workspace: str
    user: str
    created: str
    last_used: str
    ends: str
    device: str | None


class SessionPage(Struct, frozen=True):
    """A user's sessions, the one used last first."""

    sessions: list[SessionFigures]


class TopicFigures(Struct, frozen=True):
    """A topic that somebody listens to in this process."""

    workspace: str
    topic: str
    kind: Literal["events", "state", "append", "presence"]
    listeners: int


class RealtimeFigures(Struct, frozen=True):
    """What the realtime streams of the process that answers do."""

    live: bool
    """Whether the link to the store is up."""
    streams: int
    parked: int
    """Streams whose last write is under way."""
    opened_total: int
    lagged_total: int
    """How often a stream fell behind and was resumed from history."""
    slow_total: int
    """Streams ended because a write took too long."""
    topics_total: int
    """Topics that somebody listens to."""
    topics: list[TopicFigures]
    """Those with most listeners, at most 20."""


class LiveToken(Struct, frozen=True):
    """With it the dashboard's page listens to what changes."""

    token: str
    topic: str
    expires: int
    """Unix seconds."""


class WhoAmI(Struct, frozen=True):
    """Who asks, and what that may."""

    who: str
    role: Role
