from __future__ import annotations

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings, load_settings
from redis_core.doctor import Finding, examine
from tests.server_process import free_port


class SkewedClock:
    """This host's clock, set wrong."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def now(self) -> float:
        import time

        return time.time() + self._ahead

    def monotonic(self) -> float:
        import time

        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def settings_for(**values: object) -> Settings:
    return load_settings(**values)


async def test_a_good_store_passes_and_nothing_is_left_in_it(valkey: Client, valkey_socket: str) -> None:
    findings = by_check(await examine(valkey, settings_for(redis_url=f"unix://{valkey_socket}")))
    failed = {name for name, finding in findings.items() if finding.status not in {"pass", "warn"}}
    assert failed == set()
    assert findings["writes"].status == findings["messages"].status == findings["version"].status == "pass"
    # The tests' server has none, and is told so.
    assert findings["persistence"].status == "warn"
    assert await valkey.dbsize() == 0


async def test_every_finding_that_is_not_well_comes_with_advice(valkey: Client, memory: Client) -> None:
    found = await examine(valkey, settings_for(redis_url="redis://redis.example.com")) + await examine(
        memory, settings_for(mock_redis=True)
    )
    unwell = [finding for finding in found if finding.status in {"warn", "fail"}]
    assert {finding.check for finding in unwell} >= {"settings", "encryption", "persistence"}
    assert all(finding.advice for finding in unwell)


async def test_a_store_that_is_away_fails_one_check_and_skips_the_rest() -> None:
    settings = settings_for(redis_url=f"redis://127.0.0.1:{free_port()}")
    async with await connect(settings) as client:
        findings = by_check(await examine(client, settings))
    assert findings["reachable"].status == "fail"
    assert findings["reachable"].advice is not None
    assert {
        finding.status
        for name, finding in findings.items()
        if name not in {"settings", "encryption", "reachable"}
    } == {"skip"}


async def test_a_clock_that_differs_is_told(valkey: Client, valkey_socket: str) -> None:
    settings = settings_for(redis_url=f"unix://{valkey_socket}")
    findings = by_check(await examine(valkey, settings, clock=SkewedClock(5)))
    assert findings["clock"].status == "warn"
    assert "behind" in findings["clock"].found
    findings = by_check(await examine(valkey, settings, clock=SkewedClock(-5)))
    assert "ahead" in findings["clock"].found


async def test_a_policy_that_evicts_what_must_stay_is_told(valkey: Client, valkey_socket: str) -> None:
    settings = settings_for(redis_url=f"unix://{valkey_socket}")
    await valkey.execute("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    try:
        findings = by_check(await examine(valkey, settings))
    finally:
        await valkey.execute("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    assert findings["eviction"].status == "warn"
    assert "allkeys-lru at 100 MiB" in findings["eviction"].found


async def test_a_user_who_may_not_is_told_so_and_the_rest_is_checked(
    valkey: Client, valkey_socket: str
) -> None:
    await valkey.execute("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-set")
    try:
        settings = settings_for(redis_url=f"unix://reader:pw@{valkey_socket}")
        async with await connect(settings) as client:
            findings = by_check(await examine(client, settings))
    finally:
        await valkey.execute("ACL", "DELUSER", "reader")
    assert findings["writes"].status == "fail"
    assert "PermissionDenied" in findings["writes"].found
    assert findings["clock"].status == "pass"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("redis://10.1.2.3", "pass"),
        ("redis://cache", "pass"),
        ("redis://cache.example.com", "warn"),
        ("redis://8.8.8.8", "warn"),
        ("rediss://cache.example.com", "pass"),
    ],
)
async def test_a_link_in_the_clear_over_a_public_network_is_told(
    memory: Client, url: str, status: str
) -> None:
    findings = by_check(await examine(memory, settings_for(redis_url=url)))
    assert findings["encryption"].status == status


async def test_a_certificate_that_nobody_verifies_is_told(memory: Client) -> None:
    settings = settings_for(redis_url="rediss://cache.example.com", redis_tls_verify=False)
    assert by_check(await examine(memory, settings))["encryption"].status == "warn"


async def test_a_name_that_does_not_resolve_is_told_from_a_server_that_does_not_run() -> None:
    settings = settings_for(redis_url="rediss://no-such-host.invalid:6379", redis_failover=False)
    async with await connect(settings) as client:
        reachable = by_check(await examine(client, settings))["reachable"]
    assert reachable.advice is not None
    assert reachable.advice.startswith("no-such-host.invalid does not resolve here")


async def test_a_way_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nowhere(_host: str, _port: int) -> None:
        raise OSError(113, "No route to host")

    settings = settings_for(redis_url=f"redis://127.0.0.1:{free_port()}", redis_failover=False)
    async with await connect(settings) as client:
        monkeypatch.setattr("asyncio.open_connection", nowhere)
        reachable = by_check(await examine(client, settings))["reachable"]
    assert reachable.advice is not None
    assert "allow egress to it" in reachable.advice


async def test_a_rejected_password_is_told(valkey_socket: str) -> None:
    settings = settings_for(redis_url=f"unix://app:wrong@{valkey_socket}", redis_failover=False)
    async with await connect(settings) as client:
        reachable = by_check(await examine(client, settings))["reachable"]
    assert (reachable.status, reachable.advice) == (
        "fail",
        "check the password in REDIS_URL, or UPSTASH_REDIS_TOKEN",
    )


async def test_a_store_that_is_far_away_is_told(valkey: Client, valkey_socket: str) -> None:
    class SlowClock(SkewedClock):
        """Each look at it is 10 ms after the one before."""

        time = 0.0

        def monotonic(self) -> float:
            self.time += 0.010
            return self.time

    found = by_check(
        await examine(valkey, settings_for(redis_url=f"unix://{valkey_socket}"), clock=SlowClock(0))
    )
    assert (found["latency"].status, found["latency"].advice) == (
        "warn",
        "run this process in the store's region and network",
    )
