"""What may be wrong between this process and its store, and what to do about it.

Each check asks one question and answers with what it found and, unless all is well, with advice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import statistics
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from msgspec import Struct

from redis_core.client import Client
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.config import Settings, reads_production_file
from redis_core.errors import StoreError
from redis_core.health import Status
from redis_core.keys import canary_key
from redis_core.latency import milliseconds
from redis_core.script import Script
from redis_core.store_info import identity_of, memory_of

__all__ = ["Finding", "examine"]

_PINGS: Final = 5
_SLOW_SECONDS: Final = {"upstash": 0.050}
"""Median PING above which a store of this mode is far away; 5 ms for the others."""
_SLOW_SECONDS_ELSE: Final = 0.005
_SKEW_SECONDS: Final = 1.0
_OLDEST: Final = {"redis": (7, 0), "valkey": (7, 2)}
_CANARY_SECONDS: Final = 10
_MESSAGE_SECONDS: Final = 2.0
_EGRESS_SECONDS: Final = 3.0
_CANARY_SCRIPT: Final = Script("doctor", "return redis.call('PTTL', KEYS[1])")


class Finding(Struct, frozen=True):
    """One check's answer."""

    check: str
    status: Status | Literal["skip"]
    found: str
    advice: str | None = None


async def examine(client: Client, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> list[Finding]:
    """Check settings and store; what cannot be asked because the store is away is skipped.

    Writes one key of its own, `sys:canary:...`, that expires after 10 s. Budget: about 15 commands.

    Args:
        client: the store's client.
        settings: what it was made from.
        clock: this host's time.
    """
    client = client.primary  # the store itself, whatever serves while it is away
    findings = [_settings(settings), _encryption(client, settings)]
    try:
        await client.ping()
    except StoreError as error:
        findings.append(_unreachable(error, await _egress(settings)))
        return [*findings, *(Finding(name, "skip", "the store is away") for name in _CHECKS)]
    findings.append(Finding("reachable", "pass", f"{client.transport.target} answers"))
    for name, check in _CHECKS.items():
        try:
            findings.append(await check(client, clock))
        except StoreError as error:
            findings.append(
                Finding(
                    name,
                    "fail",
                    f"{type(error).__name__}: {error}",
                    "let this user run the command, or see the server's log",
                )
            )
    return findings


def _settings(settings: Settings) -> Finding:
    environment = settings.raptorflow_env
    if settings.mock_redis:
        return Finding(
            "settings",
            "warn",
            f"{environment}; MOCK_REDIS is on: this process' memory is the store, and nothing lasts",
            "unset MOCK_REDIS when the store is back",
        )
    if environment != "production" and reads_production_file():
        return Finding(
            "settings",
            "warn",
            f"{environment}, but backend/.env.production is read: what production refuses is allowed here",
            "set RAPTORFLOW_ENV to production, or to development, which leaves that file out",
        )
    if settings.store_address() is None:
        return Finding("settings", "pass", f"{environment}; no store is set: the embedded one is used")
    variable = "UPSTASH_REDIS_URL" if settings.upstash_redis_url else "REDIS_URL"
    return Finding("settings", "pass", f"{environment}; {variable} names the store")


def _encryption(client: Client, settings: Settings) -> Finding:
    address = None if settings.mock_redis else settings.store_address()
    if address is None or address.scheme == "unix":
        return Finding("encryption", "pass", "not needed: nothing leaves this host")
    if not address.tls:
        if all(_is_near(host) for host, _ in address.hosts):
            return Finding("encryption", "pass", "off; the store is on this host or a private network")
        return Finding(
            "encryption",
            "warn",
            f"{client.transport.target} is spoken to in the clear",
            "use rediss:// with a store that offers TLS",
        )
    if not settings.redis_tls_verify:
        return Finding(
            "encryption",
            "fail" if settings.raptorflow_env == "production" else "warn",
            "TLS, but the server's certificate is not verified",
            "unset REDIS_TLS_VERIFY; for a private authority set REDIS_TLS_CA to its file",
        )
    return Finding("encryption", "pass", "TLS, and certificates are verified")


async def _egress(settings: Settings) -> str | None:
    """What keeps this process from the store's address, if it is the way there. Budget: nothing; a look-up and a connection."""
    address = None if settings.mock_redis else settings.store_address()
    if address is None or not address.hosts:
        return None
    host, port = address.hosts[0]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_EGRESS_SECONDS):
            await loop.getaddrinfo(host, port)
    except (OSError, TimeoutError):
        return f"{host} does not resolve here: check the name, and that this network has a DNS server (a VPC connector, the container's resolver)"
    try:
        async with asyncio.timeout(_EGRESS_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except ConnectionRefusedError:
        return None
    except (OSError, TimeoutError):
        return f"no way leads to {host}:{port}: allow egress to it (firewall, VPC connector), and this address in the store's list"
    return None


def _unreachable(error: StoreError, egress: str | None) -> Finding:
    advice = egress or {
        "CredentialsRejected": "check the password in REDIS_URL, or UPSTASH_REDIS_TOKEN",
        "DeadlineExceeded": "check firewall and address, or raise REDIS_COMMAND_TIMEOUT and REDIS_CONNECT_TIMEOUT",
        "ProtocolError": "check that address and port are a Redis server's, and that redis:// or rediss:// fits it",
    }.get(type(error).__name__, "check that the server runs and that address and port are right")
    return Finding("reachable", "fail", f"{type(error).__name__}: {error}", advice)


async def _latency(client: Client, clock: Clock) -> Finding:
    seconds: list[float] = []
    for _ in range(_PINGS):
        before = clock.monotonic()
        await client.ping()
        seconds.append(clock.monotonic() - before)
    median = statistics.median(seconds)
    found = f"PING takes {milliseconds(median):g} ms (median of {_PINGS})"
    if median > _SLOW_SECONDS.get(client.mode, _SLOW_SECONDS_ELSE):
        return Finding("latency", "warn", found, "run this process in the store's region and network")
    return Finding("latency", "pass", found)


async def _version(client: Client, _clock: Clock) -> Finding:
    identity = identity_of(await client.info())
    found = f"{identity.server} {identity.version or 'of unknown version'}"
    if identity.role == "replica":
        return Finding(
            "version", "fail", f"{found}, a replica", "name the primary: a replica takes no writes"
        )
    oldest = _OLDEST.get(identity.server)
    numbers = re.match(r"(\d+)\.(\d+)", identity.version or "")
    if oldest is None or numbers is None:
        return Finding("version", "pass", found)
    if (int(numbers[1]), int(numbers[2])) < oldest:
        return Finding("version", "fail", found, f"upgrade to {oldest[0]}.{oldest[1]} or later")
    return Finding("version", "pass", found)


async def _eviction(client: Client, _clock: Clock) -> Finding:
    memory = memory_of(await client.info())
    policy = memory.eviction_policy
    if policy is None:
        return Finding("eviction", "pass", "the store does not tell its policy")
    limit = f"at {_mebibytes(memory.limit_bytes)}" if memory.limit_bytes else "without a memory limit"
    if policy.startswith("allkeys") and memory.limit_bytes:
        return Finding(
            "eviction",
            "warn",
            f"{policy} {limit}: sessions and queued jobs may be evicted",
            "set maxmemory-policy to noeviction or volatile-ttl, or keep queues in a store of their own",
        )
    return Finding("eviction", "pass", f"{policy} {limit}")


async def _persistence(client: Client, _clock: Clock) -> Finding:
    info = await client.info()
    if client.mode == "memory":
        return Finding("persistence", "warn", "none: memory ends with this process", "use it for tests only")
    if "aof_enabled" not in info:
        return Finding("persistence", "pass", "kept by the store's provider, or not told")
    if info["aof_enabled"] == "1":
        return Finding("persistence", "pass", "append-only file")
    return Finding(
        "persistence",
        "warn",
        "no append-only file: a crash loses what was written since the last snapshot",
        "set appendonly yes if the store holds queues or sessions",
    )


async def _clock_skew(client: Client, clock: Clock) -> Finding:
    before = clock.now()
    server = await client.time()
    after = clock.now()
    skew = server - (before + after) / 2
    found = f"the store's clock is {abs(skew):.3f} s {'ahead of' if skew >= 0 else 'behind'} ours"
    if abs(skew) > _SKEW_SECONDS + (after - before) / 2:
        return Finding("clock", "warn", found, "let both hosts follow the same time source (NTP)")
    return Finding("clock", "pass", found)


async def _writes(client: Client, _clock: Clock) -> Finding:
    """A key with a lifetime, a script on it, its value, and its end."""
    key = canary_key(secrets.token_hex(8))
    await client.set(key, "doctor", ex=_CANARY_SECONDS)
    lifetime = await client.run(_CANARY_SCRIPT, [key])
    value = await client.getdel(key)
    if value != b"doctor" or not isinstance(lifetime, int) or lifetime <= 0:
        return Finding(
            "writes", "fail", "what was written was not read back", "check that the store is the primary"
        )
    return Finding("writes", "pass", "a key was written, seen by a script, read back and removed")


async def _messages(client: Client, _clock: Clock) -> Finding:
    channel = canary_key(secrets.token_hex(8))
    try:
        async with asyncio.timeout(_MESSAGE_SECONDS), await client.subscribe(channel) as subscription:
            await client.publish(channel, "doctor")
            await anext(subscription)
    except TimeoutError:
        return Finding(
            "messages",
            "fail",
            f"a published message did not come back within {_MESSAGE_SECONDS:g} s",
            "let this user PUBLISH and SUBSCRIBE; behind a proxy, let long connections through",
        )
    return Finding("messages", "pass", "a published message came back")


_CHECKS: Final[dict[str, Callable[[Client, Clock], Awaitable[Finding]]]] = {
    "latency": _latency,
    "version": _version,
    "writes": _writes,
    "messages": _messages,
    "eviction": _eviction,
    "persistence": _persistence,
    "clock": _clock_skew,
}


def _is_near(host: str) -> bool:
    """Whether a host is this one or of a private network: an address of such a range, or a name without a dot."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local", ".svc"))
    return address.is_loopback or address.is_private


def _mebibytes(count: int | None) -> str:
    return f"{(count or 0) / 1024**2:,.0f} MiB"
