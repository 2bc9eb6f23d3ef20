"""The scripts against their Python twins, under Hypothesis, on a real server and in memory, in a time that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.rate_limiting.algorithms import Counter, adjust, counter_for, take
from redis_core.rate_limiting.exact import ExactForm, adjust_script, costs_as_words, take_script, words_for
from redis_core.rate_limiting.policy import Policy, Rule, block_policy
from redis_core.script import Script
from tests.rate_world import START

RULES = {
    "sliding": Rule("sliding", "7/3sec"),
    "sliding-wide": Rule("wide", "300000/min"),
    "fixed": Rule("fixed", "6/3sec", algorithm="fixed"),
    "gcra": Rule("gcra", "9/3sec burst 4", algorithm="gcra"),
    "log": Rule("log", "5/3sec", algorithm="log"),
    "shadow": Rule("shadow", "3/2sec", shadow=True),
    "concurrency": Rule("runs", "2 concurrent", lease=2),
}
KEYS = ("rate:a:/x", "rate:b:/x")


def in_test_time(script: Script) -> Script:
    """The script with the time it is given as its last two words, instead of the server's."""
    text = script.text.replace("redis.call('TIME')", "{table.remove(ARGV, #ARGV - 1), table.remove(ARGV)}")
    assert text != script.text
    return Script(f"{script.name}-in-test-time", text)


TAKE, ADJUST = in_test_time(take_script()), in_test_time(adjust_script())


class Model:
    """The same decisions by the Python counters."""

    def __init__(self, policies: list[Policy]) -> None:
        self.policies = policies
        self.counters: dict[str, list[Counter]] = {}

    def of(self, keys: list[str]) -> list[Counter]:
        for key in keys:
            self.counters.setdefault(key, [counter_for(policy) for policy in self.policies])
        return [counter for key in keys for counter in self.counters[key]]


@st.composite
def steps(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["take", "take", "take", "peek", "adjust", "adjust", "renew"]))
    return (
        kind,
        draw(st.sampled_from([0, 1, 7, 40, 60, 61, 100, 333, 1000, 2600, 2999, 3000, 60_000])),
        draw(st.integers(0, 999)),
        draw(st.sampled_from([[0], [1], [0, 1]])),
        draw(st.integers(0, 3)),
        draw(st.integers(-3, 4)),
    )


async def run(client: Client, rules: list[Rule], script: list[Any], *, block: bool) -> None:
    policies = [rule.policy() for rule in rules] + ([block_policy()] if block else [])
    form, model = ExactForm(policies), Model(policies)
    await client.execute("FLUSHDB")
    now = int(START * 1_000_000)
    taken: list[tuple[int, list[str], str]] = []
    for number, (kind, milliseconds, micros, places, cost, change) in enumerate(script):
        now += milliseconds * 1000 + micros
        clock = (str(now // 1_000_000), str(now % 1_000_000))
        keys = [KEYS[place] for place in places]
        lease = f"{number:016d}"
        if kind in {"take", "peek"}:
            costs = tuple(0 if p.kind == "b" else min(cost, 1) if p.kind == "c" else cost for p in policies)
            words = words_for([[(form, costs_as_words(costs)) for _ in keys]])
            reply = await client.run(TAKE, keys, (kind, lease, *words, *clock))
            expected = take(
                model.of(keys), policies * len(keys), costs * len(keys), now, lease=lease, peek=kind == "peek"
            )
            assert reply == [now // 1000, *expected], (number, kind, keys, costs)
            if kind == "take":
                taken.append((now // 1000, keys, lease))
            continue
        if not taken:
            continue
        then, keys, lease = taken[change % len(taken)]
        penalty = 500 if kind == "renew" else 0
        sign = 1 if kind == "renew" else -1
        changes = tuple(sign if p.kind == "c" else penalty if p.kind == "b" else change for p in policies)
        words = words_for([[(form, costs_as_words(changes))] for _ in keys], counted=False)
        reply = await client.run(ADJUST, keys, (str(then), lease, *words, *clock))
        known = [key in model.counters for key in keys]
        assert all(known)
        adjust(dict(enumerate(model.of(keys))), changes * len(keys), now, then, lease=lease)
        assert isinstance(reply, list)
    for key in KEYS:
        assert await client.pttl(key) != -1, key


MODEL = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@MODEL
@given(
    rules=st.lists(st.sampled_from(list(RULES)), min_size=1, max_size=3, unique=True),
    script=st.lists(steps(), max_size=25),
    block=st.booleans(),
)
async def test_a_real_server_decides_as_the_python_twin_does(
    valkey: Client, rules: list[str], script: list[Any], block: bool
) -> None:
    await run(valkey, [RULES[name] for name in rules], script, block=block)


@MODEL
@given(
    rules=st.lists(st.sampled_from(list(RULES)), min_size=1, max_size=3, unique=True),
    script=st.lists(steps(), max_size=15),
    block=st.booleans(),
)
async def test_the_memory_store_decides_as_the_python_twin_does(
    memory: Client, rules: list[str], script: list[Any], block: bool
) -> None:
    await run(memory, [RULES[name] for name in rules], script, block=block)


@pytest.mark.parametrize("name", list(RULES))
async def test_each_kind_alone_agrees_over_a_long_steady_run(valkey: Client, name: str) -> None:
    script = [("take", 60 if n % 5 else 333, n, [0], 1, 0) for n in range(150)]
    await run(valkey, [RULES[name]], script, block=False)


@pytest.mark.parametrize("name", list(RULES))
async def test_a_correction_agrees_at_each_age_of_what_it_corrects(valkey: Client, name: str) -> None:
    for age in [*range(0, 3200, 50), 1999, 2001, 2999]:
        script = [
            ("take", 0, 0, [0], 3, 0),
            ("adjust", age, 0, [0], 0, 2),
            ("peek", 0, 0, [0], 1, 0),
            ("peek", 60, 0, [0], 1, 0),
        ]
        await run(valkey, [RULES[name]], script, block=False)
