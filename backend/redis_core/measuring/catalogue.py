"""Every metric there is: its name, kind, unit and meaning, declared once for the flush, the series, Prometheus and the docs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

__all__ = ["CATALOGUE", "Kind", "Metric", "labelled", "split_label"]

Kind = Literal["counter", "gauge", "histogram"]


class Metric(Struct, frozen=True):
    """One metric. Prometheus shows it as `redis_core_<name>`."""

    name: str
    kind: Kind
    unit: str
    """`seconds`, `bytes`, or what is counted."""
    help: str
    label: str = ""
    """The one label it has, if any. Never a tenant: there may be a million of them."""
    together: Literal["sum", "max"] = "sum"
    """What a gauge of several processes is together: `max` where all look at the same thing."""


_METRICS: Final = (
    Metric("operations_total", "counter", "operations", "Calls: a command, a pipeline or a transaction"),
    Metric("commands_total", "counter", "commands", "Commands sent, each of a batch counted"),
    Metric("billed_commands_total", "counter", "commands", "Commands as Upstash bills them, those inside scripts estimated"),
    Metric("trips_total", "counter", "trips", "Writes to a socket, or requests"),
    Metric("connects_total", "counter", "connections", "Connections opened"),
    Metric("sent_bytes_total", "counter", "bytes", "Bytes sent to the store"),
    Metric("received_bytes_total", "counter", "bytes", "Bytes received from the store"),
    Metric("errors_total", "counter", "errors", "Calls that failed, by the error's class", "kind"),
    Metric("service_operations_total", "counter", "operations", "Calls by whose keys they used", "service"),
    Metric("operation_duration_seconds", "histogram", "seconds", "How long calls took, by whose keys they used", "service"),
    Metric("commands_in_flight", "gauge", "commands", "Commands sent and not yet answered"),
    Metric("cache_lookups_total", "counter", "lookups", "Cached values asked for, by where they were: memory, store, stale or miss", "tier"),
    Metric("cache_loads_total", "counter", "loads", "Values loaded, by how that ended: done or failed", "outcome"),
    Metric("cache_load_seconds_total", "counter", "seconds", "Time spent in loaders"),
    Metric("cache_store_errors_total", "counter", "errors", "Times the cache went on without the store"),
    Metric("rate_limit_decisions_total", "counter", "decisions", "Decisions of rate limits: allowed or refused", "outcome"),
    Metric("rate_limit_degraded_total", "counter", "decisions", "Decisions in which the store took no part"),
    Metric("session_events_total", "counter", "events", "What happened to sessions", "event"),
    Metric("jobs_total", "counter", "jobs", "Runs of jobs by how they ended: done, failed, retried or cancelled", "outcome"),
    Metric("jobs_running", "gauge", "jobs", "Jobs that run now"),
    Metric("job_duration_seconds", "histogram", "seconds", "How long runs of jobs took", "queue"),
    Metric("queue_wait_seconds", "histogram", "seconds", "From enqueueing to the first run, a delay included", "queue"),
    Metric("queue_depth", "gauge", "jobs", "Unfinished jobs of a queue, looked at once a minute by who works on it or enqueues", "queue", "max"),
    Metric("streams", "gauge", "streams", "Realtime connections that are open"),
    Metric("streams_parked", "gauge", "streams", "Realtime connections that have not yet taken what was written last"),
    Metric("stream_lags_total", "counter", "streams", "Times a connection fell behind and was brought up to date from history"),
    Metric("topic_updates_total", "counter", "updates", "Updates published to topics, by kind", "kind"),
    Metric("quota_refusals_total", "counter", "refusals", "Times a workspace's quota was used up, by which: commands, publishes or cache_bytes", "quota"),
    Metric("topics", "gauge", "topics", "Realtime topics that somebody listens to"),
    Metric("stream_messages_total", "counter", "messages", "Messages sent to realtime connections"),
)  # fmt: skip

CATALOGUE: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _METRICS}
"""The metrics by name."""

_BETWEEN: Final = "|"


def labelled(name: str, label: str) -> str:
    """A metric with its label's value: `errors_total|StoreUnavailable`."""
    return f"{name}{_BETWEEN}{label}" if label else name


def split_label(series: str) -> tuple[str, str]:
    """What `labelled` put together."""
    name, _, label = series.partition(_BETWEEN)
    return name, label
