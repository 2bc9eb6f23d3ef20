"""What sessions say to the store: the keys, batches and scripts, and nothing of cookies or data types.

Writes have two plans. `script` writes only if the session still exists, in one command. `economy`, for Upstash, which bills
what a script does inside, writes with HSET and PEXPIRE in one batch, and with them a field that every session has: were all of
them new, there was no session, and what was just made is unlinked. Should that fail too, it is a hash without `_s`, which every
read takes for absent and unlinks. Nothing that was logged out comes back under either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from redis_core.errors import CodecError, SessionError, SessionGone, StoreError, StoreUnavailable
from redis_core.keys import USER_EPOCHS, WorkspaceKeys, session_epoch_key
from redis_core.script import load_script
from redis_core.sessions.epoch import MAX_ENTRIES, EpochCache
from redis_core.sessions.keeper import SessionKeeper
from redis_core.sessions.pepper import ANONYMOUS_TAG
from redis_core.sessions.record import ABSOLUTE_END, POINTER, TOUCHED, Epochs

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.clock import Clock
    from redis_core.confined import Confined
    from redis_core.sessions.data import Changes
    from redis_core.sessions.pepper import PepperRing
    from redis_core.sessions.policy import SessionPolicy
    from redis_core.sessions.token import Token
    from redis_core.transport.base import Argument, Command, Reply

__all__ = ["Member", "Place", "SessionStore", "WritePlan"]

WritePlan = Literal["auto", "script", "economy"]

_CONTENDED: Final = 64
"""Tries of an update that others keep changing under us."""


class Member(NamedTuple):
    """An entry of a user's index."""

    mac: str
    end: int


class Place(NamedTuple):
    """Where one session is stored."""

    workspace: str
    user_id: str | None
    mac: str

    @property
    def key(self) -> str:
        """The session's hash."""
        return session_key(self.workspace, self.mac)

    @property
    def index_keys(self) -> tuple[str, ...]:
        """The key of the user's index, if there is a user."""
        return () if self.user_id is None else (index_key(self.workspace, self.user_id),)


