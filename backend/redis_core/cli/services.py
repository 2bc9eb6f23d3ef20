"""What `raptorflow up` and `raptorflow gateway` run: API, gateway, demo and visitors, in one process and event loop."""

from __future__ import annotations

import asyncio
import importlib
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis_core
from redis_core.address import is_loopback
from redis_core.api.admin_token import admin_entry
from redis_core.api.app import create_app
from redis_core.api.realtime_hubs import Hubs
from redis_core.api.server import Site, bind, run, serve, url_of
from redis_core.cli.banner import Addresses, show_addresses
from redis_core.cli.output import print_json
from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import ConfigError, StoreError
from redis_core.gateway import create_gateway, follow_tokens, tokens_from_settings
from redis_core.log import get_logger
from redis_core.metrics import Metrics
from redis_core.secret import Secret
from redis_core.usage import UsageEngine

__all__ = ["gateway", "run", "up"]

_log = get_logger(__name__)


async def up(
    settings: Settings, *, demo: bool | None, traffic: bool | None, rest: bool = True, as_json: bool
) -> None:
    """Serve until a signal ends it.

    Args:
        settings: all of them.
        demo: whether to serve the demo; None decides by the environment.
        traffic: whether the demo has visitors; None decides by where the store is.
        rest: whether to serve the gateway.
        as_json: print addresses for programs.

    Raises:
        ConfigError: a setting is wrong, or a port is taken.
    """
    settings, admin = _with_admin(settings)
    tokens = _made_tokens(settings) if rest else None
    demo_app = _find_demo(settings, demo)
    visited = demo_app is not None and (_is_near(settings) if traffic is None else traffic)
    # The sockets first, so that a taken port is told before a store is started.
    with ExitStack() as sockets:
        api = sockets.enter_context(_listen(settings, "RAPTORFLOW_PORT"))
        gate = sockets.enter_context(_listen(settings, "GATEWAY_PORT")) if rest else None
        async with _store(settings) as client:
            client.service(Metrics).start()
            client.service(UsageEngine).start()
            service = create_app(settings, client=client)
            if demo_app:
                service.mount("/demo", demo_app.create_demo(client, client.settings))
            sites = [Site(service, api, client.service(Hubs).drain)]
            if tokens is not None and gate:
                sites.append(_gateway_site(client, tokens, gate))
            async with serve(sites) as stop, _visitors(url_of(api), wanted=visited):
                addresses = Addresses(
                    store=client.transport.target,
                    mode=client.mode,
                    api=url_of(api),
                    gateway=url_of(gate) if gate else None,
                    tokens={**(tokens or {}), **admin},
                    demo=None if demo_app is None else f"{url_of(api)}/demo",
                    demo_visited=None if demo_app is None else visited,
                )
                _announce(addresses, as_json=as_json)
                await stop.wait()


async def gateway(settings: Settings, *, as_json: bool) -> None:
    """Serve the gateway alone until a signal ends it.

    Raises:
        ConfigError: a setting is wrong, or the port is taken.
    """
    tokens = _made_tokens(settings)
    with _listen(settings, "GATEWAY_PORT") as rest:
        async with (
            _store(settings) as client,
            serve([_gateway_site(client, tokens, rest)]) as stop,
        ):
            addresses = Addresses(
                store=client.transport.target, mode=client.mode, gateway=url_of(rest), tokens=tokens
            )
            _announce(addresses, as_json=as_json)
            await stop.wait()


def _listen(settings: Settings, port_variable: str) -> socket.socket:
    port = {"RAPTORFLOW_PORT": settings.raptorflow_port, "GATEWAY_PORT": settings.gateway_port}[port_variable]
    return bind(settings.raptorflow_host, port, port_variable=port_variable)


def _gateway_site(client: Client, made: dict[str, str], listener: socket.socket) -> Site:
    settings = client.settings
    if made:
        settings = settings.model_copy(update={name.lower(): Secret(text) for name, text in made.items()})
    served = create_gateway(client.transport, tokens_from_settings(settings))
    follow_tokens(client, served.accept)
    return Site(served, listener, served.close_streams)


def _made_tokens(settings: Settings) -> dict[str, str]:
    """Tokens made for this run, by the setting that would fix them, because none is set: they have to be shown."""
    if tokens_from_settings(settings):
        return {}
    if settings.raptorflow_env == "production":
        raise ConfigError("GATEWAY_TOKEN", None, "in production set it to a long random text")
    return {name: secrets.token_urlsafe(24) for name in ("GATEWAY_TOKEN", "GATEWAY_READONLY_TOKEN")}


def _with_admin(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """The settings with an admin token of this run, where none is set and this is no production; and the token, to be shown."""
    if settings.admin_tokens is not None or settings.raptorflow_env == "production":
        return settings, {}
    token = secrets.token_urlsafe(24)
    entry = Secret(admin_entry("this-run", "admin", token))
    return settings.model_copy(update={"admin_tokens": entry}), {"ADMIN_TOKEN": token}


@asynccontextmanager
async def _store(settings: Settings) -> AsyncGenerator[Client]:
    """The client. A store that is away does not keep the service from starting: it serves again when the store does."""
    async with await connect(settings) as client:
        try:
            await client.primary.ping()
        except StoreError as error:
            _log.warning(
                "the store does not answer yet",
                store=client.transport.target,
                error=type(error).__name__,
                reason=str(error),
            )
        yield client


def _find_demo(settings: Settings, wanted: bool | None) -> Any | None:
    """The demo's module, which is beside this package in the repository and in no wheel; None to go without.

    Raises:
        ConfigError: it is asked for and is not there.
    """
    if not wanted and (wanted is not None or settings.raptorflow_env == "production"):
        return None
    backend = Path(redis_core.__file__).parent.parent
    if backend.name == "backend" and (backend / "demo" / "app.py").is_file():
        return importlib.import_module("demo.app")
    if wanted:
        raise ConfigError(
            "--demo", "on", "run it from the project's repository: no installed package has the demo"
        )
    return None


def _is_near(settings: Settings) -> bool:
    """Whether the store is on this host, where the demo's visitors cost nothing and disturb nobody."""
    address = None if settings.mock_redis else settings.store_address()
    return address is None or all(is_loopback(host) for host, _ in address.hosts)


@asynccontextmanager
async def _visitors(url: str, *, wanted: bool) -> AsyncGenerator[None]:
    """The demo's visitors, for as long as the block runs."""
    if not wanted:
        yield
        return
    task = asyncio.get_running_loop().create_task(importlib.import_module("demo.traffic").drive(url))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the demo's visitors stopped", error=repr(error))


def _announce(addresses: Addresses, *, as_json: bool) -> None:
    if as_json:
        print_json(addresses)
    else:
        show_addresses(addresses)
