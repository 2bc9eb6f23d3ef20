"""What is scraped, and that dashboard and alert rules ask for nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

import redis_core
from redis_core.client import Client
from redis_core.exposition import EXTRA, PREFIX, exposition
from redis_core.measuring.batch import Batch
from redis_core.metrics import CATALOGUE, Metrics
from redis_core.resilience.outage import OutageFigures
from tests.admin_world import asking, bearer, service

_DEPLOY = Path(redis_core.__file__).parents[2] / "deploy"
_SAMPLE = re.compile(r'(\w+)(?:\{((?:\w+="[^"]*",?)+)\})? (\S+)')


def parsed(text: str) -> dict[tuple[str, str], float]:
    """The samples by name and labels; everything else must be HELP or TYPE."""
    found: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP|TYPE) \w+ .+", line)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        found[match[1], match[2] or ""] = float(match[3])
    return found


def names() -> set[str]:
    """All names that can be asked for."""
    found = {PREFIX + name for name in EXTRA}
    for metric in CATALOGUE.values():
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        found |= {PREFIX + metric.name + part for part in parts}
    return found


async def test_a_scrape_shows_what_this_process_did_and_grows_only(memory: Client) -> None:
    async with asking(service(memory)) as http:
        for _ in range(5):
            await memory.get(memory.workspace("tenant-one").keys.key("app", "x"))
        first = await http.get("/metrics", headers=bearer("viewer"))
        assert first.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = parsed(first.text)
        assert samples["redis_core_operations_total", ""] == 5
        assert samples["redis_core_up", ""] == 1
        service_label = 'service="application"'
        assert samples["redis_core_service_operations_total", service_label] == 5
        assert samples["redis_core_operation_duration_seconds_count", service_label] == 5
        assert samples["redis_core_operation_duration_seconds_bucket", f'{service_label},le="+Inf"'] == 5
        assert "tenant-one" not in first.text
        await memory.service(Metrics).recorder.flush()
        again = parsed((await http.get("/metrics", headers=bearer("viewer"))).text)
        assert all(
            again[sample] >= value for sample, value in samples.items() if sample[0].endswith("_total")
        )


def test_buckets_are_cumulative() -> None:
    batch = Batch()
    from redis_core.measuring.histogram import Histogram

    histogram = batch.durations["queue_wait_seconds|agents"] = Histogram()
    for seconds in (0.0001, 0.01, 0.01, 1.0, 100.0):
        histogram.add(seconds)
    samples = parsed(exposition(batch, mode="tcp", up=True, price=0, outage=OutageFigures()))
    counts = [value for (name, _), value in samples.items() if name == "redis_core_queue_wait_seconds_bucket"]
    assert counts == sorted(counts)
    assert (counts[-2], counts[-1]) == (4, 5)


@pytest.mark.parametrize("name", CATALOGUE)
def test_names_follow_the_conventions(name: str) -> None:
    metric = CATALOGUE[name]
    assert re.fullmatch(r"[a-z][a-z_]+", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    if metric.unit in {"seconds", "bytes"}:
        assert metric.unit in name
    assert metric.label not in {"workspace", "tenant", "user"}


def _asked(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}\w+", text))


def test_the_dashboard_asks_for_what_there_is() -> None:
    dashboard = json.loads((_DEPLOY / "grafana" / "redis-core.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    for expression in expressions:
        assert _asked(expression), expression
        assert _asked(expression) <= names(), expression
    shown = {name for expression in expressions for name in _asked(expression)}
    for metric in CATALOGUE.values():
        # Nothing is measured that nobody is shown, but what only the report tells.
        part = "_bucket" if metric.kind == "histogram" else ""
        if metric.name not in {
            "cache_loads_total",
            "cache_load_seconds_total",
            "cache_store_errors_total",
            "operations_total",
        }:
            assert PREFIX + metric.name + part in shown, metric.name


def test_the_alerts_ask_for_what_there_is_and_say_what_to_do() -> None:
    rules = yaml.safe_load((_DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) >= 8
    for alert in alerts:
        assert _asked(alert["expr"]), alert
        assert _asked(alert["expr"]) <= names(), alert
        assert {"summary", "action"} <= alert["annotations"].keys()
        assert alert["labels"]["severity"] in {"critical", "warning"}
