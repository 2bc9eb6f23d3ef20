"""A workspace or a whole store as a file, and from a file; and a workspace gone without a trace.

A file holds values, not a server's own dumps: it moves between Upstash, Redis, Valkey and memory. See `docs/portability.md` for
the format, for what is carried, and for what a live store means for it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from redis_core.audit import Actor, AuditLog, Values
from redis_core.commands import scan_iter
from redis_core.errors import TargetNotEmpty, TransferError, TransferUnverified
from redis_core.keys import AUDIT_LOG, check_workspace_id, import_key, queue_key
from redis_core.queueing.engine import QueueEngine
from redis_core.resilience.epoch import EPOCH_KEY
from redis_core.transfer.adapting import Adaptation
from redis_core.transfer.checking import differing
from redis_core.transfer.erasing import (
    KEPT_FAMILIES,
    erase_announcements,
    erase_figures,
    unlink_all,
    unlink_workspace,
)
from redis_core.transfer.format import FileReader, FileWriter
from redis_core.transfer.jobs import enqueue_jobs, erase_jobs, read_jobs, set_limits, shards_of
from redis_core.transfer.reading import read_keys
from redis_core.transfer.records import Group, Head, Job, JobLimits, Manifest, Piece, Record, Tail
from redis_core.transfer.selection import BOUND, PASSING, Selection, family_name, keys_of
from redis_core.transfer.writing import Writing

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Erased", "Exported", "Imported", "Portability", "Progress"]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much; 0 if that is not known."""

_KEYS: Final = 100
"""Keys that are read together."""
_MARK_SECONDS: Final = 7 * 86_400
_ROUNDS: Final = 20
"""Walks over the key space after which somebody else must be writing."""
_SHOWN: Final = 5


class Exported(Struct, frozen=True):
    """What was written to a file."""

    path: str
    workspace: str | None
    keys: dict[str, dict[str, int]]
    """By family and type."""
    jobs: int
    bytes: int
    """Of keys and values, before compression."""
    file_bytes: int
    sha256: str


class Imported(Struct, frozen=True):
    """What was written to a store."""

    path: str
    workspace: str | None
    keys: int
    jobs: int
    """Taken into the queues by this run."""
    refused: int
    """Jobs that could not be: another one holds their unique key, or one before them failed."""
    left: dict[str, int]
    """Keys that were not carried: `expired`; `named`, of use only under the old id; `older` than what the store has; `audit`."""
    resumed: bool
    verified: bool
    sha256: str


class Erased(Struct, frozen=True):
    """What is gone."""

    workspace: str
    keys: int
    names: int
    """Jobs and other names outside the workspace's own keys."""
    left: int
    """Keys that the last walk over the whole key space found: 0."""


