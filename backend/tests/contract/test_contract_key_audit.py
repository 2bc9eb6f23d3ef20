"""The key audit finds each kind of fault on every store, and none where there is none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from redis_core.client import Client
from redis_core.errors import PermissionDenied
from redis_core.key_audit import AuditState, KeyAudit, KeyAuditor
from redis_core.key_grammar import Fault
from redis_core.keys import queue_key, rate_key
from tests.contract.rest import READ_ONLY, rest_client

NO_RATE = 1_000_000


def faults(audit: KeyAudit) -> dict[tuple[str, Fault], list[str]]:
    """The examples of each family's faults."""
    return {
        (family.family, finding.fault): sorted(finding.examples)
        for family in audit.families
        for finding in family.findings
    }


async def fill(client: Client, keys: Mapping[str | bytes, int | None]) -> None:
    """Strings with these expiries in seconds."""
    async with client.pipeline() as batch:
        for key, seconds in keys.items():
            batch.set(key, "1", ex=seconds)


async def test_keys_as_they_should_be_have_no_faults(client: Client) -> None:
    acme = client.workspace("acme").keys
    await fill(
        client,
        {
            acme.key("cache", "profile", "u1"): 60,
            acme.key("app", "a", "b"): None,
            acme.key("gen"): None,
            acme.key("gen", "tag", "t"): 60,
            rate_key("u1", "/agents/{id}"): 60,
            f"{rate_key('u1', '/agents')}:bucket.60": 60,
            "sys:epoch": None,
        },
    )
    await client.hset(queue_key("job", "agents#0", "acme", "j1"), {"a": "1"})
    await client.execute("HSET", acme.key("session", "mac"), "_s", "1")
    await client.expire(acme.key("session", "mac"), 60)
    audit = await KeyAuditor(client, rate=NO_RATE).run()
    assert faults(audit) == {}
    assert (audit.faults, audit.complete, audit.keys_total, audit.scanned) == (0, True, 9, 9)
    assert audit.examined == 9
    assert all(family.bytes > 0 for family in audit.families)


async def test_each_kind_of_fault_is_found(client: Client) -> None:
    acme = client.workspace("acme").keys
    await fill(
        client,
        {
            "stray": 60,
            b"\xff\x00": 60,
            "queue:agents": 60,
            "ws:acme:cache:profile:u1": 60,
            "ws:{a b}:app:x": 60,
            "job-result:{agents#0}:a!b:j1": 60,
            "ws:{acme}:widget:x": 60,
            "sys:widget": 60,
            "ws:{acme}:cache:profile": 60,
            "ws:{acme}:gen:tag:a:b": 60,
            "rate:u1": 60,
            acme.key("session", "mac"): 60,
            acme.key("lock-line", "l"): None,
            acme.key("cache", "profile", "eternal"): None,
        },
    )
    await client.set(acme.key("app", "big"), "x" * 2_000_000)
    assert faults(await KeyAuditor(client, rate=NO_RATE).run()) == {
        ("undeclared", Fault.OWNERLESS): ["\\xff\\x00", "queue:agents", "stray"],
        ("undeclared", Fault.FOREIGN_WORKSPACE): ["ws:acme:cache:profile:u1", "ws:{a b}:app:x"],
        ("job-result", Fault.FOREIGN_WORKSPACE): ["job-result:{agents#0}:a!b:j1"],
        ("undeclared", Fault.UNKNOWN_FAMILY): ["sys:widget", "ws:{acme}:widget:x"],
        ("cache", Fault.MALFORMED): ["ws:{acme}:cache:profile"],
        ("gen", Fault.MALFORMED): ["ws:{acme}:gen:tag:a:b"],
        ("rate", Fault.MALFORMED): ["rate:u1"],
        ("session", Fault.WRONG_TYPE): ["ws:{acme}:session:mac"],
        ("lock-line", Fault.WRONG_TYPE): ["ws:{acme}:lock-line:l"],
        ("lock-line", Fault.NO_EXPIRY): ["ws:{acme}:lock-line:l"],
        ("cache", Fault.NO_EXPIRY): ["ws:{acme}:cache:profile:eternal"],
        ("app", Fault.OVERSIZED): ["ws:{acme}:app:big"],
    }


async def test_only_the_keys_of_one_workspace(client: Client) -> None:
    for workspace in ("acme", "acme-2", "globex"):
        await client.set(client.workspace(workspace).keys.key("cache", "r", "k"), "1")
    audit = await KeyAuditor(client, workspace="acme", rate=NO_RATE).run()
    assert faults(audit) == {("cache", Fault.NO_EXPIRY): ["ws:{acme}:cache:r:k"]}
    assert (audit.scanned, audit.workspace, audit.complete) == (1, "acme", True)


async def test_it_goes_on_from_where_another_audit_stopped(client: Client) -> None:
    keys = client.workspace("acme").keys
    await fill(client, {keys.key("cache", "r", f"k{number}"): None for number in range(1_200)})
    state: AuditState | None = None
    calls = 0
    while state is None or not state.complete:
        auditor = KeyAuditor(client, rate=NO_RATE, state=state)
        await auditor.run(keys=300)
        state = AuditState.decode(auditor.state.encode())
        calls += 1
    report = KeyAuditor(client, state=state).report()
    assert calls >= 3
    # Nothing was written meanwhile, so SCAN shows each key once.
    assert (report.scanned, report.examined, report.faults, report.complete) == (1_200, 1_200, 1_200, True)
    (cache,) = report.families
    assert len(cache.findings[0].examples) == 5


async def test_a_token_that_may_not_scan_is_told_so(gateway_url: str) -> None:
    # Upstash keeps SCAN from its read-only token, and so does the gateway.
    async with await rest_client(gateway_url, READ_ONLY) as reader:
        with pytest.raises(PermissionDenied, match="'scan'"):
            await KeyAuditor(reader, rate=NO_RATE).run()


@pytest.mark.parametrize("limit", [100, 100_000])
async def test_one_limit_for_all_families(client: Client, limit: int) -> None:
    key = client.workspace("acme").keys.key("app", "x")
    await client.set(key, "x" * 10_000)
    audit = await KeyAuditor(client, most_bytes=limit, rate=NO_RATE).run()
    assert faults(audit) == ({} if limit > 10_000 else {("app", Fault.OVERSIZED): [key]})
