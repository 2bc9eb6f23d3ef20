"""Sessions while the store is away: what this process knows of them, what it keeps for later, and how both meet again.

- Users whose sessions this process has seen stay in, with copies. A session that it has not seen may exist: `StoreUnavailable`.
- What ends is kept first and carried out before anything is read from the store again; what was ended never comes back.
- What is changed is carried out field by field, and only where nobody else has changed that field meanwhile.
- Where the store has lost its data, what was ended here is ended again and then the copies are stored, each of them once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from redis_core.clock import SYSTEM_CLOCK
from redis_core.errors import JournalError, Kind, StoreError, StoreUnavailable
from redis_core.keys import WorkspaceKeys
from redis_core.log import get_logger
from redis_core.resilience.outage import NO_OUTAGE, Change, State
from redis_core.script import load_script
from redis_core.sessions.copies import MAX_COPIES, Copy, SessionCopies
from redis_core.sessions.intents import (
    Begun,
    Ended,
    EpochBegun,
    Intent,
    Written,
    decode_intent,
    encode_intent,
)
from redis_core.sessions.policy import SessionPolicy
from redis_core.sessions.record import TOUCHED, SessionRecord

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.resilience.record import Record
    from redis_core.transport.base import Argument, Command

__all__ = ["SessionKeeper"]

_ENDS: Final = "session-end"
_CHANGES: Final = "session"
_UNSURE: Final = 5.0
"""Seconds after an outage in which a session that the store has not may yet be brought by another process."""
_RESTORING: Final = 30.0
"""Seconds after a loss of data in which a session that is asked for is stored again on the spot."""
_CHUNK: Final = 100
"""Sessions stored again in one trip, so that a store that has just come back is not run over."""
_RETRY: Final = 0.5
_LATER: Final = frozenset({Kind.UNREACHABLE, Kind.READ_ONLY})
_HOPS: Final = 4
_LOG: Final = get_logger("redis_core.session")


class SessionKeeper:
    """One a client; see `Client.service`. Without a failover it keeps nothing.

    Args:
        client: the store.
    """

    def __init__(self, client: Client) -> None:
        self._client = client.primary
        self._outage = client.outage
        self.watched = self._outage is not NO_OUTAGE
        """Whether there is anything to be kept for."""
        self.copies = SessionCopies()
        self._epochs: dict[str, tuple[int, int]] = {}
        self._gone: set[str] = set()
        self._unsure_until = 0.0
        self._lost_until = 0.0
        self._restoring: asyncio.Task[None] | None = None
        self.policy = SessionPolicy()
        """That of the `Sessions` made last."""
        self._clock = SYSTEM_CLOCK
        self._stop = self._outage.watch(self._changed)
        self._outage.replayer(_ENDS, self._replay, first=True)
        self._outage.replayer(_CHANGES, self._replay)

    # --- what is known ---

    def apart(self, mac: str) -> bool:
        """Whether the store may not be asked about this session: it is away, or does not know yet what was changed here."""
        outage = self._outage
        return not outage.available or outage.waiting(mac)

    @property
    def away(self) -> bool:
        """Whether the store is away."""
        return not self._outage.available

    @property
    def may_be_brought(self) -> bool:
        """Whether a session that the store does not have may yet be: other processes have just come back, too."""
        return self.watched and self._clock.monotonic() < self._unsure_until

    def is_gone(self, mac: str) -> bool:
        """The store does not have it; whether it certainly is over, because this process knew it, or ended it."""
        gone = self.copies.has_ended(mac) or mac in self._gone
        if self.copies.find(mac) is not None:
            self.copies.forget(mac)
            if len(self._gone) >= MAX_COPIES:
                self._gone.clear()
            self._gone.add(mac)
            gone = True
        return gone

    async def made_sure(self, mac: str) -> bool:
        """Whether the store may have the session after all: it had lost it, and has been given it again. Budget: nothing if all is well."""
        if self.watched and self.copies.find(mac) is not None:
            await self._outage.confirm()
            if self.data_was_lost:
                # By us now, or by who was faster, of which the answer does not tell.
                await self.restored(mac)
                return True
        return False

    @property
    def data_was_lost(self) -> bool:
        """Whether the store has lost its data a moment ago: absence proves nothing."""
        return self.watched and self._clock.monotonic() < self._lost_until

    def can_wait(self, error: StoreError) -> bool:
        """Whether what ended so may be carried out later."""
        return self.watched and error.kind in _LATER

    # --- what is kept ---

    async def ended(self, workspace: str, user_id: str | None, macs: Sequence[str]) -> None:
        """These are over, here at once. Raises `StoreUnavailable` if that cannot be kept: then others may not hear of it."""
        for mac in macs:
            self.copies.end(mac, workspace, user_id)
        await self._keep(_ENDS, f"session-end:{workspace}", Ended(workspace, user_id, tuple(macs)))

    async def epoch_begun(self, names: Sequence[str], least: int, ttl: int) -> None:
        """All sessions of before are over. Raises as `ended`."""
        self.learned(names, least, ttl)
        await self._keep(_ENDS, "session-epoch", EpochBegun(tuple(names), least, ttl))

    def learned(self, names: Sequence[str], epoch: int, ttl: int) -> None:
        """An epoch that was begun here; it must not be lost with the store's data."""
        if self.watched:
            for name in names:
                self._epochs[name] = max(epoch, self._epochs.get(name, (0, 0))[0]), ttl

    async def begun(
        self, workspace: str, user_id: str | None, mac: str, fields: dict[bytes, bytes], end: int
    ) -> None:
        """A session begins here; others know it when the store is back. Raises as `ended`."""
        lag, index_ttl = self.policy.touch_after_ms, self.policy.epoch_ttl_ms
        text = {name.decode(): value for name, value in fields.items()}
        await self._keep(_CHANGES, mac, Begun(workspace, user_id, mac, text, end, lag, index_ttl))
        self.copies.seen(mac, workspace, user_id, fields, self._clock.monotonic())

    async def written(
        self,
        mac: str,
        written: dict[bytes, bytes],
        removed: Sequence[bytes],
        end: int,
        *,
        used: bool = False,
    ) -> bool:
        """Fields of a session are changed here, or it is used; False if this process has no copy of it. Raises as `ended`."""
        copy = self.copies.find(mac)
        if copy is None:
            return False
        changes: tuple[tuple[str, bytes | None, bytes | None], ...] = (
            *(
                (name.decode(), copy.fields.get(name), value)
                for name, value in written.items()
                if name != TOUCHED
            ),
            *((name.decode(), copy.fields.get(name), None) for name in removed),
        )
        touched = int(written.get(TOUCHED, b"0")) if used else 0
        self.copies.changed(mac, written, removed)
        intent = Written(copy.workspace, copy.user_id, mac, changes, touched, end, self.policy.touch_after_ms)
        await self._keep(_CHANGES, mac, intent)
        return True

    async def _keep(self, kind: str, order: str, intent: Intent) -> None:
        try:
            await self._outage.record(kind, order, encode_intent(intent))
        except JournalError as error:
            raise StoreUnavailable(
                f"the session store is away, and the journal cannot keep it: {error}"
            ) from error

    # --- carrying out ---

    async def _replay(self, records: Sequence[Record]) -> None:
        for record in records:
            await self._carry_out(decode_intent(record.payload))

    async def _carry_out(self, intent: Intent) -> None:
        match intent:
            case Ended():
                await self._end(intent.workspace, intent.user_id, intent.macs)
            case EpochBegun():
                await self._begin_epochs(dict.fromkeys(intent.names, (intent.least, intent.ttl)))
            case Begun():
                copy = Copy(
                    intent.workspace,
                    intent.user_id,
                    {name.encode(): value for name, value in intent.fields.items()},
                    0.0,
                )
                await self._store_again(intent.mac, copy, intent.end, intent.lag, intent.index_ttl)
            case Written():
                await self._merge(intent)

    async def _end(self, workspace: str, user_id: str | None, macs: Sequence[str]) -> None:
        """End them in the store, and see to it that no process stores them again."""
        keys = WorkspaceKeys(workspace)
        commands: list[Command] = [("UNLINK", *(keys.key("session", mac) for mac in macs))]
        if user_id is not None:
            commands.append(("ZREM", keys.key("session-index", user_id), *macs))
        commands += [
            ("SET", keys.key("session-once", mac), "1", "PX", self.policy.epoch_ttl_ms) for mac in macs
        ]
        await self._together(commands)

    async def _begin_epochs(self, epochs: dict[str, tuple[int, int]]) -> None:
        for name, (least, ttl) in epochs.items():
            await self._client.run(load_script("session_epoch"), [name], (least, ttl, 0))

    async def _merge(self, intent: Written) -> None:
        keys = WorkspaceKeys(intent.workspace)
        index = [] if intent.user_id is None else [keys.key("session-index", intent.user_id)]
        mac = intent.mac
        args: list[Argument] = [intent.touched, self._ttl(intent.end, intent.lag), intent.end, mac]
        for name, before, after in intent.changes:
            args += (name, int(before is not None), before or b"", int(after is not None), after or b"")
        reply: Any = [0]
        for _ in range(_HOPS):
            reply = await self._client.run(
                load_script("session_merge"), [keys.key("session", mac), *index], args
            )
            if reply[0] != 2:  # noqa: PLR2004 - the script's word for "it goes on elsewhere"
                break
            mac = args[3] = cast("bytes", reply[1]).decode()
        if reply[0] == 1 and reply[1]:
            _LOG.warning(
                "session fields were changed by others meanwhile, and stay so",
                session=mac[:8],
                fields=reply[1],
            )

    def _ttl(self, end: int, lag: int) -> int:
        return max(1, end - int(self._clock.now() * 1000)) + lag

    async def _together(self, commands: Sequence[Command]) -> None:
        batch = self._client.pipeline()
        replies = [batch.execute(*command) for command in commands]
        await batch.send()
        for reply in replies:
            await reply

    # --- after a loss of the store's data ---

    async def restored(self, mac: str) -> bool:
        """Store again what this process knows of a session; whether the store has it now. Budget: 1 command."""
        copy = self.copies.find(mac)
        return copy is not None and await self._restore_copy(mac, copy)

    async def _restore_copy(self, mac: str, copy: Copy) -> bool:
        record = SessionRecord(copy.fields)
        end = self.policy.end(record.touched, record.absolute_end)
        if end <= self._clock.now() * 1000:
            return False
        return await self._store_again(mac, copy, end, self.policy.touch_after_ms, self.policy.epoch_ttl_ms)

    async def _store_again(self, mac: str, copy: Copy, end: int, lag: int, index_ttl: int) -> bool:
        """False if it was there, or has been stored again or ended before."""
        keys = WorkspaceKeys(copy.workspace)
        index = [] if copy.user_id is None else [keys.key("session-index", copy.user_id)]
        names = [keys.key("session", mac), keys.key("session-once", mac), *index]
        args: list[Argument] = [mac, end, self._ttl(end, lag), index_ttl]
        for name, value in copy.fields.items():
            args += (name, value)
        return bool(await self._client.run(load_script("session_restore"), names, args))

    def _changed(self, change: Change) -> None:
        now = self._clock.monotonic()
        if change.after is State.HEALTHY and change.before is State.RECOVERING:
            self._unsure_until = now + _UNSURE
        if change.came_back_empty:
            self._lost_until, self._unsure_until = now + _RESTORING, now + _UNSURE
            self._gone.clear()
            if self._restoring is None or self._restoring.done():
                self._restoring = asyncio.get_running_loop().create_task(
                    self._restore(), name="session restore"
                )

    async def _restore(self) -> None:
        """End again what was ended here, then store again what this process has seen."""
        done: set[str] = set()
        while True:
            try:
                if await self._restore_rest(done):
                    return
            except StoreError as error:
                if error.kind is Kind.CALLER:
                    _LOG.error("sessions cannot be stored again", error=str(error))
                    return
            await self._clock.sleep(_RETRY)

    async def _restore_rest(self, done: set[str]) -> bool:
        if self.away:
            return False
        await self._begin_epochs(self._epochs)
        for mac, workspace, user_id in self.copies.ended():
            if mac not in done:
                await self._end(workspace, user_id, [mac])
                done.add(mac)
        rest = [(mac, copy) for mac, copy in self.copies if mac not in done]
        for start in range(0, len(rest), _CHUNK):
            chunk = rest[start : start + _CHUNK]
            living = [(mac, copy) for mac, copy in chunk if not self.copies.has_ended(mac)]
            await asyncio.gather(*(self._restore_copy(mac, copy) for mac, copy in living))
            done.update(mac for mac, _ in chunk)
        _LOG.info("sessions were stored again", sessions=len(rest))
        return True

    async def aclose(self) -> None:
        """Let go of the outage. Idempotent."""
        self._stop()
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.gather(self._restoring, return_exceptions=True)