class SessionStore:
    """Sessions as the store sees them.

    Args:
        client: the store.
        peppers: for the names of users' epochs.
        policy: for times.
        clock: the time.
        plan: how writes are done; `auto` is `economy` on Upstash unless tokens are renewed in passing, else `script`.
    """

    def __init__(
        self, client: Client, peppers: PepperRing, policy: SessionPolicy, clock: Clock, plan: WritePlan
    ) -> None:
        self._client = client.primary
        self.keeper = client.service(SessionKeeper)
        """What this process knows of sessions by itself, and keeps for later."""
        self.keeper.policy = policy
        self._peppers = peppers
        self.policy = policy
        self._clock = clock
        self._plan = plan
        self._epochs = EpochCache(policy.epoch_cache)
        # The two that hold for a token, put together: the one look-up that most reads need.
        self._both: dict[tuple[str, ...], tuple[Epochs, float]] = {}
        self._workspaces: dict[str, Confined] = {}

    # --- reading ---

    def known_epochs(self, token: Token) -> Epochs | None:
        """The epochs that hold for a token, if none of them need be asked for. Budget: nothing."""
        known = self._both.get(token[:3])
        return known[0] if known is not None and self._clock.monotonic() < known[1] else None

    async def read(self, token: Token) -> dict[bytes, bytes]:
        """A session's hash, empty if there is none. Budget: 1 command."""
        redis = self._within(token.workspace)
        return _fields(await redis.execute("HGETALL", session_key(token.workspace, token.mac)))

    async def read_with_epochs(
        self, token: Token, *, strong: bool = False
    ) -> tuple[dict[bytes, bytes], Epochs]:
        """A session's hash, empty if there is none, and the epochs that hold for it now.

        Budget: 1 trip; 1 command, and one for each epoch that this process has not asked for in `epoch_cache` seconds.
        `strong`: 3 commands (4 on Upstash), answered by the leader.
        """
        key = session_key(token.workspace, token.mac)
        names = [workspace_epoch_key(token.workspace)]
        if token.tag != ANONYMOUS_TAG:
            names.append(session_epoch_key(token.key_id, token.tag))
        now = self._clock.monotonic()
        known = {name: None if strong else self._epochs.get(name, now) for name in names}
        asked = [name for name, epoch in known.items() if epoch is None]
        on_leader = strong and self._client.store_mode == "upstash"
        batch = self._within(token.workspace).pipeline()
        fields = batch.run(load_script("session_read"), [key]) if on_leader else batch.execute("HGETALL", key)
        values = [batch.getex(name) if on_leader else batch.get(name) for name in asked]
        await batch.send()
        for name, value in zip(asked, values, strict=True):
            known[name] = self._learn(name, await value)
        workspace_epoch, *user_epoch = [epoch or 0 for epoch in known.values()]
        epochs = Epochs(user_epoch[0] if user_epoch else 0, workspace_epoch)
        if len(self._both) >= MAX_ENTRIES:
            self._both.clear()
        self._both[token[:3]] = epochs, self._epochs.until(names)
        return _fields(await fields), epochs

    async def before_login(self, workspace: str, user_id: str | None) -> tuple[Epochs, list[Member]]:
        """The epochs that a new session begins in, and the user's sessions. Budget: 1 trip, 3 commands for one pepper.

        While the store is away: epochs of now, which no revocation of before reaches, and no others.
        """
        if self.keeper.away:
            return self._epochs_of_now(workspace, user_id), []
        batch = self._within(workspace).pipeline()
        of_workspace = batch.get(workspace_epoch_key(workspace))
        names = self._user_epochs(user_id)
        of_user = [batch.get(name) for name in names]
        members = (
            batch.zrange_with_scores(index_key(workspace, user_id), 0, -1) if user_id is not None else None
        )
        await batch.send()
        users = [self._learn(name, await value) for name, value in zip(names, of_user, strict=True)]
        epochs = Epochs(
            max(users, default=0), self._learn(workspace_epoch_key(workspace), await of_workspace)
        )
        return epochs, _members(await members) if members is not None else []

    def _epochs_of_now(self, workspace: str, user_id: str | None) -> Epochs:
        now, last = self.now(), self._epochs.last
        user = max([now, *(last(name) for name in self._user_epochs(user_id))])
        return Epochs(user, max(now, last(workspace_epoch_key(workspace))))

    def epochs_here(self, token: Token) -> Epochs:
        """As far as this process knows them: what holds while the store is away."""
        user = session_epoch_key(token.key_id, token.tag) if token.tag != ANONYMOUS_TAG else ""
        return Epochs(self._epochs.last(user), self._epochs.last(workspace_epoch_key(token.workspace)))

    async def fields_of(self, workspace: str, macs: Sequence[str], *names: bytes) -> list[list[bytes | None]]:
        """Some fields of some sessions. Budget: 1 trip, 1 command each."""
        batch = self._within(workspace).pipeline()
        replies = [batch.hmget(session_key(workspace, mac), *names) for mac in macs]
        await batch.send()
        return [await reply for reply in replies]

    # --- making and ending ---

    async def issue(
        self,
        new: Place,
        fields: dict[bytes, bytes],
        *,
        end: int,
        ttl: int,
        old: Place | None = None,
        pointer_ms: int = 0,
        limit: int = 0,
        ending: Sequence[str] = (),
    ) -> int:
        """Store a session, in place of an old one or of some that are to end: 1 done, 0 the old one is gone, 2 full.

        Budget: 1 trip, 1 command; on Upstash also those that the script names.
        """
        if self.keeper.away:
            return await self._issue_here(new, fields, end, old)
        keys = [new.key, *new.index_keys]
        if old is not None:
            keys.append(old.key)
        keys += [session_key(new.workspace, mac) for mac in ending]
        args: list[Argument] = [
            len(new.index_keys), 0 if old is None else 1, new.mac, "" if old is None else old.mac, self.now(), end, ttl,
            limit, self.policy.epoch_ttl_ms, pointer_ms, len(ending), *ending,
        ]  # fmt: skip
        for name, value in fields.items():
            args += (name, value)
        reply = await self._within(new.workspace).run(load_script("session_issue"), keys, args)
        status = cast("int", _status(reply)[0])
        if status == 1:
            self._issued(new, fields, old, ending)
        return status

    def _issued(
        self, new: Place, fields: dict[bytes, bytes], old: Place | None, ending: Sequence[str]
    ) -> None:
        copies = self.keeper.copies
        before = None if old is None else copies.find(old.mac)
        if old is None or before is not None:
            self._saw(new, {**(before.fields if before is not None else {}), **fields})
        for mac in (*ending, *(() if old is None else (old.mac,))):
            copies.forget(mac)

    async def _issue_here(self, new: Place, fields: dict[bytes, bytes], end: int, old: Place | None) -> int:
        """Begin a session in this process alone, until the store is back."""
        if old is not None:
            before = self.keeper.copies.find(old.mac)
            if before is None:
                return 0
            fields = {**before.fields, **fields}
            await self.keeper.ended(old.workspace, old.user_id, [old.mac])
        await self.keeper.begun(new.workspace, new.user_id, new.mac, fields, end)
        return 1

    def _saw(self, place: Place, fields: dict[bytes, bytes]) -> None:
        if self.keeper.watched:
            self.keeper.copies.seen(
                place.mac, place.workspace, place.user_id, fields, self._clock.monotonic()
            )

    async def members(self, workspace: str, user_id: str) -> list[Member]:
        """A user's sessions by end. Budget: 1 command."""
        return _members(
            await self._within(workspace).zrange_with_scores(index_key(workspace, user_id), 0, -1)
        )

    async def remove(self, workspace: str, user_id: str | None, macs: Sequence[str]) -> list[Member]:
        """End sessions; what the user has left. Budget: 1 trip, 3 commands; 1 without a user.

        While the store is away they end here, and in the store before anything is read from it again; what is left is not known.
        """
        keeper = self.keeper
        if keeper.away:
            await keeper.ended(workspace, user_id, macs)
            return []
        try:
            left = await self._remove(workspace, user_id, macs)
        except StoreError as error:
            if not keeper.can_wait(error):
                raise
            await keeper.ended(workspace, user_id, macs)
            return []
        if keeper.watched:
            for mac in macs:
                keeper.copies.end(mac, workspace, user_id)
        return left

    async def _remove(self, workspace: str, user_id: str | None, macs: Sequence[str]) -> list[Member]:
        keys = [session_key(workspace, mac) for mac in macs]
        if user_id is None:
            await self._within(workspace).unlink(*keys)
            return []
        index = index_key(workspace, user_id)
        *_, left = await self._together(
            workspace, ("UNLINK", *keys), ("ZREM", index, *macs), ("ZRANGE", index, 0, -1, "WITHSCORES")
        )
        flat = cast("list[bytes]", left)
        return [Member(mac.decode(), int(float(end))) for mac, end in zip(flat[::2], flat[1::2], strict=True)]

    async def forget(self, workspace: str, user_id: str, macs: Sequence[str]) -> None:
        """Take entries out of a user's index whose sessions are no more. Budget: 1 command."""
        await self._within(workspace).zrem(index_key(workspace, user_id), *macs)

    async def begin_user_epoch(self, user_id: str) -> None:
        """Let all sessions of a user, in all workspaces, be dead. Budget: 2 trips, 2 commands for one pepper."""
        names = self._user_epochs(user_id)
        if self.keeper.away:
            await self._begin_here(names)
            return
        batch = self._client.pipeline()
        before = [batch.get(name) for name in names]
        await batch.send()
        await self._begin(names, max([_epoch(await value) for value in before]) + 1)

    async def begin_workspace_epoch(self, workspace: str) -> None:
        """Let all sessions of a workspace be dead. Budget: 1 command."""
        names = (workspace_epoch_key(workspace),)
        if self.keeper.away:
            await self._begin_here(names)
            return
        await self._begin(names, 0)

    async def _begin(self, names: Sequence[str], floor: int) -> None:
        batch = self._client.pipeline()
        args = (max(self.now(), floor), self.policy.epoch_ttl_ms, 1)
        begun = [batch.run(load_script("session_epoch"), [name], args) for name in names]
        await batch.send()
        for name, reply in zip(names, begun, strict=True):
            epoch = self._learn(name, cast("bytes | None", await reply))
            self.keeper.learned((name,), epoch, self.policy.epoch_ttl_ms)

    async def _begin_here(self, names: Sequence[str]) -> None:
        least = max(self.now(), *(self._epochs.last(name) for name in names)) + 1
        for name in names:
            self._epochs.learn(name, least, self._clock.monotonic())
        self._both.clear()
        await self.keeper.epoch_begun(names, least, self.policy.epoch_ttl_ms)

    # --- changing ---

    async def write(self, place: Place, changes: Changes, touched: int, absolute_end: int) -> Place:
        """Write changed fields; where the session is now.

        Budget: 1 trip; plan `script` 1 command, plan `economy` HSET and PEXPIRE, and HDEL if fields are removed.

        While the store is away they are written here, and in the store when it is back.

        Raises:
            SessionGone: it has ended meanwhile.
        """
        keeper, mac = self.keeper, place.mac
        written = {name.encode(): value for name, value in changes.written.items()}
        removed = [name.encode() for name in changes.removed]
        end = self.policy.end(touched, absolute_end)
        if keeper.apart(mac):
            if keeper.copies.has_ended(mac):
                raise SessionGone("the session has ended since it was read; nothing was written")
            if await keeper.written(mac, written, removed, end):
                return place
        try:
            place = await self._write(place, changes, touched, absolute_end)
        except StoreError as error:
            if not keeper.can_wait(error) or not await keeper.written(mac, written, removed, end):
                raise
        else:
            keeper.copies.changed(place.mac, written, removed)
        return place

    async def _write(self, place: Place, changes: Changes, touched: int, absolute_end: int) -> Place:
        if self._economy:
            ttl = self.policy.redis_ttl(touched, absolute_end, self.now())
            await self._write_plain(place, changes, absolute_end, ttl)
            return place
        args: list[Argument] = ["", 0, 0, 0, "", len(changes.written)]
        for name, value in changes.written.items():
            args += (name, value)
        place, _ = await self._run("session_write", place, (*args, *changes.removed))
        return place

    async def touch(self, place: Place, absolute_end: int) -> bool:
        """Write down that the session is used now; False if it is no more.

        Budget: 1 trip; plan `script` 1 command, plan `economy` HSET, PEXPIRE and ZADD.
        """
        now, policy = self.now(), self.policy
        ttl, end = policy.redis_ttl(now, absolute_end, now), policy.end(now, absolute_end)
        if self._economy:
            new, *_ = await self._together(
                place.workspace,
                ("HSET", place.key, TOUCHED, now),
                ("PEXPIRE", place.key, ttl),
                *(("ZADD", name, "XX", end, place.mac) for name in place.index_keys),
            )
            if new:
                await self._within(place.workspace).unlink(place.key)
            return not new
        args = (now, now - policy.touch_after_ms, ttl, end, place.mac, 0)
        try:
            await self._run("session_write", place, args, indexed=True)
        except SessionGone:
            return False
        return True

    async def incr(self, place: Place, name: str, by: int) -> tuple[Place, int]:
        """Add to an integer field; where the session is now, and the sum. Budget: 1 command, on Upstash 3."""
        self._must_be_there(place)
        place, reply = await self._run("session_incr", place, (name, by))
        total = cast("int", reply[1])
        self.keeper.copies.changed(place.mac, {name.encode(): b"%d" % total})
        return place, total

    async def compare_and_set(
        self, place: Place, name: str, expected: bytes | None, value: bytes | None
    ) -> tuple[Place, bool, bytes | None]:
        """Write a field if it holds what is expected; where the session is, whether it was done, what the field holds.

        Budget: 1 command, on Upstash 3, 2 where it does not hold.
        """
        self._must_be_there(place)
        args = (name, int(expected is not None), expected or b"", int(value is not None), value or b"")
        place, reply = await self._run("session_compare_and_set", place, args)
        if reply[0] == 1:
            self.keeper.copies.changed(
                place.mac, {} if value is None else {name.encode(): value}, () if value else (name.encode(),)
            )
            return place, True, value
        return place, False, cast("bytes | None", reply[1]) if len(reply) > 1 else None

    def _must_be_there(self, place: Place) -> None:
        """What all processes have to agree on at once cannot be kept for later."""
        if self.keeper.apart(place.mac):
            raise StoreUnavailable("the session store is away, or does not know yet what was changed here")

    async def _run(
        self, name: str, place: Place, args: Sequence[Argument], *, indexed: bool = False
    ) -> tuple[Place, list[Reply]]:
        """Run a script on a session, where it has gone on to if its token was renewed meanwhile."""
        for _ in range(_CONTENDED):
            keys = (place.key, *place.index_keys) if indexed else (place.key,)
            reply = _status(await self._within(place.workspace).run(load_script(name), keys, args))
            if reply[0] == 0:
                raise SessionGone("the session has ended since it was read; nothing was written")
            if reply[0] != 2:  # noqa: PLR2004 - the scripts' word for "it goes on elsewhere"
                return place, reply
            place = place._replace(mac=cast("bytes", reply[1]).decode())
        raise SessionError("the session's token is renewed again and again; nothing was written")

    async def _write_plain(self, place: Place, changes: Changes, absolute_end: int, ttl: int) -> None:
        commands: list[Command] = []
        if changes.written:
            # A field that every session has, so that a reply of "all new" tells that there was none.
            pairs = [word for pair in changes.written.items() for word in pair]
            commands += [("HSET", place.key, *pairs, ABSOLUTE_END, absolute_end), ("PEXPIRE", place.key, ttl)]
        if changes.removed:
            commands.append(("HDEL", place.key, *changes.removed))
        first, *_ = await self._together(place.workspace, *commands)
        if changes.written and cast("int", first) > len(changes.written):
            await self._within(place.workspace).unlink(place.key)
            raise SessionGone("the session has ended since it was read; nothing was written")

    async def _together(self, workspace: str, *commands: Command) -> list[Reply]:
        """Send commands in one trip; one that was refused is the failure of all."""
        batch = self._within(workspace).pipeline()
        replies = [batch.execute(*command) for command in commands]
        await batch.send()
        return [await reply for reply in replies]

    # --- what both need ---

    def _within(self, workspace: str) -> Confined:
        redis = self._workspaces.get(workspace)
        if redis is None:
            if len(self._workspaces) >= MAX_ENTRIES:
                self._workspaces.clear()
            redis = self._client.confined(_keys(workspace), USER_EPOCHS)
            self._workspaces[workspace] = redis
        return redis

    def now(self) -> int:
        """Milliseconds since the Unix epoch."""
        return int(self._clock.now() * 1000)

    @property
    def _economy(self) -> bool:
        if self._plan == "auto":
            # A pointer that a plain HSET reaches would swallow what it writes.
            return self.policy.renew_after is None and self._client.store_mode == "upstash"
        return self._plan == "economy"

    def _user_epochs(self, user_id: str | None) -> tuple[str, ...]:
        if user_id is None:
            return ()
        return tuple(
            session_epoch_key(name, self._peppers.tag(name, user_id)) for name in self._peppers.key_ids
        )

    def _learn(self, name: str, raw: bytes | None) -> int:
        epoch, now = _epoch(raw), self._clock.monotonic()
        if self._epochs.learn(name, epoch, now):
            self._both.clear()
        # A newer one may have begun here while this reply was on its way.
        return self._epochs.get(name, now) or epoch


