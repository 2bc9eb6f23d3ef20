"""What a store's INFO says, in types: who it is, how it fares, what it holds."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

__all__ = ["Memory", "ServerFigures", "StoreIdentity", "identity_of", "memory_of", "server_figures_of"]


class StoreIdentity(Struct, frozen=True):
    """Which server it is. None stands for what the store does not tell."""

    server: str
    """`valkey`, `redis`, or the name that the store gives itself."""
    version: str | None
    role: str | None
    """`master` or `replica`."""


class Memory(Struct, frozen=True):
    """The store's memory. None stands for what the store does not tell."""

    used_bytes: int | None
    peak_bytes: int | None
    limit_bytes: int | None
    """`maxmemory`; 0 is no limit."""
    fragmentation_ratio: float | None
    eviction_policy: str | None


class ServerFigures(Struct, frozen=True):
    """The store's own counters, over all its clients. None stands for what the store does not tell."""

    uptime_seconds: int | None
    connected_clients: int | None
    blocked_clients: int | None
    commands_total: int | None
    commands_per_second: int | None
    keyspace_hits_total: int | None
    keyspace_misses_total: int | None
    hit_ratio: float | None
    """Share of key lookups that found the key, 0 to 1; None before the first."""
    expired_keys_total: int | None
    evicted_keys_total: int | None
    rejected_connections_total: int | None
    input_bytes_total: int | None
    output_bytes_total: int | None


def identity_of(info: Mapping[str, str]) -> StoreIdentity:
    """Who answered INFO."""
    # Valkey and Upstash tell in `redis_version` which Redis they are compatible with.
    own = next((name for name in ("valkey", "upstash") if f"{name}_version" in info), "redis")
    role = info.get("role")
    return StoreIdentity(
        server=own if own != "redis" else info.get("server_name", own),
        version=info.get(f"{own}_version"),
        role="replica" if role == "slave" else role,
    )


def memory_of(info: Mapping[str, str]) -> Memory:
    """The memory section."""
    return Memory(
        used_bytes=_integer(info, "used_memory"),
        peak_bytes=_integer(info, "used_memory_peak"),
        limit_bytes=_integer(info, "maxmemory"),
        fragmentation_ratio=_decimal(info, "mem_fragmentation_ratio"),
        eviction_policy=info.get("maxmemory_policy"),
    )


def server_figures_of(info: Mapping[str, str]) -> ServerFigures:
    """The sections of clients and statistics."""
    hits, misses = _integer(info, "keyspace_hits"), _integer(info, "keyspace_misses")
    lookups = (hits or 0) + (misses or 0)
    return ServerFigures(
        uptime_seconds=_integer(info, "uptime_in_seconds"),
        connected_clients=_integer(info, "connected_clients"),
        blocked_clients=_integer(info, "blocked_clients"),
        commands_total=_integer(info, "total_commands_processed"),
        commands_per_second=_integer(info, "instantaneous_ops_per_sec"),
        keyspace_hits_total=hits,
        keyspace_misses_total=misses,
        hit_ratio=round((hits or 0) / lookups, 4) if lookups else None,
        expired_keys_total=_integer(info, "expired_keys"),
        evicted_keys_total=_integer(info, "evicted_keys"),
        rejected_connections_total=_integer(info, "rejected_connections"),
        input_bytes_total=_integer(info, "total_net_input_bytes"),
        output_bytes_total=_integer(info, "total_net_output_bytes"),
    )


def _integer(info: Mapping[str, str], name: str) -> int | None:
    text = info.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _decimal(info: Mapping[str, str], name: str) -> float | None:
    try:
        return float(info[name])
    except (KeyError, ValueError):
        return None
