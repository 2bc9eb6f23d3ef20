"""What becomes of a record on its way into a store: another name, a newer epoch, or nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec import structs

from redis_core.errors import TransferError
from redis_core.keys import WorkspaceKeys, queue_key, workspace_of
from redis_core.queueing.engine import QueueEngine
from redis_core.queueing.job import packed_for
from redis_core.transfer.records import Group, Head, Job, JobLimits, Piece, Record, Tail
from redis_core.transfer.selection import NAMED, bytes_of, family_name, queue_key_parts, text_of

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Adaptation"]

_GROWING: Final = frozenset({"session-epoch", "sys", "bus"})
"""Families of a number that may not go back: what it ended would begin to live again."""


class Adaptation:
    """Adapts records to a store.

    Args:
        client: the store.
        head: of the file.
        workspace: under which id its workspace is kept from now on; of a backup None.
        nonce: differs from one import to the next, and is the same when one goes on.
        keep_audit: whether the store has an audit log, which nothing may replace.
        now: Unix milliseconds.
    """

    def __init__(
        self, client: Client, head: Head, workspace: str | None, nonce: str, *, keep_audit: bool, now: int
    ) -> None:
        self._client = client
        self._engine = client.service(QueueEngine)
        self._from = head.workspace
        self._to = workspace
        self.renames = workspace is not None and workspace != head.workspace
        self._nonce = nonce
        self._keep_audit = keep_audit
        self._now = now
        self.left: Counter[str] = Counter()
        """Keys that are not carried, by why."""

    def refuse_old_names(self, record: Record) -> None:
        """Look for the old id in what would be carried under a new one.

        Raises:
            TransferError: a value names a key of the old workspace, and nobody but the application knows what that means.
        """
        if not self.renames or not isinstance(record, Piece) or family_name(text_of(record.key)) in NAMED:
            return
        old = WorkspaceKeys(self._from).prefix.encode()
        if any(old in word for row in record.rows for word in row):
            raise TransferError(
                f"the value of {text_of(record.key)!r} names keys of the workspace {self._from!r}: it can only be imported under that id"
            )

    async def adapt(self, record: Record) -> Record | None:
        """The record for this store, or None if it is not for it. Budget: GET for a number that only grows, else none."""
        if isinstance(record, Job | JobLimits):
            return structs.replace(record, workspace=self._to) if self._to is not None else record
        if isinstance(record, Head):
            return None
        name = text_of(record.key)
        family = family_name(name)
        why = self._refusal(record, family)
        if why is not None:
            if isinstance(record, Piece) and not record.at:
                self.left[why] += 1
            return None
        if isinstance(record, Piece) and family in _GROWING and await self._is_past(record):
            return None
        record = structs.replace(record, key=bytes_of(self._renamed(name)))
        if self._to is not None and isinstance(record, Piece) and family in {"job", "job-result"}:
            return self._of_its_new_owner(record, self._to)
        if isinstance(record, Piece) and family == "topic-meta":
            return self._new_epoch(record)
        return record

    def _refusal(self, record: Piece | Tail | Group, family: str | None) -> str | None:
        if self.renames and family in NAMED:
            return "named"
        if family == "sys-audit" and self._keep_audit:
            return "audit"
        if record.expires and record.expires <= self._now:
            return "expired"
        return None

    async def _is_past(self, piece: Piece) -> bool:
        """Whether the store has this number or a higher one."""
        present = await self._client.get(self._renamed(text_of(piece.key)))
        return present is not None and int(present) >= int(piece.rows[0][0])

    def _renamed(self, name: str) -> str:
        parts = queue_key_parts(name)
        if parts is not None and parts[2]:
            # Another fleet may have another number of shards.
            family, shard, rest = parts
            workspace = self._to if self._to is not None else rest[0]
            own = self._engine.shard(shard.partition("#")[0], workspace).name
            return queue_key(family, own, workspace, *rest[1:])
        if self._to is not None and workspace_of(name) is not None:
            return WorkspaceKeys(self._to).prefix + name.partition("}:")[2]
        return name

    def _of_its_new_owner(self, piece: Piece, owner: str) -> Piece:
        """Results of jobs say whose they are: those that are kept, and those that a job has gathered of its children."""
        if piece.type == "hash":
            rows = [
                [field, packed_for(owner, value) if field.startswith(b"r:") else value]
                for field, value in piece.rows
            ]
            return structs.replace(piece, rows=rows)
        if piece.at:
            # Only values are that long, and they begin with the id.
            return structs.replace(piece, at=piece.at + len(owner) - len(self._from))
        return structs.replace(
            piece, rows=[[packed_for(owner, value) for value in row] for row in piece.rows]
        )

    def _new_epoch(self, piece: Piece) -> Piece:
        """A topic begins anew for its readers: what some of them saw may be of after this file, and offsets would be given twice."""
        epoch = hashlib.sha256(self._nonce.encode() + piece.key).hexdigest()[:12].encode()
        rows = [[field, epoch if field == b"e" else value] for field, value in piece.rows]
        return structs.replace(piece, rows=rows)
