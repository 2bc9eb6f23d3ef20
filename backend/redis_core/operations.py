"""What an operator does, over the client: flush, reset, revoke, pause. Each change is counted first and written to the audit log.

The admin routes and the command line are two faces of this. Jobs one by one are in `job_operations.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from redis_core.accounting.figures import UsagePage
from redis_core.audit import Actor, AuditLog, Values
from redis_core.commands import scan_iter
from redis_core.errors import InvalidKey, StoreError
from redis_core.key_audit import KeyAudit, KeyAuditor
from redis_core.keys import WorkspaceKeys, check_part, check_workspace_id, rate_key
from redis_core.measuring.documents import WORKSPACE_SUBJECT, Done, SessionFigures, SessionPage
from redis_core.queueing.control import QueueControl
from redis_core.queueing.inspection import QueueInspection
from redis_core.rate_limiting.subject import workspace_key
from redis_core.session import Sessions
from redis_core.usage import Budget

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.session import SessionData

__all__ = ["Operations"]

_MOST_COUNTED: Final = 10_000
"""Keys that a dry run counts."""
_ROUTE_RATE: Final = 5_000
"""Most commands a second of a key audit for which somebody waits."""


class Operations:
    """Changes by one operator.

    Args:
        client: the store.
        actor: who makes them.
    """

    def __init__(self, client: Client, actor: Actor) -> None:
        self.client = client
        self.actor = actor
        self.audit = AuditLog(client)

    async def flush_cache(self, workspace: str, region: str | None = None, *, dry_run: bool = False) -> Done:
        """Make misses of all cached values of a workspace, or of one region of it.

        Budget: 2 commands and the audit's; a dry run counts by SCAN, up to 10,000 keys.

        Raises:
            InvalidKey: the workspace or region may not stand in a key.
        """
        check_workspace_id(workspace)
        if region is not None:
            check_part(region)
        target = workspace if region is None else f"{workspace}:{region}"
        if dry_run:
            keys = WorkspaceKeys(workspace)
            pattern = f"{keys.key('cache') if region is None else keys.key('cache', region)}:*"
            return Done("cache.flush", target, dry_run, await self._count(pattern), 0)
        flush = lambda: self.client.workspace(workspace).cache.flush(region)  # noqa: E731
        await self._audited("cache.flush", target, {}, flush, {"flushed": True})
        return Done("cache.flush", target, dry_run, 1, 1)

    async def reset_limit(self, user: str, endpoint: str | None = None, *, dry_run: bool = False) -> Done:
        """Forget what was counted for a user, an address (`ip=...`) or a workspace (`ws=...`), at one endpoint or at all.

        Other processes may go on refusing from memory for some seconds. Budget: a SCAN of the key space; DEL and the audit's.

        Raises:
            InvalidKey: the user or endpoint may not stand in a key.
        """
        target = f"{check_part(user)}:{'*' if endpoint is None else endpoint}"
        if endpoint is None:
            found = await self._keys(_limits_of(user))
        else:
            workspace = _workspace_of(user)
            name = rate_key(user, endpoint) if workspace is None else workspace_key(workspace, endpoint)
            found = [name.encode()] if await self.client.exists(name) else []
            found += await self._keys(f"{name}:*")
        if dry_run or not found:
            return Done("limits.reset", target, dry_run, len(found), 0)
        gone = await self._audited(
            "limits.reset", target, {"keys": len(found)}, lambda: self.client.unlink(*found), {"keys": 0}
        )
        return Done("limits.reset", target, dry_run, len(found), gone)

    async def limits(self, user: str) -> dict[str, int]:
        """The keys of a user's limits and the milliseconds until each is forgotten; as in `reset_limit`. Budget: a SCAN, PTTL for each."""
        found = await self._keys(_limits_of(check_part(user)))
        batch = self.client.pipeline()
        left = [batch.pttl(key) for key in found]
        await batch.send()
        return {key.decode(): await each for key, each in zip(found, left, strict=True)}

    # --- sessions ---

    @property
    def _sessions(self) -> Sessions[SessionData]:
        return Sessions.from_settings(self.client, self.client.settings)

    async def sessions(self, user: str, workspace: str) -> SessionPage:
        """A user's sessions in a workspace. Budget: as `Sessions.list`."""
        WorkspaceKeys(workspace)
        return SessionPage([
            SessionFigures(
                handle=each.handle,
                workspace=workspace,
                user=user,
                created=_time(each.created),
                last_used=_time(each.last_seen),
                ends=_time(each.ends),
                device=each.device.label or None,
            )
            for each in await self._sessions.list(check_part(user), workspace)
        ])  # fmt: skip

    async def revoke_sessions(
        self, user: str, workspace: str | None = None, handle: str | None = None, *, dry_run: bool = False
    ) -> Done:
        """End a user's sessions: one by its handle, all of a workspace, or all. Budget: as `Sessions.revoke_user`.

        Without a workspace it is not known how many there are: 1 stands for the user.

        Raises:
            InvalidKey: an id is none, or a handle stands without its workspace.
        """
        sessions = self._sessions
        check_part(user)
        if handle is not None and workspace is None:
            raise InvalidKey(
                f"session {handle!r}: name its workspace too, or no handle to end all of the user's"
            )
        target = ":".join((workspace or "*", user, handle or "*"))
        if workspace is None:
            known = 1
        else:
            WorkspaceKeys(workspace)
            shown = await sessions.list(user, workspace)
            known = sum(handle is None or each.handle == handle for each in shown)
        if dry_run or not known:
            return Done("sessions.revoke", target, dry_run, known, 0)

        async def revoke() -> int:
            if workspace is not None and handle is not None:
                return int(await sessions.revoke_handle(user, workspace, handle, reason="operator"))
            ended = await sessions.revoke_user(user, workspace, reason="operator")
            return 1 if ended is None else ended

        ended = await self._audited("sessions.revoke", target, {"sessions": known}, revoke, {"sessions": 0})
        return Done("sessions.revoke", target, dry_run, known, ended)

    # --- keys ---

    async def audit_keys(
        self,
        workspace: str | None = None,
        *,
        keys: int = 10_000,
        seconds: float = 10,
        sample: int | None = None,
        most_bytes: int | None = None,
    ) -> KeyAudit:
        """Compare keys with what is declared, as many as the bounds allow. It changes nothing; that it ran is written down.

        Budget: as `KeyAuditor.run`, and the audit's.

        Args:
            workspace: only this one's keys.
            keys: most keys to look at, about.
            seconds: how long it may take, about.
            sample: about how many of the database's keys to ask for type, expiry and size.
            most_bytes: tell of keys that take more.

        Raises:
            InvalidKey: the id may not name a workspace.
        """
        auditor = KeyAuditor(
            self.client, workspace=workspace, sample=sample, most_bytes=most_bytes, rate=_ROUTE_RATE
        )
        found = await auditor.run(keys=keys, seconds=seconds)
        told = {"scanned": found.scanned, "faults": found.faults, "complete": found.complete}
        await self.audit.record(self.actor, "keys.audit", workspace or "*", after=told)
        return found

    # --- queues ---

    async def pause(self, queue: str, workspace: str | None = None) -> Done:
        """Let no further job of a queue begin, or of one workspace in it; one that is paused is left so. Budget: 1 command, as `QueueControl`, and the audit's."""
        return await self._gate(queue, workspace, paused=True)

    async def resume(self, queue: str, workspace: str | None = None) -> Done:
        """End a pause."""
        return await self._gate(queue, workspace, paused=False)

    async def _gate(self, queue: str, workspace: str | None, *, paused: bool) -> Done:
        action = "queue.pause" if paused else "queue.resume"
        target = queue if workspace is None else f"{queue}:{check_workspace_id(workspace)}"

        async def change() -> int:
            if workspace is None:
                control = QueueControl(self.client)
                await (control.pause(queue) if paused else control.resume(queue))
            else:
                own = self.client.workspace(workspace).queue
                await (own.pause(queue) if paused else own.resume(queue))
            return 1

        before = await QueueInspection(self.client).paused(queue, workspace)
        if before == paused:
            return Done(action, target, dry_run=False, matched=0, changed=0)
        await self._audited(action, target, {"paused": before}, change, {"paused": paused})
        return Done(action, target, dry_run=False, matched=1, changed=1)

    # --- usage ---

    async def usage(self, workspace: str, first: date, last: date) -> UsagePage:
        """What a workspace used from a day to another, and its budget. Budget: 2 trips, 2 commands and 1 a month.

        Raises:
            ValueError: they are no range of days.
        """
        usage = self.client.workspace(workspace).usage
        days = await usage.range(first, last)
        spent = await usage.spent()
        return UsagePage(workspace, days, spent.day, spent.month, spent.budget)

    async def set_budget(self, workspace: str, budget: Budget | None, *, dry_run: bool = False) -> Done:
        """Say what a workspace may spend; None lifts its budget. Budget: 3 commands and the audit's."""
        usage = self.client.workspace(workspace).usage
        before = await usage.budget()
        matched = int(before != budget)
        if dry_run or not matched:
            return Done("usage.budget", workspace, dry_run, matched, 0)

        async def change() -> int:
            await usage.set_budget(budget)
            return 1

        await self._audited("usage.budget", workspace, _limits(before), change, _limits(budget))
        return Done("usage.budget", workspace, dry_run, 1, 1)

    # --- pieces ---

    async def _audited(
        self,
        action: str,
        target: str,
        before: Values,
        change: Callable[[], Awaitable[int | None]],
        after: Values,
    ) -> int:
        """Make a change and write it down; what failed is written down too, since it may have been done."""
        try:
            changed = await change()
        except StoreError:
            await self.audit.record(self.actor, action, target, before=before, failed=True)
            raise
        told = {**after, "changed": changed} if changed is not None else after
        await self.audit.record(self.actor, action, target, before=before, after=told)
        return changed or 0

    async def audited(
        self, action: str, target: str, before: Values, change: Callable[[], Awaitable[int | None]]
    ) -> int:
        """Make a change of another module and write it down; how much was changed."""
        return await self._audited(action, target, before, change, {})

    async def _keys(self, pattern: str) -> list[bytes]:
        found: list[bytes] = []
        async for key in scan_iter(self.client, pattern):
            found.append(key)
            if len(found) >= _MOST_COUNTED:
                break
        return found

    async def _count(self, pattern: str) -> int:
        return len(await self._keys(pattern))


def _workspace_of(subject: str) -> str | None:
    """The workspace that `ws=...` names among who has limits; None for anybody else."""
    return subject.removeprefix(WORKSPACE_SUBJECT) if subject.startswith(WORKSPACE_SUBJECT) else None


def _limits_of(subject: str) -> str:
    """A pattern of the keys of its limits."""
    workspace = _workspace_of(subject)
    return f"rate:{subject}:*" if workspace is None else f"{WorkspaceKeys(workspace).key('rate')}:*"


def _limits(budget: Budget | None) -> Values:
    return {} if budget is None else {"day": budget.day, "month": budget.month, "warn": budget.warn}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
