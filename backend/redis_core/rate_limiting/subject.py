"""Whose request it is: user, workspace and address, and the key each is counted under."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

import msgspec

from redis_core.errors import InvalidKey
from redis_core.keys import WorkspaceKeys, rate_key
from redis_core.rate_limiting.policy import By

__all__ = ["EVERY_ENDPOINT", "Subject", "address_subject", "client_address", "key_for", "workspace_key"]

EVERY_ENDPOINT: Final = "all"
"""What stands for the endpoint where all are counted together."""
_ADDRESS: Final = "ip="
_ANONYMOUS: Final = "anonymous="
"""A client without a user, where a rule counts users; apart from `ip=`, so that no request has one key twice."""
_EVERYONE: Final = "everyone="
_RESERVED: Final = (_ADDRESS, _ANONYMOUS, _EVERYONE)


class Subject(msgspec.Struct, frozen=True, gc=False):
    """Whose request it is."""

    user: str | None = None
    """The user's id; None before a login."""
    workspace: str | None = None
    ip: str | None = None
    """The client's address, as `client_address` finds it."""
    plan: str | None = None
    """The customer's plan; None is the configuration's default."""


def key_for(subject: Subject, by: By, endpoint: str, ipv6_prefix: int = 64) -> str | None:
    """The key that one subject's requests are counted under; None if a rule of this kind has nobody to count.

    A rule by user counts an anonymous client by its address.

    Raises:
        InvalidKey: an id or the endpoint may not stand in a key.
    """
    if by == "user" and subject.user is not None:
        return _user_key(subject.user, endpoint)
    if by == "workspace":
        return None if subject.workspace is None else workspace_key(subject.workspace, endpoint)
    if by == "everyone":
        return _own_key(_EVERYONE, endpoint)
    kind = _ANONYMOUS if by == "user" else _ADDRESS
    return _own_key(kind + address_subject(subject.ip, ipv6_prefix), endpoint)


@lru_cache(maxsize=16_384)
def _user_key(user: str, endpoint: str) -> str:
    if user.startswith(_RESERVED):
        raise InvalidKey(f"a user's id may not begin with {' or '.join(_RESERVED)}: {user[:80]!a}")
    return rate_key(user, endpoint)


@lru_cache(maxsize=16_384)
def _own_key(subject: str, endpoint: str) -> str:
    return rate_key(subject, endpoint)


@lru_cache(maxsize=4096)
def workspace_key(workspace: str, endpoint: str) -> str:
    """The key of a workspace's limits at one endpoint template."""
    return WorkspaceKeys(workspace).key("rate", endpoint.replace("{", "<").replace("}", ">"))


@lru_cache(maxsize=16_384)
def address_subject(address: str | None, ipv6_prefix: int = 64) -> str:
    """An address as it is counted: IPv6 by its network, since one customer has a whole one; without colons, for the key."""
    if address is None:
        return "unknown"
    try:
        parsed = _plain(ip_address(address))
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    network = IPv6Network((int(parsed), ipv6_prefix), strict=False)
    return str(network).replace(":", "-")


def client_address(peer: str | None, forwarded: Sequence[str], hops: int) -> str | None:
    """The client's address: what the outermost proxy that we trust saw.

    Args:
        peer: who opened the connection.
        forwarded: the values of all `X-Forwarded-For` lines, in order.
        hops: how many proxies of ours stand in front; 0 believes no header, since a client can write anything there.
    """
    if hops < 1:
        return peer
    seen = [part.strip() for line in forwarded for part in line.split(",")]
    if len(seen) < hops:
        # The request did not come through all our proxies.
        return peer
    try:
        return str(_plain(ip_address(seen[-hops].strip("[]"))))
    except ValueError:
        return peer


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that is written as IPv6, as IPv4."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
