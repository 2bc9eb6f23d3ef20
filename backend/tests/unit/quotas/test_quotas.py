"""Each workspace's quota is held where it is used, and costs the store nothing."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path
from typing import Any

import pytest

import redis_core
from redis_core.api.problems import store_problem
from redis_core.cache import CacheRegion
from redis_core.client import Client
from redis_core.config import load_settings
from redis_core.errors import ConfigError, QueueFull, QuotaExceeded
from redis_core.keys import WorkspaceKeys
from redis_core.queue import task
from redis_core.quota_config import QUOTAS
from redis_core.quotas import Quota, Quotas
from redis_core.rate_limit_config import LIMITS
from tests.hand_clock import HandClock

GUIDE = Path(redis_core.__file__).parents[2] / "docs" / "quotas.md"
TEXT = random.Random(0).randbytes(3_000).hex()
"""Of 3,000 bytes whatever compresses it."""
VALUES = CacheRegion("value", str, ttl=3_600)


@task(name="nothing")
async def nothing() -> None: ...


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def quotas(memory: Client, clock: HandClock) -> Quotas:
    made = Quotas(memory, clock)
    memory._services[Quotas] = made  # the service on a clock that is moved
    made.plan_of = {"acme": "small"}.get
    return made


async def test_updates_of_topics(memory: Client, quotas: Quotas, clock: HandClock) -> None:
    quotas.plans = {"small": Quota(publishes=2)}
    acme, globex = memory.workspace("acme").topic("a"), memory.workspace("globex").topic("a")
    await acme.publish("1")
    await acme.publish("2")
    with pytest.raises(QuotaExceeded, match="acme has used its 2 updates a second up") as refused:
        await acme.publish("3")
    assert refused.value.retry_after == pytest.approx(0.5)
    for _ in range(10):
        await globex.publish("x")
    clock.time += 0.5
    position = await acme.publish("3")
    assert position.offset == 3
    assert memory.meter.take().counters["quota_refusals_total|publishes"] == 1


async def test_bytes_of_the_cache_beyond_which_values_are_kept_briefly(
    memory: Client, quotas: Quotas, clock: HandClock
) -> None:
    quotas.plans = {"small": Quota(cache_bytes=5_000)}

    async def kept(workspace: str, key: str) -> int:
        name = WorkspaceKeys(workspace).key("cache", "value", key)
        left = await memory.execute("PTTL", name)
        assert isinstance(left, int)
        return left

    for workspace in ("acme", "globex"):
        cache = memory.workspace(workspace).cache
        await cache.set(VALUES, "1", TEXT)
        await cache.set(VALUES, "2", TEXT)
        assert await cache.get_or_load(VALUES, "3", _long_text) == TEXT
    assert await kept("acme", "1") > 10_000
    assert 0 < await kept("acme", "2") <= 1_000
    assert 0 < await kept("acme", "3") <= 1_000
    assert await kept("globex", "3") > 10_000
    # What has expired makes room, and so does a flush.
    clock.time += 4_500
    await memory.workspace("acme").cache.set(VALUES, "2", TEXT)
    assert await kept("acme", "2") > 10_000
    await memory.workspace("acme").cache.flush()
    await memory.workspace("acme").cache.set(VALUES, "4", TEXT)
    assert await kept("acme", "4") > 10_000


async def _long_text(_key: str) -> str:
    return TEXT


async def test_unfinished_jobs(memory: Client, quotas: Quotas) -> None:
    quotas.plans = {"small": Quota(queue_depth=2)}
    queue = memory.workspace("acme").queue
    await queue.enqueue(nothing)
    await queue.enqueue(nothing)
    with pytest.raises(QueueFull, match="acme has 2 unfinished jobs, which is its quota"):
        await queue.enqueue(nothing)
    for _ in range(5):
        await memory.workspace("globex").queue.enqueue(nothing)


async def test_commands_are_held_from_the_moment_a_plan_says_so(memory: Client, quotas: Quotas) -> None:
    clock = memory._fair_share._clock = HandClock()
    name = memory.workspace("acme").keys.key("app", "x")
    quotas.plans = {"small": Quota(commands=10)}
    for _ in range(30):
        await memory.get(name)
    assert clock.time == pytest.approx(1_800_000_002.0, abs=0.2)
    quotas.plans = {"small": Quota()}
    before = clock.time
    for _ in range(30):
        await memory.get(name)
    assert clock.time == before


async def test_a_setting_gives_all_a_plan_that_holds_from_the_first_command_on(memory: Client) -> None:
    free = Client(memory.transport, load_settings(mock_redis=True, quota_plan="free"))
    name = free.workspace("acme").keys.key("app", "x")
    most = QUOTAS["free"].commands
    assert most is not None
    with pytest.raises(QuotaExceeded, match="commands a second"):
        await asyncio.gather(*(free.within(0.001).get(name) for _ in range(int(most) * 2)))
    free.service(Quotas).plan_of = {"globex": "enterprise"}.get
    assert free.service(Quotas).of("globex") == Quota()
    assert free.service(Quotas).of("acme") == QUOTAS["free"]
    unknown = Client(memory.transport, load_settings(mock_redis=True, quota_plan="gold"))
    with pytest.raises(ConfigError, match="QUOTA_PLAN is 'gold': name a plan of"):
        unknown.workspace("acme")


async def test_calls_enter_only_where_a_rate_can_apply(memory: Client, quotas: Quotas) -> None:
    entered = [memory._fair_share.limited]
    quotas.plan_of = None
    entered.append(memory._fair_share.limited)
    quotas.plans = {"default": Quota(commands=1)}
    entered.append(memory._fair_share.limited)
    assert entered == [True, False, True]


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_quota_of_nothing_is_a_mistake(limit: float) -> None:
    with pytest.raises(ValueError, match="more than 0, not commands="):
        Quota(commands=limit)


def test_the_plans_are_those_of_the_rate_limits() -> None:
    assert set(QUOTAS) == {"default", *LIMITS.plans}


async def test_nobody_has_a_quota_unless_plans_are_told_apart(memory: Client) -> None:
    assert memory.service(Quotas).of("acme") == Quota()


@pytest.mark.usefixtures("quotas")
async def test_the_program_of_the_guide_runs(memory: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def same_client() -> Client:
        return memory

    monkeypatch.setattr(redis_core, "connect", same_client, raising=False)
    [program] = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(program, "quotas.md", "exec", dont_inherit=True), names)
    await names["announce"]("globex")
    results = await asyncio.gather(*(names["announce"]("acme") for _ in range(30)))
    assert results.count("announced") == 20
    assert results[-1] == "acme is told to slow down"


def test_over_http_it_is_429() -> None:
    refused = QuotaExceeded("acme", "commands a second", 5.0, retry_after=2.3)
    response = store_problem(refused, "GET", "/x")
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert b"acme" not in bytes(response.body)
