"""A workspace or a whole store as a file, and from a file; and a workspace gone without a trace.

A file holds values, not a server's own dumps: it moves between Upstash, Redis, Valkey and memory. See `docs/portability.md` for
the format, for what is carried, and for what a live store means for it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from redis_core.audit import Actor, AuditLog, Values
from redis_core.errors import StoreError, TransferError, TransferUnverified
from redis_core.keys import check_workspace_id
from redis_core.transfer.erasing import erase_workspace
from redis_core.transfer.exporting import write_file
from redis_core.transfer.format import FileReader
from redis_core.transfer.importing import Importing
from redis_core.transfer.outcome import Erased, Exported, Imported, Progress
from redis_core.transfer.selection import Selection

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Erased", "Exported", "Imported", "Portability", "Progress"]


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
        done = await write_file(self._client, selection, path, progress)
        keys = sum(sum(types.values()) for types in done.keys.values())
        after: Values = {"keys": keys, "jobs": done.jobs, "sha256": done.sha256}
        await self._audit.record(self._actor, action, selection.workspace or "*", after=after)
        return done

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
        importing = Importing(self._client, reader, head, manifest, target, progress)
        return await self._read_file("workspace.import", importing, target, replace=replace)

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
        importing = Importing(self._client, reader, head, manifest, None, progress)
        return await self._read_file("store.restore", importing, None, replace=replace)

    async def _read_file(
        self, action: str, importing: Importing, target: str | None, *, replace: bool
    ) -> Imported:
        try:
            done = await importing.run(replace=replace)
        except (StoreError, TransferUnverified):
            await self._audit.record(self._actor, action, target or "*", failed=True)
            raise
        after: Values = {"keys": done.keys, "jobs": done.jobs, "sha256": done.sha256, "resumed": done.resumed}
        await self._audit.record(self._actor, action, target or "*", after=after)
        return done

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
        check_workspace_id(workspace)
        await self._audit.record(self._actor, "workspace.erase", workspace, before={"begun": True})
        done = await erase_workspace(self._client, workspace, progress)
        after = {"keys": done.keys, "names": done.names, "left": done.left}
        await self._audit.record(self._actor, "workspace.erase", workspace, after=after)
        return done
