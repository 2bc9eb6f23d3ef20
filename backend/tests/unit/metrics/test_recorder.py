from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.keys import FAMILIES, family_of, metrics_key
from redis_core.measuring.batch import Batch, Slow, Usage, decode_batch, encode_batch
from redis_core.measuring.histogram import Histogram
from redis_core.measuring.recorder import HOUR
from redis_core.metrics import CATALOGUE, Metrics
from redis_core.transport.memory import MockRedisClient
from tests.metrics_world import NOON, LosingTransport, MovedClock


def metrics_of(client: Client, clock: MovedClock) -> Metrics:
    return Metrics(client, clock=clock)


async def work(client: Client, calls: int = 10) -> None:
    for _ in range(calls):
        await client.get("k")


async def counted(metrics: Metrics, name: str = "operations_total") -> float:
    return (await metrics.recent(3_600)).together().counters.get(name, 0)


async def test_a_process_at_rest_sends_nothing(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    await work(memory)
    assert await metrics.recorder.flush()
    sent = memory.stats.commands
    for _ in range(360):
        clock.time += 10
        assert not await metrics.recorder.flush()
        assert metrics.recorder.since_start().counters["operations_total"] > 0  # as a scrape does
    assert memory.stats.commands == sent


async def test_a_busy_process_sends_one_command_a_flush_and_few_more_an_hour(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    before = memory.stats.commands
    for _ in range(360):
        await work(memory, 1)
        assert await metrics.recorder.flush()
        clock.time += 10
    own = memory.stats.commands - before - 360
    assert own == 360 + 12 + 2  # a minute's totals each, an hour's 12 times, and two expiries


async def test_lost_replies_count_nothing_twice() -> None:
    transport, clock = LosingTransport(), MovedClock()
    async with Client(transport) as client:
        metrics = metrics_of(client, clock)
        await work(client)
        transport.losing = True
        assert not await metrics.recorder.flush()
        assert not await metrics.recorder.flush()
        transport.losing = False
        await work(client)
        assert await metrics.recorder.flush()
        # The calls of `work`, and the two flushes that were lost.
        assert await counted(metrics) == 10 + 10 + 2


async def test_what_an_outage_holds_back_is_written_after_it_into_its_own_minutes() -> None:
    transport, clock = LosingTransport(), MovedClock()
    async with Client(transport) as client:
        metrics = metrics_of(client, clock)
        for minute in range(5):
            await work(client, minute + 1)
            transport.away = True
            assert not await metrics.recorder.flush()
            transport.away = False
            clock.time += 60
        assert metrics.recorder.failures == 5
        assert await metrics.recorder.flush()
        found = (await metrics.recent(600)).buckets
        assert metrics.recorder.failures == 0
        assert [found[int(NOON) + 60 * n].counters["operations_total"] for n in range(5)] == [1, 3, 4, 5, 6]


async def test_processes_are_added_up_and_told_apart(memory: Client) -> None:
    clock = MovedClock()
    first, second = metrics_of(memory, clock), Metrics(Client(memory.transport), clock=clock)
    await work(memory, 3)
    await first.recorder.flush()
    await work(second.archive._client, 4)
    await second.recorder.flush()
    window = await first.recent(60)
    assert len(window.levels) == 2
    assert window.together().counters["operations_total"] == 7


async def test_hours_have_what_minutes_have(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    for _ in range(90):
        await work(memory, 2)
        await metrics.recorder.flush()
        clock.time += 60
    await metrics.recorder.flush(last=True)
    hours = (await metrics.days(1)).buckets
    minutes = (await metrics.recent(2 * HOUR)).buckets
    assert len(hours) == 2
    for begin, batch in hours.items():
        of_hour = [each for at, each in minutes.items() if at // HOUR * HOUR == begin]
        assert batch.counters["operations_total"] == sum(
            each.counters["operations_total"] for each in of_hour
        )


async def test_buckets_expire_and_belong_to_a_declared_family(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    await work(memory)
    await metrics.recorder.flush()
    async with memory.pipeline() as batch:
        times = [
            batch.execute("EXPIRETIME", metrics_key(scale, begin))
            for scale, begin in (("minutes", int(NOON)), ("hours", int(NOON) - 43_200))
        ]
    assert [await each for each in times] == [NOON + 25 * 3_600, NOON - 43_200 + 31 * 86_400]
    family = family_of(metrics_key("minutes", 0))
    assert family in FAMILIES
    assert family.name == "sys-metrics"


async def test_what_is_over_is_read_once(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    await work(memory)
    await metrics.recorder.flush()
    clock.time += 5 * HOUR
    await metrics.recent(6 * HOUR)
    before = memory.stats.commands
    await metrics.recent(6 * HOUR)
    assert (
        memory.stats.commands - before <= 2
    )  # the present hour, and the one before it until its last writer has given up


async def test_a_stored_value_that_does_not_decode_is_left_out(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    await work(memory)
    await metrics.recorder.flush()
    await memory.hset(metrics_key("minutes", int(NOON)), {f"{int(NOON)}:x": "not metrics", "y:z": "{}"})
    assert await counted(metrics) == 10


def test_a_batch_comes_back_as_it_was_stored() -> None:
    histogram = Histogram()
    histogram.add(0.01, 3)
    batch = Batch(
        {"operations_total": 3}, {"jobs_running": 2}, {"operation_duration_seconds|cache": histogram},
        {"acme": Usage(1, 2, 3)}, {"rate:u:/x": 4}, [Slow(0.5, 1.0, "GET", "cache", "acme")],
    )  # fmt: skip
    assert decode_batch(encode_batch(batch)) == batch


def test_levels_of_processes_are_added_and_what_all_look_at_is_not() -> None:
    whole = Batch()
    for running, depth in ((2, 7), (3, 5)):
        whole.add(Batch(levels={"jobs_running": running, "queue_depth|agents": depth}))
    assert whole.levels == {"jobs_running": 5, "queue_depth|agents": 7}


# --- series ---


async def test_a_counter_is_told_as_its_rate(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    for calls in (60, 120):
        await work(memory, calls)
        await metrics.recorder.flush()
        clock.time += 60
    series = await metrics.series(CATALOGUE["operations_total"], clock.time - 180, clock.time, 60)
    assert series.unit == "operations/s"
    assert series.times == [int(NOON) + 60 * n for n in (-1, 0, 1, 2)]
    values = series.lines[0].values
    assert values[0] is None
    assert values[1] == 1
    assert values[2] == pytest.approx(2, abs=0.05)  # the flush of the first minute is a call of the second


@pytest.mark.parametrize(
    ("seconds", "wanted", "step"),
    [
        (900, 1, 60),
        (900, 90, 120),
        (86_400, 60, 60),
        (86_400, 3_600, 3_600),
        (7 * 86_400, 60, 3_600),
        (30 * 86_400, 60, 3_600),
    ],
)
async def test_a_step_is_what_the_buckets_allow(memory: Client, seconds: int, wanted: int, step: int) -> None:
    clock = MovedClock()
    series = await metrics_of(memory, clock).series(
        CATALOGUE["operations_total"], clock.time - seconds, clock.time, wanted
    )
    assert series.step == step
    assert len(series.times) <= 1_500
    assert {len(line.values) for line in series.lines} == {len(series.times)}


async def test_a_histogram_is_told_as_percentiles_in_seconds(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    for milliseconds in range(1, 101):
        memory.meter.observe("queue_wait_seconds", milliseconds / 1_000, "agents")
    await metrics.recorder.flush()
    series = await metrics.series(CATALOGUE["queue_wait_seconds"], clock.time - 60, clock.time, 60)
    assert [line.label for line in series.lines] == ["p50", "p95", "p99"]
    assert [line.values[-1] for line in series.lines] == pytest.approx([0.050, 0.095, 0.099], rel=0.06)


async def test_closing_writes_what_is_new() -> None:
    transport = MockRedisClient()
    async with Client(transport) as client:
        client.service(Metrics).start()
        await work(client)
    async with Client(transport) as other:
        assert (await other.service(Metrics).recent(120)).together().counters["operations_total"] == 10


class Running:
    """Has jobs that run."""

    def totals(self) -> dict[str, float]:
        return {"jobs_running": 4}


async def test_a_process_that_has_not_flushed_this_minute_still_has_its_levels(memory: Client) -> None:
    clock = MovedClock()
    clock.time = NOON + 50
    one, other = metrics_of(memory, clock), metrics_of(memory, clock)
    running = Running()
    memory.meter.watch(running, Running.totals)
    await work(memory)
    await one.recorder.flush()
    clock.time = NOON + 65
    await work(memory)
    await other.recorder.flush()
    assert (await one.recent(3_600)).together().levels["jobs_running"] == 8
    clock.time = NOON + 125
    await work(memory)
    await other.recorder.flush()
    # By now it would have: it is gone.
    assert (await one.recent(3_600)).together().levels["jobs_running"] == 4


async def test_what_a_flush_learns_is_told_by_the_next_even_if_nothing_happens_since(memory: Client) -> None:
    clock = MovedClock()
    metrics = metrics_of(memory, clock)
    memory.meter.lengths["queue_depth|mail"] = ["h"]
    await memory.hset("h", {"a": "1", "b": "2"})
    flushes = 0
    for _ in range(10):
        flushes += await metrics.recorder.flush()
        clock.time += 10
    assert flushes == 2
    assert (await metrics.recent(3_600)).had("queue_depth") == {"mail"}
