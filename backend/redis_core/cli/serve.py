"""`raptorflow up` and `raptorflow gateway`: their options."""

from __future__ import annotations

from typing import Annotated

import typer

from redis_core.config import Settings, load_settings
from redis_core.log_format import configure_logs

__all__ = ["gateway", "up"]

Json = Annotated[bool, typer.Option("--json", help="Print addresses and tokens as one line of JSON.")]
Host = Annotated[str | None, typer.Option("--host", help="Listen here, instead of RAPTORFLOW_HOST.")]
Port = Annotated[int | None, typer.Option("--port", help="Instead of RAPTORFLOW_PORT; 0 takes a free one.")]
_GATEWAY_PORT_HELP = "Instead of GATEWAY_PORT; 0 takes a free one."


def up(
    host: Host = None,
    port: Port = None,
    gateway_port: Annotated[int | None, typer.Option("--gateway-port", help=_GATEWAY_PORT_HELP)] = None,
    demo: Annotated[
        bool | None,
        typer.Option("--demo/--no-demo", help="The demo app; on unless RAPTORFLOW_ENV is production."),
    ] = None,
    traffic: Annotated[
        bool | None,
        typer.Option("--traffic/--no-traffic", help="The demo's visitors; on if the store is on this host."),
    ] = None,
    gateway: Annotated[
        bool,
        typer.Option(
            "--gateway/--no-gateway", help="The Upstash-compatible REST gateway on a port of its own."
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Run the API, the gateway, the demo and its visitors until Ctrl-C."""
    from redis_core.cli import services  # noqa: PLC0415 - FastAPI and uvicorn, which other commands need not load

    settings = _settings(raptorflow_host=host, raptorflow_port=port, gateway_port=gateway_port)
    configure_logs(level=settings.raptorflow_log_level)
    services.run(services.up(settings, demo=demo, traffic=traffic, rest=gateway, as_json=json))


def gateway(
    host: Host = None,
    port: Annotated[int | None, typer.Option("--port", help=_GATEWAY_PORT_HELP)] = None,
    json: Json = False,
) -> None:
    """Run the Upstash-compatible REST gateway alone, until Ctrl-C."""
    from redis_core.cli import services  # noqa: PLC0415 - as above

    settings = _settings(raptorflow_host=host, gateway_port=port)
    configure_logs(level=settings.raptorflow_log_level)
    services.run(services.gateway(settings, as_json=json))


def _settings(**overrides: object) -> Settings:
    return load_settings(**{name: value for name, value in overrides.items() if value is not None})
