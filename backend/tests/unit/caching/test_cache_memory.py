"""The memory tier: its bounds hold whatever happens, and no workspace can crowd the others out."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from redis_core.caching.memory import MemoryEntry, MemoryTier, WorkspaceShare, entry_size

KEYS = st.sampled_from([f"k{n}" for n in range(40)])
WORKSPACES = st.sampled_from(["acme", "other", "third"])
REGIONS = st.sampled_from(["r1", "r2"])


def entry(region: str, key: str, size: int = 0, tags: tuple[str, ...] = ()) -> MemoryEntry:
    return MemoryEntry(region, key, key, entry_size(key, size), 0, 1, 1, 1, 1, tags)


def known(share: WorkspaceShare) -> list[MemoryEntry]:
    return [one for entries in share.by_region.values() for one in entries.values()]


class Tier(RuleBasedStateMachine):
    """Any sequence of operations leaves the accounts true and the bounds held."""

    def __init__(self) -> None:
        super().__init__()
        self.tier = MemoryTier(max_entries=25, max_bytes=12_000)

    @rule(workspace=WORKSPACES, region=REGIONS, key=KEYS, size=st.integers(0, 2_000))
    def put(self, workspace: str, region: str, key: str, size: int) -> None:
        self.tier.share(workspace).put(entry(region, key, size, ("t",) if size % 2 else ()))

    @rule(workspace=WORKSPACES, region=REGIONS, key=KEYS)
    def read(self, workspace: str, region: str, key: str) -> None:
        found = self.tier.share(workspace).by_region.get(region, {}).get(key)
        if found is not None:
            assert (found.region, found.key) == (region, key)
            found.frequency = min(found.frequency + 1, 3)

    @rule(workspace=WORKSPACES, region=REGIONS, key=KEYS)
    def remove(self, workspace: str, region: str, key: str) -> None:
        share = self.tier.share(workspace)
        share.remove(region, key)
        assert key not in share.by_region.get(region, {})

    @rule(workspace=WORKSPACES, region=st.none() | REGIONS)
    def flush(self, workspace: str, region: str | None) -> None:
        share = self.tier.share(workspace)
        share.flush(region)
        assert not [one for one in known(share) if region in {None, one.region}]

    @rule(workspace=WORKSPACES)
    def flush_tag(self, workspace: str) -> None:
        share = self.tier.share(workspace)
        share.flush_tag("t")
        assert not [one for one in known(share) if "t" in one.tags]

    @rule()
    def forget(self) -> None:
        self.tier.flush()

    @invariant()
    def accounts_are_true(self) -> None:
        shares = [self.tier.share(name) for name in ("acme", "other", "third")]
        for share in shares:
            assert share.count == len(known(share))
            assert share.bytes == sum(one.size for one in known(share))
            assert len(share._small) + len(share._main) <= 2 * share.count + 64
            assert len(share._ghosts) <= max(25, share.count)
        assert set(self.tier._holders) == {share for share in shares if share.count}
        assert self.tier.count == sum(share.count for share in shares)
        assert self.tier.bytes == sum(share.bytes for share in shares)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.tier.count <= 25
        assert self.tier.bytes <= 12_000


Tier.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestTier = Tier.TestCase


def test_what_is_read_again_outlives_a_scan() -> None:
    tier = MemoryTier(max_entries=100, max_bytes=10**9)
    share = tier.share("acme")
    for number in range(20):
        share.put(entry("r", f"hot{number}"))
        share.by_region["r"][f"hot{number}"].frequency = 2
    for number in range(10_000):
        share.put(entry("r", f"scanned{number}"))
    assert all(f"hot{number}" in share.by_region["r"] for number in range(20))


def test_a_tenant_that_fills_the_tier_cannot_evict_a_quiet_one() -> None:
    tier = MemoryTier(max_entries=100, max_bytes=10**9)
    for number in range(30):
        tier.share("quiet").put(entry("r", str(number)))
    for number in range(5_000):
        tier.share("noisy").put(entry("r", str(number)))
    assert tier.share("quiet").count == 30
    assert tier.count == 100


def test_one_of_many_small_values_cannot_evict_one_of_few_large_ones() -> None:
    tier = MemoryTier(max_entries=1_000, max_bytes=10**9)
    for number in range(100):
        tier.share("quiet").put(entry("r", str(number), 100_000))
    for number in range(5_000):
        tier.share("noisy").put(entry("r", str(number)))
    assert (tier.share("quiet").count, tier.count) == (100, 1_000)


def test_one_of_few_large_values_cannot_evict_one_of_many_small_ones() -> None:
    tier = MemoryTier(max_entries=10**6, max_bytes=1_000_000)
    for number in range(1_000):
        tier.share("quiet").put(entry("r", str(number)))
    for number in range(500):
        tier.share("noisy").put(entry("r", str(number), 50_000))
    assert tier.share("quiet").count == 1_000
    assert 900_000 < tier.bytes <= 1_000_000


def test_new_tenants_get_in_beside_one_that_filled_the_tier() -> None:
    tier = MemoryTier(max_entries=1_000, max_bytes=10**9)
    for number in range(1_000):
        tier.share("noisy").put(entry("r", str(number)))
    quiet = [tier.share(f"quiet{number}") for number in range(200)]
    for number in range(3):
        for share in quiet:
            share.put(entry("r", str(number)))
    assert [share.count for share in quiet] == [3] * 200


def test_workspaces_that_come_and_go_leave_nothing_behind() -> None:
    tier = MemoryTier(max_entries=50, max_bytes=10**9)
    for number in range(500):
        tier.share(f"w{number}").put(entry("r", "a"))
        assert tier.known(f"unheard-of{number}") is None
    assert tier.count == len(tier._holders) == 50
    assert len(tier._shares) <= 51


def test_an_entry_that_is_put_again_keeps_its_one_place() -> None:
    share = MemoryTier().share("acme")
    one = entry("r", "a")
    for _ in range(1_000):
        share.put(one)
    assert (share.count, len(share._small) + len(share._main)) == (1, 1)


def test_a_tenant_alone_may_use_all_the_room() -> None:
    tier = MemoryTier(max_entries=100, max_bytes=10**9)
    for number in range(500):
        tier.share("acme").put(entry("r", str(number)))
    assert tier.share("acme").count == 100


def test_an_entry_larger_than_the_tier_does_not_stay() -> None:
    tier = MemoryTier(max_entries=100, max_bytes=5_000)
    share = tier.share("acme")
    share.put(entry("r", "small"))
    share.put(entry("r", "grows"))
    share.put(entry("r", "huge", 50_000))
    share.put(entry("r", "grows", 50_000))
    assert [one.key for one in known(share)] == ["small"], "and takes nobody with it"
    assert tier.bytes == entry_size("small", 0)


def test_replacing_values_for_ever_does_not_grow_the_queues() -> None:
    tier = MemoryTier(max_entries=100, max_bytes=10**9)
    share = tier.share("acme")
    chance = random.Random(1)
    for _ in range(20_000):
        share.put(entry("r", str(chance.randrange(10))))
    assert len(share._small) + len(share._main) <= 2 * share.count + 64
