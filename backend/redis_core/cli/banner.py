"""What `up` and `gateway` say once they listen: where, and what to try."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from rich.text import Text

import redis_core
from redis_core.cli.output import console, fields

__all__ = ["Addresses", "show_addresses"]

_SET: Final = '["SET", "greeting", "hello", "EX", "60"]'
_JSON: Final = "-H 'Content-Type: application/json'"
_LOGIN: Final = '{"user": "ada", "workspace": "acme"}'
_CAMPAIGN: Final = '{"name": "Spring launch"}'
_PLAN: Final = '{"budget": 400}'
_COOKIES: Final = "cookies.txt"


class Addresses(Struct, frozen=True, omit_defaults=True):
    """Where things are, once all of it listens."""

    store: str
    mode: str
    api: str | None = None
    demo: str | None = None
    demo_visited: bool | None = None
    """Whether the demo's visitors are there, and there are figures to see."""
    gateway: str | None = None
    tokens: dict[str, str] = {}
    """Tokens that were made for this run: of the gateway by the setting that would fix them, the admin's as `ADMIN_TOKEN`."""


def show_addresses(addresses: Addresses) -> None:
    """Print addresses, tokens and what to try."""
    console.print()
    heading = Text(f"RaptorFlow Redis {redis_core.__version__}", style="bold")
    heading.append(f"  on {addresses.store}", style="not bold")
    console.print(heading, soft_wrap=True)
    console.print()
    places = fields()
    if addresses.demo:
        places.add_row("  demo", f"{addresses.demo}/")
    if addresses.api:
        places.add_row("  health", f"{addresses.api}/api/v1/health/redis")
        places.add_row("  dashboard", f"{addresses.api}/admin/performance/")
        places.add_row("  metrics", f"{addresses.api}/api/v1/admin/redis-metrics")
        places.add_row("  key statistics", f"{addresses.api}/api/v1/admin/redis-stats")
        places.add_row("  OpenAPI", f"{addresses.api}/openapi.json")
    if addresses.gateway:
        places.add_row("  gateway", addresses.gateway)
    for variable, value in addresses.tokens.items():
        places.add_row(f"  {variable}", value)
    console.print(places, soft_wrap=True)
    console.print()
    console.print("Try:")
    for line in _examples(addresses):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print()
    if addresses.demo_visited is False:
        console.print(
            "The demo has no visitors: --traffic lets them in (on a store elsewhere they may cost money)."
        )
    if addresses.tokens:
        console.print(
            f"The tokens are for this run; set {' and '.join(_settings_of(addresses.tokens))} to keep them.",
            style="dim",
        )
    console.print("Ctrl-C ends it.", style="dim")


def _examples(addresses: Addresses) -> list[str]:
    lines: list[str] = []
    if addresses.api:
        lines += [
            f"curl {addresses.api}/api/v1/health/redis",
            f"curl {addresses.api}/api/v1/admin/redis-metrics {_bearer(addresses, 'ADMIN_TOKEN')}",
        ]
    if addresses.demo:
        api, cookie = f"{addresses.demo}/api", f"-b {_COOKIES}"
        lines += [
            # Sessions: the cookie, and what it opens.
            f"curl -i -c {_COOKIES} {api}/login {_JSON} -d '{_LOGIN}'",
            f"curl {cookie} {api}/devices",
            # Limits: what is left, and one too many.
            f"curl -i {cookie} {api}/me",
            f"for n in 1 2 3 4; do curl -i {cookie} {api}/export; echo; done",
            # Cache: one campaign from the loader and from memory, and a whole response.
            f"curl {cookie} {api}/campaigns {_JSON} -d '{_CAMPAIGN}'",
            f"for n in 1 2; do curl -i {cookie} {api}/campaigns/last; echo; done",
            f"for n in 1 2; do curl -i {cookie} {api}/report; echo; done",
            # Jobs: an agent at work, step by step, and one that is cancelled.
            f"curl {cookie} -c {_COOKIES} {api}/plans {_JSON} -d '{_PLAN}'",
            f"for n in 1 2 3; do curl {cookie} {api}/plans/last; echo; sleep 1; done",
            f"curl {cookie} -c {_COOKIES} {api}/plans {_JSON} -d '{_PLAN}'",
            f"curl -X DELETE {cookie} {api}/plans/last",
            f"curl -i -X POST {cookie} -c {_COOKIES} {api}/logout",
        ]
    if addresses.gateway:
        bearer = _bearer(addresses, "GATEWAY_TOKEN")
        lines += [
            f"curl {addresses.gateway} {bearer} -d '{_SET}'",
            f"curl {addresses.gateway}/get/greeting {bearer}",
        ]
    return lines


def _bearer(addresses: Addresses, name: str) -> str:
    """The header with a token of this run, or with what the caller has in his environment."""
    return f'-H "Authorization: Bearer {addresses.tokens.get(name, f"${name}")}"'


def _settings_of(tokens: Iterable[str]) -> list[str]:
    return ["ADMIN_TOKENS (`raptorflow token`)" if name == "ADMIN_TOKEN" else name for name in tokens]
