"""What a file has in it: records, and the manifest that counts them."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Group", "Head", "Job", "JobLimits", "Manifest", "Piece", "Record", "Tail"]


class Head(msgspec.Struct, array_like=True, frozen=True, tag_field="kind", tag="head"):
    """The first record: what the file is."""

    scope: Literal["workspace", "store"]
    workspace: str
    """Empty for a backup of a store."""
    created: float
    """Unix seconds."""
    mode: str
    """The store's mode it was read from."""
    families: tuple[str, ...]
    """Families that were carried."""


class Piece(msgspec.Struct, array_like=True, frozen=True, tag_field="kind", tag="key"):
    """A key, or a part of a large one; its pieces follow one another."""

    key: bytes
    type: str
    """`string`, `hash`, `list`, `set`, `zset` or `stream`."""
    expires: int
    """Unix milliseconds; 0 for never."""
    at: int
    """Rows of pieces before this one; of a string bytes."""
    rows: list[list[bytes]]
    """`[value]`, `[field, value]`, `[member]`, `[member, score]`, or `[id, field, value, ...]`."""
    last: bool
    """Whether the key ends here."""

    @property
    def size(self) -> int:
        """Rows, of a string bytes."""
        return len(self.rows[0][0]) if self.type == "string" else len(self.rows)


class Tail(msgspec.Struct, array_like=True, frozen=True, tag_field="kind", tag="tail"):
    """After a stream's last piece: the last id that it gave, which may be of an entry that is gone."""

    key: bytes
    expires: int
    """As the pieces'."""
    last_id: bytes


class Group(msgspec.Struct, array_like=True, frozen=True, tag_field="kind", tag="group"):
    """A stream's consumer group, after its tail."""

    key: bytes
    expires: int
    name: bytes
    last_id: bytes
    pending: list[tuple[bytes, bytes, int, int]]
    """Id, consumer, Unix milliseconds of the last delivery, and how often it was delivered."""


class Job(msgspec.Struct, array_like=True, frozen=True, tag_field="kind", tag="job"):
    """An unfinished job. One that ran is carried as one that waits."""

    queue: str
    workspace: str
    id: str
    payload: bytes
    due: int
    """Unix milliseconds; 0 for at once."""
    tries: bytes
    """`<runs>,<failures>,<deaths>`; empty for none."""
    parents: tuple[str, ...]
    """Jobs that must succeed before it."""


class JobLimits(msgspec.Struct, array_like=True, frozen=True, tag_field="kind", tag="job-limits"):
    """Weight, limit and pause of a workspace in a queue."""

    queue: str
    workspace: str
    value: bytes


Record = Head | Piece | Tail | Group | Job | JobLimits


class Manifest(msgspec.Struct, frozen=True):
    """What is in a file."""

    format: int
    keys: dict[str, dict[str, int]]
    """Keys by family and type."""
    items: int
    """Rows of all pieces; a string has one a piece."""
    jobs: int
    bytes: int
    """Of keys and values."""
    frames: int
    sha256: str
    """Of everything before the manifest, in hexadecimal."""

    @property
    def total(self) -> int:
        """Keys of all families."""
        return sum(sum(types.values()) for types in self.keys.values())
