"""From settings to the transport they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_core.errors import ConfigError

if TYPE_CHECKING:
    from redis_core.config import Settings
    from redis_core.transport.base import Transport

__all__ = ["open_transport"]


async def open_transport(settings: Settings) -> Transport:
    """The transport of the store that the settings name, with failover to memory unless that is off.

    Only the store's own library is loaded.

    Raises:
        ConfigError: a setting is wrong, or nothing is set and no embedded store can be started.
    """
    if settings.mock_redis:
        from redis_core.transport.memory import MockRedisClient  # noqa: PLC0415

        settings.check_mock()
        return MockRedisClient.shared(max_bytes=settings.mock_redis_max_bytes)
    store = await _open_store(settings)
    return _with_failover(store, settings) if settings.redis_failover else store


def _with_failover(store: Transport, settings: Settings) -> Transport:
    from redis_core.clock import SYSTEM_CLOCK  # noqa: PLC0415
    from redis_core.resilience.env_switch import EnvSwitch  # noqa: PLC0415
    from redis_core.resilience.journal import Journal  # noqa: PLC0415
    from redis_core.transport.failover import FailoverTransport  # noqa: PLC0415

    def memory() -> Transport:
        from redis_core.transport.memory import MockRedisClient  # noqa: PLC0415

        return MockRedisClient(max_bytes=settings.mock_redis_max_bytes)

    journal = Journal(
        settings.journal_path or settings.raptorflow_state_dir / "journal",
        store.target,
        max_bytes=settings.journal_max_bytes,
        max_age=settings.journal_max_age,
    )
    transport = FailoverTransport(store, journal, memory)
    transport.watch(EnvSwitch(transport.outage, SYSTEM_CLOCK))
    return transport


async def _open_store(settings: Settings) -> Transport:
    address = settings.store_address()
    if address is None:
        from redis_core.transport.embedded import open_embedded  # noqa: PLC0415

        return await open_embedded(settings)
    if address.is_rest:
        from redis_core.transport.upstash import UpstashTransport  # noqa: PLC0415

        return UpstashTransport.from_settings(address, settings)
    if address.scheme in {"redis", "rediss", "unix"}:
        from redis_core.transport.tcp import TcpTransport  # noqa: PLC0415

        return TcpTransport.from_settings(address, settings)
    if address.scheme in {"redis+cluster", "rediss+cluster"}:
        from redis_core.transport.cluster import ClusterTransport  # noqa: PLC0415

        return ClusterTransport.from_settings(address, settings)
    if address.scheme == "redis+sentinel":
        from redis_core.transport.sentinel import open_sentinel  # noqa: PLC0415

        return await open_sentinel(address, settings)
    raise ConfigError("REDIS_URL", str(address), "no transport speaks this scheme")
