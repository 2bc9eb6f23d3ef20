"""This process' own figures in Prometheus' text form; each process is scraped by itself.

Names begin with `redis_core_`, units are base units, and no label is a tenant: there may be a million of them. Tenants are in the
admin report, the first twenty and `other`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from redis_core.measuring.batch import Batch
from redis_core.measuring.catalogue import CATALOGUE, Metric, split_label
from redis_core.measuring.cost import price_per_million
from redis_core.measuring.histogram import upper_bound
from redis_core.metrics import Metrics
from redis_core.resilience.outage import OutageFigures

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["EXTRA", "MEDIA_TYPE", "PREFIX", "exposition", "figures_of"]

PREFIX: Final = "redis_core_"
EXTRA: Final = {
    "up": "0 while the store is away or did not take the last flush, else 1",
    "degraded_seconds_total": "Seconds that memory served instead of the store",
    "outages_total": "How often the store was away",
    "journal_records": "Records that wait in the journal for the store",
    "journal_quarantined": "Records of the journal that could not be carried out and wait for a person",
    "cost_dollars_total": "What the billed commands cost, in US dollars",
    "info": "1; its labels tell the library's version and the store's mode",
}
"""What is told besides the catalogue: name and meaning."""
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS: Final = tuple(range(6 * 8, 25 * 8, 8))
"""Every doubling from 64 microseconds to 16.8 seconds: exact bounds of our buckets."""


def figures_of(client: Client) -> str:
    """What this process has measured since it started, as Prometheus reads it. Budget: nothing."""
    metrics = client.service(Metrics)
    return exposition(
        metrics.recorder.since_start(),
        mode=client.mode,
        up=metrics.recorder.failures == 0 and client.mode not in {"degraded", "recovering"},
        price=price_per_million(client.settings, client.mode),
        outage=client.outage.figures,
    )


def exposition(batch: Batch, *, mode: str, up: bool, price: float, outage: OutageFigures) -> str:
    """The figures as Prometheus reads them.

    Args:
        batch: what this process has measured since it started.
        mode: the store's.
        up: whether the store answers.
        price: US dollars a million commands.
        outage: this process' outages and journal.
    """
    from redis_core import __version__  # noqa: PLC0415 - the package's own, which loads this module's siblings

    lines: list[str] = []
    for metric in CATALOGUE.values():
        lines += [
            f"# HELP {PREFIX}{metric.name} {_escaped(metric.help)}",
            f"# TYPE {PREFIX}{metric.name} {metric.kind}",
        ]
        lines += _histogram(metric, batch) if metric.kind == "histogram" else _values(metric, batch)
    billed = batch.counters.get("billed_commands_total", 0)
    lines += _extra("up", "gauge", "", int(up))
    lines += _extra("degraded_seconds_total", "counter", "", outage.degraded_seconds)
    lines += _extra("outages_total", "counter", "", outage.outages_total)
    lines += _extra("journal_records", "gauge", "", outage.waiting)
    lines += _extra("journal_quarantined", "gauge", "", outage.quarantined)
    lines += _extra("cost_dollars_total", "counter", "", billed * price / 1e6)
    lines += _extra("info", "gauge", f'{{version="{__version__}",mode="{mode}"}}', 1)
    return "\n".join(lines) + "\n"


def _extra(name: str, kind: str, labels: str, value: float) -> list[str]:
    full = PREFIX + name
    return [
        f"# HELP {full} {_escaped(EXTRA[name])}",
        f"# TYPE {full} {kind}",
        f"{full}{labels} {_number(value)}",
    ]


def _values(metric: Metric, batch: Batch) -> Iterator[str]:
    values = batch.levels if metric.kind == "gauge" else batch.counters
    found = {
        label: value
        for series, value in values.items()
        for name, label in [split_label(series)]
        if name == metric.name
    }
    if not found and not metric.label:
        found = {"": 0}
    for label, value in sorted(found.items()):
        yield f"{PREFIX}{metric.name}{_labels(metric, label)} {_number(value)}"


def _histogram(metric: Metric, batch: Batch) -> Iterator[str]:
    for series, histogram in sorted(batch.durations.items()):
        name, label = split_label(series)
        if name != metric.name:
            continue
        full = PREFIX + name
        for bound, count in histogram.cumulative(_BOUNDS).items():
            yield f"{full}_bucket{_labels(metric, label, le=repr(upper_bound(bound)))} {count}"
        yield f"{full}_bucket{_labels(metric, label, le='+Inf')} {histogram.count}"
        yield f"{full}_sum{_labels(metric, label)} {_number(histogram.sum)}"
        yield f"{full}_count{_labels(metric, label)} {histogram.count}"


def _labels(metric: Metric, value: str, le: str | None = None) -> str:
    pairs = [f'{metric.label}="{_escaped(value)}"'] if metric.label and value else []
    if le is not None:
        pairs.append(f'le="{le}"')
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