@lru_cache(maxsize=4096)
def _keys(workspace: str) -> WorkspaceKeys:
    return WorkspaceKeys(workspace)


def session_key(workspace: str, mac: str) -> str:
    """The hash of one session."""
    return f"{_keys(workspace).prefix}session:{mac}"


def index_key(workspace: str, user_id: str) -> str:
    """The index of one user's sessions.

    Raises:
        InvalidKey: the user's id may not stand in a key.
    """
    return _keys(workspace).key("session-index", user_id)


def workspace_epoch_key(workspace: str) -> str:
    """The revocation epoch of one workspace."""
    return f"{_keys(workspace).prefix}session-epoch"


def pointer_of(fields: dict[bytes, bytes]) -> str | None:
    """The MAC that a session goes on under, if this hash is the pointer of a renewed token."""
    pointer = fields.get(POINTER)
    return None if pointer is None else pointer.decode("ascii", "replace")


def _fields(reply: Reply) -> dict[bytes, bytes]:
    items = iter(cast("Iterable[bytes]", reply))
    return dict(zip(items, items))  # noqa: B905 - both are one iterator: pairs


def _members(scored: list[tuple[bytes, float]]) -> list[Member]:
    return [Member(mac.decode(), int(end)) for mac, end in scored]


def _status(reply: Reply) -> list[Reply]:
    assert isinstance(reply, list)  # noqa: S101 - our scripts answer nothing else
    return reply


def _epoch(raw: bytes | None) -> int:
    try:
        return 0 if raw is None else int(raw)
    except ValueError as error:
        raise CodecError("a stored session epoch is not a number") from error
