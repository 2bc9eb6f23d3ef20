"""Redis Cluster's slots: which one a key has, and what a node says of who serves them."""

from __future__ import annotations

import binascii
from typing import Final, NamedTuple

from redis_core.errors import CommandError, StoreError
from redis_core.transport.base import Argument, Reply

__all__ = ["SLOTS", "Place", "Redirect", "SlotRange", "first_error", "key_slot", "read_slots", "redirect"]

SLOTS: Final = 16384
"""How many slots a cluster has."""

Place = tuple[str, int]
"""A node's host and port."""


class SlotRange(NamedTuple):
    """Slots that one master serves, both ends included."""

    first: int
    last: int
    master: Place


class Redirect(NamedTuple):
    """A node's answer that another one serves the slot: for good (MOVED), or for this command only (ASK)."""

    slot: int
    place: Place
    ask: bool


def key_slot(key: Argument) -> int:
    """The slot of a key: CRC16 (XMODEM) of what stands between its first `{` and the next `}`, else of all of it.

    Source: Redis Cluster specification, "Key distribution model".
    """
    data = key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start + 1)
        if end > start + 1:
            data = data[start + 1 : end]
    return binascii.crc_hqx(data, 0) % SLOTS


def read_slots(reply: Reply, asked: Place) -> list[SlotRange]:
    """The ranges of a `CLUSTER SLOTS` reply, by their first slot; empty where a node knows none.

    Args:
        reply: a list of `[first, last, [host, port, ...], replicas...]`.
        asked: the node that was asked; an empty host means itself.
    """
    ranges: list[SlotRange] = []
    for item in reply if isinstance(reply, list) else []:
        match item:
            case [int(first), int(last), [host, int(port), *_], *_]:
                name = host.decode() if isinstance(host, bytes) else ""
                ranges.append(SlotRange(first, last, (name if name not in {"", "?"} else asked[0], port)))
            case _:
                pass  # a range without a master: nobody serves it now
    return sorted(ranges)


def redirect(reply: Reply, asked: Place) -> Redirect | None:
    """The redirection that an error is, None for any other reply: `MOVED 3999 127.0.0.1:6381`, `ASK ...`."""
    if not isinstance(reply, CommandError) or reply.code not in {"MOVED", "ASK"}:
        return None
    words = str(reply).split()
    try:
        host, _, port = words[2].rpartition(":")
        return Redirect(int(words[1]), (host.strip("[]") or asked[0], int(port)), words[0] == "ASK")
    except (IndexError, ValueError):
        return None


def first_error(replies: list[Reply]) -> StoreError | None:
    """The first error among replies."""
    return next((reply for reply in replies if isinstance(reply, StoreError)), None)
