"""Putting a session under a token: at a login, within the user's maximum, and at a rotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.errors import SessionGone, TooManySessions
from redis_core.sessions.record import (
    ABSOLUTE_END,
    CORE,
    DEVICE,
    TOUCHED,
    Epochs,
    SessionCore,
    SessionRecord,
)
from redis_core.sessions.store import Member, Place, SessionStore
from redis_core.sessions.token import Token, mint_token
from redis_core.sessions.value import encode_value

if TYPE_CHECKING:
    from redis_core.sessions.pepper import PepperRing

__all__ = ["Logins"]

_TRIES: Final = 16
"""Logins of one user at once that may get in each other's way before we give up."""

_SHOWN: Final = (CORE, ABSOLUTE_END, TOUCHED, DEVICE)
"""The fields that a device page shows or that tell whether a session lives."""


class Logins:
    """Issues tokens and stores what they stand for.

    Args:
        store: where.
        peppers: what signs.
        on_evicted: told the workspace, user and MAC of a session that had to end for a new one.
    """

    def __init__(
        self, store: SessionStore, peppers: PepperRing, on_evicted: Callable[[str, str | None, str], None]
    ) -> None:
        self._store = store
        self._peppers = peppers
        self._on_evicted = on_evicted

    async def login(
        self, workspace: str, core: SessionCore, fields: dict[bytes, bytes], old: Place | None = None
    ) -> tuple[str, Token, dict[bytes, bytes]]:
        """Store a session in the present epochs and within the user's maximum, in place of an old one if there is one.

        Returns the token's text, the token, and the fields that were stored.
        Budget: 2 trips; at the maximum 2 more.

        Raises:
            SessionGone: the old one has ended.
            TooManySessions: the user has as many as allowed, and the policy is to refuse.
        """
        policy, user_id = self._store.policy, core.user_id
        limit = policy.max_sessions if user_id is not None else 0
        for _ in range(_TRIES):
            epochs, members = await self._store.before_login(workspace, user_id)
            others = [member for member in members if old is None or member.mac != old.mac]
            ending = await self._in_the_way(workspace, user_id, others, epochs) if limit else []
            text, token = mint_token(self._peppers, workspace, user_id)
            core = msgspec.structs.replace(core, epochs=epochs, workspace=workspace)
            begun = {**fields, CORE: encode_value(core)}
            record = SessionRecord(begun)
            status = await self._store.issue(
                Place(workspace, user_id, token.mac),
                begun,
                end=policy.end(record.touched, record.absolute_end),
                ttl=policy.redis_ttl(record.touched, record.absolute_end, self._store.now()),
                old=old,
                limit=limit,
                ending=ending,
            )
            if status == 0:
                raise SessionGone("the session has ended since it was read")
            if status == 1:
                for mac in ending:
                    self._on_evicted(workspace, user_id, mac)
                return text, token, begun
        raise TooManySessions(f"{_TRIES} logins of one user got in each other's way; try again")

    async def reissue(
        self,
        old: Place,
        record: SessionRecord,
        core: SessionCore,
        changed: dict[bytes, bytes],
        *,
        pointer_ms: int = 0,
    ) -> tuple[str, Token, dict[bytes, bytes]]:
        """Let a session go on under a new token, with some fields changed; the rest as `login`. Budget: 1 trip.

        The epochs stay those of its login: a session that was revoked stays so under any token.

        Raises:
            SessionGone: it has ended.
        """
        policy, now = self._store.policy, self._store.now()
        text, token = mint_token(self._peppers, old.workspace, old.user_id)
        core = msgspec.structs.replace(core, workspace=old.workspace)
        fields = {**changed, CORE: encode_value(core), TOUCHED: b"%d" % now}
        status = await self._store.issue(
            Place(old.workspace, old.user_id, token.mac),
            fields,
            end=policy.end(now, record.absolute_end),
            ttl=policy.redis_ttl(now, record.absolute_end, now),
            old=old,
            pointer_ms=pointer_ms,
        )
        if status != 1:
            raise SessionGone("the session has ended since it was read")
        return text, token, fields

    async def alive(
        self, workspace: str, user_id: str, members: list[Member], epochs: Epochs
    ) -> list[tuple[Member, SessionRecord]]:
        """Those of a user's index that live; the entries of others are taken out. Budget: 1 trip, 1 command each."""
        if not members:
            return []
        now = self._store.now()
        found: list[tuple[Member, SessionRecord]] = []
        read = await self._store.fields_of(workspace, [member.mac for member in members], *_SHOWN)
        for member, values in zip(members, read, strict=True):
            fields = {name: value for name, value in zip(_SHOWN, values, strict=True) if value is not None}
            if CORE not in fields:
                continue
            record = SessionRecord(fields)
            over = now >= self._store.policy.end(record.touched, record.absolute_end)
            core = record.core
            if core.belongs_to(workspace) and not over and not core.epochs.outlived_by(epochs):
                found.append((member, record))
        dead = {member.mac for member in members} - {member.mac for member, _ in found}
        if dead:
            await self._store.forget(workspace, user_id, sorted(dead))
        return found

    async def _in_the_way(
        self, workspace: str, user_id: str | None, members: list[Member], epochs: Epochs
    ) -> list[str]:
        """The sessions that are to end so that one more fits: those used longest ago."""
        policy, now = self._store.policy, self._store.now()
        present = [member for member in members if member.end > now]
        if user_id is None or len(present) < policy.max_sessions:
            return []
        # The index may hold what is dead already: revoked in all workspaces, or evicted by the store.
        alive = [member for member, _ in await self.alive(workspace, user_id, present, epochs)]
        surplus = len(alive) - policy.max_sessions + 1
        if surplus > 0 and policy.at_max == "refuse":
            raise TooManySessions(
                f"the user has {len(alive)} sessions in this workspace; {policy.max_sessions} are allowed"
            )
        return [member.mac for member in alive[: max(0, surplus)]]
