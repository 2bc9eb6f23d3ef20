"""Where a store is: the URL of a setting, taken apart and checked once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis_core.errors import ConfigError
from redis_core.secret import Secret

__all__ = ["StoreAddress", "is_loopback", "parse_address", "redact_url"]

_DEFAULT_PORTS: Final = {
    "https": 443,
    "http": 80,
    "redis": 6379,
    "rediss": 6379,
    "redis+cluster": 6379,
    "rediss+cluster": 6379,
    "redis+sentinel": 26379,
    "unix": 0,
}

_LONGEST_HOST_SHOWN: Final = 32
"""Characters of a value without a scheme that a message may show; tokens are longer."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """One store's address. Its text never shows a password."""

    scheme: str
    """`https`, `http`, `redis`, `rediss`, `unix`, `redis+cluster`, `rediss+cluster` or `redis+sentinel`."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port; several for a cluster's seeds or for sentinels."""
    path: str = ""
    """The unix socket's path."""
    username: str | None = None
    password: Secret | None = None
    database: int = 0
    service: str = ""
    """The master's name, for sentinels."""

    @property
    def is_rest(self) -> bool:
        """Whether it is an Upstash REST address."""
        return self.scheme in {"https", "http"}

    @property
    def tls(self) -> bool:
        """Whether the link is encrypted."""
        return self.scheme in {"https", "rediss", "rediss+cluster"}

    @property
    def base_url(self) -> str:
        """The URL without user, password and path."""
        if self.scheme == "unix":
            return f"unix://{self.path}"
        places = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )
        return f"{self.scheme}://{places}"

    def __str__(self) -> str:
        user = f"{self.username or ''}:***@" if self.password is not None else ""
        scheme, _, rest = self.base_url.partition("://")
        tail = f"/{self.service}" if self.service else ""
        tail += f"/{self.database}" if self.database else ""
        return f"{scheme}://{user}{rest}{tail}"


def redact_url(url: str) -> str:
    """A URL as a message may show it: without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        # Perhaps a host, perhaps a token that was put into the wrong variable.
        return url if len(url) <= _LONGEST_HOST_SHOWN and "@" not in url else "***"
    # The last @, wherever it is: a password with an unescaped / ? or @ must not show either.
    user, _, place = rest.rpartition("@")
    if "?" in user:
        # A password with a ?, or a query with an @: what comes after the @ may be a host or half a secret.
        return f"{scheme}://***"
    return f"{scheme}://{'***@' if user else ''}{place.partition('?')[0]}"


def _master(variable: str, shown: str, path: str) -> tuple[str, str]:
    """The name of a Sentinel's master, and what comes after it."""
    service, _, rest = path.partition("/")
    if "@" in service:
        # What was meant for a password, cut off at a slash: as a name it would be shown.
        raise ConfigError(variable, shown, "write a / in a password as %2F")
    if not service:
        raise ConfigError(variable, shown, "name the master: redis+sentinel://host:26379/<master>[/<db>]")
    return service, rest


def parse_address(variable: str, url: str) -> StoreAddress:
    """The address a setting holds.

    Args:
        variable: the setting's name, for the error.
        url: its value.

    Raises:
        ConfigError: the URL is malformed, of an unknown scheme, or `http` to a host that is not loopback.
    """
    shown = redact_url(url)
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORTS:
        schemes = ", ".join(f"{name}://" for name in _DEFAULT_PORTS)
        raise ConfigError(variable, shown, f"begin it with one of {schemes}")
    if scheme == "unix":
        return _unix(variable, shown, rest)
    place, slash, path = rest.partition("/")
    user_part, at, places = place.rpartition("@")
    username, colon, password = user_part.partition(":")
    hosts = tuple(_host(variable, shown, scheme, item) for item in places.split(","))
    if len(hosts) > 1 and scheme in {"https", "http", "redis", "rediss"}:
        raise ConfigError(variable, shown, "name one host, or use redis+cluster:// or redis+sentinel://")
    if scheme == "http" and not all(is_loopback(host) for host, _ in hosts):
        raise ConfigError(
            variable, shown, "use https://: over http:// the token travels in the clear (only loopback may)"
        )
    path = path.partition("?")[0].strip("/")
    service = ""
    if scheme == "redis+sentinel":
        service, path = _master(variable, shown, path)
    if scheme in {"https", "http"}:
        if at:
            raise ConfigError(variable, shown, "put the token into UPSTASH_REDIS_TOKEN, not into the URL")
        if slash and path:
            raise ConfigError(variable, shown, "give the address without a path")
        path = ""
    return StoreAddress(
        scheme=scheme,
        hosts=hosts,
        username=unquote(username) or None,
        password=Secret(unquote(password)) if colon else None,
        database=_database(variable, shown, path),
        service=service,
    )


def _unix(variable: str, shown: str, rest: str) -> StoreAddress:
    place, _, path = rest.partition("/")
    path, _, query = path.partition("?")
    user_part, _, host = place.rpartition("@")
    if host or not path:
        raise ConfigError(variable, shown, "give an absolute path: unix:///run/redis.sock[?db=0]")
    username, colon, password = user_part.partition(":")
    database = parse_qs(query).get("db", [""])[0]
    return StoreAddress(
        scheme="unix",
        path="/" + unquote(path),
        username=unquote(username) or None,
        password=Secret(unquote(password)) if colon else None,
        database=_database(variable, shown, database),
    )


def _host(variable: str, shown: str, scheme: str, place: str) -> tuple[str, int]:
    try:
        split = urlsplit(f"//{place}")
        host, port = split.hostname, split.port
    except ValueError:
        # Without urlsplit's own words: they quote what may be a piece of a password with an unescaped slash.
        raise ConfigError(
            variable, shown, "write host:port, and / ? # @ in a password as %2F %3F %23 %40"
        ) from None
    if not host:
        raise ConfigError(variable, shown, "name a host")
    return host, port if port is not None else _DEFAULT_PORTS[scheme]


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


def _database(variable: str, shown: str, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(variable, shown, "the database, after the last slash, must be a number")
    return int(text)
