"""Writing a selection of a store to a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from redis_core.clock import SYSTEM_CLOCK
from redis_core.transfer.format import FileWriter
from redis_core.transfer.jobs import read_jobs
from redis_core.transfer.outcome import Exported, Progress
from redis_core.transfer.reading import read_keys
from redis_core.transfer.records import Head, Piece
from redis_core.transfer.selection import Selection, bytes_of

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["write_file"]

_KEYS: Final = 100
"""Keys that are read together."""


async def write_file(client: Client, selection: Selection, path: Path, progress: Progress | None) -> Exported:
    """Read what is selected, page by page, into a file; see `Portability.export`."""
    workspace = selection.workspace
    with FileWriter(path) as file:
        scope: Literal["store", "workspace"] = "store" if workspace is None else "workspace"
        file.add(Head(scope, workspace or "", SYSTEM_CLOCK.now(), client.mode, selection.families))
        done = 0
        async for families in _in_batches(selection.keys(client)):
            async for record in read_keys(client, list(families)):
                file.add(record, families[record.key] if isinstance(record, Piece) else "")
            done += len(families)
            if progress is not None:
                progress("keys", done, 0)
        if selection.jobs:
            async for job in read_jobs(client, workspace):
                file.add(job)
        manifest = file.finish()
    return Exported(
        str(path), workspace, manifest.keys, manifest.jobs, manifest.bytes, file.written, manifest.sha256
    )


async def _in_batches(keys: AsyncIterator[tuple[str, str]]) -> AsyncIterator[dict[bytes, str]]:
    """Keys with their families. What SCAN brings twice in a row, as it may, is read once."""
    batch: dict[bytes, str] = {}
    async for key, family in keys:
        batch[bytes_of(key)] = family
        if len(batch) >= _KEYS:
            yield batch
            batch = {}
    if batch:
        yield batch
