"""`Record`: one intent that was accepted while the store was away, and is carried out when it is back."""

from __future__ import annotations

import zlib
from typing import ClassVar

from msgspec import Struct

__all__ = ["Record"]


class Record(Struct, frozen=True):
    """What is to be done, once, in its turn. The journal does not look into the payload."""

    OVERHEAD: ClassVar[int] = 128
    """Bytes that a record costs beside its texts and payload: row, unique index and share of its page, rounded up."""

    id: str
    """Its name, chosen by who made it: a record of the same id is the same record."""
    kind: str
    """Which replayer knows what to do with it."""
    order: str
    """Records of one order key are carried out one after the other, oldest first."""
    target: str
    """The store it is meant for; it is never carried out on another."""
    payload: bytes
    """What the replayer needs."""
    created: float
    """When it was accepted, in seconds since the Unix epoch. It never goes back within one journal."""
    attempts: int = 0
    """How often carrying it out was begun and not finished."""

    @property
    def size(self) -> int:
        """Bytes it is counted as, against the journal's limit."""
        texts = len(self.id) + len(self.kind) + len(self.order) + len(self.target)
        return texts + len(self.payload) + self.OVERHEAD

    @property
    def checksum(self) -> int:
        """CRC-32 of everything that does not change: a damaged disk must not make another intent of it."""
        head = f"{self.id}\0{self.kind}\0{self.order}\0{self.target}\0{self.created!r}".encode()
        return zlib.crc32(self.payload, zlib.crc32(head))
