"""What a key audit costs, how fast it is, and what it makes of stores that answer less."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from redis_core.client import Client
from redis_core.errors import CommandError, InvalidKey, PermissionDenied, StoreUnavailable
from redis_core.key_audit import AuditState, FamilyAudit, KeyAuditor
from redis_core.key_grammar import Fault
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient
from tests.hand_clock import HandClock


class Refusing(MockRedisClient):
    """A memory store that refuses some commands, or loses the connection at one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.broken_at = ""
        self.sent: list[Command] = []

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        names = [str(command[0]) for command in batch]
        if self.broken_at in names:
            raise StoreUnavailable("gone")
        self.sent += batch
        replies = await super().execute(batch, timeout=timeout)
        return [
            PermissionDenied(f"NOPERM no '{name.lower()}'") if name in self.refused else reply
            for name, reply in zip(names, replies, strict=True)
        ]


@pytest.fixture
def store() -> Refusing:
    return Refusing()


@pytest.fixture
def client(store: Refusing) -> Client:
    return Client(store)


async def fill(client: Client, count: int) -> None:
    async with client.pipeline() as batch:
        for number in range(count):
            batch.set(client.workspace("acme").keys.key("cache", "r", f"k{number}"), "x" * 100)


def only(families: list[FamilyAudit]) -> FamilyAudit:
    (family,) = families
    return family


async def test_the_budget_is_that_of_the_guide(client: Client, store: Refusing) -> None:
    await fill(client, 250)
    store.sent.clear()
    await KeyAuditor(client, rate=1_000_000).run()
    names = [command[0] for command in store.sent]
    assert names.count("DBSIZE") == 1
    assert names.count("SCAN") <= 4
    assert [names.count(name) for name in ("TYPE", "PTTL", "MEMORY")] == [250] * 3
    assert len(names) <= 755


async def test_no_second_has_more_commands_than_the_rate(client: Client, store: Refusing) -> None:
    await fill(client, 500)
    store.sent.clear()
    clock = HandClock()
    begin = clock.time
    audit = await KeyAuditor(client, rate=100, clock=clock).run()
    assert audit.complete
    # The last batch is not waited after; a page is at most what a second may have.
    assert clock.time - begin >= (len(store.sent) - 100) / 100


async def test_a_slow_rate_makes_small_pages(client: Client, store: Refusing) -> None:
    await fill(client, 30)
    store.sent.clear()
    await KeyAuditor(client, rate=10, clock=HandClock()).run()
    assert {command[command.index("COUNT") + 1] for command in store.sent if command[0] == "SCAN"} == {3}


async def test_bounds_of_a_call(client: Client) -> None:
    await fill(client, 1_000)
    auditor = KeyAuditor(client, rate=100, clock=HandClock())
    first = await auditor.run(keys=150)
    assert 150 <= first.scanned < 1_000
    assert not first.complete
    second = await auditor.run(seconds=5)
    assert first.scanned < second.scanned < 1_000
    assert (await auditor.run()).scanned == 1_000


async def test_names_are_judged_of_all_and_the_rest_of_a_sample(client: Client, store: Refusing) -> None:
    await fill(client, 2_000)
    await client.set("stray", "1")
    store.sent.clear()
    audit = await KeyAuditor(client, sample=200, rate=1_000_000).run()
    assert audit.scanned == 2_001
    assert 100 < audit.examined < 300
    assert {family.family for family in audit.families} == {"cache", "undeclared"}
    assert len([command for command in store.sent if command[0] == "TYPE"]) == audit.examined
    again = await KeyAuditor(client, sample=200, rate=1_000_000).run()
    assert again.families == audit.families
    none = await KeyAuditor(client, sample=0, rate=1_000_000).run()
    assert (none.examined, none.faults) == (0, 1)


async def test_sizes_are_reckoned_where_the_store_does_not_tell_them(client: Client, store: Refusing) -> None:
    store.refused = {"MEMORY"}
    keys = client.workspace("acme").keys
    await fill(client, 200)
    await client.rpush(keys.key("app", "list"), *range(50))
    store.sent.clear()
    audit = await KeyAuditor(client, most_bytes=2_000, rate=1_000_000).run()
    cache, app = audit.families
    assert (audit.estimated, audit.complete, cache.bytes, app.bytes) == (True, True, 20_000, 3_200)
    assert [finding.fault for finding in app.findings] == [Fault.OVERSIZED]
    # It is not asked again and again for what it refuses.
    assert len([command for command in store.sent if command[0] == "MEMORY"]) <= 100


async def test_without_lengths_there_are_no_sizes_and_the_rest_is_told(
    client: Client, store: Refusing
) -> None:
    store.refused = {"MEMORY", "STRLEN"}
    await fill(client, 3)
    cache = only((await KeyAuditor(client, rate=1_000_000).run()).families)
    assert (cache.bytes, cache.examined) == (0, 3)
    assert [(finding.fault, finding.keys) for finding in cache.findings] == [(Fault.NO_EXPIRY, 3)]


@pytest.mark.parametrize("name", ["SCAN", "TYPE", "PTTL"])
async def test_what_it_cannot_do_without_is_an_error(client: Client, store: Refusing, name: str) -> None:
    await fill(client, 3)
    store.refused = {name}
    with pytest.raises(CommandError):
        await KeyAuditor(client).run()


async def test_a_page_that_was_not_answered_is_not_counted(client: Client, store: Refusing) -> None:
    await fill(client, 300)
    auditor = KeyAuditor(client, rate=1_000_000)
    await auditor.run(keys=100)
    kept = auditor.state.encode()
    store.broken_at = "TYPE"
    with pytest.raises(StoreUnavailable):
        await auditor.run()
    assert auditor.state.encode() == kept
    store.broken_at = ""
    audit = await KeyAuditor(client, rate=1_000_000, state=AuditState.decode(kept)).run()
    assert (audit.scanned, audit.examined, audit.faults) == (300, 300, 300)


async def test_a_key_that_is_gone_when_it_is_asked_for_has_no_faults(client: Client, store: Refusing) -> None:
    await fill(client, 3)
    page = await client.scan()
    await client.flushdb()
    found = await KeyAuditor(client)._examine([(key, None) for key in page[1]])
    assert len(page[1]) == 3
    assert found == []


async def test_the_state_is_small_however_many_faults_there_are(client: Client) -> None:
    async with client.pipeline() as batch:
        for number in range(3_000):
            batch.set(f"stray-{number}-{'x' * 400}", "1")
    auditor = KeyAuditor(client, rate=1_000_000)
    audit = await auditor.run()
    assert audit.faults == 3_000
    assert len(auditor.state.encode()) < 4_096


async def test_a_state_of_another_store_or_of_other_rules_is_refused(client: Client) -> None:
    state = KeyAuditor(client).state
    state.store = "elsewhere:6379"
    with pytest.raises(ValueError, match="elsewhere:6379"):
        KeyAuditor(client, state=state)
    state.rules += 1
    with pytest.raises(ValueError, match="other rules"):
        AuditState.decode(state.encode())
    for document in (b"", b"{}", b"[1]", b"\xff"):
        with pytest.raises(ValueError, match="not the state of an audit"):
            AuditState.decode(document)


def test_wrong_arguments_are_refused_before_anything_is_sent(client: Client, store: Refusing) -> None:
    with pytest.raises(InvalidKey):
        KeyAuditor(client, workspace="a b")
    with pytest.raises(ValueError, match="at least one"):
        KeyAuditor(client, rate=0)
    assert store.sent == []
