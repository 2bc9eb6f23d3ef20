"""The audit log: who changed what, when, and what it was before and after. A bounded stream in the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from redis_core.keys import AUDIT_LOG
from redis_core.log import get_logger
from redis_core.measuring.documents import AuditEntry, AuditPage, Role

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["ENTRIES_KEPT", "Actor", "AuditLog", "Values"]

ENTRIES_KEPT: Final = 10_000
"""About; the oldest go."""
_LOG: Final = get_logger("redis_core.audit")

Values = Mapping[str, str | int | float | bool | None]


class Actor(msgspec.Struct, frozen=True):
    """Who makes a change."""

    who: str
    """A token's name, `user:<id>` of a session, `cli:<name>`, or `local`."""
    role: Role


class _Stored(msgspec.Struct, frozen=True):
    """An entry as the stream holds it."""

    who: str
    role: Role
    action: str
    target: str
    outcome: Literal["done", "failed"]
    before: dict[str, str | int | float | bool | None]
    after: dict[str, str | int | float | bool | None]


_DECODER: Final = msgspec.json.Decoder(_Stored)


class AuditLog:
    """Writes and reads the log.

    Args:
        client: the store.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def record(
        self,
        actor: Actor,
        action: str,
        target: str,
        *,
        before: Values | None = None,
        after: Values | None = None,
        failed: bool = False,
    ) -> None:
        """Write down a change; to the process' log as well. Budget: 1 command.

        Args:
            actor: who.
            action: what: `cache.flush`.
            target: of what, such as `acme:profile`.
            before: how it was.
            after: how it is.
            failed: whether it may not have been done.

        Raises:
            StoreError: the store did not take it.
        """
        entry = _Stored(
            actor.who,
            actor.role,
            action,
            target,
            "failed" if failed else "done",
            dict(before or {}),
            dict(after or {}),
        )
        _LOG.info("changed by an operator", **msgspec.structs.asdict(entry))
        text = msgspec.json.encode(entry).decode()
        await self._client.xadd(AUDIT_LOG, {"entry": text}, max_length=ENTRIES_KEPT)

    async def page(self, *, before: str | None = None, count: int = 50) -> AuditPage:
        """The latest entries. Budget: 1 command.

        Args:
            before: an entry's id; only those that are older.
            count: most entries.
        """
        end = "+" if before is None else f"({before}"
        entries = await self._client.xrevrange(AUDIT_LOG, end=end, count=count + 1)
        shown = [_entry(name.decode(), fields) for name, fields in entries[:count]]
        return AuditPage(shown, shown[-1].id if len(entries) > count else None)


def _entry(id: str, fields: Mapping[bytes, bytes]) -> AuditEntry:
    stored = _DECODER.decode(fields[b"entry"])
    at = datetime.fromtimestamp(int(id.partition("-")[0]) / 1000, UTC)
    time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return AuditEntry(
        id,
        time,
        stored.who,
        stored.role,
        stored.action,
        stored.target,
        stored.outcome,
        stored.before,
        stored.after,
    )
