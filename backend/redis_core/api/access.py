"""Who may use the admin routes.

Until there are admin credentials the rule is: only a caller on this very host, and never in production. In detail, a request
is refused if
- `RAPTORFLOW_ENV` is `production`, because what looks local there is usually a reverse proxy on the same host;
- its address is not a loopback address, or it came by a unix socket, where there is none;
- a proxy passed it on, as `Forwarded`, `X-Forwarded-*`, `X-Real-IP` or `Via` tell;
- its `Host` is not a loopback name, because then a web page made a browser ask by a name that was rebound to this host;
- a browser sent it for another site's page, as `Sec-Fetch-Site` tells.

In production the figures are had on the command line: `raptorflow health` and `raptorflow doctor`.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from redis_core.api.problems import ProblemError
from redis_core.config import Environment

__all__ = ["AdminAccess", "is_loopback"]

_PASSED_ON: Final = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
)
_OWN_SITE: Final = frozenset({"same-origin", "none"})


class AdminAccess:
    """The rule above, as a dependency of a route.

    Args:
        environment: where the service runs.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __call__(self, request: Request) -> None:
        """Let the request pass.

        Raises:
            ProblemError: 403, with the reason.
        """
        reason = self.refusal(request)
        if reason is not None:
            raise ProblemError(
                403, "admin-not-local", f"{reason}; admin routes answer callers on this host only."
            )

    def refusal(self, request: Request) -> str | None:
        """Why a request may not use admin routes, or None if it may."""
        if self._environment == "production":
            return "RAPTORFLOW_ENV is production"
        if request.client is None or not is_loopback(request.client.host):
            return "The caller's address is not a loopback address"
        if any(header in request.headers for header in _PASSED_ON):
            return "A proxy passed the request on"
        if not is_loopback(_host_of(request)):
            return "The request's Host is not a loopback name"
        if request.headers.get("sec-fetch-site", "none") not in _OWN_SITE:
            return "Another site's page sent the request"
        return None


def _host_of(request: Request) -> str:
    """The name in the Host header, empty where it is missing, malformed or there twice."""
    hosts = request.headers.getlist("host")
    try:
        return (urlsplit(f"//{hosts[0]}").hostname or "") if len(hosts) == 1 else ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this host's own: `localhost`, 127.0.0.0/8, ::1, and the former mapped to IPv6."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
