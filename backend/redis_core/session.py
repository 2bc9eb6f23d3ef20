"""Sessions: who is using the application, and what it keeps for them between requests.

A session is one hash in the store, named by a MAC of the token that the browser holds. It ends after a time without use and at
an absolute time, both by our clock and to the millisecond. Changed fields are written one by one, so parallel requests keep
each other's changes, and only to a session that still exists, so what was logged out stays so.

While the store is away, users that this process has seen stay in, and what is changed or ended is kept for later; of a session that
it has not seen it says `StoreUnavailable`. Nobody is taken for logged out because of an outage (docs/resilience.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar, cast, overload

import msgspec

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import SessionError, SessionGone, StoreError, StoreUnavailable
from redis_core.keys import PRE_LOGIN_WORKSPACE, WorkspaceKeys, check_part
from redis_core.sessions.data import DataForm, MappingForm, SessionData, StructForm
from redis_core.sessions.event import EventHook, EventKind, SessionEvent, tell
from redis_core.sessions.login import Logins
from redis_core.sessions.object import Session, check_size
from redis_core.sessions.pepper import PepperRing, peppers_of
from redis_core.sessions.policy import SessionPolicy
from redis_core.sessions.record import (
    ABSOLUTE_END,
    CORE,
    DEVICE,
    TOUCHED,
    Device,
    Epochs,
    SessionCore,
    SessionInfo,
    SessionRecord,
)
from redis_core.sessions.store import Member, SessionStore, WritePlan, pointer_of
from redis_core.sessions.token import HANDLE_CHARS, Token, read_token
from redis_core.sessions.value import encode_value

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.config import Settings

__all__ = [
    "Consistency",
    "Device",
    "PepperRing",
    "Session",
    "SessionData",
    "SessionEvent",
    "SessionInfo",
    "SessionPolicy",
    "Sessions",
]

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

Consistency = Literal["normal", "strong"]
"""`normal`: as the nearest replica and a memory of up to 30 s have it; `strong`: as the leader has it now."""

_MAX_TOUCHING: Final = 10_000
_ROUNDS: Final = 16
"""How often a revocation looks again for logins that came in meanwhile."""


class Sessions(Generic[T]):
    """All sessions of an application.

    Args:
        client: the store.
        peppers: the keys of the tokens' MACs.
        data: a msgspec Struct that sessions' data is; without it data is a mapping (`SessionData`).
        policy: how long they live, how many there may be.
        on_event: told of everything that happens to sessions; see `sessions/event.py`.
        clock: the time.
        plan: how writes are done; see `sessions/store.py`.
    """

    @overload
    def __init__(
        self: Sessions[SessionData],
        client: Client,
        peppers: PepperRing,
        *,
        policy: SessionPolicy = ...,
        on_event: EventHook | None = ...,
        clock: Clock = ...,
        plan: WritePlan = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: Sessions[S],
        client: Client,
        peppers: PepperRing,
        *,
        data: type[S],
        policy: SessionPolicy = ...,
        on_event: EventHook | None = ...,
        clock: Clock = ...,
        plan: WritePlan = ...,
    ) -> None: ...

    def __init__(
        self,
        client: Client,
        peppers: PepperRing,
        *,
        data: type[msgspec.Struct] | None = None,
        policy: SessionPolicy = SessionPolicy(),  # noqa: B008 - frozen
        on_event: EventHook | None = None,
        clock: Clock = SYSTEM_CLOCK,
        plan: WritePlan = "auto",
    ) -> None:
        if plan == "economy" and policy.renew_after is not None:
            raise ValueError(
                "tokens are renewed in passing only under the plan 'script': a pointer must see writes"
            )
        self.policy = policy
        self._form: DataForm[T] = cast("DataForm[T]", MappingForm() if data is None else StructForm(data))
        self._peppers = peppers
        self._on_event = on_event
        self._clock = clock
        self._meter = client.meter
        self._store = SessionStore(client, peppers, policy, clock, plan)
        self._logins = Logins(self._store, peppers, self._evicted)
        self._touching: dict[str, int] = {}

    @classmethod
    def from_settings(
        cls, client: Client, settings: Settings, *, on_event: EventHook | None = None
    ) -> Sessions[SessionData]:
        """Sessions as the settings have them, their data a mapping.

        Raises:
            ConfigError: `SESSION_PEPPERS` is malformed, or missing in production.
        """
        policy = SessionPolicy.from_settings(settings)
        return Sessions(client, peppers_of(client, settings), policy=policy, on_event=on_event)

    # --- making ---

    async def create(
        self,
        user_id: str | None,
        workspace: str = PRE_LOGIN_WORKSPACE,
        data: T | Mapping[str, object] | None = None,
        device: Device | None = None,
    ) -> tuple[Session[T], str]:
        """A new session, and its token, which is for the cookie alone.

        At the user's maximum of sessions the one used longest ago ends, or the login fails, as the policy says; the maximum
        holds whatever logins run at once.

        Args:
            user_id: who has just authenticated; None for somebody not known yet.
            workspace: where it is valid; the reserved one before a workspace is chosen.
            data: what it holds at first.
            device: where the login comes from.

        Budget: 2 trips, 4 commands with one pepper (on Upstash also what the script names); at the maximum 2 more trips.

        Raises:
            TooManySessions: the user has as many as allowed, and the policy is to refuse.
            SessionTooLarge: the data is larger than allowed.
            InvalidKey: an id may not stand in a key.
            CodecError: the data cannot be stored.
        """
        WorkspaceKeys(workspace)
        stored = self._form.encode(data if data is not None else {})
        check_size(self.policy, stored)
        now = self._store.now()
        owner = None if user_id is None else check_part(user_id)
        core = SessionCore(now, 0 if owner is None else now, now, owner, Epochs())
        fields = {ABSOLUTE_END: b"%d" % self.policy.absolute_end(now), TOUCHED: b"%d" % now}
        if device is not None:
            fields[DEVICE] = encode_value(device)
        fields |= {name.encode(): value for name, value in stored.items()}
        text, token, fields = await self._logins.login(workspace, core, fields)
        session = Session(self._store, self._form, token, SessionRecord(fields))
        self._tell("created", session)
        return session, text

    async def rotate(
        self,
        session: Session[T],
        *,
        user_id: str | None = None,
        workspace: str | None = None,
        device: Device | None = None,
        reauthenticated: bool = True,
    ) -> str:
        """Let a session go on under a new token, at a login, a re-authentication or a change of rights; returns the token.

        The old token is dead at once. Data and absolute end stay. In the same workspace this is one atomic step; into another
        workspace the new session is stored first and the old one ended after.

        Args:
            session: as it was read; it is the new one afterwards.
            user_id: who has just logged in, if it was nobody's session.
            workspace: where it is valid from now on, if elsewhere.
            device: where the login comes from, if that is new.
            reauthenticated: whether the user has just proved to be the user; False for a mere change of rights.

        Budget: 1 trip, 1 command for the same user and workspace (on Upstash also what the script names); a login as `create`.

        Raises:
            SessionGone: it has ended since it was read.
            SessionError: it is another user's.
            TooManySessions: as `create`.
        """
        owner = session.user_id
        if user_id is not None and owner is not None and user_id != owner:
            raise SessionError(
                "a session cannot change from one user to another: revoke it and create a new one"
            )
        owner = owner if user_id is None else check_part(user_id)
        now, core, record = self._store.now(), session.record.core, session.record
        authenticated = now if owner is not None and reauthenticated else core.authenticated
        core = msgspec.structs.replace(core, user_id=owner, issued=now, authenticated=authenticated)
        changed = {} if device is None else {DEVICE: encode_value(device)}
        target = session.workspace if workspace is None else WorkspaceKeys(workspace).workspace
        if target != session.workspace:
            text = await self._move(session, target, core, changed)
        elif owner != session.user_id:
            changed |= {TOUCHED: b"%d" % record.touched, ABSOLUTE_END: b"%d" % record.absolute_end}
            text, token, fields = await self._logins.login(target, core, changed, session.place)
            session.reissued(token, fields)
        else:
            text, token, fields = await self._logins.reissue(session.place, record, core, changed)
            session.reissued(token, fields)
        self._tell("rotated", session)
        return text

    async def renew(self, session: Session[T]) -> str | None:
        """Replace a token that is older than the policy's `renew_after`; None if it is not, or another request just did.

        The old one is accepted for `renew_grace` seconds more, for requests that are under way.
        Budget: nothing if it is not due; else as `rotate`.
        """
        if self.policy.renew_after is None or session.renewed or session.degraded:
            return None
        now = self._store.now()
        if now - session.record.core.issued < self.policy.renew_after * 1000:
            return None
        core = msgspec.structs.replace(session.record.core, issued=now)
        grace = max(1, round(self.policy.renew_grace * 1000))
        try:
            text, token, fields = await self._logins.reissue(
                session.place, session.record, core, {}, pointer_ms=grace
            )
        except SessionGone:
            return None
        session.reissued(token, fields)
        self._tell("renewed", session)
        return text

    async def _move(
        self, session: Session[T], workspace: str, core: SessionCore, changed: dict[bytes, bytes]
    ) -> str:
        """Copy a session as it is stored into another workspace, then end it where it was."""
        await session.save()
        old = session.place
        fields = await self._store.read(session.token)
        if CORE not in fields:
            raise SessionGone("the session has ended since it was read")
        text, token, fields = await self._logins.login(workspace, core, fields | changed)
        await self._store.remove(old.workspace, old.user_id, [old.mac])
        session.reissued(token, fields)
        return text

    # --- reading ---

    async def get(
        self,
        token: str,
        *,
        workspace: str | None = None,
        consistency: Consistency = "normal",
        touch: bool = True,
    ) -> Session[T] | None:
        """The session of a token; None if there is none, whatever the token is.

        A token that we did not make costs nothing but a MAC, and is never adopted.

        Args:
            token: from the cookie.
            workspace: that of the request; a token of another one is no session here.
            consistency: `strong` asks the leader, so that a revocation of a moment ago shows on every route where it must.
            touch: write down the use if that is due, at most 24 times per idle time; False if `touch()` is called later.

        Budget: 1 command, 1 trip; in the same trip 1 command more for each of the workspace's and the user's revocation epoch
        that this process has not asked for in 30 s. `strong`: 3 commands, 1 trip (on Upstash 4 billed). A touch: see `touch`.

        Raises:
            StoreUnavailable: the store cannot tell.
            CodecError: what is stored was not written by this library.
        """
        parts = read_token(self._peppers, token)
        if parts is None:
            self._notice("foreign_id")
            return None
        if workspace is not None and workspace != parts.workspace:
            self._notice("tenant_mismatch", parts)
            return None
        strong, keeper = consistency == "strong", self._store.keeper
        if keeper.watched and not strong and keeper.apart(parts.mac):
            return await self._get_here(parts, touch=touch)
        try:
            parts, renewed, fields, epochs = await self._look(parts, strong=strong)
        except StoreError as error:
            if strong or not keeper.can_wait(error):
                raise
            return await self._get_here(parts, touch=touch, error=error)
        if CORE not in fields:
            await self._absent(parts, fields)
            return None
        record = SessionRecord(fields)
        verdict = self._verdict(parts, record, epochs)
        if verdict is not None:
            await self._over(verdict, parts, record)
            return None
        session = Session(self._store, self._form, parts, record, renewed=renewed)
        if keeper.watched:
            keeper.copies.seen(parts.mac, parts.workspace, session.user_id, fields, self._clock.monotonic())
        if touch and self.policy.touch_due(record.touched, self._store.now()):
            await self.touch(session)
        return session

    async def _look(self, parts: Token, *, strong: bool) -> tuple[Token, bool, dict[bytes, bytes], Epochs]:
        """The token that the session goes on under, whether that is another one, its fields, and the epochs that hold for it."""
        store = self._store
        epochs = None if strong else store.known_epochs(parts)
        if epochs is None:
            fields, epochs = await store.read_with_epochs(parts, strong=strong)
        else:
            fields = await store.read(parts)
        if CORE in fields:
            return parts, False, fields, epochs
        if (mac := pointer_of(fields)) is not None:
            parts = parts._replace(mac=mac)
            return parts, True, *(await store.read_with_epochs(parts, strong=strong))
        if not fields and await store.keeper.made_sure(parts.mac):
            fields = await store.read(parts)
        return parts, False, fields, epochs

    def _verdict(self, parts: Token, record: SessionRecord, epochs: Epochs) -> EventKind | None:
        """What is wrong with a session that was found; None if it lives."""
        core = record.core
        if not core.belongs_to(parts.workspace) or self._peppers.tag(parts.key_id, core.user_id) != parts.tag:
            return "tampered"
        if self._store.now() >= self.policy.end(record.touched, record.absolute_end):
            return "expired"
        return "revoked" if record.core.epochs.outlived_by(epochs) else None

    def _refuse(self, verdict: EventKind, parts: Token, record: SessionRecord) -> None:
        self._store.keeper.copies.forget(parts.mac)
        user_id = None if verdict == "tampered" else record.core.user_id
        self._notice(verdict, parts, user_id, "epoch" if verdict == "revoked" else "")

    async def _over(self, verdict: EventKind, parts: Token, record: SessionRecord) -> None:
        if verdict != "tampered":
            await self._store.remove(parts.workspace, record.core.user_id, [parts.mac])
        self._refuse(verdict, parts, record)

    async def _absent(self, parts: Token, fields: dict[bytes, bytes]) -> None:
        """The store does not have it, which right after an outage says nothing of what another process may bring."""
        keeper = self._store.keeper
        gone = keeper.is_gone(parts.mac)
        if fields:
            # What a late write of the economy plan left behind.
            await self._store.remove(parts.workspace, None, [parts.mac])
        elif keeper.may_be_brought and not gone:
            raise StoreUnavailable(
                "the store was away a moment ago: another process may yet bring this session"
            )
        self._notice("absent", parts)

    async def _get_here(
        self, parts: Token, *, touch: bool, error: StoreError | None = None
    ) -> Session[T] | None:
        """The session as this process knows it, while the store cannot be asked."""
        copies = self._store.keeper.copies
        if copies.has_ended(parts.mac):
            self._notice("absent", parts)
            return None
        copy = copies.find(parts.mac)
        if copy is None or self._clock.monotonic() >= copy.vouched + self.policy.away:
            raise error or StoreUnavailable(
                "the session store is away, and this process does not know the session; it has not ended"
            )
        record = SessionRecord(copy.fields)
        verdict = self._verdict(parts, record, self._store.epochs_here(parts))
        if verdict is not None:
            self._refuse(verdict, parts, record)
            return None
        session = Session(self._store, self._form, parts, record, degraded=True)
        if touch and self.policy.touch_due(record.touched, self._store.now()):
            await self.touch(session)
        return session

    def touch_due(self, session: Session[T]) -> bool:
        """Whether a use now is to be written down. Budget: nothing."""
        return self.policy.touch_due(session.record.touched, self._store.now())

    async def touch(self, session: Session[T]) -> bool:
        """Write down that a session is used, if that is due: at most 24 times per idle time. Whether it was written.

        Budget: nothing if it is not due; else 1 trip, 1 command (on Upstash 3: HSET, PEXPIRE, ZADD).
        """
        now, record, mac = self._store.now(), session.record, session.token.mac
        if not self.policy.touch_due(record.touched, now):
            return False
        # Parallel requests of one session find it due together: the first one of this process writes.
        before = self._touching.get(mac)
        if before is not None and not self.policy.touch_due(before, now):
            return False
        if len(self._touching) >= _MAX_TOUCHING:
            self._touching.clear()
        self._touching[mac] = now
        try:
            done = await self._store.touch(session.place, record.absolute_end)
        except BaseException:
            self._touching.pop(mac, None)
            raise
        if done:
            record.touched = now
        return done

    async def list(
        self, user_id: str, workspace: str = PRE_LOGIN_WORKSPACE, *, current: Session[T] | None = None
    ) -> tuple[SessionInfo, ...]:
        """A user's sessions in one workspace, the one used last first: what a device page shows.

        Budget: 2 trips; 3 commands with one pepper, and 1 for each session.
        """
        epochs, members = await self._store.before_login(workspace, user_id)
        mac = None if current is None else current.token.mac
        shown = [
            _info(self.policy, member, record, current=member.mac == mac)
            for member, record in await self._logins.alive(workspace, user_id, members, epochs)
        ]
        return tuple(sorted(shown, key=lambda info: info.last_seen, reverse=True))

    # --- ending ---

    async def revoke(self, session: Session[T], *, reason: str = "logout") -> None:
        """End a session: its token is dead for every process at once. Budget: 1 trip, 3 commands; 1 if it is nobody's."""
        await self._store.remove(session.workspace, session.user_id, [session.token.mac])
        self._tell("revoked", session, reason)

    async def revoke_handle(self, user_id: str, workspace: str, handle: str, *, reason: str = "user") -> bool:
        """End the session of a user that a device page showed under this handle; False if there is none.

        Budget: 2 trips, 4 commands.
        """
        members = await self._store.members(workspace, user_id)
        ending = [member for member in members if member.mac[:HANDLE_CHARS] == handle]
        if ending:
            await self._end(workspace, user_id, ending, reason)
        return bool(ending)

    async def revoke_others(self, session: Session[T], *, reason: str = "others") -> int:
        """End all sessions of the user in this workspace but this one, as after a change of password; how many.

        Budget: 2 trips, 4 commands.
        """
        if session.user_id is None:
            return 0
        return await self._end_all(session.workspace, session.user_id, session.token.mac, reason)

    async def revoke_user(
        self, user_id: str, workspace: str | None = None, *, reason: str = "user"
    ) -> int | None:
        """End all sessions of a user, in one workspace or in all.

        In one workspace they are dead for every process at once; returns how many. In all, they are dead at once in this
        process and for `strong` reads, and in every other process within 30 s; returns None.

        Budget: one workspace 2 trips, 4 commands; all 2 trips, 2 commands with one pepper.
        """
        check_part(user_id)
        if workspace is not None:
            return await self._end_all(workspace, user_id, None, reason)
        await self._store.begin_user_epoch(user_id)
        self._notice("revoked", None, user_id, reason)
        return None

    async def revoke_workspace(self, workspace: str, *, reason: str = "workspace") -> None:
        """End all sessions in a workspace: at once in this process and for `strong` reads, elsewhere within 30 s.

        Budget: 1 command (on Upstash 3).
        """
        await self._store.begin_workspace_epoch(WorkspaceKeys(workspace).workspace)
        self._meter.count("session_events_total", "revoked")
        tell(self._on_event, SessionEvent("revoked", self._clock.now(), workspace, reason=reason))

    async def _end_all(self, workspace: str, user_id: str, keep: str | None, reason: str) -> int:
        """End what is in a user's index, again if something came in meanwhile."""
        ended = 0
        members: Sequence[Member] = await self._store.members(workspace, user_id)
        for _ in range(_ROUNDS):
            ending = [member for member in members if member.mac != keep]
            if not ending:
                return ended
            members = await self._end(workspace, user_id, ending, reason)
            ended += len(ending)
        raise SessionError("the user logs in faster than sessions can be revoked")

    async def _end(
        self, workspace: str, user_id: str, ending: Sequence[Member], reason: str
    ) -> Sequence[Member]:
        left = await self._store.remove(workspace, user_id, [member.mac for member in ending])
        for member in ending:
            self._notice("revoked", Token(workspace, "", "", member.mac), user_id, reason)
        return left

    # --- telling ---

    def lost_write(self, session: Session[T]) -> None:
        """Tell that a change was dropped because the session had ended; for middleware."""
        self._tell("lost_write", session)

    def _tell(self, kind: EventKind, session: Session[T], reason: str = "") -> None:
        self._notice(kind, session.token, session.user_id, reason)

    def _evicted(self, workspace: str, user_id: str | None, mac: str) -> None:
        self._notice("revoked", Token(workspace, "", "", mac), user_id, "evicted")

    def _notice(
        self, kind: EventKind, token: Token | None = None, user_id: str | None = None, reason: str = ""
    ) -> None:
        self._meter.count("session_events_total", kind)
        workspace, handle = (None, None) if token is None else (token.workspace, token.handle)
        tell(self._on_event, SessionEvent(kind, self._clock.now(), workspace, user_id, handle, reason))


def _info(policy: SessionPolicy, member: Member, record: SessionRecord, *, current: bool) -> SessionInfo:
    return SessionInfo(
        handle=member.mac[:HANDLE_CHARS],
        created=record.core.created / 1000,
        last_seen=record.touched / 1000,
        authenticated=record.core.authenticated / 1000,
        ends=policy.end(record.touched, record.absolute_end) / 1000,
        device=record.device,
        current=current,
    )
