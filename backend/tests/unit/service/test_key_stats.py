from __future__ import annotations

import pytest

from redis_core.client import Client
from redis_core.keys import FAMILIES, rate_key
from redis_core.stats import FamilyStats, TtlCoverage, key_stats


async def fill(client: Client) -> None:
    """3 sessions with expiry in 2 workspaces, 2 of an application without, 1 key of nobody's."""
    async with client.pipeline() as batch:
        for workspace, name in (("acme", "a"), ("acme", "b"), ("globex", "a")):
            batch.set(client.workspace(workspace).keys.key("session", name), "1", ex=60)
        for name in ("x", "y"):
            batch.set(client.workspace("acme").keys.key("app", name), "1")
        batch.set("stray", "1")


@pytest.fixture(params=["valkey", "memory"])
def store(request: pytest.FixtureRequest) -> Client:
    client: Client = request.getfixturevalue(request.param)
    return client


async def test_keys_are_counted_by_family_with_their_expiry(store: Client) -> None:
    await fill(store)
    stats = await key_stats(store)
    families = {family.family: family for family in stats.families}
    assert (stats.keys_total, stats.scanned, stats.complete, stats.workspaces) == (6, 6, True, 2)
    assert stats.ttl == TtlCoverage(sampled=6, with_ttl=3, coverage=0.5)
    patterns = {family.name: family.pattern for family in FAMILIES}
    assert families["session"] == FamilyStats("session", patterns["session"], 3, 2, TtlCoverage(3, 3, 1.0))
    assert families["app"] == FamilyStats("app", patterns["app"], 2, 1, TtlCoverage(2, 0, 0.0))
    assert families["undeclared"] == FamilyStats("undeclared", None, 1, 0, TtlCoverage(1, 0, 0.0))


async def test_every_declared_family_is_named_though_it_is_empty(store: Client) -> None:
    stats = await key_stats(store)
    assert [family.pattern for family in stats.families] == [family.pattern for family in FAMILIES]
    assert {family.ttl.coverage for family in stats.families} == {None}
    assert stats.complete


async def test_families_of_one_name_are_told_apart(store: Client) -> None:
    await store.set(rate_key("user", "/agents"), "1", ex=60)
    await store.set(store.workspace("acme").keys.key("rate", "x"), "1", ex=60)
    stats = await key_stats(store)
    rates = [family for family in stats.families if family.family == "rate"]
    assert [(family.keys, family.workspaces) for family in rates] == [(1, 0), (1, 1)]


async def test_a_scan_ends_at_its_limit_and_says_so(valkey: Client) -> None:
    async with valkey.pipeline() as batch:
        for number in range(2_000):
            batch.set(valkey.workspace("acme").keys.key("app", f"n{number}"), "1", ex=60)
    before = valkey.stats.commands
    stats = await key_stats(valkey, limit=600, ttl_sample=10)
    assert (stats.keys_total, stats.complete, stats.ttl.sampled) == (2_000, False, 10)
    assert 600 <= stats.scanned < 1_700
    # DBSIZE, two pages or three, ten PTTL: the budget of the docstring.
    assert valkey.stats.commands - before <= 14


async def test_keys_that_are_no_text_are_counted(valkey: Client) -> None:
    await valkey.set(b"\xff\x00", "1")
    stats = await key_stats(valkey)
    assert stats.families[-1].family == "undeclared"
    assert stats.families[-1].keys == 1