class Portability:
    """Moves tenants' data, as one operator; what changes the store is in the audit log.

    Args:
        client: the store. What its fallback holds during an outage is never read or written.
        actor: who does it.
    """

    def __init__(self, client: Client, actor: Actor) -> None:
        self._client = client.primary
        self._audit = AuditLog(self._client)
        self._actor = actor

    # --- out ---

    async def export(
        self, workspace: str, path: Path, *, everything: bool = False, without: Collection[str] = (),
        progress: Progress | None = None,
    ) -> Exported:  # fmt: skip
        """Write one workspace to a file.

        Budget: two SCANs of the key space; for each key TYPE, PTTL and a read for each page; 3 commands a job; the audit's.

        Args:
            workspace: whose.
            path: where to; a file there is replaced when the new one is whole.
            everything: cached values and counted limits too.
            without: families that are left out.
            progress: told how many keys are read.

        Raises:
            InvalidKey: the id may not name a workspace.
            TransferError: the file cannot be written, or there is no such family.
            StoreError: the store is away.
        """
        selection = Selection(workspace, everything=everything, without=without)
        return await self._write_file("workspace.export", selection, path, progress)

    async def backup(
        self, path: Path, *, everything: bool = False, without: Collection[str] = (),
        progress: Progress | None = None,
    ) -> Exported:  # fmt: skip
        """Write all workspaces, and what is the fleet's own, to a file; budget, arguments and errors as `export`.

        With `everything` also keys that no family of this project has.
        """
        selection = Selection(None, everything=everything, without=without)
        return await self._write_file("store.backup", selection, path, progress)

    async def _write_file(
        self, action: str, selection: Selection, path: Path, progress: Progress | None
    ) -> Exported:
        client, workspace = self._client, selection.workspace
        with FileWriter(path) as file:
            file.add(
                Head(
                    "store" if workspace is None else "workspace",
                    workspace or "",
                    time.time(),
                    client.mode,
                    selection.families,
                )
            )
            done = 0
            async for keys in _in_batches(selection.keys(client)):
                async for record in read_keys(client, [key.encode() for key, _ in keys]):
                    family = dict(keys)[record.key.decode()] if isinstance(record, Piece) else ""
                    file.add(record, family)
                done += len(keys)
                if progress is not None:
                    progress("keys", done, 0)
            if selection.jobs:
                async for job in read_jobs(client, workspace):
                    file.add(job)
            manifest = file.finish()
        after: Values = {"keys": manifest.total, "jobs": manifest.jobs, "sha256": manifest.sha256}
        await self._audit.record(self._actor, action, workspace or "*", after=after)
        return Exported(
            str(path),
            workspace,
            manifest.keys,
            manifest.jobs,
            manifest.bytes,
            file.written,
            manifest.sha256,
        )

    # --- in ---

    async def import_(
        self, path: Path, *, workspace: str | None = None, replace: bool = False,
        progress: Progress | None = None,
    ) -> Imported:  # fmt: skip
        """Write an exported workspace to the store, and look whether it is there. Run again after it was cut off, it goes on.

        Budget: a SCAN of the key space, two with `replace`; for each key a write, DEL and PEXPIREAT, and a read, a count and PTTL
        to look; a script for each 100 jobs; SET for each 256 KB; the audit's.

        Args:
            path: the file; all of it is checked before anything is written.
            workspace: under which id; its own unless given. Under another one sessions and cached values are left out.
            replace: remove what the workspace has now.
            progress: told how many frames are written, then looked for.

        Raises:
            FileDamaged: the file is no export, cut short, or a checksum is wrong.
            FileTooNew: a newer version wrote it.
            TargetNotEmpty: the workspace has keys or jobs.
            TransferUnverified: afterwards the store has not what the file has.
            StoreError: the store is away.
        """
        reader = FileReader(path)
        head, manifest = reader.check()
        if head.scope != "workspace":
            raise TransferError(f"{path}: it is a backup of a whole store; use `raptorflow restore`")
        target = check_workspace_id(workspace or head.workspace)
        return await self._read_file("workspace.import", reader, head, manifest, target, replace, progress)

    async def restore(
        self, path: Path, *, replace: bool = False, progress: Progress | None = None
    ) -> Imported:
        """Write a backup to the store; budget, arguments and errors as `import_`.

        The store's epoch is a new one afterwards: processes see that the store went back in time. Ends of sessions and the audit log
        stay as they are where they are newer.
        """
        reader = FileReader(path)
        head, manifest = reader.check()
        if head.scope != "store":
            raise TransferError(
                f"{path}: it is an export of the workspace {head.workspace!r}; use `raptorflow workspace import`"
            )
        return await self._read_file("store.restore", reader, head, manifest, None, replace, progress)

    async def _read_file(
        self, action: str, reader: FileReader, head: Head, manifest: Manifest, target: str | None,
        replace: bool, progress: Progress | None,
    ) -> Imported:  # fmt: skip
        client = self._client
        digest = hashlib.sha256(f"{manifest.sha256} {target or ''}".encode()).hexdigest()[:32]
        mark = import_key(digest)
        known = await client.get(mark)
        if known is None:
            nonce, keep_audit = secrets.token_hex(8), bool(await client.exists(AUDIT_LOG))
            start = 0
        else:
            reached, nonce, kept = known.decode().split()
            start, keep_audit = int(reached), kept == "1"
        now = int((await client.time()) * 1000)
        adaptation = Adaptation(client, head, target, nonce, keep_audit=keep_audit, now=now)
        if adaptation.renames:
            for _, records in reader.frames():
                for record in records:
                    adaptation.refuse_old_names(record)
        if known is None:
            await self._make_room(target, replace=replace)
            await client.set(mark, f"0 {nonce} {int(keep_audit)}", ex=_MARK_SECONDS)
            if target is not None:
                # What processes have in memory is of before.
                await client.workspace(target).cache.flush()
        taken = refused = 0
        for number, records in reader.frames(start):
            here, not_taken = await self._write_frame(adaptation, records)
            taken, refused = taken + here, refused + not_taken
            await client.set(mark, f"{number + 1} {nonce} {int(keep_audit)}", ex=_MARK_SECONDS)
            if progress is not None:
                progress("written", number + 1, manifest.frames)
        left = dict(adaptation.left)
        await self._verify(reader, adaptation, manifest, progress)
        if target is None:
            await client.set(EPOCH_KEY, f"{time.time():.6f}-{secrets.token_hex(8)}")
        await client.unlink(mark)
        after: Values = {
            "keys": manifest.total,
            "jobs": taken,
            "sha256": manifest.sha256,
            "resumed": known is not None,
        }
        await self._audit.record(self._actor, action, target or "*", after=after)
        return Imported(
            str(reader.path),
            target,
            manifest.total - sum(left.values()),
            taken,
            refused,
            left,
            known is not None,
            verified=True,
            sha256=manifest.sha256,
        )

    async def _write_frame(self, adaptation: Adaptation, records: list[Record]) -> tuple[int, int]:
        """Write a frame's records; how many jobs were taken in, and how many could not be."""
        writing, jobs, limits = Writing(self._client), list[Job](), list[JobLimits]()
        for record in records:
            adapted = await adaptation.adapt(record)
            if isinstance(adapted, Piece | Tail | Group):
                await writing.add(adapted)
            elif isinstance(adapted, Job):
                jobs.append(adapted)
            elif isinstance(adapted, JobLimits):
                limits.append(adapted)
        await writing.flush()
        for each in limits:
            await set_limits(self._client, each)
        return await enqueue_jobs(self._client, jobs)

    async def _verify(
        self, reader: FileReader, adaptation: Adaptation, manifest: Manifest, progress: Progress | None
    ) -> None:
        wrong: list[bytes] = []
        for number, records in reader.frames():
            adapted = [await adaptation.adapt(record) for record in records if isinstance(record, Piece)]
            pieces = [piece for piece in adapted if isinstance(piece, Piece)]
            for begin in range(0, len(pieces), _KEYS):
                wrong += await differing(self._client, pieces[begin : begin + _KEYS])
            if progress is not None:
                progress("verified", number + 1, manifest.frames)
        if wrong:
            shown = ", ".join(key.decode() for key in wrong[:_SHOWN])
            raise TransferUnverified(
                f"{len(wrong)} keys are not as {reader.path} has them, such as {shown}: somebody else writes there; stop that and run it again with --replace"
            )

    async def _make_room(self, target: str | None, *, replace: bool) -> None:
        """Refuse to write over what is there, or remove it."""
        client = self._client
        if not replace:
            async for key in self._present(target):
                if family_name(key) not in BOUND | PASSING or family_name(key) in {
                    "queue-jobs",
                    "queue-wait",
                }:
                    whose = "the store" if target is None else f"the workspace {target!r}"
                    raise TargetNotEmpty(
                        f"{whose} is not empty, it has {key!r} for one: say --replace to remove what is there"
                    )
            if target is not None and await self._unfinished(target):
                raise TargetNotEmpty(
                    f"the workspace {target!r} has unfinished jobs: say --replace to remove them"
                )
            return

        async def doomed() -> AsyncIterator[str]:
            async for key in self._present(target):
                if family_name(key) not in KEPT_FAMILIES:
                    yield key

        if target is not None:
            await erase_jobs(client, target)
        await unlink_all(client, doomed())

    async def _present(self, target: str | None) -> AsyncIterator[str]:
        """The keys of a workspace, or of all and of the queues."""
        if target is not None:
            async for key in keys_of(self._client, target):
                yield key
            return
        async for raw in scan_iter(self._client, "*", count=1_000):
            key = raw.decode("utf-8", "replace")
            family = family_name(key)
            if family is not None and family.partition("-")[0] != "sys":
                yield key

    async def _unfinished(self, workspace: str) -> int:
        client = self._client
        counts = [
            await client.hget(queue_key("queue-depth", shard), workspace) for shard in await shards_of(client)
        ]
        return sum(int(count or 0) for count in counts)

    # --- gone ---

    async def erase(self, workspace: str, *, progress: Progress | None = None) -> Erased:
        """Remove everything of a workspace, until a walk over the whole key space finds nothing. Run again after it was cut off, it goes on.

        Nobody may write for the workspace meanwhile: there is no store-wide refusal. Its jobs are paused first and those that run are
        ended; processes forget what they have in memory of it. The audit log keeps the id, as the proof.

        Budget: three SCANs of the key space at least; UNLINK for each 250 keys; a script for each 200 jobs; the audit's 2.

        Args:
            workspace: whose.
            progress: told how many keys are gone.

        Raises:
            InvalidKey: the id may not name a workspace.
            TransferUnverified: keys come back as fast as they go: somebody writes.
            StoreError: the store is away.
        """
        client = self._client
        check_workspace_id(workspace)
        await self._audit.record(self._actor, "workspace.erase", workspace, before={"begun": True})
        handle = client.workspace(workspace)
        engine = client.service(QueueEngine)
        for shard in await shards_of(client):
            queue = shard.partition("#")[0]
            if engine.shard(queue, workspace).name == shard:
                await handle.queue.pause(queue)
        await handle.cache.flush()
        keys = names = 0
        told = None if progress is None else lambda done: progress("keys", keys + done, 0)
        for _ in range(_ROUNDS):
            names += await erase_jobs(client, workspace)
            found = await unlink_workspace(client, workspace, told)
            keys += found
            if not found:
                break
        left = [key async for key in keys_of(client, workspace)]
        if left or await self._unfinished(workspace):
            raise TransferUnverified(
                f"{len(left)} keys of {workspace!r} are left after {_ROUNDS} walks: somebody writes for it; stop that and run it again"
            )
        names += await erase_announcements(client, workspace) + await erase_figures(client, workspace)
        erased = Erased(workspace, keys, names, len(left))
        await self._audit.record(
            self._actor, "workspace.erase", workspace, after={"keys": keys, "names": names, "left": 0}
        )
        return erased


async def _in_batches(keys: AsyncIterator[tuple[str, str]]) -> AsyncIterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    async for each in keys:
        batch.append(each)
        if len(batch) >= _KEYS:
            yield batch
            batch = []
    if batch:
        yield batch
