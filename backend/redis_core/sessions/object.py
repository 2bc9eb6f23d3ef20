"""One session as it was read: whose it is, its times, its data, and the ways to change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from redis_core.errors import CodecError, SessionError, SessionTooLarge, StaleAuthentication
from redis_core.sessions.data import NO_CHANGES, Changes, DataForm, SessionData
from redis_core.sessions.record import Device, SessionRecord
from redis_core.sessions.store import Place, SessionStore
from redis_core.sessions.token import Token
from redis_core.sessions.value import check_field_name, decode_value, encode_value

if TYPE_CHECKING:
    from redis_core.sessions.policy import SessionPolicy

__all__ = ["Session", "check_size"]

T = TypeVar("T")

_CONTENDED: Final = 64
"""Tries of an append that others' changes come in between."""


class Session(Generic[T]):
    """One session as it was read; made by `Sessions`.

    `data` is a mapping or the Struct that `Sessions` was made with; change it and `save()`, or let the middleware. Times are
    Unix seconds.
    """

    __slots__ = ("_data", "_form", "_raw", "_store", "degraded", "record", "renewed", "token")

    def __init__(
        self,
        store: SessionStore,
        form: DataForm[T],
        token: Token,
        record: SessionRecord,
        *,
        renewed: bool = False,
        degraded: bool = False,
    ) -> None:
        self._store = store
        self._form = form
        self.token = token
        """What the token says, without its secret."""
        self.record = record
        """The session's own fields as they were read."""
        self._raw: dict[str, bytes] | None = None
        self._data: T | None = None
        self.renewed = renewed
        """Whether the token presented was replaced a moment ago, and this session is the one it goes on in."""
        self.degraded = degraded
        """Whether the store could not be asked, so that this is what the process knew by itself."""

    @property
    def handle(self) -> str:
        """What logs and pages call it: 8 characters, of no use as a token. Changes with the token."""
        return self.token.handle

    @property
    def workspace(self) -> str:
        """The workspace it is valid in."""
        return self.token.workspace

    @property
    def user_id(self) -> str | None:
        """Whose it is; None before a login."""
        return self.record.core.user_id

    @property
    def created(self) -> float:
        """When it began."""
        return self.record.core.created / 1000

    @property
    def authenticated(self) -> float:
        """When the user last proved to be the user; 0 if never."""
        return self.record.core.authenticated / 1000

    @property
    def last_seen(self) -> float:
        """When it was last touched: at most 1/24 of the idle time before its last use."""
        return self.record.touched / 1000

    @property
    def ends(self) -> float:
        """When it ends if it is not used again."""
        return self._store.policy.end(self.record.touched, self.record.absolute_end) / 1000

    @property
    def device(self) -> Device:
        """Where the login came from."""
        return self.record.device

    @property
    def data(self) -> T:
        """The application's data, decoded when first asked for.

        Raises:
            CodecError: what is stored is not of the data's type; the stored session stays as it is.
        """
        if self._data is None:
            self._data = self._form.load(self.stored)
        return self._data

    @data.setter
    def data(self, data: T) -> None:
        if isinstance(data, SessionData):
            raise TypeError(
                "change the mapping that is there: session.data.clear(), session.data.update(...)"
            )
        self._data = data

    @property
    def stored(self) -> dict[str, bytes]:
        """The data's fields as they are stored, encoded."""
        if self._raw is None:
            self._raw = self.record.data()
        return self._raw

    @property
    def place(self) -> Place:
        """Where it is stored."""
        return Place(self.token.workspace, self.record.core.user_id, self.token.mac)

    def require_fresh(self, max_age: float) -> None:
        """Go on only if the user authenticated at most this many seconds ago. Budget: nothing.

        Raises:
            StaleAuthentication: longer ago, or never; authenticate again, then `Sessions.rotate()`.
        """
        age = self._store.now() - self.record.core.authenticated
        if self.user_id is None or age > max_age * 1000:
            since = "never" if self.user_id is None else f"{age / 1000:.0f} s ago"
            raise StaleAuthentication(
                f"this needs an authentication of the last {max_age:g} s; the last was {since}",
                max_age=max_age,
            )

    def changes(self) -> Changes:
        """What `save()` would write. Budget: nothing.

        Raises:
            CodecError: a value cannot be stored.
        """
        return NO_CHANGES if self._data is None else self._form.changes(self._data, self.stored)

    async def save(self) -> bool:
        """Write what has changed in `data`, field by field; False if nothing has.

        Budget: nothing if nothing has changed; else 1 trip: 1 command (a script), or on Upstash HSET and PEXPIRE, and HDEL if
        fields were removed.

        Raises:
            SessionGone: it has ended since it was read; nothing was written.
            SessionTooLarge: it would have more bytes or fields than allowed; nothing was written.
            CodecError: a value cannot be stored; nothing was written.
        """
        changes = self.changes()
        if not changes:
            return False
        after = {name: value for name, value in self.stored.items() if name not in changes.removed}
        after.update(changes.written)
        check_size(self._store.policy, after)
        place = await self._store.write(self.place, changes, self.record.touched, self.record.absolute_end)
        self._settle(place, after)
        return True

    async def incr(self, name: str, by: int = 1) -> int:
        """Add to an integer field at once, 0 if absent, and return the sum; parallel calls all count.

        Budget: 1 command, on Upstash 3.

        Raises:
            SessionGone: it has ended since it was read.
            CommandError: the field holds something else than an integer of 64 bits.
        """
        held = self.stored.get(check_field_name(name), b"0")
        check_size(self._store.policy, {**self.stored, name: held})
        place, total = await self._store.incr(self.place, name, by)
        self._settle(place, {**self.stored, name: b"%d" % total}, name)
        return total

    async def append(self, name: str, *values: object) -> None:
        """Append to a list field at once, empty if absent; parallel calls all keep their values.

        Budget: 1 command, on Upstash 3; once more for each other change of the field that comes in between.

        Raises:
            SessionGone: it has ended since it was read.
            SessionTooLarge: it would have more bytes or fields than allowed; nothing was written.
            CodecError: the field holds something else than a list.
        """
        held = self.stored.get(check_field_name(name))
        for _ in range(_CONTENDED):
            present: object = [] if held is None else decode_value(held)
            if not isinstance(present, list):
                raise CodecError(f"session field {name!r} holds a {type(present).__name__}, not a list")
            done, held = await self._swap(name, held, encode_value([*present, *values]))
            if done:
                return
        raise SessionError(
            f"session field {name!r} is changed by others again and again; nothing was written"
        )

    async def compare_and_set(self, name: str, expected: object, value: object) -> bool:
        """Write a field at once if it still holds what is expected; None stands for its absence. False if it does not.

        Budget: 1 command, on Upstash 3.

        Raises:
            SessionGone: it has ended since it was read.
            SessionTooLarge: it would have more bytes or fields than allowed; nothing was written.
        """
        before = None if expected is None else encode_value(expected)
        after = None if value is None else encode_value(value)
        done, _ = await self._swap(check_field_name(name), before, after)
        return done

    async def _swap(self, name: str, before: bytes | None, after: bytes | None) -> tuple[bool, bytes | None]:
        if after is not None:
            check_size(self._store.policy, {**self.stored, name: after})
        place, done, held = await self._store.compare_and_set(self.place, name, before, after)
        now = {key: value for key, value in self.stored.items() if key != name}
        if held is not None:
            now[name] = held
        self._settle(place, now, name)
        return done, held

    def _settle(self, place: Place, stored: dict[str, bytes], name: str | None = None) -> None:
        """The store has these fields now; all were written, or the one of this name."""
        self._raw = stored
        if place.mac != self.token.mac:
            self.token = self.token._replace(mac=place.mac)
            self.renewed = True
        if self._data is not None:
            self._form.settle(self._data, stored, name)

    def reissued(self, token: Token, fields: Mapping[bytes, bytes]) -> None:
        """It goes on under this token, with these of its own fields changed."""
        self.token = token
        self.record = SessionRecord({**self.record.fields, **fields})
        self.renewed = False

    def __repr__(self) -> str:
        return f"Session({self.handle}, workspace={self.workspace!r}, user_id={self.user_id!r})"


def check_size(policy: SessionPolicy, stored: Mapping[str, bytes]) -> None:
    """Pass if data of these encoded fields may be stored.

    Raises:
        SessionTooLarge: it has more bytes or fields than the policy allows.
    """
    if len(stored) > policy.max_fields:
        raise SessionTooLarge(f"the session would have {len(stored)} fields; {policy.max_fields} are allowed")
    size = sum(len(name.encode()) + len(value) for name, value in stored.items())
    if size > policy.max_bytes:
        raise SessionTooLarge(f"the session would have {size} bytes of data; {policy.max_bytes} are allowed")
