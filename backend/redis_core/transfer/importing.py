"""Writing a file to a store: in frames, each noted when it is done, and all of it looked for afterwards."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Final

from redis_core.errors import TransferUnverified
from redis_core.keys import AUDIT_LOG, import_key
from redis_core.resilience.epoch import EPOCH_KEY
from redis_core.transfer.adapting import Adaptation
from redis_core.transfer.checking import differing
from redis_core.transfer.format import FileReader
from redis_core.transfer.jobs import enqueue_jobs, set_limits
from redis_core.transfer.outcome import Imported, Progress
from redis_core.transfer.records import Group, Head, Job, JobLimits, Manifest, Piece, Record, Tail
from redis_core.transfer.room import make_room
from redis_core.transfer.writing import Writing

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Importing"]

_AT_ONCE: Final = 100
"""Pieces that are looked for together."""
_MARK_SECONDS: Final = 7 * 86_400
_SHOWN: Final = 5


class Importing:
    """One file on its way into one store.

    Args:
        client: the store.
        reader: the file.
        head: what it is.
        manifest: what it has.
        target: the workspace's id in the store; None for a backup of a whole store.
        progress: told how many frames are written, then looked for.
    """

    def __init__(
        self, client: Client, reader: FileReader, head: Head, manifest: Manifest, target: str | None,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self._client = client
        self._reader = reader
        self._head = head
        self._manifest = manifest
        self._target = target
        self._progress = progress
        digest = hashlib.sha256(manifest.sha256.encode()).hexdigest()[:32]
        self._mark = import_key(f"{target or '_'}.{digest}")

    async def run(self, *, replace: bool) -> Imported:
        """Write it all, or what a run before has not, and look for it; see `Portability.import_`."""
        client = self._client
        known = await client.get(self._mark)
        if known is None:
            start, nonce, keep_audit = 0, secrets.token_hex(8), bool(await client.exists(AUDIT_LOG))
        else:
            reached, nonce, kept = known.decode().split()
            start, keep_audit = int(reached), kept == "1"
        now = int((await client.time()) * 1000)
        adaptation = Adaptation(client, self._head, self._target, nonce, keep_audit=keep_audit, now=now)
        if adaptation.renames:
            for _, records in self._reader.frames():
                for record in records:
                    adaptation.refuse_old_names(record)

        async def note(frames: int) -> None:
            await client.set(self._mark, f"{frames} {nonce} {int(keep_audit)}", ex=_MARK_SECONDS)

        if known is None:
            await make_room(client, self._target, replace=replace)
            await note(0)
            if self._target is not None:
                # What processes have in memory is of before.
                await client.workspace(self._target).cache.flush()
        jobs: Counter[str] = Counter()
        for number, records in self._reader.frames(start):
            taken, refused = await self._write(adaptation, records)
            jobs["taken"] += taken
            jobs["refused"] += refused
            await note(number + 1)
            self._tell("written", number + 1)
        if self._target is None:
            # Processes see by it that the store went back in time, and forget what they remember of it.
            await client.set(EPOCH_KEY, f"{now / 1000:.6f}-{secrets.token_hex(8)}")
        left = await self._verify(adaptation)
        await client.unlink(self._mark)
        return Imported(
            str(self._reader.path), self._target, self._manifest.total - left.total(), jobs["taken"], jobs["refused"],
            dict(left), known is not None, verified=True, sha256=self._manifest.sha256,
        )  # fmt: skip

    async def _write(self, adaptation: Adaptation, records: list[Record]) -> tuple[int, int]:
        """Write a frame's records; how many jobs were taken in, and how many could not be."""
        writing = Writing(self._client)
        jobs: list[Job] = []
        for record in records:
            adapted = await adaptation.adapt(record)
            if isinstance(adapted, Piece | Tail | Group):
                await writing.add(adapted)
            elif isinstance(adapted, Job):
                jobs.append(adapted)
            elif isinstance(adapted, JobLimits):
                await set_limits(self._client, adapted)
        await writing.flush()
        return await enqueue_jobs(self._client, jobs)

    async def _verify(self, adaptation: Adaptation) -> Counter[str]:
        """Look for all of it; how many keys are not carried, by why.

        Raises:
            TransferUnverified: not all of it is there as it should be.
        """
        adaptation.left.clear()
        wrong: list[bytes] = []
        for number, records in self._reader.frames():
            adapted = [await adaptation.adapt(record) for record in records if isinstance(record, Piece)]
            pieces = [piece for piece in adapted if isinstance(piece, Piece)]
            for begin in range(0, len(pieces), _AT_ONCE):
                wrong += await differing(self._client, pieces[begin : begin + _AT_ONCE])
            self._tell("verified", number + 1)
        if wrong:
            # What is there is of no use to go on from.
            await self._client.unlink(self._mark)
            shown = ", ".join(key.decode("utf-8", "backslashreplace") for key in wrong[:_SHOWN])
            raise TransferUnverified(
                f"{len(wrong)} keys are not as {self._reader.path} has them, such as {shown}: "
                "somebody else writes there; stop that, and run it again with --replace"
            )
        return adaptation.left

    def _tell(self, what: str, frames: int) -> None:
        if self._progress is not None:
            self._progress(what, frames, self._manifest.frames)
